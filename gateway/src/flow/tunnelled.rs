//! WebSockets (RFC 6455) once the upstream has agreed: bytes pass both ways until one side ends. What ends a silent one,
//! and says farewell, is the client's connection.

use std::time::Duration;

use bytes::Bytes;
use crossway_plugin_api::Fault;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::{Admitted, exchanged::response_phase, upgrade};
use crate::{request, upstream::Answer};

/// Passes the switch on to the client, then everything that follows it. `idle` is how long neither side may say anything.
pub(super) async fn run(
    session: &mut Session,
    admitted: &mut Admitted,
    (mut head, mut answer): (ResponseHeader, Answer),
    idle: Duration,
) -> Result<(), Fault> {
    if !upgrade::is_made(&head) {
        answer.close().await;
        return Err(Fault::UpstreamProtocol("a switch to another protocol than was asked for".into()));
    }
    request::strip_hop_by_hop(&mut head);
    admitted.speak_version(&mut head);
    response_phase(admitted, &mut head)?;
    session.set_keepalive(None);
    admitted.conn.become_tunnel(idle);
    answer.become_tunnel();
    let told = session.write_response_header(Box::new(head), false).await;
    if told.is_ok() {
        pass(session, admitted, &mut answer).await;
    }
    answer.close().await;
    told.map_err(|_| Fault::ClientGone)
}

/// How long an upstream may go on when its client has said that it will say no more.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The end of a WebSocket is no fault, whoever brings it about.
async fn pass(session: &mut Session, admitted: &mut Admitted, answer: &mut Answer) {
    loop {
        let passed = tokio::select! {
            piece = session.as_downstream_mut().read_request_body() => match piece {
                Ok(Some(piece)) => {
                    admitted.outcome.request_bytes += piece.len() as u64;
                    answer.say(piece).await.is_ok()
                }
                Ok(None) => {
                    answer.hush().await;
                    let _ = tokio::time::timeout(LAST_WORDS, async { while hear(session, answer).await {} }).await;
                    false
                }
                Err(_) => false,
            },
            piece = answer.next() => deliver(session, piece).await,
        };
        if !passed {
            return;
        }
    }
}

/// Passes on what the upstream says next; whether there may be more.
async fn hear(session: &mut Session, answer: &mut Answer) -> bool {
    let piece = answer.next().await;
    deliver(session, piece).await
}

async fn deliver(session: &mut Session, piece: Result<Option<Bytes>, Fault>) -> bool {
    match piece {
        Ok(Some(piece)) => session.write_response_body(Some(piece), false).await.is_ok(),
        _ => false,
    }
}
