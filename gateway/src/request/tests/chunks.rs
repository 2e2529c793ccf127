use proptest::prelude::*;

use crate::request::{ChunkScanner, Progress, Refusal};

fn scan(bytes: &[u8]) -> Result<Progress, Refusal> {
    ChunkScanner::default().scan(bytes)
}

#[test]
fn a_body_ends_after_its_trailers() {
    for body in [
        &b"0\r\n\r\n"[..],
        b"5\r\nhello\r\n0\r\n\r\n",
        b"05;a=b;c=\"d e\"\r\nhello\r\nA\r\n0123456789\r\n000\r\n\r\n",
        b"0\r\nX-Sum: 5\r\nEmpty:\r\n\r\n",
    ] {
        let more = [body, b"GET / HTTP/1.1\r\n"].concat();
        assert_eq!(scan(&more), Ok(Progress { used: body.len(), complete: true }), "{}", body.escape_ascii());
        assert_eq!(scan(&body[..body.len() - 1]), Ok(Progress { used: body.len() - 1, complete: false }));
    }
}

#[test]
fn nothing_else_is_a_chunk() {
    for body in [
        &b"0x5\r\nhello\r\n"[..],
        b"+5\r\nhello\r\n",
        b"-0\r\n\r\n",
        b" 5\r\nhello",
        b"5 \r\nhello",
        b"5_0\r\n",
        b"\r\nhello",
        b"10000000000000005\r\n",
        b"00000000000000000\r\n",
        b";a\r\n",
        b"2\nab\r\n",
        b"2;\nxx",
        b"5;a=b\r\rX",
        b"5;a\x00b\r\n",
        b"5\r\nhelloXX0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhello\r0\r\n\r\n",
        b"0\r\n\n",
        b"0\r\n\rX",
        b"0\r\nX\r\n\r\n",
        b"0\r\n X: a\r\n\r\n",
        b"0\r\nX : a\r\n\r\n",
        b"0\r\nX: a\n\r\n",
        b"0\r\nX: a\x00\r\n\r\n",
        b"0\r\nX_Y: a\r\n\r\n",
        b"0\r\n: a\r\n\r\n",
        b"0\r\nX: a\r\r\n",
    ] {
        let refusal = scan(body).expect_err(&body.escape_ascii().to_string());
        assert_eq!((refusal.status.as_u16(), refusal.code), (400, "bad_framing"));
    }
}

#[test]
fn extensions_and_trailers_are_bounded_over_the_whole_body() {
    let extension = |length: usize| format!("1;{}\r\na\r\n", "x".repeat(length - 1));
    let body = |first: usize, second: usize| [extension(first), extension(second)].concat();
    assert!(scan(body(2048, 2048).as_bytes()).is_ok());
    assert!(scan(body(2048, 2049).as_bytes()).is_err());
    let fields = |count: usize| format!("0\r\n{}\r\n", "X: a\r\n".repeat(count));
    assert!(scan(fields(32).as_bytes()).is_ok_and(|progress| progress.complete));
    assert!(scan(fields(33).as_bytes()).is_err());
    let bytes = |length: usize| format!("0\r\nX:{}", "a".repeat(length - 2));
    assert!(scan(bytes(8192).as_bytes()).is_ok());
    assert!(scan(bytes(8193).as_bytes()).is_err());
}

proptest! {
    #[test]
    fn cuts_do_not_matter(body in "([0-3]|;a|\r\n|\r|\n|ab|X: y|:){0,12}", cut in 0..40_usize) {
        let mut scanner = ChunkScanner::default();
        let cut = cut.min(body.len());
        let (first, second) = body.as_bytes().split_at(cut);
        let parts = scanner.scan(first).and_then(|a| {
            scanner.scan(second).map(|b| Progress { used: a.used + b.used, complete: b.complete })
        });
        prop_assert_eq!(parts.ok(), scan(body.as_bytes()).ok());
    }

    /// Chunks written here are read back to the same end.
    #[test]
    fn what_is_written_is_read(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..6)) {
        let mut body = Vec::new();
        for chunk in &chunks {
            body.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            body.extend_from_slice(chunk);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"0\r\n\r\n");
        let used = body.len();
        body.extend_from_slice(b"0\r\n");
        prop_assert_eq!(scan(&body), Ok(Progress { used, complete: true }));
    }
}
