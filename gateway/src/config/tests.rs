use std::{
    fs,
    path::{Path, PathBuf},
};

use proptest::prelude::*;

use super::{
    error::{ConfigError, Severity},
    files::File,
    load::{load_files, load_with},
    *,
};

const VALID: &str = r#"
listeners:
  - name: public
    address: 0.0.0.0:8080
    trusted_proxies: [10.0.0.0/8]
admin: { address: "127.0.0.1:9900", token: "${env:TOKEN}" }
limits: &limits
  client: { idle: 30s }
runtime: { threads: "${env:THREADS}" }
upstreams:
  erp: &erp
    endpoints: [{ address: "erp-1.internal:80", weight: "${env:WEIGHT}" }]
    retry: { on: [connect_error, 503, 5xx] }
  crm:
    <<: *erp
    balance: round_robin
chains:
  fixed:
    - respond: { status: 200 }
      id: answer
      on_error: allow
routes:
  - name: orders
    match: { path: "/orders/{id}", methods: [GET], headers: { X-Canary: "on-*" } }
    auth: none
    chain: fixed
    upstream: erp
"#;

fn env(name: &str) -> Option<String> {
    let value = match name {
        "TOKEN" => "a-token-of-some-length",
        "THREADS" => "3",
        "WEIGHT" => " 7 ",
        "DURATION" => "hunter2",
        "EMPTY" => "",
        "TRUE" => "true",
        _ => return None,
    };
    Some(value.into())
}

fn load_here(text: &str) -> Result<Loaded, ConfigError> {
    load_files(vec![File::new(Path::new("gateway.yaml"), text.to_owned())], &env)
}

fn messages(text: &str) -> Vec<String> {
    load_here(text).map_or_else(|error| error.diagnostics.iter().map(ToString::to_string).collect(), |_| Vec::new())
}

/// What `crossway check` prints for a file or folder that must be refused.
fn refusal(path: &Path) -> String {
    load(path).map_or_else(|error| error.render(false), |_| "accepted\n".into())
}

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/conf/invalid/load");
    let mut cases: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.extension().is_some_and(|extension| extension == "yaml" || extension == "d"));
    cases.sort();
    cases
}

#[test]
#[expect(clippy::disallowed_methods, reason = "UPDATE_EXPECTED is for the people who change the messages")]
fn every_invalid_configuration_is_refused_in_these_words() {
    let update = std::env::var("UPDATE_EXPECTED").is_ok();
    let cases = cases();
    assert!(cases.len() > 30);
    let mut wrong = Vec::new();
    for path in cases {
        let folder = format!("{}/", path.parent().unwrap().display());
        let said = refusal(&path).replace(&folder, "");
        assert!(!said.contains("hunter"), "{path:?} shows a secret:\n{said}");
        let expected = path.with_extension(if path.is_dir() { "d.expected" } else { "expected" });
        if update {
            fs::write(&expected, &said).unwrap();
        }
        if fs::read_to_string(&expected).unwrap_or_default() != said {
            wrong.push(format!("{path:?} now says:\n{said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_valid_configuration_is_read_with_its_references() {
    let loaded = load_here(VALID).unwrap_or_else(|error| panic!("{}", error.render(false)));
    let config = &loaded.config;
    assert_eq!(config.admin.as_ref().unwrap().token.expose(), "a-token-of-some-length");
    assert_eq!((config.runtime.threads, config.upstreams["erp"].endpoints[0].weight), (3, 7));
    assert_eq!(config.upstreams["crm"].endpoints[0].address.as_deref(), Some("erp-1.internal:80"));
    assert_eq!(config.chains["fixed"][0].id.as_deref(), Some("answer"));
    assert!(!format!("{loaded:?}").contains("a-token"));
    assert!(load_here("").is_ok() && load_here("# nothing\n").is_ok() && load_here("--- {}\n").is_ok());
}

#[test]
fn later_stages_report_at_a_json_pointer() {
    let loaded = load_here(VALID).unwrap();
    let sources = &loaded.sources;
    let at = |d: error::Diagnostic| (d.line, d.column, d.message);
    assert_eq!(at(sources.error("/routes/0/upstream", "x")), (27, 15, "x".into()));
    assert_eq!(at(sources.error_at_key("/routes/0/upstream", "x")), (27, 5, "x".into()));
    assert_eq!(at(sources.error("/routes/0/nothing/below", "x")), (23, 5, "x".into()));
    assert_eq!(at(sources.error("/upstreams/crm/balance", "is odd")), (16, 14, "`balance` is odd".into()));
    assert_eq!(at(sources.error("/listeners/0/trusted_proxies/0", "is odd")).2, "an item of `trusted_proxies` is odd");
    assert_eq!(at(sources.error("/runtime/threads", "is odd")).2, "the value of ${env:THREADS} is odd");
    let message = "there is no token `a-token-of-some-length`";
    assert_eq!(at(sources.error("/admin/token", message)).2, "there is no token `${env:TOKEN}`");
    let warning = sources.warning("", "nothing").help("do").also(sources, "/routes/0/chain", "here");
    assert_eq!((warning.severity, warning.also.as_ref().map(|also| also.line)), (Severity::Warning, Some(26)));
    let rendered = warning.render(false);
    assert!(rendered.contains("warning: nothing") && rendered.contains("help: do"), "{rendered}");
    assert!(warning.render(true).contains('\x1b'));
    assert!(sources.has("/upstreams/crm/endpoints/0/weight") && !sources.has("/upstreams/crm/tls"));
    let json = serde_json::to_value(sources.error("/routes/0/upstream", "x")).unwrap();
    let expected = serde_json::json!({
        "severity": "error", "file": "gateway.yaml", "line": 27, "column": 15, "message": "x", "help": null,
    });
    assert_eq!(json, expected);
}

#[test]
fn references_become_numbers_and_booleans_only_where_those_are_wanted() {
    let text = "admin: { address: a, token: x, probes: { address: '${env:TRUE}', metrics: '${env:TRUE}' } }";
    let probes = load_here(text).unwrap().config.admin.unwrap().probes.unwrap();
    assert_eq!((probes.metrics, probes.address.as_str()), (true, "true"));
    assert_eq!(
        messages("limits: { client: { idle: '${env:DURATION}' } }\nruntime: { threads: 'x${env:DURATION}' }"),
        [
            "gateway.yaml:1:27: error: the value of ${env:DURATION} is not a duration",
            "gateway.yaml:2:21: error: the value of ${env:DURATION} is not a whole number",
        ]
    );
    let escaped = load_here("listeners: [{ name: a, address: 'x$${env:TOKEN}y' }]").unwrap();
    assert_eq!(escaped.config.listeners[0].address, "x${env:TOKEN}y");
}

#[test]
fn a_folder_is_merged_in_the_order_of_names() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("b.yml", "routes: [{ name: second, match: { path: /b }, auth: none }]\nupstreams: {}\n");
    write(
        "a.yaml",
        "routes: [{ name: first, match: { path: /a }, auth: none }]\nadmin: { address: x, token: '${file:t}' }\n",
    );
    write(".c.yaml", "not: read\n");
    write("t", "secret-of-the-file\r\n");
    let loaded = load_with(folder.path(), &env).unwrap();
    let names: Vec<_> = loaded.config.routes.iter().map(|route| route.name.as_str()).collect();
    assert_eq!(names, ["first", "second"]);
    assert_eq!(loaded.config.admin.unwrap().token.expose(), "secret-of-the-file");
    assert!(loaded.sources.error("/routes/1/name", "x").file.ends_with("b.yml"));
    assert_eq!(loaded.sources.resolve_path("/routes/1", "ca.pem"), folder.path().join("ca.pem"));
    assert_eq!(loaded.sources.read_file("/routes/1", "t").unwrap(), b"secret-of-the-file\r\n");
    let missing = loaded.sources.read_file("/routes/1/name", "nothing.pem").unwrap_err();
    assert_eq!((missing.message.as_str(), missing.line), ("the file `nothing.pem` does not exist", 1));
    let before = loaded.hash;
    write("b.yml", "routes: []\n");
    assert_ne!(load_with(folder.path(), &env).unwrap().hash, before);
    write("b.yml", "routes: [\n");
    assert_eq!(admin_of(folder.path()).unwrap().token.expose(), "secret-of-the-file");
    write("a.yaml", "admin:\n  address: x\n\n  token: '${file:t}'\nroutes: [\n");
    assert_eq!(admin_of(folder.path()).unwrap().address, "x");
}

#[test]
fn what_is_no_regular_file_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("a.yaml");
    fs::create_dir(&inside).unwrap();
    let error = load(folder.path()).unwrap_err();
    assert!(error.to_string().ends_with("a.yaml: error: the file is a folder"), "{error}");
    let error = load(Path::new("/dev/zero")).unwrap_err();
    assert_eq!(error.to_string(), "/dev/zero: error: the file is not a regular file");
    fs::remove_dir(&inside).unwrap();
    fs::write(&inside, vec![b'#'; (4 << 20) + 1]).unwrap();
    assert!(load(folder.path()).unwrap_err().to_string().ends_with("the file is larger than 4 MiB"));
}

#[test]
fn errors_beyond_the_bound_are_counted() {
    let text: Vec<String> = (0..2000).map(|at| format!("key{at}: 1\n")).collect();
    let said = messages(&text.concat());
    assert_eq!((said.len(), said[50].as_str()), (51, "error: and 1950 more"));
}

#[test]
fn a_large_flat_text_is_refused_by_number_of_values() {
    let text = format!("routes: [{}]", "1,".repeat(300_000));
    assert!(messages(&text)[0].contains("more than 200000 values"));
}

#[test]
fn an_entry_keeps_the_path_of_what_is_wrong_in_it() {
    let entry = serde_json::json!({ "id": "r", "respond": { "status": "x" } });
    let error = serde_path_to_error::deserialize::<_, PluginEntry>(&entry).unwrap_err();
    assert_eq!(error.path().to_string(), "respond.status");
    for (entry, message) in [
        (serde_json::json!({ "id": "r" }), "has no plugin"),
        (serde_json::json!({ "request_id": {}, "respond": { "status": 200 } }), "has two plugins where one is needed"),
    ] {
        assert_eq!(PluginEntry::deserialize(entry).unwrap_err().to_string(), message);
    }
}

#[test]
fn no_shape_repeated_makes_it_panic() {
    let units =
        ["[", "{", "- ", "? ", "a: ", "&a ", "*a ", "!!a ", "a: {b: ", "- a: 1\n", "\"", "|\n", "\n", "%", ": "];
    for unit in units {
        survives(&unit.repeat((64 << 10) / unit.len()));
        let keys: Vec<String> = (0..1000).map(|at| format!("k{at}: {unit}\n")).collect();
        survives(&keys.concat());
    }
    let names: Vec<String> = (0..500).map(|at| format!("  - name: ${{env:TOKEN}}\n    a{at}: 1\n")).collect();
    survives(&format!("routes:\n{}", names.concat()));
}

/// Cuts, doubles and swaps lines and characters of the valid text.
fn mutated() -> impl Strategy<Value = String> {
    let edit =
        (any::<prop::sample::Index>(), any::<prop::sample::Index>(), "[-:{}\\[\\]&*!|>'\"%@`#,? \\n\\ta$~<é]{0,3}");
    prop::collection::vec(edit, 1..6).prop_map(|edits| {
        edits.into_iter().fold(VALID.to_owned(), |text, (from, to, new)| {
            let (a, b) = (from.index(text.len() + 1), to.index(text.len() + 1));
            let (a, b) = (text.floor_char_boundary(a.min(b)), text.floor_char_boundary(a.max(b)));
            let b = text.floor_char_boundary(b.min(a + 12));
            format!("{}{new}{}", &text[..a], &text[b.max(a)..])
        })
    })
}

fn survives(text: &str) {
    match load_here(text) {
        Ok(loaded) => drop(loaded.sources.error("/routes/0", "x").render(true)),
        Err(error) => {
            assert!(!error.diagnostics.is_empty());
            let shown = error.render(true) + &error.to_string();
            assert!(!shown.contains("a-token-of-some-length"), "{shown}");
        }
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "(?s).{0,200}") {
        survives(&text);
    }

    #[test]
    fn no_yaml_like_text_makes_it_panic(text in "([a-c\\-:{}\\[\\]&*!|>'\"#,? \\n\\t~<é]|<<: |a: |- |\\n  |\\$\\{env:TOKEN\\}){0,60}") {
        survives(&text);
    }

    #[test]
    fn no_change_to_a_valid_text_makes_it_panic(text in mutated()) {
        survives(&text);
    }
}
