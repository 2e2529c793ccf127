//! The load generator: a closed loop of keep-alive connections, each of which sends its next request when it has
//! verified the answer to the last; or, at a rate, when its turn has come. Then the time of a request counts from its turn,
//! so that an answer which is late makes the next ones late as well.

mod client;
mod histogram;
pub(crate) mod idle;
mod wire;

use std::{
    io::Write as _,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::task::JoinSet;

use histogram::Histogram;

pub(crate) use client::{Client, Request};
pub(crate) use wire::{Dialer, SERVER_NAME};

/// How long answers may take after the last request was sent.
const GRACE: Duration = Duration::from_secs(5);
/// Errors after which a connection gives up, so that a proxy that is down does not keep it busy.
const MAX_ERRORS: u64 = 10;

/// How much load, and where to.
#[derive(clap::Args)]
pub(crate) struct Settings {
    /// Address of the proxy.
    #[arg(long)]
    target: SocketAddr,
    /// Connections.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    connections: u64,
    /// Seconds to send requests for.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Requests a second of all connections together; as many as they can without it.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Speak TLS, and trust this certificate (PEM).
    #[arg(long)]
    authority: Option<PathBuf>,
    /// A new connection for each request.
    #[arg(long)]
    reconnect: bool,
    /// A further request header field, written `Name: value`. Can be given more than once.
    #[arg(long = "header")]
    headers: Vec<String>,
    /// A file with a bearer token in each line, all of the same length: each request carries the next, and the load ends
    /// after the last.
    #[arg(long)]
    bearers: Option<PathBuf>,
    /// What stands before them in the request.
    #[arg(long, default_value = client::AUTHORIZATION)]
    before: String,
    /// Begins anew after the last of them.
    #[arg(long)]
    cycle: bool,
    /// The status that each answer must have. Only with 200 its body must be the origin's.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(200..=599))]
    status: u16,
}

/// Puts the load on the proxy and prints one line of JSON: requests answered as they should be, errors (with the first
/// of them), connections opened again because the proxy ended one, seconds, and latencies in microseconds.
pub(crate) fn run(settings: Settings) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let started = Instant::now();
    let tally = runtime.block_on(all(settings))?;
    print_line(&json!({
        "requests": tally.requests,
        "errors": tally.errors,
        "first_error": tally.first_error,
        "reconnects": tally.reconnects,
        "seconds": started.elapsed().as_secs_f64(),
        "p50_us": tally.latency.per_mille(500),
        "p99_us": tally.latency.per_mille(990),
    }))
}

pub(crate) fn print_line(value: &serde_json::Value) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{value}")?;
    Ok(out.flush()?)
}

/// What came of one connection's requests, or of all.
struct Tally {
    requests: u64,
    errors: u64,
    first_error: Option<String>,
    reconnects: u64,
    latency: Histogram,
}

impl Tally {
    fn new() -> Self {
        Self { requests: 0, errors: 0, first_error: None, reconnects: 0, latency: Histogram::new() }
    }

    fn error(&mut self, error: impl std::fmt::Display) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| format!("{error:#}"));
    }

    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.errors += other.errors;
        self.reconnects += other.reconnects;
        self.first_error = self.first_error.take().or(other.first_error);
        self.latency.add(&other.latency);
    }
}

async fn all(settings: Settings) -> anyhow::Result<Tally> {
    let bearers = settings.bearers.as_deref().map(std::fs::read_to_string).transpose()?;
    let bearers: Option<Arc<[String]>> = bearers.map(|text| text.lines().map(str::to_owned).collect());
    let mut headers = settings.headers;
    headers.extend(bearers.iter().filter_map(|all| all.first()).map(|token| format!("{}{token}", settings.before)));
    let request = Request::new(settings.target, &headers)?.carrying(&settings.before).expecting(settings.status);
    let dialer = Dialer::new(settings.target, settings.authority.as_deref())?;
    let begin = Instant::now();
    let end = begin + Duration::try_from_secs_f64(settings.seconds)?;
    let mut loops = JoinSet::new();
    for index in 0..settings.connections {
        let numbers = (index..).step_by(usize::try_from(settings.connections)?);
        let (dialer, request, bearers) = (dialer.clone(), request.clone(), bearers.clone());
        let Settings { cycle, reconnect, rate, .. } = settings;
        let plan = Plan { dialer, request, bearers, cycle, reconnect, rate, begin, end };
        loops.spawn(bounded(plan, numbers));
    }
    let mut total = Tally::new();
    while let Some(tally) = loops.join_next().await {
        total.add(tally?);
    }
    Ok(total)
}

/// What one loop does.
struct Plan {
    dialer: Dialer,
    request: Request,
    bearers: Option<Arc<[String]>>,
    cycle: bool,
    reconnect: bool,
    rate: Option<u32>,
    begin: Instant,
    end: Instant,
}

impl Plan {
    /// The bearer token of the request with this number; `None` after the last.
    fn bearer<'a>(&self, all: &'a [String], number: u64) -> Option<&'a str> {
        let at = usize::try_from(number).ok()?;
        let at = if self.cycle { at.checked_rem(all.len())? } else { at };
        all.get(at).map(String::as_str)
    }

    /// Waits for the turn of a request, where there are turns; when that was.
    async fn turn(&self, number: u64) -> Option<Instant> {
        let at = self.begin + Duration::from_nanos(number.saturating_mul(1_000_000_000) / u64::from(self.rate?));
        tokio::time::sleep_until(at.min(self.end).into()).await;
        Some(at)
    }
}

/// One connection's loop, ended by force if an answer never comes.
async fn bounded(plan: Plan, numbers: impl Iterator<Item = u64> + Send) -> Tally {
    let mut tally = Tally::new();
    let work = requests(&plan, numbers, &mut tally);
    if tokio::time::timeout_at((plan.end + GRACE).into(), work).await.is_err() {
        tally.error("an answer did not come in time");
    }
    tally
}

async fn requests(plan: &Plan, numbers: impl Iterator<Item = u64>, tally: &mut Tally) {
    let mut open: Option<Client> = None;
    let mut started = Instant::now();
    for number in numbers {
        started = plan.turn(number).await.unwrap_or(started);
        if started >= plan.end || tally.errors >= MAX_ERRORS {
            return;
        }
        let bearer = match &plan.bearers {
            None => None,
            Some(all) => match plan.bearer(all, number) {
                Some(bearer) => Some(bearer),
                None => return,
            },
        };
        let result = exchange(plan, &mut open, number, bearer).await;
        let now = Instant::now();
        match result {
            Ok(lasts) => {
                tally.requests += 1;
                tally.latency.record(u64::try_from((now - started).as_micros()).unwrap_or(u64::MAX));
                if plan.reconnect {
                    open = None;
                } else if !lasts {
                    tally.reconnects += 1;
                    open = None;
                }
            }
            Err(error) => {
                tally.error(error);
                open = None;
            }
        }
        started = now;
    }
}

/// Makes a request, on a new connection where none is open.
async fn exchange(plan: &Plan, open: &mut Option<Client>, number: u64, bearer: Option<&str>) -> anyhow::Result<bool> {
    let client = match open {
        Some(client) => client,
        None => open.insert(Client::connect(&plan.dialer, plan.request.clone()).await?),
    };
    if let Some(bearer) = bearer {
        client.show(bearer)?;
    }
    client.exchange(number).await
}
