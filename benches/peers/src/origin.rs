//! A server with one small answer: cheap, so that the core it shares with the load generator is not the bound.

use std::{io, net::SocketAddr};

use anyhow::{Context as _, bail};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
};

use crate::answer;

/// Largest request header taken.
const MAX_HEADER: usize = 16 << 10;
const BACKLOG: u32 = 4096;

/// Where the origin listens.
#[derive(clap::Args)]
pub(crate) struct Settings {
    /// Address to listen on.
    #[arg(long)]
    listen: SocketAddr,
}

/// Runs the origin until the process is ended.
pub(crate) fn run(settings: &Settings) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = listen(settings.listen).with_context(|| format!("cannot listen on {}", settings.listen))?;
        loop {
            let (stream, _) = listener.accept().await?;
            // A connection that breaks is seen by the load generator, as a wrong or missing answer.
            tokio::spawn(async move { serve(stream).await.ok() });
        }
    })
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Answers the requests of one connection, which have no body (so that a header's end is a request's end).
async fn serve(mut stream: TcpStream) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let (mut input, mut output) = (Vec::with_capacity(2048), Vec::with_capacity(512));
    loop {
        let Some(end) = header_end(&input) else {
            if input.len() > MAX_HEADER {
                bail!("the request header is too long");
            }
            if stream.read_buf(&mut input).await? == 0 {
                return Ok(());
            }
            continue;
        };
        output.clear();
        answer_to(&input[..end], &mut output);
        stream.write_all(&output).await?;
        input.drain(..end);
    }
}

/// Where the header ends, its empty line included.
pub(crate) fn header_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4)
}

/// Appends the response: the body with the request's number in it, or 404 where the path has none.
fn answer_to(header: &[u8], output: &mut Vec<u8>) {
    match header.split(|b| *b == b' ').nth(1).and_then(answer::number_in) {
        Some(number) => {
            output.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ");
            output.extend_from_slice(answer::LENGTH.to_string().as_bytes());
            output.extend_from_slice(b"\r\n\r\n");
            answer::write(number, output);
        }
        None => output.extend_from_slice(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_has_the_number_of_the_request() {
        let mut output = Vec::new();
        answer_to(b"GET /customers/C-0000000007 HTTP/1.1\r\nHost: o\r\n\r\n", &mut output);
        let end = header_end(&output).unwrap();
        assert!(output.starts_with(b"HTTP/1.1 200 OK\r\n"));
        assert!(answer::matches(&output[end..], b"0000000007"));
    }

    #[test]
    fn a_path_without_a_number_is_not_found() {
        let mut output = Vec::new();
        answer_to(b"GET / HTTP/1.1\r\nHost: o\r\n\r\n", &mut output);
        assert!(output.starts_with(b"HTTP/1.1 404 "));
    }
}
