//! Upstreams that misbehave: nothing is lost that need not be, nothing is done twice, nothing is mixed up.

mod row;
mod table;
mod wild;

use std::{
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::atomic::{AtomicUsize, Ordering},
};

use crate::harness::{Answer, Gateway, Upstream, closed_address};

fn start(endpoints: &[&str], settings: &str) -> Gateway {
    let list: Vec<_> = endpoints.iter().map(|e| format!("{{ address: \"{e}\" }}")).collect();
    Gateway::start(&format!(
        "upstreams: {{ back: {{ endpoints: [{}], {settings} }} }}
routes: [{{ name: all, match: {{ path: \"/{{rest...}}\" }}, auth: none, upstream: back }}]\n",
        list.join(", ")
    ))
}

#[test]
fn endpoints_take_turns_by_weight() {
    let (first, second) = (Upstream::start(|_| Answer::ok("1")), Upstream::start(|_| Answer::ok("2")));
    let gateway = Gateway::start(&format!(
        "upstreams: {{ back: {{ endpoints: [{{ address: \"{}\", weight: 3 }}, {{ address: \"{}\" }}] }} }}
routes: [{{ name: all, match: {{ path: / }}, auth: none, upstream: back }}]\n",
        first.address(),
        second.address()
    ));
    for _ in 0..40 {
        assert_eq!(gateway.get("/").status, 200);
    }
    assert_eq!((first.received().len(), second.received().len()), (30, 10));
}

#[test]
fn a_websocket_that_the_upstream_breaks_off_is_not_begun_anew() {
    const SWITCH: &[u8] = b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = Gateway::start(&format!(
        "upstreams: {{ back: {{ endpoints: [{{ address: \"{}\" }}], retry: {{ attempts: 2 }} }} }}
routes: [{{ name: all, match: {{ path: / }}, auth: none, upstream: back, websocket: {{ idle: 2s }} }}]\n",
        listener.local_addr().unwrap()
    ));
    let mut client = TcpStream::connect(gateway.address()).unwrap();
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
        .unwrap();
    let mut upstream = BufReader::new(listener.accept().unwrap().0);
    while upstream.by_ref().lines().next().unwrap().unwrap() != "" {}
    upstream.get_mut().write_all(SWITCH).unwrap();
    let mut header = BufReader::new(client.try_clone().unwrap());
    while header.by_ref().lines().next().unwrap().unwrap() != "" {}
    // Fails where the gateway has closed by now; what follows is looked at all the same.
    let _ = client.write_all(&[0x81, 0x85, 0, 0, 0, 0, b'h', b'e', b'l', b'l', b'o']);
    // Closing with bytes unread resets the connection.
    upstream.get_ref().peek(&mut [0]).unwrap();
    drop(upstream);
    let mut rest = Vec::new();
    let _ = header.read_to_end(&mut rest);
    assert_eq!(rest, b"", "nothing follows the switch");
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "one attempt only");
}

#[test]
fn a_connection_closed_while_idle_costs_no_get_and_repeats_no_post() {
    // The server closes each connection after its answer without saying so: the pooled connection is stale.
    let upstream = Upstream::start(|r| Answer::ok(r.target.clone()).closing());
    let gateway = start(&[upstream.address()], "retry: { attempts: 2 }");
    for at in 0..50 {
        assert_eq!(gateway.get(&format!("/{at}")).text(), format!("/{at}"));
    }
    let mut delivered = 0;
    for at in 0..50 {
        let answer = gateway.send(&format!("POST /post-{at}"), &[], b"once");
        assert!(matches!(answer.status, 200 | 502), "{}", answer.status);
        delivered += usize::from(answer.status == 200);
    }
    let posts: Vec<_> = upstream.received().into_iter().filter(|r| r.method == "POST").map(|r| r.target).collect();
    let mut once = posts.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), posts.len(), "a POST came twice");
    assert!(posts.len() >= delivered);
}

#[test]
fn a_reset_before_the_answer_is_tried_again_for_gets_only() {
    let count = AtomicUsize::new(0);
    let upstream = Upstream::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 | 2 => Answer::raw(""),
        _ => Answer::ok("fine"),
    });
    let gateway = start(&[upstream.address()], "retry: { attempts: 1, on: [reset] }");
    assert_eq!(gateway.get("/").text(), "fine");
    gateway.send("POST /", &[], b"x").assert_problem(502, "upstream_reset");
    assert_eq!(upstream.received().len(), 3);
}

#[test]
fn one_dead_endpoint_of_three_loses_no_get() {
    let (first, second) = (Upstream::start(|_| Answer::ok("x")), Upstream::start(|_| Answer::ok("x")));
    let dead = closed_address();
    let gateway = start(&[first.address(), &dead, second.address()], "");
    for _ in 0..60 {
        assert_eq!(gateway.get("/").status, 200);
    }
}

#[test]
fn a_name_that_does_not_resolve_is_503_and_stops_nothing_else() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&format!(
        "upstreams:
  good: {{ endpoints: [{{ address: \"{}\" }}] }}
  named: {{ endpoints: [{{ address: \"localhost:{}\" }}] }}
  bad: {{ endpoints: [{{ address: \"does-not-exist.invalid:80\" }}] }}
routes:
  - {{ name: good, match: {{ path: /good }}, auth: none, upstream: good }}
  - {{ name: named, match: {{ path: /named }}, auth: none, upstream: named }}
  - {{ name: bad, match: {{ path: /bad }}, auth: none, upstream: bad }}\n",
        upstream.address(),
        upstream.address().rsplit(':').next().unwrap(),
    ));
    gateway.get("/bad").assert_problem(503, "no_endpoint");
    assert_eq!(gateway.get("/good").status, 200);
    let named = gateway.get("/named").json();
    assert!(named["headers"].to_string().contains("host: localhost:"), "{named}");
}

#[test]
fn answers_are_never_mixed_up() {
    let upstream = Upstream::start(|r| Answer::ok(r.target.clone()));
    let gateway = start(&[upstream.address()], "");
    let address = gateway.address();
    let clients: Vec<_> = (0..8)
        .map(|client| {
            let address = address.clone();
            std::thread::spawn(move || {
                let mut connection = crate::harness::Connection::open(&address);
                for at in 0..100 {
                    connection.send(format!("GET /{client}/{at} HTTP/1.1\r\nHost: t\r\n\r\n").as_bytes());
                    assert_eq!(connection.read("GET").unwrap().text(), format!("/{client}/{at}"));
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
}

mod tls {
    //! TLS to upstreams is verified, always.

    use std::{
        io::Write as _,
        process::{Child, Command, Stdio},
    };

    use crate::harness::{Gateway, closed_address, eventually};

    struct Server {
        child: Child,
        address: String,
        folder: tempfile::TempDir,
    }

    impl Drop for Server {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    /// A TLS server nobody here wrote, with a certificate for this name.
    fn server(name: &str) -> Server {
        let folder = tempfile::tempdir().unwrap();
        let key = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        std::fs::write(folder.path().join("cert.pem"), key.cert.pem()).unwrap();
        std::fs::write(folder.path().join("key.pem"), key.signing_key.serialize_pem()).unwrap();
        std::fs::File::create(folder.path().join("hello")).unwrap().write_all(b"over TLS\n").unwrap();
        let address = closed_address();
        let child = Command::new("openssl")
            .args(["s_server", "-quiet", "-WWW", "-accept", &address, "-cert", "cert.pem", "-key", "key.pem"])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl is installed");
        eventually("the TLS server listens", || std::net::TcpStream::connect(&address).is_ok().then_some(()));
        Server { child, address, folder }
    }

    fn ask(server: &Server, tls: &str) -> crate::harness::Response {
        let gateway = Gateway::start(&format!(
            "upstreams: {{ back: {{ endpoints: [{{ address: \"{}\" }}], tls: {tls}, retry: {{ attempts: 0 }} }} }}
routes: [{{ name: all, match: {{ path: \"/{{rest...}}\" }}, auth: none, upstream: back }}]\n",
            server.address
        ));
        gateway.get("/hello")
    }

    #[test]
    fn a_certificate_of_the_named_authority_for_the_named_server_is_trusted() {
        let server = server("erp.internal");
        let ca = server.folder.path().join("cert.pem");
        let answer = ask(&server, &format!("{{ ca: \"{}\", server_name: erp.internal }}", ca.display()));
        assert_eq!((answer.status, answer.text().as_str()), (200, "over TLS\n"));
    }

    #[test]
    fn any_other_is_not() {
        let server = server("erp.internal");
        let ca = server.folder.path().join("cert.pem");
        let wrong_name = ask(&server, &format!("{{ ca: \"{}\", server_name: crm.internal }}", ca.display()));
        wrong_name.assert_problem(502, "upstream_tls");
        ask(&server, "{ server_name: erp.internal }").assert_problem(502, "upstream_tls");
    }
}
