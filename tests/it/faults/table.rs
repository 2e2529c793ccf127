//! What upstreams can do to a gateway, each with counts of what became of the requests. `scripts/conformance faults` shows
//! them as a table.

mod limits;
mod storm;

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    row::{Done, Row, ask},
    wild::{BlackHole, Then, Wild, Wire},
};
use crate::harness::{
    Answer, Connection, Folder, Gateway, Redis, Upstream, closed_address, connect_from, eventually,
    frames::{End, Http2, request},
};

/// More than anything takes on a busy machine.
const SLACK: Duration = Duration::from_secs(5);

fn config(endpoints: &[&str], settings: &str) -> String {
    let list: Vec<_> = endpoints.iter().map(|e| format!("{{ address: \"{e}\" }}")).collect();
    format!(
        "limits: {{ connections: {{ per_client: 0 }} }}
upstreams: {{ back: {{ endpoints: [{}], {settings} }} }}
routes:
  - {{ name: own, match: {{ path: \"/own/{{rest...}}\" }}, auth: none, plugins: [{{ respond: {{ status: 200 }} }}] }}
  - {{ name: all, match: {{ path: \"/{{rest...}}\" }}, auth: none, upstream: back }}\n",
        list.join(", ")
    )
}

fn start(endpoints: &[&str], settings: &str) -> Gateway {
    Gateway::start(&config(endpoints, settings))
}

fn good() -> Wild {
    Wild::start(|asked, _| {
        asked.answer();
        Then::On
    })
}

/// Open files of the gateway.
fn files(gateway: &Gateway) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).unwrap().count()
}

/// Memory that the gateway holds, in bytes.
fn memory(gateway: &Gateway) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
fn x01_an_endpoint_dies_before_its_answer() {
    let mut row = Row::new("X01", "an endpoint of two dies before its answer");
    let dying = Wild::start(|asked, _| {
        asked.reset();
        Then::Close
    });
    let alive = good();
    // Every second request is tried again here, which is more than the default allows.
    let retry = "retry: { attempts: 1, on: [connect_error, reset], budget: 100% }";
    let gateway = start(&[dying.address(), alive.address()], retry);
    row.send(&gateway.address(), "GET", "/x01", 200);
    row.must_succeed("GET");
    let posts = row.send(&gateway.address(), "POST", "/x01", 100);
    let statuses: Vec<u16> = posts.iter().map(Done::status).collect();
    row.check(statuses.iter().all(|status| matches!(status, 200 | 502)), || format!("{statuses:?}"));
    let seen = [dying.seen(), alive.seen()].concat();
    row.must_be_once("POST", &seen);
    row.note(format!("{} POST answered 502, none sent again", statuses.iter().filter(|s| **s == 502).count()));
    row.end();
}

#[test]
fn x02_an_endpoint_dies_within_its_answer() {
    let mut row = Row::new("X02", "an endpoint dies half way through its answer");
    let half = Wild::start(|asked, _| {
        if asked.target.starts_with("/chunked") {
            asked.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n");
        } else {
            asked.say("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf");
        }
        Then::Close
    });
    let listener = "listeners: [{ name: public, address: \"127.0.0.1:0\", http2: true }]\n";
    let gateway = Gateway::start(&(listener.to_owned() + &config(&[half.address()], "retry: { attempts: 1 }")));
    let mut seen_cut = 0;
    for (method, path) in [("GET", "/length"), ("GET", "/chunked"), ("POST", "/length"), ("POST", "/chunked")] {
        let done = row.send(&gateway.address(), method, path, 40);
        let whole = done.iter().filter(|done| done.is_whole()).count();
        seen_cut += done.len() - whole;
        row.check(whole == 0, || format!("{whole} {method} {path} look whole"));
    }
    let mut broken = 0;
    for at in 0..20 {
        let mut client = Http2::open(&gateway.address());
        client.ask(1, &request("GET", &format!("/length/{at}")));
        broken += usize::from(matches!(client.end_of(1), End::Reset(_)));
    }
    row.check(broken == 20, || format!("{broken} of 20 streams of HTTP/2 were reset"));
    row.must_be_once("POST", &half.seen());
    row.note(format!("{seen_cut} over HTTP/1.1 and {broken} over HTTP/2 are seen to be cut"));
    row.end();
}

#[test]
fn x03_a_pooled_connection_is_reset() {
    let mut row = Row::new("X03", "a connection is reset while it idles");
    let upstream = Wild::start(|asked, _| {
        asked.answer();
        // It is reset when the next request is on its way, or just before.
        if asked.at.1 == 1 {
            asked.reset();
            return Then::Close;
        }
        Then::On
    });
    let gateway = start(&[upstream.address()], "retry: { attempts: 4, on: [connect_error] }");
    row.send(&gateway.address(), "GET", "/x03", 200);
    row.must_succeed("GET");
    let posts = row.send(&gateway.address(), "POST", "/x03", 100);
    let statuses: Vec<u16> = posts.iter().map(Done::status).collect();
    row.check(statuses.iter().all(|status| matches!(status, 200 | 502)), || format!("{statuses:?}"));
    row.must_be_once("POST", &upstream.seen());
    row.note(format!("{} POST answered 502", statuses.iter().filter(|s| **s == 502).count()));
    row.end();
}

#[test]
fn x04_an_answer_that_trickles() {
    let mut row = Row::new("X04", "a response header comes a byte at a time");
    let upstream = Wild::start(|asked, state| {
        for byte in b"HTTP/1.1 200 OK\r\nX-Long: ".iter().chain(std::iter::repeat(&b'x')).take(2000) {
            if state.stopped.load(Ordering::SeqCst) {
                break;
            }
            asked.say([*byte]);
            if matches!(asked.stream.set_nonblocking(true).and_then(|()| asked.stream.peek(&mut [0])), Ok(0)) {
                break;
            }
            let _ = asked.stream.set_nonblocking(false);
            crate::harness::pass(Duration::from_millis(50));
        }
        Then::Close
    });
    let bound = Duration::from_millis(500);
    let gateway = start(&[upstream.address()], "timeouts: { first_byte: 500ms }, retry: { attempts: 0 }");
    for method in ["GET", "POST"] {
        let done = row.send(&gateway.address(), method, "/x04", 16);
        let late = done.iter().filter(|done| done.status() == 504 && done.took >= bound).count();
        row.check(late == 16, || format!("{late} of 16 {method} ended in 504 after the time-out"));
    }
    row.must_take(bound + SLACK);
    eventually("no connection is kept", || (upstream.open() == 0).then_some(()));
    let connections = upstream.connections();
    row.check(connections == 32, || format!("{connections} connections for 32 requests"));
    row.note("no connection was used again");
    row.end();
}

#[test]
fn x05_one_endpoint_of_three_is_down() {
    let mut row = Row::new("X05", "one endpoint of three refuses connections");
    let (one, two) = (good(), good());
    let gateway = start(&[one.address(), &closed_address(), two.address()], "");
    row.send(&gateway.address(), "GET", "/x05", 300);
    row.send(&gateway.address(), "POST", "/x05", 150);
    row.must_succeed("GET");
    row.must_succeed("POST");
    let seen = [one.seen(), two.seen()].concat();
    row.must_be_once("POST", &seen);
    row.end();
}

#[test]
fn x06_a_black_hole() {
    let mut row = Row::new("X06", "one endpoint of two never takes a connection");
    let (hole, alive) = (BlackHole::dig(), good());
    let settings = "timeouts: { connect: 400ms }, retry: { attempts: 1, on: [connect_error] }";
    let gateway = start(&[&hole.address, alive.address()], settings);
    row.send(&gateway.address(), "GET", "/x06", 40);
    row.send(&gateway.address(), "POST", "/x06", 40);
    row.must_succeed("GET");
    row.must_succeed("POST");
    row.must_be_once("POST", &alive.seen());
    row.must_take(Duration::from_millis(400) + SLACK);
    row.end();
}

#[test]
fn x07_an_upstream_that_never_answers() {
    let mut row = Row::new("X07", "an upstream hangs; it is bounded, and others are not concerned");
    let hung = Wild::start(|asked, state| {
        asked.hang(state);
        Then::Close
    });
    let alive = good();
    let gateway = Gateway::start(&format!(
        "limits: {{ connections: {{ per_client: 0 }} }}
upstreams:
  hung: {{ endpoints: [{{ address: \"{}\" }}], max_in_flight: 8, timeouts: {{ first_byte: 2s }}, retry: {{ attempts: 0 }} }}
  back: {{ endpoints: [{{ address: \"{}\" }}] }}
routes:
  - {{ name: hung, match: {{ path: \"/hung/{{rest...}}\" }}, auth: none, upstream: hung }}
  - {{ name: all, match: {{ path: \"/{{rest...}}\" }}, auth: none, upstream: back }}\n",
        hung.address(),
        alive.address()
    ));
    let address = gateway.address();
    let (hanging, others) = std::thread::scope(|scope| {
        let hanging: Vec<_> = (0..64)
            .map(|at| (at, &address))
            .map(|(at, a)| scope.spawn(move || ask(a, "GET", format!("/hung/{at}"))))
            .collect();
        let others: Vec<Done> = (0..200).map(|at| ask(&address, "GET", format!("/x07/{at}"))).collect();
        (hanging.into_iter().map(|one| one.join().unwrap()).collect::<Vec<_>>(), others)
    });
    let slowest = others.iter().map(|one| one.took).max().unwrap_or_default();
    let lost = others.iter().filter(|one| one.status() != 200).count();
    row.check(lost == 0, || format!("{lost} of the others failed"));
    let (late, busy) = (statuses(&hanging, 504), statuses(&hanging, 503));
    row.check(late + busy == 64 && late >= 8, || format!("{late} in time-outs, {busy} turned away, of 64"));
    let most = hung.state.most_open.load(Ordering::SeqCst);
    row.check(most <= 8, || format!("{most} connections to the upstream"));
    row.note(format!(
        "{late} ended in 504, {busy} in 503 at once; most at the upstream {most}; slowest of the others {} ms",
        slowest.as_millis()
    ));
    hanging.into_iter().chain(others).for_each(|one| row.add(one));
    row.end();
}

fn statuses(done: &[Done], status: u16) -> usize {
    done.iter().filter(|one| one.status() == status).count()
}

#[test]
fn x08_a_name_that_does_not_resolve() {
    let mut row = Row::new("X08", "the name of an upstream does not resolve (NXDOMAIN)");
    let alive = good();
    let gateway = Gateway::start(&format!(
        "upstreams:
  back: {{ endpoints: [{{ address: \"{}\" }}] }}
  bad: {{ endpoints: [{{ address: \"does-not-exist.invalid:80\" }}] }}
routes:
  - {{ name: bad, match: {{ path: \"/bad/{{rest...}}\" }}, auth: none, upstream: bad }}
  - {{ name: all, match: {{ path: \"/{{rest...}}\" }}, auth: none, upstream: back }}\n",
        alive.address()
    ));
    let bad = row.send(&gateway.address(), "POST", "/bad", 50);
    let told = statuses(bad, 503);
    row.check(told == 50, || format!("{told} of 50 were answered 503"));
    row.send(&gateway.address(), "GET", "/x08", 100);
    row.must_succeed("GET");
    row.must_take(SLACK);
    row.end();
}

/// Answers one request with its target; nothing where the handshake fails.
fn say_target(mut tls: rustls::StreamOwned<rustls::ServerConnection, std::net::TcpStream>) {
    let (mut header, mut buffer) = (Vec::new(), [0; 4096]);
    while !header.windows(4).any(|end| end == b"\r\n\r\n") {
        let Ok(read @ 1..) = tls.read(&mut buffer) else { return };
        header.extend_from_slice(&buffer[..read]);
    }
    let text = String::from_utf8_lossy(&header).into_owned();
    let target = text.split(' ').nth(1).unwrap_or_default();
    let length = target.len();
    let _ = write!(tls, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{target}");
    tls.conn.send_close_notify();
    let _ = tls.flush();
}

/// A server that shakes hands with this certificate, answers, and remembers what each connection began with.
fn tls_server(folder: &Folder, name: &str, address: &str) -> (String, Arc<std::sync::Mutex<Vec<u8>>>) {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
    let certificate = CertificateDer::from_pem_file(folder.file(name, "pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.file(name, "key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(builder.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap());
    let listener = TcpListener::bind(address).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let begun = Arc::<std::sync::Mutex<Vec<u8>>>::default();
    let kept = Arc::clone(&begun);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (config, begun) = (Arc::clone(&config), Arc::clone(&kept));
            std::thread::spawn(move || {
                let mut first = [0];
                let _ = stream.peek(&mut first);
                begun.lock().unwrap().push(first[0]);
                let tls = rustls::StreamOwned::new(rustls::ServerConnection::new(config).unwrap(), stream);
                say_target(tls);
            });
        }
    });
    (address, begun)
}

#[test]
fn x09_certificates_that_are_not_to_be_trusted() {
    let mut row = Row::new("X09", "an upstream's certificate has expired, is another's, or of another authority");
    let (ours, others) = (Folder::new(), Folder::new());
    ours.make("good", &["erp.internal"], 2040);
    ours.make("expired", &["erp.internal"], 2020);
    ours.make("wrong", &["crm.internal"], 2040);
    others.make("foreign", &["erp.internal"], 2040);
    let tls = |folder: &Folder| {
        let ca = folder.file("ca", "pem");
        format!("tls: {{ ca: \"{}\", server_name: erp.internal }}, retry: {{ attempts: 1 }}", ca.display())
    };
    let (mut begun, mut refused) = (Vec::new(), 0);
    for (folder, name) in [(&ours, "expired"), (&ours, "wrong"), (&others, "foreign")] {
        let (address, first) = tls_server(folder, name, "127.0.0.1:0");
        let gateway = start(&[&address], &tls(&ours));
        let done = row.send(&gateway.address(), "POST", "/x09", 30);
        let count = statuses(done, 502);
        refused += count;
        row.check(count == 30, || format!("{count} of 30 were refused: {name}"));
        begun.push(first);
    }
    // The authority is changed: nothing passes until the gateway knows the new one.
    let (address, first) = tls_server(&others, "foreign", "127.0.0.1:0");
    begun.push(first);
    let mut gateway = start(&[&address], &tls(&ours));
    let old = row.send(&gateway.address(), "POST", "/x09", 30);
    let count = statuses(old, 502);
    refused += count;
    row.check(count == 30, || format!("{count} of 30 were refused: an unknown authority"));
    assert_eq!(gateway.reload(&config(&[&address], &tls(&others))).status, 200);
    row.send(&gateway.address(), "GET", "/x09", 30);
    row.must_succeed("GET");
    let plain = begun.iter().flat_map(|first| first.lock().unwrap().clone()).filter(|first| *first != 0x16).count();
    row.check(plain == 0, || format!("{plain} connections began in the clear"));
    row.note(format!("{refused} refused, {plain} in the clear; served once the new authority is known"));
    row.end();
}

#[test]
fn x11_a_peer_that_is_gone_without_a_word() {
    let mut row = Row::new("X11", "a pooled connection is dead, and nobody says so (HTTP/1)");
    let upstream = Wild::start(|asked, state| {
        if asked.at.1 > 0 {
            asked.hang(state);
            return Then::Close;
        }
        asked.answer();
        Then::On
    });
    let gateway = start(&[upstream.address()], "timeouts: { first_byte: 400ms }, retry: { attempts: 0 }");
    eventually("nothing is open", || (gateway.status()["connections"] == 0).then_some(()));
    let before = files(&gateway);
    row.send(&gateway.address(), "GET", "/x11", 80);
    let (fine, late) = (statuses(row.done(), 200), statuses(row.done(), 504));
    row.check(fine + late == 80 && late > 0, || format!("{fine} served, {late} in time-outs, of 80"));
    row.must_take(Duration::from_millis(400) + SLACK);
    let idle = upstream.connections() - late;
    eventually("dead connections are closed", || (upstream.open() <= idle).then_some(()));
    let after = files(&gateway);
    row.check(after <= before + idle + 4, || format!("{before} open files before, {after} after, {idle} idle"));
    row.note(format!(
        "{late} in 504, no dead connection used twice, {after} open files with {idle} idle, {before} before"
    ));
    row.end();
}

#[test]
fn x12_a_bad_wire() {
    let mut row = Row::new("X12", "each piece is 100 ms late each way, one in a hundred is sent again");
    let upstream = good();
    let wire = Wire::to(upstream.address(), Duration::from_millis(100), Duration::from_millis(300));
    let gateway = start(&[&wire.address], "timeouts: { first_byte: 10s }");
    row.send(&gateway.address(), "GET", "/x12", 160);
    row.send(&gateway.address(), "POST", "/x12", 160);
    row.must_succeed("GET");
    row.must_succeed("POST");
    row.must_be_once("POST", &upstream.seen());
    row.must_be_once("GET", &upstream.seen());
    row.must_take(Duration::from_secs(1) + SLACK);
    row.end();
}

#[test]
fn x17_redis_is_down() {
    let mut row = Row::new("X17", "the server with the API keys is stopped, and comes back");
    let (upstream, mut redis) = (good(), Redis::start());
    let gateway = Gateway::start(&format!(
        "stores: {{ shared: {{ redis: \"{}\", timeout: 2s }} }}
keys: {{ store: shared }}
consumers: [{{ name: acme }}]
upstreams: {{ back: {{ endpoints: [{{ address: \"{}\" }}] }} }}
routes: [{{ name: all, match: {{ path: \"/{{rest...}}\" }}, plugins: [{{ api_key: {{ query: key, hide: false }} }}], upstream: back }}]\n",
        redis.url(),
        upstream.address()
    ));
    let made = gateway.admin_send("POST /api/keys", r#"{"consumer": "acme"}"#).json();
    let key = made["key"].as_str().unwrap().to_owned();
    let round = |row: &mut Row, count: usize| {
        for at in 0..count {
            let began = Instant::now();
            let target = format!("/x17/{at}");
            let answer = gateway.send(&format!("GET {target}"), &[("X-API-Key", &key)], b"");
            row.add(Done { method: "GET", target, answer: Some(answer), took: began.elapsed() });
        }
    };
    round(&mut row, 40);
    redis.stop();
    round(&mut row, 100);
    let refused = gateway.send("GET /stranger", &[("X-API-Key", "nobody-knows-this-key")], b"").status;
    row.check(refused == 401, || format!("an unknown key was answered {refused}"));
    redis.start_again();
    eventually("keys can be made again", || {
        (gateway.admin_send("POST /api/keys", r#"{"consumer": "acme"}"#).status == 201).then_some(())
    });
    round(&mut row, 40);
    row.must_succeed("GET");
    row.must_take(SLACK);
    row.end();
}

#[test]
fn x19_the_introspection_endpoint_hangs() {
    let mut row = Row::new("X19", "the service that tokens are checked at hangs");
    let (upstream, hung) = (
        good(),
        Wild::start(|asked, state| {
            asked.hang(state);
            Then::Close
        }),
    );
    let gateway = Gateway::start(&format!(
        "upstreams: {{ back: {{ endpoints: [{{ address: \"{}\" }}] }} }}
routes:
  - {{ name: open, match: {{ path: \"/x19/{{rest...}}\" }}, auth: none, upstream: back }}
  - name: closed
    match: {{ path: /closed }}
    upstream: back
    plugins: [{{ oauth2_introspection: {{ url: \"http://{}/introspect\", client_id: g, client_secret: secret-of-the-gateway, timeout: 500ms }} }}]\n",
        upstream.address(),
        hung.address()
    ));
    let address = gateway.address();
    let told = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..48)
            .map(|at| {
                let address = &address;
                scope.spawn(move || {
                    let began = Instant::now();
                    let token = format!("Bearer token-number-{at}");
                    let answer = crate::harness::exchange(address, "GET /closed", &[("Authorization", &token)], b"");
                    Done { method: "GET", target: "/closed".into(), answer: Some(answer), took: began.elapsed() }
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect::<Vec<_>>()
    });
    let closed = statuses(&told, 503);
    row.check(closed == 48, || format!("{closed} of 48 were answered 503"));
    for one in told {
        row.add(one);
    }
    let others = row.send(&gateway.address(), "POST", "/x19", 50);
    let lost = others.iter().filter(|one| one.status() != 200).count();
    row.check(lost == 0, || format!("{lost} of the others failed"));
    row.must_take(Duration::from_millis(500) + SLACK);
    row.check(upstream.seen().iter().all(|(_, target)| target != "/closed"), || "somebody got through".into());
    eventually("nothing is left at the service", || (hung.open() == 0).then_some(()));
    row.note(format!("most at the service {}", hung.state.most_open.load(Ordering::SeqCst)));
    row.end();
}

#[test]
fn x35_clients_that_read_late() {
    const SIZE: usize = 8 << 20;
    const CLIENTS: usize = 40;
    let mut row = Row::new("X35", "an upstream sends 8 MiB to each of 40 clients that do not read yet");
    let upstream = Upstream::start(|request| {
        let mut body = request.target.clone().into_bytes();
        body.resize(SIZE, b'.');
        Answer::ok(body)
    });
    let gateway = start(&[upstream.address()], "");
    assert_eq!(gateway.get("/warm").status, 200);
    let before = memory(&gateway);
    let mut clients: Vec<Connection> = (0..CLIENTS)
        .map(|at| {
            let mut client = Connection::over(connect_from("127.0.0.1", 8192, &gateway.address()));
            let (method, body) = if at % 2 == 0 { ("GET", "\r\n") } else { ("POST", "Content-Length: 4\r\n\r\nbody") };
            client.send(format!("{method} /x35/{at} HTTP/1.1\r\nHost: t\r\n{body}").as_bytes());
            client
        })
        .collect();
    eventually("all are being answered", || (upstream.received().len() > CLIENTS).then_some(()));
    let mut most = 0;
    for _ in 0..20 {
        crate::harness::pass(Duration::from_millis(50));
        most = most.max(memory(&gateway));
    }
    let grown = most.saturating_sub(before);
    row.check(grown < (CLIENTS as u64) << 20, || format!("{} KiB more for {CLIENTS} clients", grown >> 10));
    for (at, client) in clients.iter_mut().enumerate() {
        let answer = client.read("GET");
        let length = answer.as_ref().map_or(0, |answer| answer.body.len());
        row.check(length == SIZE, || format!("{length} bytes"));
        row.add(Done { method: "GET", target: format!("/x35/{at}"), answer, took: Duration::ZERO });
    }
    row.must_succeed("GET");
    row.note(format!("{} KiB more for each client", (grown >> 10) / CLIENTS as u64));
    row.end();
}

/// One request of a tenant.
fn of_tenant(address: &str, tenant: &str, target: String) -> Done {
    let began = Instant::now();
    let answer = crate::harness::exchange(address, &format!("GET {target}"), &[("X-Tenant", tenant)], b"");
    Done { method: "GET", target, answer: Some(answer), took: began.elapsed() }
}

/// Six tenants that ask fifteen times each, well within their limits.
fn polite(address: &str, round: usize) -> Vec<Done> {
    let all = (0..15).flat_map(|at| (0..6).map(move |tenant| (at, tenant)));
    all.map(|(at, tenant)| of_tenant(address, &format!("{round}-{tenant}"), format!("/x42/{round}/{tenant}/{at}")))
        .collect()
}

fn p99(done: &[Done]) -> u128 {
    let mut times: Vec<Duration> = done.iter().map(|one| one.took).collect();
    times.sort();
    times[times.len() * 99 / 100].as_millis()
}

/// Four clients of one tenant that ask without end, while the polite ask; what became of these, and the statuses of those.
fn beside_noise(address: &str) -> (Vec<Done>, Vec<u16>) {
    let (noise, over) = (std::sync::Mutex::new(Vec::new()), AtomicBool::new(false));
    let loud = || {
        while !over.load(Ordering::SeqCst) {
            let status = of_tenant(address, "noisy", "/noise".into()).status();
            noise.lock().unwrap().push(status);
        }
    };
    let done = std::thread::scope(|scope| {
        let _finish = crate::harness::Finish(&over);
        (0..4).for_each(|_| drop(scope.spawn(loud)));
        let done = polite(address, 1);
        // So that the noise is well above its limit, however slow the machine.
        eventually("there is noise", || (noise.lock().unwrap().len() >= 200).then_some(()));
        done
    });
    (done, noise.into_inner().unwrap())
}

#[test]
fn x42_a_noisy_neighbour() {
    let mut row = Row::new("X42", "one caller asks without end; the others are served");
    let upstream = good();
    let gateway = Gateway::start(&format!(
        "limits: {{ connections: {{ per_client: 0 }} }}
upstreams: {{ back: {{ endpoints: [{{ address: \"{}\" }}] }} }}
routes:
  - name: all
    match: {{ path: \"/{{rest...}}\" }}
    auth: none
    plugins:
      - rate_limit: {{ policies: [{{ name: each, key: [\"header:X-Tenant\"], limit: 20, per: 1s, burst: 20 }}] }}
      - concurrency: {{ key: [\"header:X-Tenant\"], max_in_flight: 2 }}
    upstream: back\n",
        upstream.address()
    ));
    let address = gateway.address();
    let quiet = polite(&address, 0);
    let began = Instant::now();
    let (beside, noise) = beside_noise(&address);
    let most = 20 + 20 * (began.elapsed().as_secs() + 1);
    let allowed = noise.iter().filter(|status| **status == 200).count() as u64;
    row.check(allowed <= most, || format!("the noisy one got {allowed} through, of {most}"));
    let (alone, with, count) = (p99(&quiet), p99(&beside), noise.len());
    row.note(format!(
        "p99 of the others {alone} ms alone, {with} ms beside {count} requests of one, {allowed} let through"
    ));
    for one in quiet.into_iter().chain(beside) {
        row.add(one);
    }
    row.must_succeed("GET");
    row.end();
}
