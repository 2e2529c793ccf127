//! Rules for texts: what they say is so.

use std::{
    collections::BTreeSet,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

use super::{File, assert_none, pages, read, root, rust, tree, tree::members};
use crate::harness::BINARY;

/// The fenced blocks of a page in one language, each with the line it begins on.
fn fences(text: &str, language: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut open: Option<(bool, usize, String)> = None;
    for (at, line) in (1..).zip(text.lines()) {
        match (&mut open, line.trim_start().strip_prefix("```")) {
            (None, Some(tag)) => open = Some((tag.trim() == language, at + 1, String::new())),
            (Some((wanted, from, block)), Some(_)) => {
                if *wanted {
                    found.push((*from, std::mem::take(block)));
                }
                open = None;
            }
            (Some((_, _, block)), None) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, None) => {}
        }
    }
    found
}

/// A page without its fenced blocks.
fn prose(text: &str) -> String {
    text.split("```").step_by(2).collect()
}

fn undescribed(path: &str, schema: &Value, wrong: &mut Vec<String>) {
    for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let path = format!("{path}.{name}");
        if property.get("description").and_then(Value::as_str).is_none_or(str::is_empty) {
            wrong.push(path.clone());
        }
        undescribed(&path, property, wrong);
    }
    for key in ["items", "additionalProperties"] {
        schema.get(key).into_iter().for_each(|inner| undescribed(&format!("{path}[]"), inner, wrong));
    }
    for key in ["oneOf", "anyOf"] {
        let branches = schema.get(key).and_then(Value::as_array);
        branches.into_iter().flatten().for_each(|branch| undescribed(path, branch, wrong));
    }
}

#[test]
fn every_key_of_the_schema_is_described() {
    let mut wrong = Vec::new();
    let broken =
        serde_json::json!({ "properties": { "a": { "description": "", "items": { "properties": { "b": {} } } } } });
    undescribed("", &broken, &mut wrong);
    assert_eq!(wrong, [".a", ".a[].b"]);
    wrong.clear();
    undescribed("", &serde_json::from_str(&read("conf/gateway.schema.json")).unwrap(), &mut wrong);
    assert_none(&wrong);
}

#[test]
fn whole_examples_in_texts_are_valid() {
    let folder = tempfile::tempdir().unwrap();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for page in pages() {
        for (line, block) in fences(&page.text, "yaml") {
            let whole = block.lines().any(|l| l.starts_with("routes:") || l.starts_with("listeners:"));
            assert!(whole, "{}:{line}: a part of a configuration is fenced as yml", page.path);
            std::fs::write(folder.path().join("example.yaml"), block).unwrap();
            let output =
                Command::new(BINARY).current_dir(folder.path()).args(["check", "example.yaml"]).output().unwrap();
            if !output.status.success() {
                wrong.push(format!("{}:{line}:\n{}", page.path, String::from_utf8_lossy(&output.stderr)));
            }
            seen += 1;
        }
    }
    assert_none(&wrong);
    assert!(seen >= 5, "only {seen} examples");
}

/// The place in a page that a heading makes.
fn anchor(heading: &str) -> String {
    let letters = heading.trim().to_lowercase();
    let kept = letters.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// Links of a page that lead to nothing.
fn dead_links(page: &File) -> Vec<String> {
    let here = Path::new(&page.path).parent().unwrap();
    let mut wrong = Vec::new();
    for target in prose(&page.text).split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        if target.contains("://") || target.starts_with("mailto:") {
            continue;
        }
        let (path, place) = target.split_once('#').unwrap_or((target, ""));
        let file = if path.is_empty() { root().join(&page.path) } else { root().join(here).join(path) };
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let mut headings = text.lines().filter(|line| line.starts_with('#')).map(|l| anchor(l.trim_start_matches('#')));
        if !file.exists() || !(place.is_empty() || headings.any(|heading| heading == place)) {
            wrong.push(format!("{}: {target}", page.path));
        }
    }
    wrong
}

#[test]
fn links_lead_somewhere() {
    let broken =
        "# A\n[a](nowhere.md) [b](index.md#nothing) [c](#b) [d](index.md#guides) [e](#a) [f](https://example.com)\n";
    assert_eq!(dead_links(&File::made_up("docs/a.md", broken)).len(), 3 + 1);
    assert_none(&pages().iter().flat_map(dead_links).collect::<Vec<_>>());
}

/// What stands between `open` and the first of `close`, wherever in the text.
fn between<'t>(text: &'t str, open: &'t str, close: &'t [char]) -> impl Iterator<Item = &'t str> {
    text.split(open).skip(1).filter_map(move |rest| rest.split(close).next())
}

#[test]
fn metrics_are_those_of_the_operations_page() {
    let source: BTreeSet<String> = rust()
        .iter()
        .filter(|file| file.path.starts_with("gateway/src/") && !file.is_test())
        .flat_map(|file| between(file.code(), "\"crossway_", &['"']).map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let page = read("docs/operations.md");
    let rows: BTreeSet<String> = between(&page, "\n| `crossway_", &['`']).map(str::to_owned).collect();
    assert!(source.len() >= 15, "{source:?}");
    assert_eq!(source, rows, "names in the source, and rows in docs/operations.md");
    for page in pages() {
        for name in between(&page.text, "`crossway_", &['`', '{', ':'])
            .filter(|name| !name.starts_with("plugin_api") && !name.starts_with('<'))
        {
            assert!(source.contains(name), "{}: there is no metric crossway_{name}", page.path);
        }
    }
}

fn is_code(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// The codes that a file gives to refusals and faults: the first text among the arguments of what makes them.
fn codes(file: &File) -> Vec<String> {
    let mut found = Vec::new();
    let bearer = ["bearer::missing(", "bearer::invalid(", "bearer::several("];
    for call in ["Refusal::bad(", "Refusal::new(", "problem(", "unauthorized("].into_iter().chain(bearer) {
        for rest in file.code().split(call).skip(1) {
            let arguments = rest.split(");").next().unwrap_or_default();
            let first = arguments.split('"').nth(1).unwrap_or_default();
            found.extend(is_code(first).then(|| first.to_owned()));
        }
    }
    let faults = if file.path.ends_with("/fault.rs") { "=> \"" } else { "\"code\": \"" };
    found.extend(between(file.code(), faults, &['"']).filter(|text| is_code(text)).map(str::to_owned));
    found
}

#[test]
fn codes_are_those_of_the_errors_page() {
    let places = ["gateway/src/", "plugins/src/", "plugins/api/src/fault.rs", "plugins/api/src/reply.rs"];
    let source: BTreeSet<String> = rust()
        .iter()
        .filter(|file| places.iter().any(|place| file.path.starts_with(place)) && !file.is_test())
        .flat_map(codes)
        .collect();
    let page = read("docs/errors.md");
    // What stands before the tables of codes has words of its own.
    let (_, page) = page.split_once("\n## 400 ").unwrap();
    let first = between(page, "\n| `", &['`']).map(str::to_owned);
    let admin = page.lines().filter(|line| line.starts_with("| 4") || line.starts_with("| 5"));
    let rows: BTreeSet<String> = first.chain(admin.filter_map(|l| l.split('`').nth(1)).map(str::to_owned)).collect();
    assert!(source.len() >= 35, "{source:?}");
    assert_eq!(source, rows, "codes in the source, and rows in docs/errors.md");
    let plugins = read("plugins/README.md");
    let table = plugins.split_once("## Refusals").unwrap().1.split_once("\n## ").unwrap().0;
    for code in between(table, "\n| `", &['`']) {
        assert!(rows.contains(code), "plugins/README.md: `{code}` is not in docs/errors.md");
    }
}

fn help(command: &[&str]) -> Option<String> {
    let output = Command::new(BINARY).args(command).arg("--help").stdin(Stdio::null()).output().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

/// What is wrong with the words of a call of `crossway`.
fn wrong_call(words: &[&str]) -> Option<String> {
    let Some(command) = words.first().filter(|word| !word.starts_with('-')) else {
        let all = help(&[]).unwrap();
        return words.iter().find(|word| !all.contains(**word)).map(|word| format!("there is no {word}"));
    };
    let Some(mut text) = help(&[command]) else { return Some(format!("there is no command {command}")) };
    if text.contains("<COMMAND>") {
        // The command stands for a group of commands, in a text all of them.
        for inner in
            words.get(1).into_iter().flat_map(|inner| inner.split(['|', '\\']).filter(|inner| !inner.is_empty()))
        {
            let Some(more) = help(&[command, inner]) else { return Some(format!("`{command}` has no {inner}")) };
            text.push_str(&more);
        }
    }
    let mut options = words.iter().filter(|word| word.starts_with('-'));
    options.find(|option| !text.contains(**option)).map(|option| format!("`{command}` has no {option}"))
}

/// What is wrong with a call of cargo: a member, a target or a test file that is not there.
fn wrong_cargo(words: &[&str]) -> Option<String> {
    let ours =
        |name: &str| members().iter().any(|m| read(&format!("{m}/Cargo.toml")).contains(&format!("name = \"{name}\"")));
    for pair in words.windows(2) {
        match pair {
            ["-p" | "--package" | "--test", name] if !ours(name) => return Some(format!("there is no {name}")),
            ["it", module] if !root().join(format!("tests/it/{module}.rs")).exists() => {
                return Some(format!("there is no module {module}"));
            }
            _ => {}
        }
    }
    let own = words.iter().position(|word| *word == "--").map(|at| &words[at + 1..]);
    own.and_then(wrong_call)
}

/// What is wrong with a line that somebody may type.
fn wrong_command(line: &str) -> Option<String> {
    let line = line.split(" #").next().unwrap_or_default();
    let words: Vec<&str> = line.split_whitespace().collect();
    let (program, rest) = words.split_first()?;
    match *program {
        "crossway" | "target/release/crossway" | "target/debug/crossway" => wrong_call(rest),
        "cargo" => wrong_cargo(rest),
        path if path.starts_with("scripts/") || path.starts_with("benches/") => {
            (!is_program(path)).then(|| format!("{path} is no program"))
        }
        _ => None,
    }
}

fn is_program(path: &str) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(root().join(path)).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[test]
fn commands_exist() {
    for broken in [
        "crossway walk",
        "crossway run --fast",
        "crossway keys make",
        "crossway keys create --fast",
        "target/release/crossway --loud",
        "cargo test -p nothing",
        "cargo test --test it nothing",
        "cargo run -- walk",
        "scripts/nothing",
        "benches/README.md",
    ] {
        assert!(wrong_command(broken).is_some(), "{broken}");
    }
    let mut wrong = Vec::new();
    let mut seen = 0;
    for page in pages() {
        let blocks = fences(&page.text, "sh").into_iter().flat_map(|(at, block)| {
            block.lines().zip(at..).map(|(line, at)| (at, line.to_owned())).collect::<Vec<_>>()
        });
        let spans = prose(&page.text);
        let spans =
            spans.split('`').skip(1).step_by(2).filter(|span| span.starts_with("crossway ")).map(|s| (0, s.to_owned()));
        for (at, line) in blocks.chain(spans) {
            seen += 1;
            wrong.extend(wrong_command(&line).map(|why| format!("{}:{at}: {line}: {why}", page.path)));
        }
    }
    assert_none(&wrong);
    assert!(seen >= 25, "only {seen} commands");
}

#[test]
fn programs_can_be_run() {
    let marked = |file: &&File| file.text.starts_with("#!");
    let wrong =
        tree().iter().filter(marked).filter(|file| !is_program(&file.path)).map(|f| f.path.clone()).collect::<Vec<_>>();
    assert_none(&wrong);
    assert!(is_program("scripts/test") && is_program(".ci/run"));
}
