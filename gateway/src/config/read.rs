//! Reading of files: bounded, and never from anything but a regular file.

use std::{
    fs::File,
    io::{ErrorKind, Read as _},
    path::Path,
};

/// Reads a regular file of at most `limit` bytes. The error is the rest of a sentence that begins with the file.
pub(super) fn bytes(path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    // Asked before the file is opened, because opening a FIFO waits for its writer.
    let metadata = std::fs::metadata(path).map_err(|error| reason(&error))?;
    if metadata.is_dir() {
        return Err("is a folder".into());
    }
    if !metadata.is_file() {
        return Err("is not a regular file".into());
    }
    let file = File::open(path).map_err(|error| reason(&error))?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|error| reason(&error))?;
    if bytes.len() as u64 > limit {
        return Err(format!("is larger than {} MiB", limit >> 20));
    }
    Ok(bytes)
}

/// Like [`bytes`], for text.
pub(super) fn text(path: &Path, limit: u64) -> Result<String, String> {
    String::from_utf8(bytes(path, limit)?).map_err(|_| "is not UTF-8 text".into())
}

/// Why a file or folder cannot be read, as the rest of a sentence.
pub(super) fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "does not exist".into(),
        ErrorKind::PermissionDenied => "must not be read by this user".into(),
        kind => format!("cannot be read: {kind}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_within_the_bound_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        assert_eq!(text(&path, 1 << 20).unwrap_err(), "does not exist");
        assert_eq!(text(folder.path(), 1 << 20).unwrap_err(), "is a folder");
        assert_eq!(text(Path::new("/dev/zero"), 1 << 20).unwrap_err(), "is not a regular file");
        std::fs::write(&path, vec![b'x'; 1 << 20]).unwrap();
        assert_eq!(text(&path, 1 << 20).map(|text| text.len()), Ok(1 << 20));
        std::fs::write(&path, vec![b'x'; (1 << 20) + 1]).unwrap();
        assert_eq!(text(&path, 1 << 20).unwrap_err(), "is larger than 1 MiB");
        std::fs::write(&path, b"\xff").unwrap();
        assert_eq!(text(&path, 1 << 20).unwrap_err(), "is not UTF-8 text");
    }
}
