//! Rules for the plugins: each has what users and developers look for.

use crossway_plugins::AnyPlugin;

use super::{File, assert_none, is_a, read, root, tree};

/// What the plugin `name` lacks, of the files given.
fn lacks(name: &str, rows: &str, tests: &str, broken: &[File]) -> Vec<String> {
    let mut wrong = Vec::new();
    if !rows.lines().any(|line| line.starts_with(&format!("| `{name}` |"))) {
        wrong.push(format!("{name}: no row in plugins/README.md"));
    }
    if !tests.contains(&format!("#[test]\nfn {name}() {{")) {
        wrong.push(format!("{name}: no test `fn {name}()` in tests/it/plugins.rs or tests/it/credentials/"));
    }
    // A file that is refused for its settings, not one that happens to use the plugin.
    let prefix = format!("tests/conf/invalid/compile/{name}-");
    let mut settings = broken.iter().filter(|file| file.path.starts_with(&prefix) && is_a(&file.path, "yaml"));
    if !settings.any(|file| file.text.contains(&format!("- {name}:"))) {
        wrong.push(format!("{name}: no file {prefix}*.yaml that uses it"));
    }
    wrong
}

#[test]
fn every_plugin_is_documented_tried_and_refused() {
    assert_eq!(lacks("x", "", "", &[]).len(), 3);
    let used = [File::made_up("tests/conf/invalid/compile/x-bad.yaml", "plugins:\n  - x: {}\n")];
    assert_none(&lacks("x", "| `x` | request |\n", "#[test]\nfn x() {\n", &used));
    let rows = read("plugins/README.md");
    let tree = tree();
    let is_test = |file: &&File| file.path == "tests/it/plugins.rs" || file.path.starts_with("tests/it/credentials/");
    let tests: String = tree.iter().filter(is_test).map(|file| file.text.as_str()).collect();
    let broken: Vec<File> =
        tree.into_iter().filter(|file| file.path.starts_with("tests/conf/invalid/compile/")).collect();
    let mut wrong = Vec::new();
    for name in AnyPlugin::NAMES {
        wrong.extend(lacks(name, &rows, &tests, &broken));
        if !root().join(format!("conf/plugins/{name}.yaml")).exists() {
            wrong.push(format!("{name}: no conf/plugins/{name}.yaml"));
        }
    }
    assert_none(&wrong);
}
