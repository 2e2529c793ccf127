//! The Unix socket that upgrades begin on.

use std::{
    io,
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::{UnixListener, UnixStream},
    },
    path::Path,
};

/// Binds the socket for this user alone. A socket that a process left behind is replaced; one that answers, or anything
/// that is not a socket of ours, is not touched.
pub(super) fn bind(path: &Path) -> io::Result<UnixListener> {
    check_folder(path)?;
    if let Ok(found) = std::fs::symlink_metadata(path) {
        if !found.file_type().is_socket() || found.uid() != rustix::process::geteuid().as_raw() {
            return Err(denied("there is a file that is no socket of this user"));
        }
        if UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                "another gateway is running; start with --take-over to replace it",
            ));
        }
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Connects to the process that listens there; `None` if there is none.
pub(super) fn connect(path: &Path) -> io::Result<Option<UnixStream>> {
    match UnixStream::connect(path) {
        Ok(stream) => {
            check_folder(path)?;
            Ok(Some(stream))
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Nobody else may put a socket of their own in this place.
fn check_folder(path: &Path) -> io::Result<()> {
    const STICKY: u32 = 0o1000;
    const OTHERS_WRITE: u32 = 0o022;
    let folder = path.parent().ok_or_else(|| denied("the path has no folder"))?;
    let found = std::fs::metadata(folder)?;
    let own = found.uid() == rustix::process::geteuid().as_raw() || found.uid() == 0;
    let open = found.mode() & OTHERS_WRITE != 0 && found.mode() & STICKY == 0;
    if own && !open { Ok(()) } else { Err(denied("others can write to its folder")) }
}

fn denied(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}
