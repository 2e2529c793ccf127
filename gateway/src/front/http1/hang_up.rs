//! Ending a connection so that what was written arrives.

use std::time::{Duration, Instant};

use pingora_core::protocols::{Shutdown, Stream};
use tokio::io::AsyncReadExt;

/// How much of an unread request is thrown away before a connection is closed, so that the response is not lost to a
/// reset (RFC 9112, section 9.6).
const LINGER_BYTES: usize = 1 << 20;
/// How long that may take.
pub(in crate::front) const LINGER_TIME: Duration = Duration::from_secs(2);
/// How long a client that owes nothing may take to hang up.
const HANG_UP_TIME: Duration = Duration::from_millis(200);

/// Closes our side, then reads what is left for a moment: closing with something unread would be a reset, which destroys
/// what the client has not read yet. `until`: when the client's patience with what is still to be written is used up; it
/// gets no other for the end. `owing`: the client has not sent all of its request.
pub(in crate::front) async fn hang_up(io: &mut Stream, until: Instant, owing: bool) {
    if tokio::time::timeout_at(until.into(), Shutdown::shutdown(io.as_mut())).await.is_err() {
        return;
    }
    let discard = async {
        let mut buffer = [0_u8; 4096];
        let mut left = LINGER_BYTES;
        while let Ok(read @ 1..) = io.read(&mut buffer).await {
            left = left.saturating_sub(read);
            if left == 0 {
                break;
            }
        }
    };
    // A client that owes nothing has only to hang up.
    let _ = tokio::time::timeout(if owing { LINGER_TIME } else { HANG_UP_TIME }, discard).await;
}
