//! From files to a checked configuration.

use std::{collections::HashMap, fmt, path::Path};

use serde::Deserialize as _;
use serde_path_to_error::Segment;

use super::{
    Config, Sources, admin,
    check::{self, Findings},
    document::{self, Budget},
    error::{ConfigError, Diagnostic},
    files::{self, File},
    merge,
    node::push,
    references::{self, Environment, Resolved},
    schema,
};

/// Most diagnostics of one attempt to load; more are counted.
const MAX_SHOWN: usize = 50;

/// A configuration that fits its types, and where it came from.
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Where each value stands.
    pub sources: Sources,
    /// SHA-256 over the names and texts of the files, in hexadecimal digits.
    pub hash: String,
}

impl Loaded {
    /// What later stages found, in the order of the files and up to a bound.
    pub fn refused(&self, found: Vec<Diagnostic>) -> ConfigError {
        in_order(Findings { found, more: 0 }, self.sources.files())
    }
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded").field("sources", &self.sources).field("hash", &self.hash).finish_non_exhaustive()
    }
}

/// Loads a file, or the `*.yaml` and `*.yml` files of a folder, with the environment of the process. Everything that is
/// wrong is reported at once, unless a file cannot be read or is not YAML.
pub fn load(path: &Path) -> Result<Loaded, ConfigError> {
    load_with(path, &environment)
}

/// Like [`load`], for a text; relative paths in it start from the current folder.
pub fn load_text(name: &str, text: &str) -> Result<Loaded, ConfigError> {
    load_files(vec![File::new(Path::new(name), text.to_owned())], &environment)
}

/// The `admin` section alone, as far as it can be understood, whatever the state of the rest: for the command that asks a
/// running gateway to reload.
pub fn admin_of(path: &Path) -> Option<admin::Admin> {
    files::read_all(path).ok()?.into_iter().find_map(|file| admin_in(file, &environment))
}

/// A variable of the environment that is set to a text.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Like [`load`], with another environment.
pub(super) fn load_with(path: &Path, env: Environment<'_>) -> Result<Loaded, ConfigError> {
    load_files(files::read_all(path).map_err(|wrong| ConfigError { diagnostics: wrong })?, env)
}

/// Loads what was read.
pub(super) fn load_files(files: Vec<File>, env: Environment<'_>) -> Result<Loaded, ConfigError> {
    let hash = files::hash(&files);
    let mut budget = Budget::default();
    let mut roots = Vec::new();
    let mut broken = Vec::new();
    for (at, file) in (0u32..).zip(&files) {
        match document::compose(at, &file.text, &mut budget) {
            Ok(root) => roots.push(root),
            Err(problems) => {
                broken.extend(problems.into_iter().map(|problem| files::broken(&files, at as usize, problem)));
            }
        }
    }
    if !broken.is_empty() {
        return Err(in_order(Findings { found: broken, more: 0 }, &files));
    }
    let (mut sources, clashes) = Sources::new(files, roots);
    let Resolved { value, mut wrong, failed, known } =
        references::resolve(&sources, sources.root(), Some(schema::root()), env);
    sources.veil(known);
    wrong.extend(clashes.into_iter().map(|clash| clash.report(&sources)));
    wrong.extend(merge::duplicates(&sources, &value));
    let mut findings = check::check(&sources, &value, &failed);
    findings.found.append(&mut wrong);
    if !findings.found.is_empty() {
        return Err(in_order(findings, sources.files()));
    }
    match serde_path_to_error::deserialize(&value) {
        Ok(config) => Ok(Loaded { config, sources, hash }),
        Err(error) => Err(ill_typed(&sources, &error).into()),
    }
}

/// What the types refuse though the schema accepts it.
fn ill_typed(sources: &Sources, error: &serde_path_to_error::Error<serde_json::Error>) -> Diagnostic {
    let mut pointer = String::new();
    for segment in error.path() {
        match segment {
            Segment::Seq { index } => push(&mut pointer, &index.to_string()),
            Segment::Map { key } => push(&mut pointer, key),
            Segment::Enum { .. } => {}
            Segment::Unknown => break,
        }
    }
    let veiled = sources.find(&pointer).is_none_or(|node| sources.is_veiled(node));
    let message = if veiled { "is not accepted here".to_owned() } else { error.inner().to_string() };
    sources.error(&pointer, message)
}

/// All that was found, by file and place, up to a bound.
fn in_order(findings: Findings, files: &[File]) -> ConfigError {
    let Findings { found: mut diagnostics, more } = findings;
    let order: HashMap<&str, usize> = files.iter().map(|file| file.shown.as_str()).zip(0..).collect();
    diagnostics.sort_by_key(|d| (order.get(d.file.as_str()).copied(), d.span.start));
    let more = more + diagnostics.len().saturating_sub(MAX_SHOWN);
    diagnostics.truncate(MAX_SHOWN);
    if more > 0 {
        diagnostics.push(Diagnostic::whole("", format!("and {more} more")));
    }
    ConfigError { diagnostics }
}

fn admin_in(file: File, env: Environment<'_>) -> Option<admin::Admin> {
    let (file, root) = match document::compose(0, &file.text, &mut Budget::default()) {
        Ok(root) => (file, root),
        Err(_) => {
            let lines = File::new(Path::new(&file.shown), admin_lines(&file.text));
            let root = document::compose(0, &lines.text, &mut Budget::default()).ok()?;
            (lines, root)
        }
    };
    let (sources, _) = Sources::new(vec![file], vec![root]);
    let node = sources.root().get("admin")?;
    let schema = schema::property(schema::root(), "admin");
    let resolved = references::resolve(&sources, node, schema, env);
    admin::Admin::deserialize(&resolved.value).ok()
}

/// The lines of the `admin` section, found without understanding the rest.
fn admin_lines(text: &str) -> String {
    let inside = |line: &&str| line.starts_with([' ', '\t', '#', '\r', '\n', '-']) || line.is_empty();
    let mut lines = text.split_inclusive('\n').skip_while(|line| !line.starts_with("admin:"));
    let first = lines.next().unwrap_or_default();
    std::iter::once(first).chain(lines.take_while(inside)).collect()
}
