use std::{collections::BTreeMap, sync::Mutex};

use bytes::Bytes;
use crossway_plugin_api::{Ask, Consumer, Content, NoAnswer, Reply, Told};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::*;
use crate::testing::{ctx, parse, refused, reply_values, request, run, values};

type Answer = Result<(u16, &'static [(&'static str, &'static str)], &'static str), NoAnswer>;

/// A service that gives one answer, and remembers the questions.
#[derive(Debug)]
struct Scripted {
    answer: Mutex<Answer>,
    asked: Mutex<Vec<Ask>>,
}

#[async_trait]
impl Fetch for Scripted {
    async fn fetch(&self, ask: Ask) -> Result<Told, NoAnswer> {
        self.asked.lock().unwrap().push(ask);
        let (status, fields, body) = self.answer.lock().unwrap().clone()?;
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        Ok(Told { status: StatusCode::from_u16(status).unwrap(), headers, body: Bytes::from_static(body.as_bytes()) })
    }
}

struct Setup {
    plugin: Arc<dyn Plugin>,
    service: Arc<Scripted>,
    clock: Clock,
}

fn setup(settings: &str, answer: Answer) -> Setup {
    let mut consumers = ConsumerDirectory::default();
    consumers.add(&Arc::new(Consumer::new("acme", &[], BTreeMap::new()).unwrap()));
    let service = Arc::new(Scripted { answer: Mutex::new(answer), asked: Mutex::default() });
    let clock = Clock::fixed(Duration::from_hours(500_000));
    let deps = Deps {
        consumers: Arc::new(consumers),
        fetch: Arc::clone(&service) as Arc<dyn Fetch>,
        clock: clock.clone(),
        ..Deps::default()
    };
    let yaml = format!("forward_auth: {{ url: \"http://auth.test/check\", {settings} }}");
    Setup { plugin: parse(&yaml).unwrap().build(&deps).unwrap(), service, clock }
}

impl Setup {
    fn asked(&self) -> usize {
        self.service.asked.lock().unwrap().len()
    }

    async fn reply(&self, req: &mut RequestHeader) -> Option<Reply> {
        run(&self.plugin, req, &mut ctx()).await
    }
}

const YES: Answer = Ok((200, &[], ""));

#[tokio::test]
async fn the_service_sees_the_request_as_the_gateway_does() {
    let setup = setup("request_headers: [Authorization, X-Tenant]", YES);
    let mut req = request(
        "DELETE",
        &[
            ("Host", "api.example.com:8443"),
            ("Authorization", "Bearer x"),
            ("X-Tenant", "a"),
            ("X-Tenant", "b"),
            ("Cookie", "secret"),
            ("X-Forwarded-For", "6.6.6.6"),
            ("X-Forwarded-Uri", "/public"),
            ("X-Forwarded-Method", "GET"),
        ],
    );
    req.set_uri("/items/../items/7?a=b".parse().unwrap());
    assert!(setup.reply(&mut req).await.is_none());
    let asked = setup.service.asked.lock().unwrap();
    let [ask] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!((ask.method.as_str(), ask.url.as_str(), ask.body.len()), ("GET", "http://auth.test/check", 0));
    let mut seen: Vec<_> = ask.headers.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
    seen.sort();
    assert_eq!(
        seen,
        [
            "authorization: Bearer x",
            "x-forwarded-for: 192.0.2.7",
            "x-forwarded-host: api.example.com:8443",
            "x-forwarded-method: DELETE",
            "x-forwarded-proto: http",
            "x-forwarded-uri: /items/7?a=b",
            "x-request-id: -",
            "x-tenant: a",
            "x-tenant: b",
        ]
    );
}

#[tokio::test]
async fn the_upstream_is_told_what_the_service_says_and_nothing_of_the_client() {
    let answer: Answer = Ok((204, &[("X-User", "7"), ("X-Role", "a"), ("X-Role", "b"), ("X-Other", "no")], ""));
    let setup = setup("upstream_headers: [X-User, X-Role, X-Mail]", answer);
    let mut req = request("GET", &[("X-User", "root"), ("X-Mail", "root@acme.test"), ("X-Keep", "1")]);
    let mut ctx = ctx();
    assert!(run(&setup.plugin, &mut req, &mut ctx).await.is_none());
    assert_eq!(values(&req.headers, "x-user"), "", "later plugins do not see it either");
    req.append_header("X-User", "root").unwrap();
    setup.plugin.on_upstream_request(&mut req, &mut ctx).unwrap();
    assert_eq!(values(&req.headers, "x-user"), "7");
    assert_eq!(values(&req.headers, "x-role"), "a | b");
    assert_eq!((values(&req.headers, "x-mail"), values(&req.headers, "x-other")), (String::new(), String::new()));
    assert_eq!(values(&req.headers, "x-keep"), "1");
}

#[tokio::test]
async fn other_answers_go_to_the_client() {
    let fields: &[_] = &[
        ("Location", "/login"),
        ("Set-Cookie", "a=1"),
        ("Set-Cookie", "b=2"),
        ("Content-Type", "text/html"),
        ("Content-Length", "2"),
        ("X-Internal", "no"),
    ];
    for status in [301, 302, 400, 401, 403, 404, 429] {
        let setup = setup("", Ok((status, fields, "no")));
        let reply = setup.reply(&mut request("GET", &[])).await.unwrap();
        assert_eq!(reply.status.as_u16(), status);
        assert_eq!(reply_values(&reply, "set-cookie"), "a=1 | b=2");
        assert_eq!(
            (reply_values(&reply, "location"), reply_values(&reply, "x-internal")),
            ("/login".into(), String::new())
        );
        assert_eq!(reply_values(&reply, "cache-control"), "no-store");
        let Content::Other { media_type, body } = &reply.content else { panic!("{reply:?}") };
        assert_eq!((media_type.as_ref().unwrap(), &body[..]), (&HeaderValue::from_static("text/html"), &b"no"[..]));
    }
}

#[tokio::test]
async fn nobody_passes_because_the_service_fails() {
    let broken = [
        Ok((500, &[][..], "")),
        Ok((503, &[][..], "")),
        Ok((101, &[][..], "")),
        Err(NoAnswer::Timeout),
        Err(NoAnswer::TooLarge(1)),
        Err(NoAnswer::Failed("no connection".into())),
    ];
    for answer in broken {
        let setup = setup("upstream_headers: [X-User], cache: { ttl: 1m }", answer.clone());
        let mut req = request("GET", &[("X-User", "root")]);
        let outcome = setup.plugin.on_request(&mut req, &mut ctx()).await;
        assert!(matches!(outcome, Err(Fault::Dependency(_))), "{answer:?}: {outcome:?}");
        assert_eq!(values(&req.headers, "x-user"), "", "even where the fault is tolerated");
    }
}

#[tokio::test]
async fn the_consumer_is_one_of_the_configuration() {
    for (fields, known) in [
        (&[("X-Consumer", "acme")][..], true),
        (&[("X-Consumer", "other")][..], false),
        (&[("X-Consumer", "acme"), ("X-Consumer", "acme")][..], false),
        (&[][..], false),
    ] {
        let setup = setup("consumer_header: X-Consumer, cache: { ttl: 1m }", Ok((200, fields, "")));
        for _ in 0..2 {
            let mut ctx = ctx();
            let reply = run(&setup.plugin, &mut request("GET", &[]), &mut ctx).await;
            assert_eq!(ctx.consumer.map(|c| c.name().to_owned()), known.then(|| "acme".to_owned()), "{fields:?}");
            let code = reply.as_ref().and_then(Reply::code);
            assert_eq!(code, (!known).then_some("forward_auth_consumer_unknown"));
        }
        assert_eq!(setup.asked(), if known { 1 } else { 2 });
    }
}

#[tokio::test]
async fn an_answer_is_remembered_for_the_same_question_only() {
    let setup = setup("request_headers: [Authorization, X-A], cache: { ttl: 30s }", Ok((200, &[], "")));
    let mut asked = 0;
    let mut ask = async |uri: &str, method: &str, fields: &[(&'static str, &str)], is_new: bool| {
        let mut req = request(method, fields);
        req.set_uri(uri.parse().unwrap());
        assert!(setup.reply(&mut req).await.is_none());
        asked += usize::from(is_new);
        assert_eq!(setup.asked(), asked, "{method} {uri} {fields:?}");
    };
    ask("/items/7", "GET", &[("Authorization", "a")], true).await;
    ask("/items/7", "GET", &[("Authorization", "a")], false).await;
    ask("/items/7", "GET", &[("Authorization", "a"), ("X-Request-Id", "7")], false).await;
    ask("/items/7", "PUT", &[("Authorization", "a")], true).await;
    ask("/items/7?b", "GET", &[("Authorization", "a")], true).await;
    ask("/items/7", "GET", &[("Authorization", "b")], true).await;
    ask("/items/7", "GET", &[("Authorization", "a"), ("X-A", "")], true).await;
    ask("/items/7", "GET", &[("X-A", "a")], true).await;
    ask("/items/7", "GET", &[("Host", "other.test"), ("Authorization", "a")], true).await;
    ask("/items/7", "GET", &[], true).await;
    ask("/items/7", "GET", &[("Authorization", "a")], false).await;
    setup.clock.advance(Duration::from_secs(30));
    ask("/items/7", "GET", &[("Authorization", "a")], true).await;
    let mut elsewhere = Ctx::new("192.0.2.8".parse().unwrap(), String::new(), "/items/7".into());
    let mut req = request("GET", &[("Authorization", "a")]);
    assert!(run(&setup.plugin, &mut req, &mut elsewhere).await.is_none());
    assert_eq!(setup.asked(), 10, "another client");
}

#[tokio::test]
async fn only_yes_is_remembered_and_not_where_the_service_forbids_it() {
    for answer in [Ok((401, &[][..], "")), Ok((200, &[("Cache-Control", "max-age=9, No-Store")][..], ""))] {
        let setup = setup("cache: { ttl: 30s }", answer);
        for _ in 0..2 {
            setup.reply(&mut request("GET", &[])).await;
        }
        assert_eq!(setup.asked(), 2);
    }
    let setup = setup("cache: { ttl: 30s, headers: [Authorization] }", YES);
    for cookie in ["a", "b"] {
        setup.reply(&mut request("GET", &[("Cookie", cookie), ("Authorization", "x")])).await;
    }
    assert_eq!(setup.asked(), 1, "the decision was said not to depend on cookies");
}

#[test]
fn settings_that_cannot_hold_are_refused() {
    let with = |settings: &str| refused(&format!("forward_auth: {{ url: \"http://auth.test/\", {settings} }}")).0;
    assert_eq!(refused("forward_auth: { url: auth.test }").0, "url");
    assert_eq!(with("timeout: 0s"), "timeout");
    assert_eq!(with("request_headers: [Cookie, X-Forwarded-For]"), "request_headers/1");
    assert_eq!(with("request_headers: [Content-Length]"), "request_headers/0");
    assert_eq!(with("upstream_headers: [X-Consumer-Name]"), "upstream_headers/0");
    assert_eq!(with("client_headers: [Transfer-Encoding]"), "client_headers/0");
    assert_eq!(with("client_headers: [X-A, x-a]"), "client_headers/1");
    assert_eq!(with("cache: { ttl: 1s, headers: [X-A] }"), "cache/headers/0");
    assert_eq!(with("cache: { headers: [Cookie] }"), "cache/headers");
}
