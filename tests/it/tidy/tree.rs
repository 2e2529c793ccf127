//! Rules for the tree as a whole.

use super::{File, assert_none, read, tree};

/// Paths of one machine and words about how a text came to be: in pieces, so that this file is not found.
const TRACES: [[&str; 2]; 18] = [
    ["/wo", "rk/"],
    ["/ro", "ot/"],
    ["/ho", "me/"],
    ["/tm", "p/"],
    ["/us", "ers/"],
    ["shared/", "design"],
    ["shared/", "reference"],
    ["bash", "_jobs"],
    ["cla", "ude"],
    ["anth", "ropic"],
    ["open", "ai"],
    ["chat", "gpt"],
    ["co", "pilot"],
    ["language ", "model"],
    ["co-authored", "-by"],
    ["issue ", "#"],
    ["/iss", "ues/"],
    ["pull ", "request #"],
];

fn traces(files: &[File]) -> Vec<String> {
    let signs: Vec<String> = TRACES.iter().map(|pieces| pieces.concat()).collect();
    let mut wrong = Vec::new();
    for file in files.iter().filter(|file| !file.path.starts_with("vendor/")) {
        for (at, line) in (1..).zip(file.text.lines()) {
            let small = line.to_ascii_lowercase();
            if signs.iter().any(|sign| small.contains(sign)) {
                wrong.push(format!("{}:{at}: {}", file.path, line.trim()));
            }
        }
    }
    wrong
}

#[test]
fn nothing_tells_where_it_was_made() {
    for pieces in TRACES {
        let line = format!("see {} there", pieces.concat().to_uppercase());
        assert_eq!(traces(&[File::made_up("docs/a.md", &line)]).len(), 1, "{line}");
    }
    assert_none(&traces(&tree()));
}

/// The folders of the workspace's members.
pub(super) fn members() -> Vec<String> {
    let manifest = read("Cargo.toml");
    let list = manifest.split_once("members = [").unwrap().1.split_once(']').unwrap().0;
    let members: Vec<String> = list.split(',').map(|name| name.trim().trim_matches('"').to_owned()).collect();
    assert!(members.len() >= 4 && members.contains(&"plugins/api".to_owned()), "{members:?}");
    members
}

fn without_lints(manifests: &[File]) -> Vec<String> {
    let wrong = manifests.iter().filter(|file| !file.text.contains("\n[lints]\nworkspace = true\n"));
    wrong.map(|file| file.path.clone()).collect()
}

#[test]
fn every_crate_has_the_lints_of_the_workspace() {
    let broken = "[package]\nname = \"a\"\n\n[lints]\nworkspace = false\n";
    assert_eq!(without_lints(&[File::made_up("a/Cargo.toml", broken)]).len(), 1);
    let members = members();
    let paths = members.iter().map(|member| format!("{member}/Cargo.toml"));
    let manifests: Vec<File> = paths.map(|path| File { text: read(&path), path }).collect();
    assert_none(&without_lints(&manifests));
    let strays =
        tree().into_iter().filter(|file| file.path.ends_with("/Cargo.toml") && !file.path.starts_with("vendor/"));
    for file in strays {
        let folder = file.path.trim_end_matches("/Cargo.toml");
        assert!(members.iter().any(|member| member == folder), "{folder} is no member of the workspace");
    }
}
