//! What `check` says: broken configurations as data, and agreement with `run`.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::harness::{BINARY, Folder};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn is_a(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|found| found == extension)
}

/// What `check` says of a file, from the folder it stands in.
fn check(folder: &Path, name: &str) -> (Option<i32>, String) {
    let output = Command::new(BINARY).current_dir(folder).args(["check", name]).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// Every broken configuration says what is expected of it. `UPDATE_EXPECTED=1` writes the expectations anew, to be read
/// before they are committed.
#[test]
fn broken_configurations_are_explained() {
    let mut seen = 0;
    let mut wrong = Vec::new();
    for folder in [root().join("tests/conf/invalid/load"), root().join("tests/conf/invalid/compile")] {
        let mut names: Vec<String> =
            std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        for name in names.iter().filter(|n| is_a(n, "yaml") || is_a(n, "d")) {
            let expected_path = folder.join(
                name.strip_suffix(".yaml").map_or_else(|| format!("{name}.expected"), |s| format!("{s}.expected")),
            );
            let (code, said) = check(&folder, name);
            if std::env::var_os("UPDATE_EXPECTED").is_some() {
                std::fs::write(&expected_path, &said).unwrap();
            }
            let expected = std::fs::read_to_string(&expected_path).unwrap_or_default();
            if code != Some(2) || said != expected {
                wrong.push(format!("--- {name}: exit code {code:?}\n{said}\n--- expected\n{expected}"));
            }
            seen += 1;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 40, "only {seen} cases");
}

#[test]
fn examples_are_valid() {
    // With the certificates that the examples name: none are kept beside them.
    let copy = tempfile::tempdir().unwrap();
    let conf = copy.path().join("conf");
    let copied = Command::new("cp").arg("-r").arg(root().join("conf")).arg(&conf).status().unwrap();
    assert!(copied.success());
    let (made, tls) = (Folder::new(), conf.join("plugins/tls"));
    made.make("api", &["api.example.com"], 2040);
    std::fs::create_dir(&tls).unwrap();
    for (from, to) in [("ca.pem", "clients-ca.pem"), ("api.pem", "api.pem"), ("api.key", "api.key")] {
        std::fs::copy(made.path().join(from), tls.join(to)).unwrap();
    }
    let mut seen = 0;
    for folder in [conf.clone(), conf.join("plugins")] {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if is_a(&name, "yaml") {
                let (code, said) = check(&folder, &name);
                assert_eq!(code, Some(0), "{name}: {said}");
                seen += 1;
            }
        }
    }
    assert!(seen >= 8, "only {seen} examples");
}

/// A small source of numbers that are the same in every run (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).unwrap()
    }
}

/// One change to a valid configuration: a line dropped, doubled, or a word replaced by one that often means trouble.
fn mutate(valid: &str, dice: &mut Dice) -> String {
    const WORDS: [&str; 12] =
        ["-1", "0", "null", "{}", "[]", "\"\"", "none", "1s", "999999999999", "x", "true", "${env:NOT_SET}"];
    let mut lines: Vec<String> = valid.lines().map(str::to_owned).collect();
    let at = dice.roll(lines.len());
    match dice.roll(4) {
        0 => drop(lines.remove(at)),
        1 => lines.insert(at, lines[at].clone()),
        2 => {
            let key = lines[at].replace(':', "x:");
            lines[at] = key;
        }
        _ => {
            if let Some((key, _)) = lines[at].split_once(": ") {
                lines[at] = format!("{key}: {}", WORDS[dice.roll(WORDS.len())]);
            }
        }
    }
    lines.join("\n") + "\n"
}

const VALID: &str = "listeners:
  - name: public
    address: 127.0.0.1:0
runtime:
  threads: 1
limits:
  client:
    idle: 30s
  request:
    header_fields: 50
    body: 1MiB
consumers:
  - name: acme
    groups: [gold]
    credentials:
      - api_key:
          sha256: 5f2bfd5a2f4d7d0f7f0d9a1fb7e1d2d5c3b7a9e8f1c2d3e4f5a6b7c8d9e0f1a2
upstreams:
  erp:
    endpoints:
      - address: 127.0.0.1:9
        weight: 2
    timeouts:
      connect: 1s
      total: 5s
    retry:
      attempts: 1
      on: [connect_error, 503]
plugins:
  - request_id: {}
    id: rid
chains:
  partners:
    - api_key: {}
    - headers:
        response:
          set:
            X-A: b
routes:
  - name: one
    match:
      path: /one/{id}
      methods: [GET]
    chain: partners
    upstream: erp
    rewrite:
      path: /uno/{id}
  - name: two
    match:
      path: /two
    auth: none
    without: [rid]
    plugins:
      - respond:
          status: 200
          body: two
        when:
          methods: [GET]
    upstream: erp
";

/// `run` on a text: whether it starts. It is ended as soon as it listens.
fn starts(folder: &Path, name: &str) -> (bool, String) {
    use std::io::BufRead;
    let mut child = Command::new(BINARY)
        .current_dir(folder)
        .args(["run", "-c", name])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut log = std::io::BufReader::new(child.stderr.take().unwrap());
    let started = loop {
        let mut line = String::new();
        if log.read_line(&mut line).unwrap() == 0 {
            break false;
        }
        said.push_str(&line);
        if line.contains("listening") {
            break true;
        }
    };
    let _ = child.kill();
    let status = child.wait().unwrap();
    assert!(started || status.code() == Some(2), "ended with {status}: {said}");
    (started, said)
}

#[test]
fn check_and_run_agree() {
    let folder = tempfile::tempdir().unwrap();
    let mut dice = Dice(0x5eed_cafe_f00d_beef);
    let (mut valid, mut invalid) = (0, 0);
    for round in 0..500 {
        let text = if round == 0 { VALID.to_owned() } else { mutate(VALID, &mut dice) };
        std::fs::write(folder.path().join("c.yaml"), &text).unwrap();
        let (code, checked) = check(folder.path(), "c.yaml");
        let (started, said) = starts(folder.path(), "c.yaml");
        assert_eq!(code == Some(0), started, "round {round}\n{text}\ncheck: {checked}\nrun: {said}");
        assert!(!checked.contains("panicked"), "{checked}");
        if started {
            valid += 1;
        } else {
            invalid += 1;
            assert_eq!(checked, said, "round {round}: both say the same");
        }
    }
    assert!(valid > 20 && invalid > 100, "{valid} valid, {invalid} invalid");
}

#[test]
fn what_the_help_of_a_key_says_is_in_the_generated_files() {
    let files = [(["schema"].as_slice(), "conf/gateway.schema.json"), (&["schema", "--markdown"], "docs/reference.md")];
    for (arguments, path) in files {
        let output = Command::new(BINARY).args(arguments).output().unwrap();
        let committed = std::fs::read_to_string(root().join(path)).unwrap();
        let made = String::from_utf8(output.stdout).unwrap();
        assert_eq!(made, committed, "run `crossway {} > {path}`", arguments.join(" "));
    }
}
