//! An upstream that takes requests, says what it was told to say, and tells when a connection to it has ended.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
};

use super::PATIENCE;

/// Each connection gets `answer` when its first request header is there, and then silence. Says `true` when a request has
/// come and `false` when a connection with one has ended.
pub struct Silent {
    address: String,
    events: Receiver<bool>,
}

impl Silent {
    pub fn start(answer: &[u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (tell, events) = sync_channel(1024);
        let answer = answer.to_vec();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let (tell, answer) = (tell.clone(), answer.clone());
                std::thread::spawn(move || serve(&mut stream, &answer, &tell));
            }
        });
        Self { address, events }
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// Waits for a request (`true`) or the end of a connection (`false`).
    #[track_caller]
    pub fn next(&self) -> bool {
        self.events.recv_timeout(PATIENCE).expect("something happens at the upstream")
    }

    /// Waits for a request.
    #[track_caller]
    pub fn has_request(&self) {
        assert!(self.events.recv_timeout(PATIENCE).expect("a request reaches the upstream"));
    }

    /// Waits until the gateway has ended the connection.
    #[track_caller]
    pub fn is_freed(&self) {
        assert!(!self.events.recv_timeout(PATIENCE).expect("the connection to the upstream ends"));
    }
}

fn serve(stream: &mut TcpStream, answer: &[u8], tell: &SyncSender<bool>) {
    let mut header = Vec::new();
    let mut buffer = [0; 4096];
    while !header.windows(4).any(|end| end == b"\r\n\r\n") {
        let Ok(read @ 1..) = stream.read(&mut buffer) else { return };
        header.extend_from_slice(&buffer[..read]);
    }
    let _ = tell.send(true);
    // Fails when the gateway ends the connection, as does the read.
    if stream.write_all(answer).is_ok() {
        while matches!(stream.read(&mut buffer), Ok(1..)) {}
    }
    let _ = tell.send(false);
}
