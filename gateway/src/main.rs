//! The `crossway` program: arguments to exit code.

use std::process::ExitCode;

use clap::Parser as _;
use crossway::cli::Arguments;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // First of all: a SIGHUP during start must not end the process, and everything that speaks TLS uses one provider.
    let _hangup = crossway::server::hold_hangup();
    crossway::server::install_crypto();
    Arguments::parse().run()
}
