//! What a decision in a shared store adds to a request.
//!
//! In turn, again and again: a request that is limited, one that is not, and a GET on the same Redis server, first by the
//! client library that Crossway uses and then without any. Each time is taken beside the others, so that a machine that is
//! slow for a while slows all of them.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use redis::aio::MultiplexedConnection;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::load::{Client, Dialer, Request, print_line};

/// Rounds that only warm up.
const WARM: u64 = 500;
const KEY: &str = "crossway:bench";

/// Where everything is.
#[derive(clap::Args)]
pub(crate) struct Settings {
    /// Address of the gateway.
    #[arg(long)]
    target: SocketAddr,
    /// The field of requests that are limited, written `Name: value`.
    #[arg(long)]
    limited: String,
    /// Address of the Redis server.
    #[arg(long)]
    redis: SocketAddr,
    /// Seconds to measure for.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
}

/// Measures, and prints one line of JSON: rounds, and medians in microseconds.
pub(crate) fn run(settings: &Settings) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut times = runtime.block_on(measure(settings))?;
    let added = Times { all: times.limited.all.iter().zip(&times.open.all).map(|(a, b)| a - b).collect() };
    let (library, bare) = (times.library.median(), times.bare.median());
    let (mut added, rounds) = (added, times.open.all.len());
    let (limited, open, paired) = (times.limited.median(), times.open.median(), added.median());
    print_line(&json!({
        "rounds": rounds,
        "limited_p50_us": limited,
        "open_p50_us": open,
        "added_p50_us": limited - open,
        "added_paired_p50_us": paired,
        "get_p50_us": library,
        "get_without_library_p50_us": bare,
        "ratio": (limited - open) / library,
        "ratio_without_library": (limited - open) / bare,
    }))
}

/// Times of one kind, in microseconds.
#[derive(Default)]
struct Times {
    all: Vec<f64>,
}

impl Times {
    fn add(&mut self, began: Instant) {
        self.all.push(began.elapsed().as_secs_f64() * 1e6);
    }

    fn median(&mut self) -> f64 {
        self.all.sort_by(f64::total_cmp);
        self.all.get(self.all.len() / 2).copied().unwrap_or_default()
    }
}

#[derive(Default)]
struct Measured {
    limited: Times,
    open: Times,
    library: Times,
    bare: Times,
}

async fn measure(settings: &Settings) -> anyhow::Result<Measured> {
    let dialer = Dialer::new(settings.target, None)?;
    let mut limited =
        Client::connect(&dialer, Request::new(settings.target, std::slice::from_ref(&settings.limited))?).await?;
    let mut open = Client::connect(&dialer, Request::new(settings.target, &[])?).await?;
    let mut library = redis::Client::open(format!("redis://{}", settings.redis))?
        .get_multiplexed_async_connection()
        .await
        .context("no Redis server")?;
    redis::cmd("SET").arg(KEY).arg("1795266000000000000").exec_async(&mut library).await?;
    let mut bare = TcpStream::connect(settings.redis).await?;
    bare.set_nodelay(true)?;
    let mut measured = Measured::default();
    let mut end = Instant::now() + Duration::from_hours(1);
    for number in 0.. {
        if number == WARM {
            measured = Measured::default();
            end = Instant::now() + Duration::try_from_secs_f64(settings.seconds)?;
        }
        if Instant::now() >= end {
            break;
        }
        // Who comes first changes, in case it matters.
        if number % 2 == 0 {
            time(&mut measured.limited, limited.exchange(number)).await?;
            time(&mut measured.open, open.exchange(number)).await?;
        } else {
            time(&mut measured.open, open.exchange(number)).await?;
            time(&mut measured.limited, limited.exchange(number)).await?;
        }
        time(&mut measured.library, get(&mut library)).await?;
        time(&mut measured.bare, get_bare(&mut bare)).await?;
    }
    Ok(measured)
}

async fn time<T>(into: &mut Times, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let began = Instant::now();
    let done = work.await?;
    into.add(began);
    Ok(done)
}

async fn get(connection: &mut MultiplexedConnection) -> anyhow::Result<()> {
    let value: String = redis::cmd("GET").arg(KEY).query_async(connection).await?;
    ensure!(value.len() == 19, "another value");
    Ok(())
}

async fn get_bare(stream: &mut TcpStream) -> anyhow::Result<()> {
    stream.write_all(format!("*2\r\n$3\r\nGET\r\n${}\r\n{KEY}\r\n", KEY.len()).as_bytes()).await?;
    let mut answer = [0; 26];
    stream.read_exact(&mut answer).await?;
    ensure!(answer.starts_with(b"$19\r\n"), "another value");
    Ok(())
}
