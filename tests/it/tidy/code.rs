//! Rules for Rust code.

use super::{File, assert_none, rust};

/// Longest file, in lines, without its tests.
const LONGEST: usize = 400;

fn too_long(files: &[File]) -> Vec<String> {
    let lines = |file: &File| file.code().lines().count();
    let long = files.iter().filter(|file| !file.is_test() && !file.path.starts_with("tests/") && lines(file) > LONGEST);
    long.map(|file| format!("{}: {} lines", file.path, lines(file))).collect()
}

#[test]
fn files_are_short() {
    let text = |lines: usize| "//\n".repeat(lines);
    let tests = format!("{}\n#[cfg(test)]\nmod tests {{\n{}", text(LONGEST - 1), text(50));
    assert_eq!(too_long(&[File::made_up("gateway/src/a.rs", &text(LONGEST + 1))]).len(), 1);
    assert_none(&too_long(&[File::made_up("gateway/src/a.rs", &tests)]));
    assert_none(&too_long(&rust()));
}

/// What plugins share beside the contract.
const SHARED: [&str; 7] = ["bearer", "credentials", "entries", "fields", "hex", "key", "service"];

/// What a plugin's folder names beside the contract, outside crates, its own modules and those that all may use.
fn foreign(files: &[File]) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in files.iter().filter(|file| file.path.starts_with("plugins/src/")) {
        let parts: Vec<&str> = file.path.split('/').skip(2).collect();
        let [folder, .., name] = parts.as_slice() else { continue };
        let text = if file.is_test() { file.text.as_str() } else { file.code() };
        for (at, line) in (1..).zip(text.lines()) {
            let own = |rest: &str| {
                let module: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                SHARED.contains(&module.as_str()) || module == *folder || (module == "testing" && file.is_test())
            };
            let outside = line.split("crate::").skip(1).any(|rest| !own(rest));
            // From a plugin's `mod.rs`, `super` is the crate; from its other files, `super::super` is.
            let above = line.contains("super::super") || (*name == "mod.rs" && line.contains("super::"));
            let crates = line.contains("crossway_plugins::") || line.contains("crossway::");
            if outside || (above && !file.is_test()) || crates {
                wrong.push(format!("{}:{at}: {}", file.path, line.trim()));
            }
        }
    }
    wrong
}

#[test]
fn plugins_know_the_contract_and_themselves() {
    for broken in [
        "use crate::cors;",
        "use super::cors;",
        "let x = crate::AnyPlugin::NAMES;",
        "use crate::testing;",
        "use crate::{fields, cors};",
        "use crate::fields_of_cors;",
        "use crossway::config;",
    ] {
        assert_eq!(foreign(&[File::made_up("plugins/src/a/mod.rs", broken)]).len(), 1, "{broken}");
    }
    assert_eq!(foreign(&[File::made_up("plugins/src/a/b.rs", "use super::super::cors;")]).len(), 1);
    let good = "use crate::fields; use crate::hex; use crate::a::b; use crossway_plugin_api::config;";
    assert_none(&foreign(&[File::made_up("plugins/src/a/mod.rs", good)]));
    assert_none(&foreign(&rust()));
}

/// Where Pingora's engine may be named; its header types (`pingora_http`) are part of the contract.
const ENGINE: [&str; 6] = [
    "gateway/src/front/",
    "gateway/src/flow/",
    "gateway/src/upstream/",
    "gateway/src/proxy.rs",
    "gateway/src/respond.rs",
    "gateway/src/server.rs",
];

fn names_the_engine(file: &File) -> bool {
    ["pingora_core", "pingora_proxy", "pingora_cache"].iter().any(|name| {
        file.text.contains(&format!("{name}::")) || file.text.lines().any(|l| l.trim() == format!("use {name};"))
    })
}

/// Files of the gateway and the plugins that name the engine and are not among those that may.
fn engine_elsewhere(files: &[File]) -> Vec<String> {
    let ours = |path: &str| path.starts_with("gateway/") || path.starts_with("plugins/");
    let allowed = |path: &str| ENGINE.iter().any(|place| path.starts_with(place));
    let wrong = files.iter().filter(|file| ours(&file.path) && !allowed(&file.path) && names_the_engine(file));
    wrong.map(|file| file.path.clone()).collect()
}

#[test]
fn the_engine_is_named_in_few_places() {
    assert_eq!(engine_elsewhere(&[File::made_up("plugins/src/a/mod.rs", "use pingora_proxy::Session;")]).len(), 1);
    assert_eq!(engine_elsewhere(&[File::made_up("gateway/src/chain.rs", "pingora_core::Error")]).len(), 1);
    assert_none(&engine_elsewhere(&[File::made_up("gateway/src/chain.rs", "use pingora_http::RequestHeader;")]));
    let files = rust();
    assert_none(&engine_elsewhere(&files));
    for place in ENGINE {
        let used = files.iter().any(|file| file.path.starts_with(place) && names_the_engine(file));
        assert!(used, "{place} need not be in the list");
    }
}

/// What reads files or the environment, with the places outside `config/` that may, and why.
const READING: [&str; 6] = ["std::fs", "fs::", "File::", "OpenOptions", "env::var", "env = \""];
const MAY_READ: [(&str, &str); 11] = [
    ("gateway/src/cli/mod.rs", "NO_COLOR"),
    ("gateway/src/cli/run.rs", "stands in for an argument"),
    ("gateway/src/cli/ask.rs", "stands in for an argument"),
    ("gateway/src/telemetry/target.rs", "writes the logs"),
    ("gateway/src/front/pressure/memory.rs", "asks the kernel about memory"),
    ("gateway/src/admin/listen.rs", "removes and protects the admin socket"),
    ("gateway/src/store/bounded.rs", "bounds the file of the local store"),
    ("gateway/src/store/local.rs", "is a database in a file"),
    ("gateway/src/upgrade/exclusive.rs", "locks a file"),
    ("gateway/src/upgrade/socket.rs", "removes and protects the upgrade socket"),
    ("gateway/src/upgrade/succession.rs", "removes the old process's upgrade socket"),
];

fn reads(file: &File) -> bool {
    READING.iter().any(|sign| file.code().contains(sign))
}

fn readers(files: &[File]) -> Vec<String> {
    let ours = |path: &str| path.starts_with("gateway/src/") || path.starts_with("plugins/");
    let may = |path: &str| path.starts_with("gateway/src/config/") || MAY_READ.iter().any(|(place, _)| path == *place);
    let wrong = files.iter().filter(|file| ours(&file.path) && !may(&file.path) && !file.is_test() && reads(file));
    wrong.map(|file| file.path.clone()).collect()
}

#[test]
fn only_the_configuration_reads_files_and_variables() {
    for broken in ["std::fs::read(path)", "tokio::fs::read(path)", "File::open(path)", "std::env::var_os(name)"] {
        assert_eq!(readers(&[File::made_up("gateway/src/proxy.rs", broken)]).len(), 1, "{broken}");
        assert_eq!(readers(&[File::made_up("plugins/src/a/mod.rs", broken)]).len(), 1, "{broken}");
    }
    let files = rust();
    assert_none(&readers(&files));
    for (place, why) in MAY_READ {
        assert!(files.iter().any(|file| file.path == place && reads(file)), "{place} ({why}) reads nothing any more");
    }
}

/// Names of what must not be compared byte by byte: the time would say how much of a guess is right.
const SECRET: [&str; 7] = ["digest", "mac", "password", "secret", "sha256", "signature", "token"];
/// Where such things are judged.
const JUDGES: [&str; 8] = [
    "gateway/src/admin/",
    "gateway/src/cli/demo/",
    "gateway/src/keys/",
    "plugins/src/api_key/",
    "plugins/src/basic/",
    "plugins/src/hmac_signature/",
    "plugins/src/jwt/",
    "plugins/src/oauth2_introspection/",
];
/// Comparisons of such names that may stand there, and why.
const HARMLESS: [(&str, &str); 2] = [
    ("before != changed.record.sha256", "digests compare in constant time by their type"),
    ("self.forward.token == TokenRule::Strip", "a setting"),
];
/// What judges secrets, and the call that does it in constant time.
const CONSTANT: [(&str, &str); 6] = [
    ("gateway/src/admin/guard.rs", ".ct_eq("),
    ("gateway/src/cli/demo/issuer.rs", ".ct_eq("),
    ("plugins/api/src/consumer.rs", ".ct_eq("),
    ("plugins/src/basic/password.rs", ".verify_password("),
    ("plugins/src/hmac_signature/mod.rs", ".ct_eq("),
    ("plugins/src/jwt/provider.rs", "hmac::verify("),
];

/// The last names of the operands around each operator of a line that compares.
fn compared(line: &str) -> Vec<String> {
    let path = |c: char| c.is_alphanumeric() || "_.&*:()".contains(c);
    let last = |operand: &str| {
        let name = operand.trim_matches(['&', '*', '(', ')', '.']).rsplit(['.', ':']).next().unwrap_or_default();
        name.trim_end_matches(['(', ')']).to_owned()
    };
    let mut names = Vec::new();
    for operator in [" == ", " != ", ".eq(", ".starts_with(", ".ends_with("] {
        for (at, _) in line.match_indices(operator) {
            let (before, after) = (&line[..at], &line[at + operator.len()..]);
            names.push(last(before.rsplit(|c| !path(c)).next().unwrap_or_default()));
            names.push(last(after.split(|c| !path(c)).next().unwrap_or_default()));
        }
    }
    names
}

fn compared_in_the_open(files: &[File]) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in files.iter().filter(|file| !file.is_test() && JUDGES.iter().any(|place| file.path.starts_with(place))) {
        for (at, line) in (1..).zip(file.code().lines()) {
            let is_secret = compared(line).iter().any(|name| SECRET.contains(&name.as_str()));
            if is_secret && !HARMLESS.iter().any(|(text, _)| line.contains(text)) {
                wrong.push(format!("{}:{at}: {}", file.path, line.trim()));
            }
        }
    }
    wrong
}

#[test]
fn secrets_are_compared_in_constant_time() {
    for broken in [
        "if token == expected {",
        "let same = state.token != presented;",
        "signed.signatures.iter().any(|one| one == &signature)",
        "if self.secret() == *given {",
        "wanted.eq(&signature)",
        "if password.starts_with(guess) {",
    ] {
        assert_eq!(compared_in_the_open(&[File::made_up("plugins/src/basic/mod.rs", broken)]).len(), 1, "{broken}");
    }
    for good in ["if token.len() == 3 {", "if bool::from(token.ct_eq(&state.token)) {", "if kind == Kind::Token {"] {
        assert_none(&compared_in_the_open(&[File::made_up("plugins/src/basic/mod.rs", good)]));
    }
    let files = rust();
    assert_none(&compared_in_the_open(&files));
    let has = |path: &str, text: &str| files.iter().any(|file| file.path == path && file.code().contains(text));
    for (path, call) in CONSTANT {
        assert!(has(path, call), "{path} does not call `{call}..)`");
    }
    for (text, why) in HARMLESS {
        assert!(files.iter().any(|file| file.code().contains(text)), "`{text}` ({why}) is not there any more");
    }
}

/// What is never left in code.
fn left_over(files: &[File]) -> Vec<String> {
    let signs = ["todo!", "unimplemented!", "dbg!", "#[ignore", "thread::sleep"];
    let mut wrong = Vec::new();
    for file in files.iter().filter(|file| file.path != "tests/it/tidy/code.rs") {
        for (at, line) in (1..).zip(file.text.lines()) {
            if signs.iter().any(|sign| line.contains(sign)) {
                wrong.push(format!("{}:{at}: {}", file.path, line.trim()));
            }
        }
    }
    wrong
}

#[test]
fn nothing_is_left_to_do_and_nothing_sleeps() {
    let broken = "todo!()\nunimplemented!()\ndbg!(x)\n#[ignore]\n#[ignore = \"slow\"]\nthread::sleep(x)\n";
    assert_eq!(left_over(&[File::made_up("tests/it/a.rs", broken)]).len(), 6);
    assert_none(&left_over(&rust()));
}
