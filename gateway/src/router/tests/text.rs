use std::{net::Ipv4Addr, sync::Arc};

use crossway_plugin_api::{Ctx, PathParams};

use super::{ask, build, rule};
use crate::router::{Found, HostPattern, PathPattern, Template};

#[test]
fn path_patterns_say_what_is_wrong() {
    for (text, expected) in [
        ("", "is not a path: it must begin with `/`"),
        ("a/b", "is not a path: it must begin with `/`"),
        ("/a//b", "has an empty segment"),
        ("//", "has an empty segment"),
        ("/a/../b", "has a dot segment"),
        ("/a/%2e", "has a dot segment"),
        ("/a?b", "holds a query: use `query` for its parameters"),
        ("/%61bc/{id}/%c3%a9", "is not in canonical form: write `/abc/{id}/%C3%A9`"),
        ("/a|b", "is not in canonical form: write `/a%7Cb`"),
        ("/a b", "cannot match: the path holds a character that must be percent-encoded"),
        ("/..;/a", "cannot match: the path hides a dot segment"),
        ("/a{id}", "has a parameter that is not a whole segment: `a{id}`"),
        ("/{id}b", "has a parameter that is not a whole segment: `{id}b`"),
        ("/{id", "has a parameter that is not a whole segment: `{id`"),
        ("/{rest...}/a", "has `{rest...}` before its end: only the last segment can be one"),
        ("/{rest...}/", "has `{rest...}` before its end: only the last segment can be one"),
        ("/{id}/{id}", "has two parameters of the name `id`"),
        ("/{id}/{id...}", "has two parameters of the name `id`"),
    ] {
        assert_eq!(PathPattern::parse(text).unwrap_err(), expected, "{text}");
    }
    for name in ["", "1a", "A", "a-b", "...", "a..", "*"] {
        let wrong = PathPattern::parse(&format!("/{{{name}}}")).unwrap_err();
        assert!(wrong.contains("whose name is not one"), "{wrong}");
    }
    let deep = |segments: usize| PathPattern::parse(&"/a".repeat(segments));
    assert!(deep(64).is_ok() && deep(65).is_err());
}

#[test]
fn path_patterns_keep_their_names_in_order() {
    let pattern = PathPattern::parse("/a/{site}/b/{device_2}/{_all...}").unwrap();
    assert_eq!(pattern.names(), ["site".into(), "device_2".into(), Box::<str>::from("_all")]);
    for text in ["/", "/a/", "/{rest...}", "/{a}/", "/a%2Fb", "/a%20b", "/.well-known/x", "/a;v=1"] {
        assert!(PathPattern::parse(text).is_ok(), "{text}");
    }
}

#[test]
fn host_patterns_are_names_suffixes_or_everything() {
    assert_eq!(HostPattern::parse("*"), Ok(HostPattern::Any));
    assert_eq!(HostPattern::parse("API.example.com."), Ok(HostPattern::Exact("api.example.com".into())));
    assert_eq!(HostPattern::parse("*.Example.com"), Ok(HostPattern::Below("example.com".into())));
    assert_eq!(HostPattern::parse("[::0:1]"), Ok(HostPattern::Exact("[::1]".into())));
    for wrong in ["", "a..b", "*.", "a.*", "*a.b", "*.*.a", "a:80", "*.a:80", "http://a", "a/b", "*.[::1]", "*.*"] {
        assert!(HostPattern::parse(wrong).is_err(), "{wrong}");
    }
}

/// Renders for a request to `path` that has matched `pattern`.
fn render(pattern: &str, path: &str, template: &str) -> String {
    let names: Arc<[Arc<str>]> =
        PathPattern::parse(pattern).unwrap().names().iter().map(|name| Arc::from(&**name)).collect();
    let template = Template::parse(template, &names).unwrap();
    let (router, _) = build(vec![rule(pattern)]);
    let Found::Route { params: values, .. } = router.find(&ask(&format!("GET t{path}")).lookup()) else {
        panic!("{pattern} does not take {path}")
    };
    let mut ctx = Ctx::new(Ipv4Addr::LOCALHOST.into(), "t".into(), path.into());
    ctx.params = PathParams { names, values };
    template.render(&ctx)
}

#[test]
fn templates_carry_parameters() {
    for (pattern, path, template, expected) in [
        ("/customers/{id}", "/customers/7", "/api/v2/clients/{id}", "/api/v2/clients/7"),
        ("/a/{x}/{y}", "/a/1/2", "https://{y}.example.com/{x}-{y}?from={x}", "https://2.example.com/1-2?from=1"),
        ("/a/{x}", "/a/%C3%A9", "/b/{x}/", "/b/%C3%A9/"),
        ("/orders/{rest...}", "/orders/1/2/", "/v2/{rest...}", "/v2/1/2/"),
        ("/orders/{rest...}", "/orders/", "/v2/{rest}", "/v2/"),
        ("/orders/{rest...}", "/orders", "/v2/{rest}", "/v2"),
        ("/orders/{rest...}", "/orders", "/{rest}", "/"),
        ("/orders/{rest...}", "/orders", "/v2/{rest}?x", "/v2?x"),
        ("/a", "/a", "/fixed", "/fixed"),
        ("/{x}/{rest...}", "/evil.test/", "/{rest}/{x}", "/evil.test"),
        ("/{x}/{rest...}", "/evil.test", "/{rest}/{x}", "/evil.test"),
        ("/a/{rest...}", "/a", "/v2/{rest}/b", "/v2/b"),
        ("/a/{rest...}", "/a/", "/v2/{rest}/b", "/v2/b"),
        ("/a/{rest...}", "/a/x/", "/v2/{rest}", "/v2/x/"),
    ] {
        assert_eq!(render(pattern, path, template), expected, "{pattern} {path} {template}");
    }
}

#[test]
fn templates_say_what_is_wrong() {
    let names = ["id", "rest"];
    for (text, expected) in [
        ("/{ID}", "has the parameter `{ID}`, but the route's path has only `{id}`, `{rest}`"),
        ("/{}", "has the parameter `{}`, but the route's path has only `{id}`, `{rest}`"),
        ("/{id", "has a brace without its other half"),
        ("/id}", "has a brace without its other half"),
        ("/{{id}}", "has the parameter `{{id}`, but the route's path has only `{id}`, `{rest}`"),
    ] {
        assert_eq!(Template::parse(text, &names).unwrap_err(), expected);
    }
    for text in
        ["https://{id}", "https://{id}/x", "https://api.{id}?x", "https://a.{id}:80/", "{id}.example.com", "{rest}"]
    {
        assert!(Template::parse(text, &names).is_err(), "{text}");
    }
    let none: [&str; 0] = [];
    assert_eq!(Template::parse("/{id}", &none).unwrap_err(), "has the parameter `{id}`, but the route's path has none");
    assert_eq!(Template::parse("/x", &none).unwrap().constant(), Some("/x"));
    assert_eq!(Template::parse("", &none).unwrap().constant(), Some(""));
    assert_eq!(Template::parse("/{id}", &names).unwrap().constant(), None);
}
