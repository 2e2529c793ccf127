//! Every endpoint answers 503.

use super::*;

/// Upstreams that answer 503, with this field, until they are told that the storm is over.
fn stormy(field: &'static str) -> (Arc<AtomicBool>, [Wild; 2]) {
    let over = Arc::new(AtomicBool::new(false));
    let servers = [(); 2].map(|()| {
        let over = Arc::clone(&over);
        Wild::start(move |asked, _| {
            if over.load(Ordering::SeqCst) {
                asked.answer();
            } else {
                asked.say(format!("HTTP/1.1 503 Unavailable\r\n{field}Content-Length: 5\r\n\r\nstorm"));
            }
            Then::On
        })
    });
    (over, servers)
}

fn attempts(servers: &[Wild; 2]) -> usize {
    servers.iter().map(|server| server.seen().len()).sum()
}

fn with_code(done: &[Done], code: &str) -> usize {
    let says = |one: &&Done| one.answer.as_ref().is_some_and(|answer| answer.text().contains(code));
    done.iter().filter(says).count()
}

#[test]
fn x10_all_upstreams_answer_503() {
    let mut row = Row::new("X10", "all endpoints answer 503: retries stay few, and a circuit opens");
    let (over, servers) = stormy("");
    let endpoints = servers.each_ref().map(Wild::address);
    let retry = "retry: { attempts: 3, on: [503], budget: 20%, min_per_second: 0 }";
    let gateway = start(&endpoints, retry);
    let asked = row.send(&gateway.address(), "GET", "/x10", 400).len();
    let made = attempts(&servers);
    row.check(made * 10 <= asked * 12, || format!("{made} attempts for {asked} requests"));
    row.check(made > asked, || "nothing was tried again".into());
    let posts = row.send(&gateway.address(), "POST", "/x10", 100).len();
    row.check(attempts(&servers) == made + posts, || format!("{posts} POST came {} times", attempts(&servers) - made));
    row.must_be_once("POST", &servers.each_ref().map(Wild::seen).concat());
    over.store(true, Ordering::SeqCst);
    row.note(format!("{made} attempts for {asked} GET"));

    // What asks to be left alone is not asked again, its word goes to the client, and then nothing is sent.
    let (over, servers) = stormy("Retry-After: 7\r\n");
    let endpoints = servers.each_ref().map(Wild::address);
    let gateway = start(&endpoints, &format!("{retry}, circuit_breaker: {{ min_requests: 20, open_for: 2s }}"));
    let began = Instant::now();
    while row.send(&gateway.address(), "GET", "/x10/open", 20).iter().all(|one| one.status() == 503)
        && attempts(&servers) < 20
    {}
    let opened = eventually("the circuit opens", || {
        let refused = with_code(row.send(&gateway.address(), "GET", "/x10/open", 8), "circuit_open");
        (refused == 8).then(|| began.elapsed())
    });
    row.check(opened <= Duration::from_secs(1) + SLACK, || format!("it opened after {opened:?}"));
    let passed_on = |one: &&Done| one.answer.as_ref().is_some_and(|answer| answer.text() == "storm");
    let (stormed, asked) = (row.done()[500..].iter().filter(passed_on).count(), attempts(&servers));
    let said = |one: &&Done| passed_on(one) && one.answer.as_ref().and_then(|a| a.header("retry-after")) == Some("7");
    let told = row.done()[500..].iter().filter(said).count();
    row.check(told == stormed && stormed == asked, || {
        format!("{told} of {stormed} answers to {asked} say for how long")
    });
    row.note(format!("circuit open after {asked} attempts, {} ms", opened.as_millis()));
    over.store(true, Ordering::SeqCst);
    let began = Instant::now();
    eventually("all is served again", || {
        row.send(&gateway.address(), "GET", "/x10/well", 8).iter().all(|one| one.status() == 200).then_some(())
    });
    row.note(format!("served again {} ms after the storm", began.elapsed().as_millis()));
    let lost = row.send(&gateway.address(), "GET", "/x10/well", 40).iter().filter(|one| one.status() != 200).count();
    row.check(lost == 0, || format!("{lost} of 40 failed after the storm"));
    row.end();
}
