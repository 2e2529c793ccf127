//! Rules of the house that no other tool checks. Each rule is a function from texts to what is wrong in them, and is tried
//! on a text that breaks it before it is put to the tree.

mod code;
mod docs;
mod plugins;
mod tree;

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A file of the tree.
struct File {
    /// Path below the root, with `/`.
    path: String,
    text: String,
}

impl File {
    /// A file that is not there, to try a rule on.
    fn made_up(path: &str, text: &str) -> Self {
        Self { path: path.into(), text: text.into() }
    }

    /// The text without the tests at its end.
    fn code(&self) -> &str {
        self.text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default()
    }

    /// Whether the whole file is test code.
    fn is_test(&self) -> bool {
        let inside = |folder: &str| self.path.split('/').any(|part| part == folder);
        let name = self.path.rsplit('/').next().unwrap_or_default();
        inside("tests") || matches!(name, "tests.rs" | "compliance.rs" | "testing.rs")
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every file that is kept under version control: all but what `.gitignore` names.
fn tree() -> Vec<File> {
    let ignored = read(".gitignore");
    let ignored: Vec<&str> = ignored.lines().map(|line| line.trim_matches('/')).chain([".git"]).collect();
    let mut found = Vec::new();
    walk(&root(), "", &ignored, &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.len() > 200, "only {} files", found.len());
    found
}

fn walk(folder: &Path, below: &str, ignored: &[&str], found: &mut Vec<File>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        if ignored.contains(&path.as_str()) {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            walk(&entry.path(), &path, ignored, found);
        } else {
            let text = String::from_utf8_lossy(&fs::read(entry.path()).unwrap()).into_owned();
            found.push(File { path, text });
        }
    }
}

/// The Rust files of our crates, those of the integration tests included.
fn rust() -> Vec<File> {
    let ours =
        |path: &str| ["gateway/", "plugins/", "benches/", "tests/"].iter().any(|folder| path.starts_with(folder));
    tree().into_iter().filter(|file| is_a(&file.path, "rs") && ours(&file.path)).collect()
}

fn is_a(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|found| found == extension)
}

/// The texts for people.
fn pages() -> Vec<File> {
    let pages: Vec<File> = tree()
        .into_iter()
        .filter(|file| {
            Path::new(&file.path).extension().is_some_and(|e| e == "md") && !file.path.starts_with("vendor/")
        })
        .collect();
    assert!(pages.len() >= 12, "only {} pages", pages.len());
    pages
}

/// Fails with the list, one line each.
#[track_caller]
fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} found:\n{}", wrong.len(), wrong.join("\n"));
}
