//! The new process's side.

use std::{collections::HashMap, os::fd::OwnedFd, path::Path};

use super::{END, GO, GONE, GREETING, NEXT, RELEASE, RELEASED, Refused, socket, wire::Wire};

/// Listening sockets of the old process: by what they are for and their address as configured.
#[derive(Debug, Default)]
pub struct Inherited(HashMap<String, OwnedFd>);

impl Inherited {
    /// Most sockets taken.
    const MOST: usize = 1024;

    /// The socket that was used for this, if there is one; once.
    pub fn take(&mut self, kind: &str, address: &str) -> Option<OwnedFd> {
        self.0.remove(&format!("{kind} {address}"))
    }

    /// The sockets of one kind, by address.
    pub fn take_all(&mut self, kind: &str) -> HashMap<String, OwnedFd> {
        let prefix = format!("{kind} ");
        let names: Vec<String> = self.0.keys().filter(|name| name.starts_with(&prefix)).cloned().collect();
        names.into_iter().filter_map(|name| Some((name[prefix.len()..].to_owned(), self.0.remove(&name)?))).collect()
    }
}

/// A conversation with the old process.
pub struct Taker(Wire);

impl Taker {
    /// Connects to the process that runs, and takes its sockets; `None` if none runs. Blocks.
    pub fn begin(path: &Path) -> Result<Option<(Self, Inherited)>, Refused> {
        let Some(stream) = socket::connect(path)? else { return Ok(None) };
        let wire = Wire::new(stream)?;
        wire.say(GREETING, None)?;
        let mut inherited = Inherited::default();
        loop {
            match wire.hear()? {
                (line, Some(descriptor)) if inherited.0.len() < Inherited::MOST => {
                    inherited.0.insert(line, descriptor);
                    wire.say(NEXT, None)?;
                }
                (line, None) if line == END => return Ok(Some((Self(wire), inherited))),
                (line, _) => return Err(Refused::Told(line)),
            }
        }
    }

    /// Has the old process let go of what only one may hold. Blocks.
    pub fn release(&self) -> Result<(), Refused> {
        self.0.say(RELEASE, None)?;
        Ok(self.0.expect(RELEASED)?)
    }

    /// Sends the old process away. Blocks.
    pub fn go(self) -> Result<(), Refused> {
        self.0.say(GO, None)?;
        Ok(self.0.expect(GONE)?)
    }
}
