//! Programs that the side-by-side benchmark runs. `benches/README.md` says how they are used together.

mod answer;
mod bare;
mod certificate;
mod keys;
mod limit;
mod load;
mod origin;
mod tokens;

use clap::{Parser, Subcommand};

/// The allocator that Crossway uses, so that the bare proxy differs from it in nothing but its work.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Programs that the side-by-side benchmark runs.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    program: Program,
}

#[derive(Subcommand)]
enum Program {
    /// Pingora proxying to one origin and doing nothing else.
    Bare(bare::Settings),
    /// Writes a self-signed certificate and its key.
    Certificate(certificate::Settings),
    /// A server with one small answer.
    Origin(origin::Settings),
    /// API keys, and the local store of a gateway that has them.
    Keys(keys::Settings),
    /// Bearer tokens, one in a line.
    Tokens(tokens::Settings),
    /// Keep-alive connections that each send the next request when they have the answer to the last.
    Load(load::Settings),
    /// What a decision in a shared store adds to a request, beside a bare GET on the same server.
    Limit(limit::Settings),
    /// Connections that each make one request and then stay idle until standard input ends.
    Idle(load::idle::Settings),
}

fn main() -> anyhow::Result<()> {
    // It fails only if one is installed already, which is then the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match Arguments::parse().program {
        Program::Certificate(settings) => certificate::run(&settings),
        Program::Keys(settings) => keys::run(&settings),
        Program::Tokens(settings) => tokens::run(&settings),
        Program::Bare(settings) => bare::run(&settings),
        Program::Origin(settings) => origin::run(&settings),
        Program::Load(settings) => load::run(settings),
        Program::Limit(settings) => limit::run(&settings),
        Program::Idle(settings) => load::idle::run(&settings),
    }
}
