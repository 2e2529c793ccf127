//! Changes, compiled: names and constant values are made once.

use crossway_plugin_api::{Ctx, Fault, InvalidConfig};
use http::{HeaderMap, HeaderName, HeaderValue};
use pingora_http::{RequestHeader, ResponseHeader};

use super::{Changes, value::Value};
use crate::fields::{self, below};

/// Which header a list of changes is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Request,
    Response,
}

/// Compiled changes.
pub(super) struct Program {
    remove: Box<[HeaderName]>,
    rename: Box<[(HeaderName, HeaderName)]>,
    set: Box<[(HeaderName, Value)]>,
    add: Box<[(HeaderName, Value)]>,
}

impl Program {
    /// Checks and compiles the changes to one header.
    pub(super) fn compile(changes: Changes, side: Side) -> Result<Self, InvalidConfig> {
        let path = side.path();
        let mut remove = Vec::with_capacity(changes.remove.len());
        for (at, name) in changes.remove.into_iter().enumerate() {
            let place = format!("{path}/remove/{at}");
            side.check(&name.0, &place)?;
            if remove.contains(&name.0) {
                return Err(InvalidConfig::new(place, "stands here twice"));
            }
            remove.push(name.0);
        }
        let mut rename = Vec::with_capacity(changes.rename.len());
        for (old, place, new) in fields::parse_keys(changes.rename, &below(path, "rename"))? {
            side.check(&old, &place)?;
            side.check(&new.0, &place)?;
            rename.push((old, new.0, place));
        }
        check_renames(&rename, &remove)?;
        let values = |fields, key: &str| -> Result<Box<[(HeaderName, Value)]>, InvalidConfig> {
            let compile = |(name, place, text): (HeaderName, String, super::ValueText)| {
                side.check(&name, &place)?;
                Value::compile(&text.0).map(|value| (name, value)).map_err(|reason| InvalidConfig::new(place, reason))
            };
            fields::parse_keys(fields, &below(path, key))?.into_iter().map(compile).collect()
        };
        Ok(Self {
            set: values(changes.set, "set")?,
            add: values(changes.add, "add")?,
            remove: remove.into(),
            rename: rename.into_iter().map(|(old, new, _)| (old, new)).collect(),
        })
    }

    /// Whether there is nothing to do.
    pub(super) fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.rename.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    /// Changes a header.
    pub(super) fn apply(&self, header: &mut impl Header, ctx: &Ctx) -> Result<(), Fault> {
        for name in &self.remove {
            header.remove(name);
        }
        for (old, new) in &self.rename {
            rename(header, old, new)?;
        }
        for (name, value) in &self.set {
            header.set(name, value.render(ctx)?)?;
        }
        for (name, value) in &self.add {
            header.add(name, value.render(ctx)?)?;
        }
        Ok(())
    }
}

impl Side {
    fn path(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Response => "response",
        }
    }

    fn check(self, name: &HeaderName, place: &str) -> Result<(), InvalidConfig> {
        fields::check_framing(name, place)?;
        if self == Self::Request && fields::is_identity(name) {
            return Err(fields::reserved(name, place, "with which only the gateway says who is calling"));
        }
        Ok(())
    }
}

/// Renames must mean the same in any order, and each must be able to do something.
fn check_renames(renames: &[(HeaderName, HeaderName, String)], removed: &[HeaderName]) -> Result<(), InvalidConfig> {
    for (at, (old, new, place)) in renames.iter().enumerate() {
        let reason = if removed.contains(old) {
            "is removed before it could be renamed"
        } else if renames.iter().any(|(other, ..)| other == new) {
            "gets a name that is itself renamed"
        } else if renames[..at].iter().any(|(_, other, _)| other == new) {
            "gets the same name as another field"
        } else {
            continue;
        };
        return Err(InvalidConfig::new(place, reason));
    }
    Ok(())
}

fn rename(header: &mut impl Header, old: &HeaderName, new: &HeaderName) -> Result<(), Fault> {
    if !header.fields().contains_key(old) {
        return Ok(());
    }
    let values: Vec<HeaderValue> = header.fields().get_all(old).iter().cloned().collect();
    header.remove(old);
    // Values under the new name are not the old field's: beside it they would be a second opinion.
    header.remove(new);
    values.into_iter().try_for_each(|value| header.add(new, value))
}

/// What requests and responses share here.
pub(super) trait Header {
    fn fields(&self) -> &HeaderMap;
    fn remove(&mut self, name: &HeaderName);
    fn set(&mut self, name: &HeaderName, value: HeaderValue) -> Result<(), Fault>;
    fn add(&mut self, name: &HeaderName, value: HeaderValue) -> Result<(), Fault>;
}

macro_rules! header {
    ($type:ty) => {
        impl Header for $type {
            fn fields(&self) -> &HeaderMap {
                &self.headers
            }
            fn remove(&mut self, name: &HeaderName) {
                self.remove_header(name);
            }
            fn set(&mut self, name: &HeaderName, value: HeaderValue) -> Result<(), Fault> {
                self.insert_header(name.clone(), value).map_err(broken)
            }
            fn add(&mut self, name: &HeaderName, value: HeaderValue) -> Result<(), Fault> {
                self.append_header(name.clone(), value).map(drop).map_err(broken)
            }
        }
    };
}
header!(RequestHeader);
header!(ResponseHeader);

fn broken(error: impl std::fmt::Display) -> Fault {
    Fault::Internal(format!("a header field cannot be written: {error}"))
}
