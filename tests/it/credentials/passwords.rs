//! User names and passwords.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{config, plain, start};
use crate::harness::{BINARY, Gateway, Response, Upstream};

/// What `crossway hash-password` says to this input.
fn hash_password(input: &[u8]) -> (Option<i32>, String, String) {
    let mut child = Command::new(BINARY)
        .arg("hash-password")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A password that is too long is refused before all of it is read.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn alice(hash: &str) -> String {
    format!(
        "{{ name: alice, groups: [gold], credentials: [{{ basic: {{ username: älice, password_hash: \"{hash}\" }} }}] }}"
    )
}

fn ask(gateway: &Gateway, pair: &[u8]) -> Response {
    gateway.send("GET /", &[("Authorization", &format!("Basic {}", STANDARD.encode(pair)))], b"")
}

#[test]
fn basic() {
    let upstream = Upstream::echo();
    let (code, hash, _) = hash_password("geheim:nis ß\n".as_bytes());
    assert_eq!(code, Some(0));
    let gateway = start(&upstream, &alice(hash.trim_end()), "{ basic: { realm: shop } }");
    let missing = gateway.get("/");
    missing.assert_problem(401, "basic_missing");
    assert_eq!(missing.header("www-authenticate"), Some("Basic realm=\"shop\", charset=\"UTF-8\""));
    let wrong = ask(&gateway, "älice:geheim".as_bytes());
    wrong.assert_problem(401, "basic_invalid");
    let long = vec![b'x'; 20_000];
    for pair in [&b"nobody:geheim"[..], b"alice:x", b"", b":", "älice".as_bytes(), b"\xe4lice:geheim", &long] {
        assert_eq!(plain(&ask(&gateway, pair)), plain(&wrong), "all look the same");
    }
    assert!(upstream.received().is_empty());
    for _ in 0..2 {
        assert_eq!(ask(&gateway, "älice:geheim:nis ß".as_bytes()).status, 200);
    }
    for seen in upstream.received() {
        assert_eq!((seen.header("x-consumer-name"), seen.header("authorization")), (Some("alice"), None));
    }
    assert!(gateway.metric("crossway_plugin_events_total{event=\"checked\",plugin=\"basic\"}") >= 3.0);
}

#[test]
fn a_password_that_a_reload_changes_is_not_remembered() {
    let upstream = Upstream::echo();
    let (old, new) = (hash_password(b"old").1, hash_password(b"new").1);
    let mut gateway = start(&upstream, &alice(old.trim_end()), "{ basic: {} }");
    assert_eq!(ask(&gateway, "älice:old".as_bytes()).status, 200);
    assert_eq!(gateway.reload(&config(&upstream, &alice(new.trim_end()), "{ basic: {} }")).status, 200);
    ask(&gateway, "älice:old".as_bytes()).assert_problem(401, "basic_invalid");
    assert_eq!(ask(&gateway, "älice:new".as_bytes()).status, 200);
}

/// Many guesses at a time neither stop the gateway nor keep out who is known.
#[test]
fn guesses_leave_room_for_others() {
    let upstream = Upstream::echo();
    let hash = hash_password(b"secret").1;
    let gateway = start(&upstream, &alice(hash.trim_end()), "{ basic: {} }");
    assert_eq!(ask(&gateway, "älice:secret".as_bytes()).status, 200);
    let busy = std::thread::scope(|scope| {
        let gateway = &gateway;
        let guess = |n: usize| move || ask(gateway, format!("älice:guess-{n}").as_bytes());
        let guesses: Vec<_> = (0..48).map(|n| scope.spawn(guess(n))).collect();
        assert_eq!(ask(gateway, "älice:secret".as_bytes()).status, 200, "it is remembered");
        let answers = guesses.into_iter().map(|guess| guess.join().unwrap());
        answers.filter(|answer| answer.status == 503).inspect(|busy| busy.assert_problem(503, "basic_busy")).count()
    });
    assert!(busy > 0, "48 guesses of one client were checked at a time");
    ask(&gateway, "älice:another".as_bytes()).assert_problem(401, "basic_invalid");
}

#[test]
fn what_cannot_be_a_password_has_no_hash() {
    for (input, why) in [
        (&b""[..], "is empty"),
        (b"\n", "is empty"),
        (b"a\tb", "control characters"),
        (&[b'x'; 600], "longer than 512"),
    ] {
        let (code, printed, said) = hash_password(input);
        assert_eq!((code, printed.as_str()), (Some(1), ""));
        assert!(said.contains(why), "{said}");
    }
    let (one, other) = (hash_password(b"x\r\n").1, hash_password(b"x").1);
    assert!(one.starts_with("$argon2id$v=19$m=19456,t=2,p=1$") && one != other);
}
