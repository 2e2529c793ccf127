//! The answer to a call, from its response header on.

use std::{future::Future, sync::Arc, time::Instant};

use bytes::Bytes;
use crossway_plugin_api::{Fault, Overflow};
use http::{StatusCode, Version, header};
use pingora_core::protocols::http::HttpTask;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::Answered;
use crate::{
    flow::{
        Admitted,
        grpc::{self, Upload, trailers},
        steps::{Next, Steps},
    },
    request,
    upstream::{Answering, Upstream, fault, lease::Lease},
};

/// An answer on its way to the client, while the rest of the request goes the other way.
pub(super) struct Passing<'a> {
    pub(super) session: &'a mut Session,
    pub(super) admitted: &'a mut Admitted,
    pub(super) upload: &'a mut Upload,
    pub(super) upstream: &'a Upstream,
    /// What the end of the answer says of the endpoint.
    pub(super) answering: Option<Answering>,
}

/// What comes next from the upstream.
pub(super) enum Piece {
    Data(Bytes, bool),
    End(Option<http::HeaderMap>),
}

impl Passing<'_> {
    pub(super) async fn run(&mut self, answered: Answered) -> Result<(), Fault> {
        let Answered { head, mut first, mut lease, _place } = answered;
        let ended = first.is_none() && lease.is_body_read().inspect_err(|fault| self.broke(fault))?;
        let head = self.head(head)?;
        if ended {
            self.ended(None);
        }
        self.write(HttpTask::Header(Box::new(head), ended)).await?;
        if !ended {
            loop {
                let piece = match first.take() {
                    Some(piece) => piece,
                    None => self.next(&mut lease).await,
                };
                let task = self.task(piece)?;
                let last = matches!(&task, HttpTask::Trailer(_) | HttpTask::Body(_, true));
                self.write(task).await?;
                if last {
                    break;
                }
            }
        }
        self.upload.stop();
        lease.end(true).await;
        Ok(())
    }

    /// The response header as the client gets it, after the response phases.
    fn head(&mut self, mut head: ResponseHeader) -> Result<ResponseHeader, Fault> {
        let admitted = &mut *self.admitted;
        request::strip_hop_by_hop(&mut head);
        admitted.speak_version(&mut head);
        let chain = Arc::clone(&admitted.chain);
        if let Some((_, Overflow::Refuse)) = chain.wants_response_body(admitted.entered, &head) {
            return Err(Fault::UpstreamProtocol("an answer to a gRPC call that a plugin must hold".into()));
        }
        if let Some(call) = &mut admitted.grpc {
            call.response(&mut head)?;
        }
        let bodiless = matches!(head.status.as_u16(), 204 | 304);
        let framed = bodiless || head.headers.contains_key(header::CONTENT_LENGTH);
        if admitted.version != Version::HTTP_2 && !framed {
            head.insert_header(header::TRANSFER_ENCODING, "chunked").map_err(|_| Fault::Internal("framing".into()))?;
        }
        admitted.stick(&mut head)?;
        chain.on_response(&mut head, &mut admitted.ctx, &mut admitted.entered)?;
        admitted.outcome.answered = Some(Instant::now());
        Ok(head)
    }

    /// Waits for more of the answer. An end that says that the gateway is not known there is too late for another attempt,
    /// but the next call shall have something else to show.
    async fn next(&mut self, lease: &mut Lease) -> Result<Piece, Fault> {
        let piece = self.read(lease).await?;
        if matches!(&piece, Piece::End(Some(fields)) if grpc::is_unknown(fields)) {
            self.admitted.attempts.is_refused(self.upstream, StatusCode::UNAUTHORIZED, false).await;
        }
        Ok(piece)
    }

    /// What has come, in the client's form.
    fn task(&mut self, piece: Result<Piece, Fault>) -> Result<HttpTask, Fault> {
        let piece = piece.inspect_err(|fault| self.broke(fault))?;
        match &piece {
            Piece::Data(_, false) => self.moves(),
            Piece::Data(_, true) => self.ended(None),
            Piece::End(fields) => self.ended(fields.as_ref()),
        }
        Ok(self.in_clients_form(piece))
    }

    /// Waits for more of the answer, and moves the request on meanwhile.
    pub(super) async fn read(&mut self, lease: &mut Lease) -> Result<Piece, Fault> {
        let stream = lease.http2()?;
        let piece = loop {
            let patience = self.patience();
            let moved = tokio::select! {
                read = stream.read_response_body() => break read.map_err(|e| fault::upstream(&e))?,
                moved = self.upload.step(self.session, self.admitted) => moved,
                () = tokio::time::sleep_until(patience.until.into()) => Err(patience.fault()),
            };
            moved?;
            self.moves();
        };
        match piece {
            Some(data) => {
                let end = stream.check_response_end_or_error().map_err(|e| fault::upstream(&e))?;
                Ok(Piece::Data(data, end))
            }
            None => {
                let patience = self.patience();
                let read = patience.bound(stream.read_trailers()).await?;
                Ok(Piece::End(read.map_err(|e| fault::upstream(&e))?))
            }
        }
    }

    fn moves(&mut self) {
        if let Some(answering) = &mut self.answering {
            answering.moves();
        }
    }

    /// The answer is over, with these trailers or none.
    fn ended(&mut self, trailers: Option<&http::HeaderMap>) {
        if let Some(mut answering) = self.answering.take() {
            answering.ended(self.admitted.grpc.as_ref().and_then(|call| call.ended(trailers)));
        }
    }

    /// A fault has ended the answer.
    fn broke(&mut self, fault: &Fault) {
        // A caller that waits for the end of a stream has set the deadline itself.
        let Some(mut answering) = self.answering.take().filter(|_| *fault != Fault::Deadline) else { return };
        if self.upload.is_over() {
            answering.note_sent();
        }
        answering.broke(fault, self.admitted.conn.kept_waiting());
    }

    fn in_clients_form(&mut self, piece: Piece) -> HttpTask {
        let call = self.admitted.grpc.as_mut();
        let ended = |call: Option<&mut grpc::Call>, data, end| {
            let mut data = data;
            if let Some(call) = call {
                call.response_body(&mut data, end);
            }
            HttpTask::Body(data, end)
        };
        match piece {
            Piece::Data(data, end) => ended(call, Some(data), end),
            Piece::End(None) => ended(call, None, true),
            Piece::End(Some(mut fields)) => {
                trailers::clean(&mut fields);
                match call.and_then(|call| call.trailers(&fields)) {
                    Some(frame) => HttpTask::Body(Some(frame), true),
                    None => HttpTask::Trailer(Some(Box::new(fields))),
                }
            }
        }
    }

    /// Writes to the client, as long as it reads.
    async fn write(&mut self, task: HttpTask) -> Result<(), Fault> {
        let client = Instant::now() + self.admitted.listener.limits.client.idle.0;
        let until = self.until().map_or(client, |until| until.min(client));
        let written = tokio::time::timeout_at(until.into(), self.session.write_response_tasks(vec![task])).await;
        match written {
            Ok(Ok(_)) => Ok(()),
            Err(_) if until < client => Err(Fault::Deadline),
            _ => Err(Fault::ClientGone),
        }
    }

    fn until(&self) -> Option<Instant> {
        self.admitted.grpc.as_ref().and_then(grpc::Call::until)
    }

    fn patience(&self) -> Patience {
        let idle = Instant::now() + self.upstream.timeouts.idle;
        match self.until() {
            Some(until) if until < idle => Patience { until, is_call: true },
            _ => Patience { until: idle, is_call: false },
        }
    }

    /// Says in trailers what has ended an answer that had begun, where the client can be told: a status does not pass for
    /// the end of a whole answer.
    pub(super) async fn tell(&mut self, steps: &Steps, fault: Fault) -> Result<Next, Fault> {
        let begun = self.session.response_written().is_some_and(|head| !head.status.is_informational());
        let told = self.admitted.grpc.as_mut().and_then(|call| call.last_words(&fault)).filter(|_| begun);
        let Some(fields) = told else { return Err(fault) };
        self.admitted.failed(&fault);
        self.admitted.outcome.cut = true;
        steps.gateway.metrics.fault(fault.code());
        self.write(HttpTask::Trailer(Some(Box::new(fields)))).await?;
        Ok(Next::Sent)
    }
}

/// How long to wait for the next thing.
struct Patience {
    until: Instant,
    /// The caller has set the bound, for the whole call.
    is_call: bool,
}

impl Patience {
    fn fault(&self) -> Fault {
        if self.is_call { Fault::Deadline } else { Fault::UpstreamTimeout }
    }

    async fn bound<T>(&self, work: impl Future<Output = T>) -> Result<T, Fault> {
        tokio::time::timeout_at(self.until.into(), work).await.map_err(|_| self.fault())
    }
}
