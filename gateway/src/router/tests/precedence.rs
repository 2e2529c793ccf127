use super::{Outcome, allow, ask, build, find, hit, rule};
use crate::router::{Conflict, ConflictKind};

#[test]
fn paths_match_whole_segments() {
    let (router, conflicts) = build(vec![
        rule("/"),
        rule("/a"),
        rule("/a/{id}"),
        rule("/a/{id}/b/{other}/"),
        rule("/orders/{rest...}"),
        rule("/orders/exact"),
        rule("/orders/{id}/lines"),
    ]);
    assert_eq!(conflicts, []);
    for (path, expected) in [
        ("/", hit(0, &[])),
        ("/a", hit(1, &[])),
        ("/a/", Outcome::Nothing),
        ("/ab", Outcome::Nothing),
        ("/a/7", hit(2, &["7"])),
        ("/a/7/", Outcome::Nothing),
        ("/a/7/b/8/", hit(3, &["7", "8"])),
        ("/a/7/b/8", Outcome::Nothing),
        ("/a/7/b//", Outcome::Nothing),
        ("/orders", hit(4, &[""])),
        ("/orders/", hit(4, &[""])),
        ("/orders/1/2", hit(4, &["1/2"])),
        ("/ordersx", Outcome::Nothing),
        ("/orders/exact", hit(5, &[])),
        ("/orders/exact/", hit(4, &["exact/"])),
        ("/orders/exact/lines", hit(6, &["exact"])),
        ("/orders/x/lines", hit(6, &["x"])),
        ("/orders/x/other", hit(4, &["x/other"])),
        ("", Outcome::Nothing),
        ("a", Outcome::Nothing),
    ] {
        let mut ask = ask("GET t/");
        ask.path = path.into();
        assert_eq!(find(&router, &ask), expected, "{path}");
    }
}

#[test]
fn a_prefix_without_its_slash_has_an_empty_rest_at_its_end() {
    let (router, _) = build(vec![rule("/a/{id}/{rest...}")]);
    let params = |path: &str| match router.find(&ask(&format!("GET t{path}")).lookup()) {
        crate::router::Found::Route { params, .. } => params,
        other => panic!("{other:?}"),
    };
    assert_eq!(params("/a/7"), [3..4, 4..4]);
    assert_eq!(params("/a/7/"), [3..4, 5..5]);
    assert_eq!(params("/a/7/x/"), [3..4, 5..7]);
}

#[test]
fn the_nearest_host_wins_and_others_follow() {
    let (router, conflicts) = build(vec![
        rule("/a"),
        rule("/a").hosts(&["*.example.com"]),
        rule("/a").hosts(&["*.b.example.com"]),
        rule("/a").hosts(&["x.b.example.com", "example.com"]),
        rule("/only"),
        rule("/a").hosts(&["[::1]"]),
    ]);
    assert_eq!(conflicts, []);
    for (url, rule) in [
        ("x.b.example.com/a", 3),
        ("y.b.example.com/a", 2),
        ("z.y.b.example.com/a", 2),
        ("b.example.com/a", 1),
        ("example.com/a", 3),
        ("other.com/a", 0),
        ("xexample.com/a", 0),
        ("[::1]/a", 5),
        ("/a", 0),
        ("x.b.example.com/only", 4),
    ] {
        assert_eq!(find(&router, &ask(&format!("GET {url}"))), hit(rule, &[]), "{url}");
    }
}

#[test]
fn conditions_come_before_places_in_the_file() {
    let (router, conflicts) = build(vec![
        rule("/a"),
        rule("/a").methods(&["GET"]),
        rule("/a").entries(&[1]),
        rule("/a").header("x-canary", "yes"),
        rule("/a").header("x-canary", "*").query("v", "2"),
    ]);
    assert_eq!(conflicts, []);
    assert_eq!(find(&router, &ask("GET t/a")), hit(1, &[]));
    assert_eq!(find(&router, &ask("POST t/a")), hit(0, &[]));
    assert_eq!(find(&router, &ask("GET t/a").entry(1)), hit(2, &[]));
    assert_eq!(find(&router, &ask("GET t/a").entry(1).header("x-canary", "yes")), hit(3, &[]));
    assert_eq!(find(&router, &ask("GET t/a?v=2").header("x-canary", "yes")), hit(4, &[]));
    assert_eq!(find(&router, &ask("GET t/a?v=2").header("x-canary", "no")), hit(4, &[]));
    assert_eq!(find(&router, &ask("GET t/a").header("x-canary", "no")), hit(1, &[]));
}

#[test]
fn what_does_not_hold_gives_way() {
    let (router, _) = build(vec![
        rule("/a/b").hosts(&["t"]).header("x", "1"),
        rule("/a/{id}").hosts(&["t"]).query("q", "1"),
        rule("/{rest...}").hosts(&["t"]).entries(&[1]),
        rule("/a/b").methods(&["PUT"]),
    ]);
    assert_eq!(find(&router, &ask("GET t/a/b?q=1").header("x", "1")), hit(0, &[]));
    assert_eq!(find(&router, &ask("GET t/a/b?q=1")), hit(1, &["b"]));
    assert_eq!(find(&router, &ask("GET t/a/b").entry(1)), hit(2, &["a/b"]));
    assert_eq!(find(&router, &ask("PUT t/a/b")), hit(3, &[]));
    assert_eq!(find(&router, &ask("GET t/a/b")), allow(&["PUT"]));
    assert_eq!(find(&router, &ask("GET t/a/c")), Outcome::Nothing);
}

#[test]
fn methods_that_are_allowed_are_told() {
    let (router, _) = build(vec![
        rule("/a").methods(&["POST"]),
        rule("/a").methods(&["GET"]),
        rule("/{rest...}").methods(&["PURGE", "DELETE"]),
        rule("/a").methods(&["PATCH"]).header("x", "1"),
    ]);
    assert_eq!(find(&router, &ask("HEAD t/a")), hit(1, &[]));
    assert_eq!(find(&router, &ask("DELETE t/a")), hit(2, &["a"]));
    assert_eq!(find(&router, &ask("OPTIONS t/a")), allow(&["DELETE", "GET", "HEAD", "POST", "PURGE"]));
    assert_eq!(find(&router, &ask("LOCK t/a")), allow(&["DELETE", "GET", "HEAD", "POST", "PURGE"]));
    assert_eq!(find(&router, &ask("GET t/b")), allow(&["DELETE", "PURGE"]));
}

#[test]
fn a_rule_without_methods_takes_the_ordinary_ones() {
    let (router, _) = build(vec![rule("/a")]);
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        assert_eq!(find(&router, &ask(&format!("{method} t/a"))), hit(0, &[]), "{method}");
    }
    let ordinary = allow(&["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"]);
    for method in ["TRACE", "CONNECT", "PURGE"] {
        assert_eq!(find(&router, &ask(&format!("{method} t/a"))), ordinary, "{method}");
    }
}

#[test]
fn a_rule_for_head_takes_it_from_get() {
    let (router, conflicts) = build(vec![
        rule("/a").methods(&["GET"]),
        rule("/a").methods(&["HEAD"]),
        rule("/a").hosts(&["t"]).methods(&["GET"]),
    ]);
    assert_eq!(conflicts, []);
    assert_eq!(find(&router, &ask("HEAD u/a")), hit(1, &[]));
    assert_eq!(find(&router, &ask("HEAD t/a")), hit(2, &[]));
}

fn conflict(first: usize, second: usize, kind: ConflictKind) -> Conflict {
    Conflict { first, second, kind }
}

#[test]
fn rules_out_of_reach_are_told() {
    use ConflictKind::{Same, Shadowed};
    for (rules, expected) in [
        (vec![rule("/a"), rule("/a")], vec![conflict(0, 1, Same)]),
        (vec![rule("/a/{x}"), rule("/a/{y}")], vec![conflict(0, 1, Same)]),
        (vec![rule("/a"), rule("/a").hosts(&["*"])], vec![conflict(0, 1, Same)]),
        (vec![rule("/a").hosts(&["x", "y"]), rule("/a").hosts(&["Y", "x"])], vec![conflict(0, 1, Same)]),
        (vec![rule("/a").hosts(&["x", "y"]), rule("/a").hosts(&["x"])], vec![conflict(0, 1, Shadowed)]),
        (
            vec![rule("/a").hosts(&["x"]), rule("/a").hosts(&["y"]), rule("/a").hosts(&["x", "y"])],
            vec![conflict(0, 2, Shadowed)],
        ),
        (vec![rule("/a").methods(&["GET", "POST"]), rule("/a").methods(&["POST"])], vec![conflict(0, 1, Shadowed)]),
        (
            vec![rule("/a").methods(&["GET"]), rule("/a").methods(&["POST"]), rule("/a").methods(&["POST", "GET"])],
            vec![conflict(1, 2, Shadowed)],
        ),
        (vec![rule("/a").entries(&[1, 2]), rule("/a").entries(&[2])], vec![conflict(0, 1, Shadowed)]),
        (vec![rule("/a").entries(&[1]), rule("/a").entries(&[1, 1])], vec![conflict(0, 1, Same)]),
        (
            vec![rule("/a").header("x", "1").query("q", "*"), rule("/a").query("q", "*").header("x", "1")],
            vec![conflict(0, 1, Same)],
        ),
        (vec![rule("/a").methods(&["GET", "HEAD"]), rule("/a").methods(&["HEAD"])], vec![conflict(0, 1, Shadowed)]),
        (vec![rule("/a"), rule("/a"), rule("/a")], vec![conflict(0, 1, Same), conflict(0, 2, Same)]),
    ] {
        assert_eq!(build(rules.clone()).1, expected, "{rules:?}");
    }
}

#[test]
fn rules_that_can_be_reached_are_not() {
    for rules in [
        vec![rule("/a"), rule("/a/")],
        vec![rule("/a/{x}"), rule("/a/b")],
        vec![rule("/{rest...}"), rule("/a"), rule("/{x}")],
        vec![rule("/a"), rule("/a").hosts(&["x"])],
        vec![rule("/a").hosts(&["*.x"]), rule("/a").hosts(&["y.x"])],
        vec![rule("/a").hosts(&["x"]), rule("/a").hosts(&["x", "y"])],
        vec![rule("/a").methods(&["GET"]), rule("/a").methods(&["GET", "POST"])],
        vec![rule("/a").methods(&["GET"]), rule("/a").methods(&["GET", "HEAD"])],
        vec![rule("/a"), rule("/a").methods(&["GET"])],
        vec![rule("/a"), rule("/a").entries(&[0])],
        vec![rule("/a").entries(&[0]), rule("/a").entries(&[0, 1])],
        vec![rule("/a").header("x", "1"), rule("/a").header("x", "*")],
        vec![rule("/a").header("x", "1"), rule("/a")],
    ] {
        assert_eq!(build(rules.clone()).1, [], "{rules:?}");
    }
}
