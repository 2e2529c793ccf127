//! WebSockets (RFC 6455) once the upstream has agreed: bytes pass both ways until one side ends. What ends a silent one,
//! and says farewell, is the client's connection.

use std::time::Duration;

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

/// The end of a WebSocket is no fault, whoever brings it about.
async fn pass(session: &mut Session, admitted: &mut Admitted, answer: &mut Answer) {
    loop {
        let passed = tokio::select! {
            piece = session.as_downstream_mut().read_request_body() => match piece {
                Ok(Some(piece)) => {
                    admitted.outcome.request_bytes += piece.len() as u64;
                    answer.say(piece).await.is_ok()
                }
                _ => false,
            },
            piece = answer.next() => match piece {
                Ok(Some(piece)) => session.write_response_body(Some(piece), false).await.is_ok(),
                _ => false,
            },
        };
        if !passed {
            return;
        }
    }
}
