//! Lines over a Unix socket, each with a file descriptor if need be.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg, sockopt::socket_peercred,
};

/// Longest line.
const MAX_LINE: usize = 4096;
/// How long the other side may take for its next line.
const PATIENCE: Duration = Duration::from_secs(10);

/// One end of a conversation.
pub(super) struct Wire(UnixStream);

impl Wire {
    /// Takes a connection, if a process of the same user (or root) is at the other end.
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let (peer, own) = (socket_peercred(&stream)?.uid, rustix::process::geteuid());
        if peer != own && !peer.is_root() {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "a process of another user"));
        }
        Ok(Self(stream))
    }

    /// Says a line, with a descriptor.
    pub(super) fn say(&self, line: &str, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let text = format!("{line}\n");
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors = descriptor.as_slice();
        if !descriptors.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        let parts = [IoSlice::new(text.as_bytes())];
        let sent = sendmsg(self.0.as_fd(), &parts, &mut ancillary, SendFlags::NOSIGNAL)?;
        if sent == text.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// Hears a line, with the descriptor that came with it.
    pub(super) fn hear(&self) -> io::Result<(String, Option<OwnedFd>)> {
        let (mut text, mut descriptor) = (Vec::new(), None);
        while !text.ends_with(b"\n") {
            let mut piece = [0; MAX_LINE];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let mut parts = [IoSliceMut::new(&mut piece)];
            let heard = recvmsg(self.0.as_fd(), &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?.bytes;
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(received) = message {
                    descriptor = received.into_iter().next().or(descriptor);
                }
            }
            if heard == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            text.extend_from_slice(&piece[..heard]);
            if text.len() > MAX_LINE {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        text.pop();
        let line = String::from_utf8(text).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        if line.contains('\n') { Err(io::ErrorKind::InvalidData.into()) } else { Ok((line, descriptor)) }
    }

    /// Hears a line that must be this one.
    pub(super) fn expect(&self, line: &str) -> io::Result<()> {
        let (heard, _) = self.hear()?;
        if heard == line { Ok(()) } else { Err(io::Error::new(io::ErrorKind::InvalidData, heard)) }
    }
}
