//! Names of endpoints, asked of a real name server that knows what it is told.

use crate::harness::{Answer, Dns, Gateway, Upstream, eventually, pass};

fn config(dns: &Dns, endpoint: &str) -> String {
    format!(
        "runtime: {{ threads: 2, dns: {{ servers: [\"{}\"] }}, drain: {{ readiness_delay: 0s }} }}
upstreams: {{ back: {{ endpoints: [{{ {endpoint} }}], retry: {{ attempts: 2 }} }} }}
routes: [{{ name: all, match: {{ path: \"/{{rest...}}\" }}, auth: none, upstream: back }}]
",
        dns.address()
    )
}

/// Servers on the same port of different addresses, which say which one they are.
fn servers<const N: usize>() -> ([Upstream; N], u16) {
    // They close, so that nobody is served by one that has ended.
    let closing = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\n";
    let answer = |number: usize| move |_: &_| Answer::raw(format!("{closing}{number}"));
    let first = Upstream::start(answer(0));
    let port: u16 = first.address().rsplit_once(':').unwrap().1.parse().unwrap();
    let mut first = Some(first);
    let start = |number: usize| match number {
        0 => first.take().unwrap(),
        _ => Upstream::start_on(&format!("127.0.0.{}:{port}", number + 1), answer(number)),
    };
    (std::array::from_fn(start), port)
}

/// How often each server answers.
fn counts<const N: usize>(gateway: &Gateway, requests: usize) -> [usize; N] {
    let mut counts = [0; N];
    for _ in 0..requests {
        let response = gateway.get("/");
        assert_eq!(response.status, 200, "{response:?} {}", response.text());
        counts[response.text().parse::<usize>().unwrap()] += 1;
    }
    counts
}

fn addresses(gateway: &Gateway) -> Vec<String> {
    let shown = gateway.status()["upstreams"][0]["endpoints"].clone();
    shown.as_array().unwrap().iter().map(|e| e["address"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn addresses_are_asked_for_again_when_their_time_is_over() {
    let (_servers, port) = servers::<3>();
    let dns = Dns::start();
    dns.host("erp.test", 1, &["127.0.0.1", "127.0.0.2", "::1"]);
    let gateway = Gateway::start(&config(&dns, &format!("address: \"erp.test:{port}\"")));
    assert_eq!(
        addresses(&gateway),
        [format!("127.0.0.1:{port}"), format!("127.0.0.2:{port}"), format!("[::1]:{port}")]
    );
    dns.host("erp.test", 300, &["127.0.0.3"]);
    eventually("the new address is used", || (addresses(&gateway) == [format!("127.0.0.3:{port}")]).then_some(()));
    assert_eq!(counts::<3>(&gateway, 6), [0, 0, 6]);
    let asked = dns.asked("erp.test");
    pass(std::time::Duration::from_millis(2500));
    assert_eq!(dns.asked("erp.test"), asked, "an answer that is good for minutes is not asked for again");
}

#[test]
fn the_last_good_answer_stays_in_use_and_failures_are_asked_about_less_and_less() {
    let (_servers, port) = servers::<2>();
    let dns = Dns::start();
    dns.host("erp.test", 1, &["127.0.0.1"]);
    let gateway = Gateway::start(&config(&dns, &format!("address: \"erp.test:{port}\"")));
    for break_it in [Dns::fail, Dns::forget] {
        break_it(&dns, "erp.test");
        let before = dns.asked("erp.test");
        eventually("it is asked again", || (dns.asked("erp.test") > before).then_some(()));
        pass(std::time::Duration::from_millis(500));
        assert_eq!(counts::<2>(&gateway, 4), [4, 0]);
    }
    assert!(gateway.stderr().contains("an endpoint's name does not resolve"), "{}", gateway.stderr());
    dns.host("erp.test", 1, &["127.0.0.2"]);
    eventually("the name resolves again", || (addresses(&gateway) == [format!("127.0.0.2:{port}")]).then_some(()));
    assert_eq!(counts::<2>(&gateway, 4), [0, 4]);
    eventually("it is said", || gateway.stderr().contains("an endpoint's name resolves again").then_some(()));
}

#[test]
fn a_name_that_never_resolved_is_no_endpoint_until_it_does() {
    let (_servers, port) = servers::<1>();
    let dns = Dns::start();
    dns.hush("erp_1.test");
    let gateway = Gateway::start(&config(&dns, &format!("address: \"erp_1.test:{port}\"")));
    gateway.get("/").assert_problem(503, "no_endpoint");
    dns.host("erp_1.test", 60, &["127.0.0.1"]);
    eventually("it resolves", || (gateway.get("/").status == 200).then_some(()));
}

#[test]
fn services_bring_ports_weights_and_priorities() {
    let (servers, port) = servers::<3>();
    let dns = Dns::start();
    for (number, host) in ["a.test", "b.test", "c.test"].iter().enumerate() {
        dns.host(host, 60, &[&format!("127.0.0.{}", number + 1)]);
    }
    let name = "_http._tcp.erp.test";
    dns.service(name, 1, &[(10, 30, port, "a.test."), (10, 10, port, "b.test."), (20, 1, port, "c.test.")]);
    let mut gateway = Gateway::start(&config(&dns, &format!("srv: {name}")));
    assert_eq!(counts::<3>(&gateway, 40), [30, 10, 0]);
    let host = servers[0].received()[0].header("host").unwrap().to_owned();
    assert_eq!(host, format!("a.test:{port}"), "Host is the name of the host that serves");
    // The places of the first priority are gone: those of the second serve.
    let [a, b, c] = servers;
    drop((a, b));
    eventually("the next priority serves", || {
        let response = gateway.get("/");
        (response.status == 200 && response.text() == "2").then_some(())
    });
    // One host fails to resolve: its last address stays in use, beside what is new.
    dns.fail("c.test");
    dns.service(name, 1, &[(5, 1, port, "c.test."), (5, 0, 1, "d.test.")]);
    dns.host("d.test", 60, &["127.0.0.1"]);
    eventually("both are known", || {
        (addresses(&gateway) == ["127.0.0.1:1".to_owned(), format!("127.0.0.3:{port}")]).then_some(())
    });
    assert_eq!(counts::<3>(&gateway, 4), [0, 0, 4]);
    drop(c);
    // A reload that drains it asks anew, with what is known as a beginning.
    dns.fail(name);
    assert_eq!(gateway.reload(&config(&dns, &format!("srv: {name}, weight: 3"))).status, 200);
    assert_eq!(addresses(&gateway).len(), 2);
}

#[test]
fn names_of_this_machine_need_no_server() {
    let server = Upstream::echo();
    let port = server.address().rsplit_once(':').unwrap().1;
    let dns = Dns::start();
    let gateway = Gateway::start(&config(&dns, &format!("address: \"localhost:{port}\"")));
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!(dns.asked("localhost"), 0);
}
