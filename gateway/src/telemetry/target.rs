//! What log lines are written to, opened and written without ever waiting for long.

use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, Write as _},
    os::{
        fd::AsFd as _,
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Component, PathBuf},
    thread,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::OFlags,
};

use crate::config::Sources;

/// What a pipe that has room takes without waiting (`PIPE_BUF`).
const PIECE: usize = 4096;
/// How often the writer looks up from a target that takes nothing.
const LOOK_UP: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
/// Pause after a target has said that there is room, and then took nothing.
const PAUSE: Duration = Duration::from_millis(50);

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, appended to.
    File(PathBuf),
}

impl Target {
    /// The target as the configuration writes it at this JSON Pointer; a path is relative to the file it stands in.
    pub(super) fn of(to: &str, sources: &Sources, pointer: &str) -> Result<Self, String> {
        match to {
            "stdout" => Ok(Self::Stdout),
            "stderr" => Ok(Self::Stderr),
            _ => match to.strip_prefix("file:") {
                Some(path) if !path.is_empty() => {
                    let path = sources.resolve_path(pointer, path);
                    // `./a` is `a`: two logs that name one file are found before it is opened.
                    Ok(Self::File(path.components().filter(|part| *part != Component::CurDir).collect()))
                }
                _ => Err("is neither `stdout`, `stderr`, nor `file:` and a path".into()),
            },
        }
    }
}

/// What lines are written to.
pub(super) struct Output {
    file: File,
    /// Takes whatever it is given at once; pipes, sockets and terminals may not.
    regular: bool,
}

impl Output {
    pub(super) fn open(target: &Target, mode: u32) -> io::Result<Self> {
        let file = match target {
            Target::Stdout => File::from(io::stdout().as_fd().try_clone_to_owned()?),
            Target::Stderr => File::from(io::stderr().as_fd().try_clone_to_owned()?),
            // Opening a FIFO that nobody reads would wait for a reader.
            Target::File(path) => OpenOptions::new()
                .create(true)
                .append(true)
                .mode(mode)
                .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
                .open(path)?,
        };
        let regular = file.metadata()?.is_file();
        Ok(Self { file, regular })
    }

    /// Device and number, if it is a regular file.
    pub(super) fn regular_file(&self) -> Option<(u64, u64)> {
        let found = self.file.metadata().ok().filter(Metadata::is_file)?;
        Some((found.dev(), found.ino()))
    }

    /// Writes some of these bytes; 0 if nothing could be written for a while.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut piece = bytes;
        if !self.regular {
            let mut ready = [PollFd::new(&self.file, PollFlags::OUT)];
            if poll(&mut ready, Some(&LOOK_UP))? == 0 {
                return Ok(0);
            }
            piece = &bytes[..bytes.len().min(PIECE)];
        }
        match self.file.write(piece) {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                thread::park_timeout(PAUSE);
                Ok(0)
            }
            written => written,
        }
    }
}
