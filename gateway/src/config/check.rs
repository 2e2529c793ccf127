//! The check of the whole configuration against its schema: everything that is wrong, at once, each at its place.

use std::{collections::HashSet, sync::LazyLock};

use crossway_plugin_api::{
    config::{FormatCheck, formats},
    suggest,
};
use jsonschema::{PatternOptions, ValidationError, Validator, error::ValidationErrorKind as Kind};
use serde_json::Value;

use super::{
    balance::On,
    entry::CORE_KEYS,
    error::Diagnostic,
    explain,
    fallback::FallbackOn,
    memory::{MemoryMax, ShedAt},
    node::{Data, Node, push},
    quoted,
    retry::RetryOn,
    schema,
    sources::Sources,
};

/// Most errors that are explained; more are counted.
const MAX_EXPLAINED: usize = 1000;

/// What is wrong, and how much more there is.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) found: Vec<Diagnostic>,
    pub(super) more: usize,
}

/// Checks a format by its name.
pub(super) fn format_check(name: &str) -> Option<FormatCheck> {
    all_formats().find(|(known, _)| *known == name).map(|(_, check)| check)
}

fn all_formats() -> impl Iterator<Item = (&'static str, FormatCheck)> {
    let own: [(&str, FormatCheck); 5] = [
        (RetryOn::FORMAT, RetryOn::check),
        (FallbackOn::FORMAT, FallbackOn::check),
        (On::FORMAT, |text| On::parse(text).map(drop)),
        (MemoryMax::FORMAT, MemoryMax::check),
        (ShedAt::FORMAT, ShedAt::check),
    ];
    formats().into_iter().chain(own)
}

fn validator() -> &'static Validator {
    static VALIDATOR: LazyLock<Validator> = LazyLock::new(|| {
        let options = jsonschema::options().with_pattern_options(PatternOptions::regex()).should_validate_formats(true);
        let options = all_formats()
            .fold(options, |options, (name, check)| options.with_format(name, move |text: &str| check(text).is_ok()));
        options.build(schema::root()).expect("the schema is made from our own types, and a test builds it")
    });
    &VALIDATOR
}

/// Checks the configuration; values that could not be resolved are passed over.
pub(super) fn check(sources: &Sources, value: &Value, failed: &HashSet<String>) -> Findings {
    let mut checker = Checker { sources, findings: Findings::default() };
    checker.entries();
    for error in validator().iter_errors(value) {
        if !failed.contains(error.instance_path().as_str()) {
            checker.error(&error);
        }
    }
    checker.findings
}

struct Checker<'a> {
    sources: &'a Sources,
    findings: Findings,
}

impl Checker<'_> {
    fn add(&mut self, make: impl FnOnce(&Sources) -> Diagnostic) {
        if self.findings.found.len() < MAX_EXPLAINED {
            self.findings.found.push(make(self.sources));
        } else {
            self.findings.more += 1;
        }
    }

    fn error(&mut self, error: &ValidationError<'_>) {
        let pointer = error.instance_path().as_str();
        let schema = explain::parent(error.schema_path().as_str());
        match error.kind() {
            Kind::AdditionalProperties { unexpected } => self.unknown_keys(pointer, unexpected, schema),
            Kind::Required { property } => {
                let key = property.as_str().unwrap_or_default();
                if self.is_misspelt(pointer, key, schema) {
                    return;
                }
                self.add(|sources| sources.error_at_key(pointer, format!("the key {} is missing", quoted(key))));
            }
            Kind::PropertyNames { error: inner } => {
                let name = inner.instance().as_str().unwrap_or_default();
                let wrong = explain::format_error(inner).unwrap_or_else(|| "is not accepted here".into());
                let mut place = pointer.to_owned();
                push(&mut place, name);
                self.add(|sources| sources.error_at_key(&place, format!("the key {} {wrong}", quoted(name))));
            }
            Kind::OneOfNotValid { context } | Kind::AnyOf { context } => {
                match explain::meant(error.instance(), schema).and_then(|branch| context.get(branch)) {
                    Some(errors) => errors.iter().for_each(|error| self.error(error)),
                    None => self.add(|sources| explain::choice(sources, error, schema)),
                }
            }
            _ if explain::is_second_error(error, schema) => {}
            _ => self.add(|sources| explain::explain(sources, error, schema)),
        }
    }

    /// Whether an unknown key beside a missing one seems to be that key: it is reported, and that is enough.
    fn is_misspelt(&self, pointer: &str, missing: &str, schema: &Value) -> bool {
        let Some(Data::Mapping(entries)) = self.sources.find(pointer).map(|node| &node.data) else { return false };
        let known = schema::keys(schema);
        let mut unknown = entries.iter().map(|(key, _)| key.as_str()).filter(|key| !known.contains(key));
        unknown.any(|key| suggest(key, known.iter().copied()) == Some(missing))
    }

    fn unknown_keys(&mut self, pointer: &str, unexpected: &[String], schema: &Value) {
        let known = schema::keys(schema);
        let entry = self.sources.find(pointer).filter(|_| is_entry(pointer)).map(plugins_in);
        let core: &[&str] = if is_inner(pointer) { &[] } else { &CORE_KEYS };
        for key in unexpected {
            let mut place = pointer.to_owned();
            push(&mut place, key);
            self.add(|sources| match entry.as_deref() {
                Some(_) if core.is_empty() && CORE_KEYS.contains(&key.as_str()) => {
                    let message = format!("the key {} has no place here", quoted(key));
                    sources.error_at_key(&place, message).help("it stands beside the plugin that holds this list")
                }
                Some([]) => {
                    let plugins = known.iter().copied().filter(|known| !CORE_KEYS.contains(known));
                    let diagnostic = sources.error_at_key(&place, format!("there is no plugin {}", quoted(key)));
                    match suggest(key, plugins) {
                        Some(near) => diagnostic.help(format!("did you mean `{near}`?")),
                        None => diagnostic,
                    }
                }
                Some(_) => with_suggestion(unknown(sources, &place, key), key, core.to_vec()),
                None => with_suggestion(unknown(sources, &place, key), key, known.clone()),
            });
        }
    }

    /// Each entry of a list of plugins has exactly one; the schema cannot say so at a good place.
    fn entries(&mut self) {
        let root = self.sources.root();
        let mut lists: Vec<(String, &Node)> =
            root.get("plugins").map(|list| ("/plugins".into(), list)).into_iter().collect();
        if let Some(Data::Mapping(chains)) = root.get("chains").map(|chains| &chains.data) {
            for (name, list) in chains {
                let mut pointer = "/chains".to_owned();
                push(&mut pointer, name);
                lists.push((pointer, list));
            }
        }
        if let Some(Data::Sequence(routes)) = root.get("routes").map(|routes| &routes.data) {
            let own =
                routes.iter().enumerate().map(|(at, route)| (format!("/routes/{at}/plugins"), route.get("plugins")));
            lists.extend(own.filter_map(|(pointer, list)| Some((pointer, list?))));
        }
        for (pointer, list) in lists {
            if let Data::Sequence(items) = &list.data {
                for (at, item) in items.iter().enumerate() {
                    self.entry(&format!("{pointer}/{at}"), item);
                }
            }
        }
    }

    fn entry(&mut self, pointer: &str, item: &Node) {
        let Data::Mapping(keys) = &item.data else { return };
        for (list, items) in inner_lists(item) {
            for (at, item) in items.iter().enumerate() {
                self.entry(&format!("{pointer}/{list}/{at}"), item);
            }
        }
        match plugins_in(item).as_slice() {
            [] if keys.iter().all(|(key, _)| CORE_KEYS.contains(&key.as_str())) => {
                self.add(|sources| sources.error(pointer, "there is no plugin in this entry"));
            }
            [first, second, ..] => self.add(|sources| {
                let message = format!("two plugins in one entry: {} and {}", quoted(first), quoted(second));
                let diagnostic = sources.error_at_key(&format!("{pointer}/{second}"), message);
                diagnostic.help("begin a new entry with `-`")
            }),
            _ => {}
        }
    }
}

fn unknown(sources: &Sources, place: &str, key: &str) -> Diagnostic {
    sources.error_at_key(place, format!("unknown key {}", quoted(key)))
}

/// Says which key may have been meant, or which there are, if they are few.
fn with_suggestion(diagnostic: Diagnostic, key: &str, mut known: Vec<&str>) -> Diagnostic {
    const FEW: usize = 16;
    known.sort_unstable();
    known.dedup();
    match (suggest(key, known.iter().copied()), known.len()) {
        (Some(near), _) => diagnostic.help(format!("did you mean `{near}`?")),
        (None, 1..=FEW) => diagnostic.help(format!("known here: {}", known.join(", "))),
        _ => diagnostic,
    }
}

/// The plugins whose settings are a list of plugins.
const LISTS: [&str; 2] = ["all_of", "any_of"];

/// The lists of plugins that an entry's plugins hold.
fn inner_lists(entry: &Node) -> impl Iterator<Item = (&'static str, &[Node])> {
    LISTS.into_iter().filter_map(|name| match &entry.get(name)?.data {
        Data::Sequence(items) => Some((name, items.as_slice())),
        _ => None,
    })
}

/// Whether a JSON Pointer names an entry of a list of plugins.
fn is_entry(pointer: &str) -> bool {
    let path: Vec<&str> = pointer.split('/').skip(1).collect();
    matches!(path.as_slice(), ["plugins", _] | ["chains", _, _] | ["routes", _, "plugins", _]) || is_inner(pointer)
}

/// Whether it names an entry of a list within a plugin.
fn is_inner(pointer: &str) -> bool {
    let Some((list, at)) = pointer.rsplit_once('/') else { return false };
    let Some((entry, name)) = list.rsplit_once('/') else { return false };
    LISTS.contains(&name) && at.bytes().all(|b| b.is_ascii_digit()) && is_entry(entry)
}

/// The plugins that an entry names, in its order.
fn plugins_in(entry: &Node) -> Vec<String> {
    let known =
        schema::property(schema::root(), "plugins").and_then(schema::item).map(schema::keys).unwrap_or_default();
    let Data::Mapping(keys) = &entry.data else { return Vec::new() };
    let is_plugin = |key: &&String| known.contains(&key.as_str()) && !CORE_KEYS.contains(&key.as_str());
    keys.iter().map(|(key, _)| key).filter(is_plugin).cloned().collect()
}
