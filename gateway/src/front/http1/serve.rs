//! One request that has arrived, served to its end.

use std::{sync::Arc, time::Duration};

use pingora_core::{Error, ErrorType, apps::HttpServerApp as _, protocols::http::ServerSession, server::ShutdownWatch};
use pingora_proxy::Session;

use super::{Request, lane::Lane};
use crate::{
    flow::Flight,
    front::{Conn, Front},
};

/// How long the rest of a request may take to arrive after its answer, before the connection is closed instead.
const MAX_DRAIN: Duration = Duration::from_secs(2);

/// Lets Pingora's proxy serve the request; gives the lane back if the connection lives on.
pub(super) async fn with_pingora(
    front: &Front,
    lane: Box<Lane>,
    request: Request,
    shutdown: &ShutdownWatch,
) -> Option<Box<Lane>> {
    let conn = Arc::clone(&lane.conn);
    let mut session = ServerSession::new_http1(lane);
    hand(&mut session, &conn, request);
    let (stream, _) = front.proxy.process_new_http(session, shutdown).await?.consume();
    stream.into_any().downcast::<Lane>().ok()
}

/// The same for a request that never takes the stream way, so that none of what Pingora's proxy keeps ready for it is
/// needed: the steps are the same, and the session is.
pub(super) async fn alone(front: &Front, lane: Box<Lane>, request: Request) -> Option<Box<Lane>> {
    let conn = Arc::clone(&lane.conn);
    let mut session = Session::new_h1_with_modules(lane, &front.modules);
    hand(session.as_downstream_mut(), &conn, request);
    if !matches!(session.as_downstream_mut().read_request().await, Ok(true)) {
        session.as_downstream_mut().shutdown().await;
        return None;
    }
    let (steps, mut flight) = (&front.steps, Flight::default());
    let answered = steps.request(&mut session, &mut flight).await.and_then(|answered| {
        if answered { Ok(()) } else { Error::e_explain(ErrorType::InternalError, "without a body on the stream way") }
    });
    if let Err(error) = answered {
        steps.fail(&mut session, &mut flight, &error).await;
        steps.finish(&session, &mut flight, Some(&error));
        session.downstream_session.on_proxy_failure(error);
        return None;
    }
    steps.finish(&session, &mut flight, None);
    let stream = session.downstream_session.finish().await.ok()??;
    stream.into_parts().0.into_any().downcast::<Lane>().ok()
}

/// Hands the header over, which was read and checked already, and the ticket.
fn hand(session: &mut ServerSession, conn: &Conn, Request { header, ticket }: Request) {
    session.set_pipelined_prefix(header);
    // The lane bounds every read, by more than Pingora can.
    session.set_read_timeout(None);
    session.set_keepalive_reuses_remaining(Some(u32::from(!ticket.last)));
    session.set_total_drain_timeout(Some(MAX_DRAIN));
    conn.hand(ticket);
}
