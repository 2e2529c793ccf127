//! An ordered list of plugins; runs one phase of it.

use std::sync::Arc;

use bytes::Bytes;
use crossway_plugin_api::{BodyNeed, Ctx, Decision, Fault, Needs, Outcome, Overflow, Plugin, Reply};
use http::HeaderMap;
use pingora_http::{RequestHeader, ResponseHeader};

use crate::{coding, config::entry::OnError, telemetry::metrics::Metrics, when::Condition};

/// Most plugins on one route: each has a bit in an [`Entered`].
pub const MAX_LINKS: usize = 64;

/// One plugin in its place.
pub struct Link {
    /// Name of the plugin.
    pub name: &'static str,
    /// The entry's `id`, if it has one.
    pub id: Option<Arc<str>>,
    /// The plugin.
    pub plugin: Arc<dyn Plugin>,
    /// Where it runs at all.
    pub when: Option<Condition>,
    /// What its faults mean.
    pub on_error: OnError,
    /// A request without a credential of the plugin's kind is refused.
    pub required: bool,
}

/// The plugins of a route, with the takers of each phase worked out beforehand: a phase without takers costs one test.
pub struct Chain {
    links: Box<[Link]>,
    needs: Box<[Needs]>,
    /// Links that stop a request in the first phase: they take part in it, or have a condition.
    stops: u64,
    unconditional: u64,
    upstream_request: u64,
    response: u64,
    done: u64,
    /// Whether some link establishes who is calling, without a condition.
    pub authenticates: bool,
    /// Whether some link may establish who is calling before the request's body is read.
    pub knows_callers: bool,
    /// Whether some link looks at the client's certificate.
    pub client_certificate: bool,
    /// Whether some link establishes who is calling by the request's body, and so only where the request goes upstream.
    pub authenticates_by_body: bool,
    /// Whether some link answers every request that reaches it, without a condition.
    pub answers: bool,
    /// Largest request body some link wants whole; `None` if no link wants one.
    pub request_body: Option<u64>,
    /// Largest response body some link wants whole; `None` if no link wants one.
    pub response_body: Option<u64>,
    metrics: Arc<Metrics>,
}

/// The links that saw a request, by bit: those whose later phases run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Entered {
    links: u64,
    /// The place of the link that has answered the request, or whose fault is the answer.
    stopped_by: Option<u8>,
}

/// What the first phases come to.
pub type Verdict = Result<Option<Reply>, Fault>;

impl Chain {
    /// Works out who takes part in which phase. At most [`MAX_LINKS`] links.
    pub fn new(links: Vec<Link>, metrics: Arc<Metrics>) -> Self {
        let needs: Box<[Needs]> = links.iter().map(|l| l.plugin.needs()).collect();
        let mask = |takes: &dyn Fn(&Link, &Needs) -> bool| {
            links.iter().zip(&needs).enumerate().filter(|(_, (l, n))| takes(l, n)).fold(0, |m, (i, _)| m | 1 << i)
        };
        let largest = |need: fn(&Needs) -> Option<&BodyNeed>| needs.iter().filter_map(need).map(|n| n.max).max();
        Self {
            stops: mask(&|l, n| n.request || l.when.is_some()),
            unconditional: mask(&|l, _| l.when.is_none()),
            upstream_request: mask(&|_, n| n.upstream_request),
            response: mask(&|_, n| n.response),
            done: mask(&|_, n| n.done),
            authenticates: links
                .iter()
                .zip(&needs)
                .any(|(l, n)| n.authenticates && l.required && l.when.is_none() && l.on_error == OnError::Reject),
            knows_callers: needs.iter().any(|n| n.authenticates && n.request_body.is_none()),
            authenticates_by_body: needs.iter().any(|n| n.authenticates && n.request_body.is_some()),
            client_certificate: needs.iter().any(|n| n.client_certificate),
            answers: links.iter().zip(&needs).any(|(l, n)| n.answers && l.when.is_none()),
            request_body: largest(|n| n.request_body.as_ref()),
            response_body: largest(|n| n.response_body.as_ref()),
            needs,
            links: links.into(),
            metrics,
        }
    }

    /// The links, in order.
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// What each link asks for, in order.
    pub fn needs(&self) -> &[Needs] {
        &self.needs
    }

    /// Runs `on_request` in order until a link answers.
    pub async fn on_request(&self, req: &mut RequestHeader, ctx: &mut Ctx, entered: &mut Entered) -> Verdict {
        for at in bits(self.stops) {
            let link = &self.links[at];
            entered.links |= self.unconditional & below(at);
            if link.when.as_ref().is_some_and(|condition| !condition.holds(req, ctx)) {
                continue;
            }
            entered.links |= 1 << at;
            if !self.needs[at].request {
                continue;
            }
            match link.plugin.on_request(req, ctx).await {
                Ok(Decision::Continue) => {}
                Ok(Decision::Absent(reply)) if !link.required => ctx.keep_challenge(reply),
                Ok(Decision::Respond(reply) | Decision::Absent(reply)) => return Ok(Some(entered.stop(at, reply))),
                Err(fault) => self.tolerate(at, fault, entered).map_err(|fault| entered.stop(at, fault))?,
            }
        }
        entered.links |= self.unconditional;
        Ok(None)
    }

    /// Largest request body to read whole for a request with these headers, and what a larger one means. `None`: no
    /// link that saw the request wants this body.
    pub fn wants_request_body(&self, entered: Entered, headers: &HeaderMap) -> Option<(u64, Overflow)> {
        wants(self.body_needs(entered, |n| n.request_body.as_ref()), headers)
    }

    /// The same for a response; one whose pieces count one by one is never held.
    pub fn wants_response_body(&self, entered: Entered, head: &ResponseHeader) -> Option<(u64, Overflow)> {
        if coding::is_stream(&head.headers) {
            return None;
        }
        let needs = self.body_needs(entered, |n| n.response_body.as_ref());
        wants(needs.filter(|(_, need)| need.wants_status(head.status)), &head.headers)
    }

    fn body_needs(
        &self,
        entered: Entered,
        need: fn(&Needs) -> Option<&BodyNeed>,
    ) -> impl DoubleEndedIterator<Item = (usize, &BodyNeed)> {
        let of = move |(at, n)| if entered.has(at) { need(n).map(|need| (at, need)) } else { None };
        self.needs.iter().enumerate().filter_map(of)
    }

    /// Runs `on_request_body` in order until a link answers.
    pub async fn on_request_body(
        &self,
        body: &mut Bytes,
        req: &mut RequestHeader,
        ctx: &mut Ctx,
        entered: &mut Entered,
    ) -> Verdict {
        let length = body.len() as u64;
        let takers: Vec<usize> = self
            .body_needs(*entered, |n| n.request_body.as_ref())
            .filter(|(_, need)| length <= need.max && need.types.accept(&req.headers))
            .map(|(at, _)| at)
            .collect();
        for at in takers {
            match self.links[at].plugin.on_request_body(body, req, ctx).await {
                Ok(Decision::Continue) => {}
                Ok(Decision::Absent(reply)) if !self.links[at].required => ctx.keep_challenge(reply),
                Ok(Decision::Respond(reply) | Decision::Absent(reply)) => return Ok(Some(entered.stop(at, reply))),
                Err(fault) => self.tolerate(at, fault, entered).map_err(|fault| entered.stop(at, fault))?,
            }
        }
        Ok(None)
    }

    /// The link that has stopped a request in its first phases, and what it asks for.
    pub fn stopped_by(&self, entered: Entered) -> Option<(&Link, &Needs)> {
        let at = usize::from(entered.stopped_by?);
        Some((self.links.get(at)?, self.needs.get(at)?))
    }

    /// Runs `on_upstream_request` in order; once for each attempt.
    pub fn on_upstream_request(
        &self,
        req: &mut RequestHeader,
        ctx: &mut Ctx,
        entered: &mut Entered,
    ) -> Result<(), Fault> {
        for at in bits(self.upstream_request & entered.links) {
            if let Err(fault) = self.links[at].plugin.on_upstream_request(req, ctx) {
                self.tolerate(at, fault, entered)?;
            }
        }
        Ok(())
    }

    /// Runs `on_response_body` in reverse order, before [`Chain::on_response`], which sees the final status.
    pub async fn on_response_body(
        &self,
        body: &mut Bytes,
        res: &mut ResponseHeader,
        ctx: &mut Ctx,
        entered: &mut Entered,
    ) -> Result<(), Fault> {
        let length = body.len() as u64;
        let takers: Vec<usize> = self
            .body_needs(*entered, |n| n.response_body.as_ref())
            .rev()
            .filter(|(_, need)| length <= need.max && need.types.accept(&res.headers) && need.wants_status(res.status))
            .map(|(at, _)| at)
            .collect();
        for at in takers {
            if let Err(fault) = self.links[at].plugin.on_response_body(body, res, ctx).await {
                self.tolerate(at, fault, entered)?;
            }
        }
        Ok(())
    }

    /// Runs `on_response` in reverse order.
    pub fn on_response(&self, res: &mut ResponseHeader, ctx: &mut Ctx, entered: &mut Entered) -> Result<(), Fault> {
        for at in bits(self.response & entered.links).rev() {
            if let Err(fault) = self.links[at].plugin.on_response(res, ctx) {
                self.tolerate(at, fault, entered)?;
            }
        }
        Ok(())
    }

    /// Runs `on_done` in order.
    pub fn on_done(&self, outcome: &Outcome, ctx: &Ctx, entered: Entered) {
        for at in bits(self.done & entered.links) {
            self.links[at].plugin.on_done(outcome, ctx);
        }
    }

    /// One policy for the faults of all plugins: refuse, or go on as if the plugin were not there.
    fn tolerate(&self, at: usize, fault: Fault, entered: &mut Entered) -> Result<(), Fault> {
        let link = &self.links[at];
        let allowed = link.on_error == OnError::Allow;
        self.metrics.plugin_fault(link.name, allowed);
        tracing::debug!(plugin = link.name, %fault, allowed, "a plugin failed");
        if !allowed {
            return Err(fault);
        }
        entered.links &= !(1 << at);
        Ok(())
    }
}

impl Entered {
    /// Notes which link has stopped the request with this.
    fn stop<T>(&mut self, at: usize, with: T) -> T {
        self.stopped_by = u8::try_from(at).ok();
        with
    }

    fn has(self, at: usize) -> bool {
        self.links & (1 << at) != 0
    }
}

fn wants<'a>(needs: impl Iterator<Item = (usize, &'a BodyNeed)>, headers: &HeaderMap) -> Option<(u64, Overflow)> {
    let mut wanted: Option<(u64, Overflow)> = None;
    for (_, need) in needs.filter(|(_, need)| need.types.accept(headers)) {
        wanted = Some(match (wanted, need.overflow) {
            // The smallest bound that refuses decides; where none does, the largest bound is read.
            (None, overflow) => (need.max, overflow),
            (Some((max, Overflow::Refuse)), Overflow::Refuse) => (max.min(need.max), Overflow::Refuse),
            (Some((max, Overflow::Refuse)), Overflow::Stream) => (max, Overflow::Refuse),
            (Some((_, Overflow::Stream)), Overflow::Refuse) => (need.max, Overflow::Refuse),
            (Some((max, Overflow::Stream)), Overflow::Stream) => (max.max(need.max), Overflow::Stream),
        });
    }
    wanted
}

fn below(at: usize) -> u64 {
    (1_u64 << at) - 1
}

/// The positions of the set bits, ascending; reversible.
fn bits(mask: u64) -> impl DoubleEndedIterator<Item = usize> {
    Bits(mask)
}

struct Bits(u64);

impl Iterator for Bits {
    type Item = usize;
    fn next(&mut self) -> Option<usize> {
        let at = (self.0 != 0).then(|| self.0.trailing_zeros() as usize)?;
        self.0 &= !(1 << at);
        Some(at)
    }
}

impl DoubleEndedIterator for Bits {
    fn next_back(&mut self) -> Option<usize> {
        let at = (self.0 != 0).then(|| 63 - self.0.leading_zeros() as usize)?;
        self.0 &= !(1 << at);
        Some(at)
    }
}
