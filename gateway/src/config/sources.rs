//! The configuration as it was written: which value stands where. Later stages report by JSON Pointer through it.

use std::{
    collections::HashMap,
    ops::Range,
    path::{Path, PathBuf},
};

use super::{
    error::{Also, Diagnostic, Severity},
    excerpt::Masks,
    files::{self, File},
    merge::{self, Clash},
    node::{Data, Node, Span, tokens},
    quoted, read, references, schema,
};

/// Largest file that [`Sources::read_file`] reads, in bytes.
const MAX_READ: u64 = 4 << 20;

/// Words that a message begins with when it is the rest of a sentence.
const VERBS: [&str; 18] = [
    "is", "has", "must", "holds", "needs", "stands", "cannot", "does", "names", "changes", "lets", "may", "gets",
    "begins", "takes", "asks", "calls", "makes",
];

/// The files of a configuration, and where each value stands in them.
pub struct Sources {
    files: Vec<File>,
    root: Node,
    /// What is never shown of each file, in order.
    masks: Vec<Vec<Range<usize>>>,
    /// What references became, by JSON Pointer: kept so that no message repeats it.
    resolved: HashMap<String, String>,
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.files.iter().map(|file| &file.shown)).finish()
    }
}

impl Sources {
    /// Takes the roots of all files, and gives back what their merging clashes about.
    pub(super) fn new(files: Vec<File>, roots: Vec<Node>) -> (Self, Vec<Clash>) {
        let mut masks = vec![Vec::new(); files.len()];
        for root in &roots {
            schema::secrets(root, &mut |span| masks[span.file as usize].push(span.range()));
        }
        for ranges in &mut masks {
            ranges.sort_by_key(|range| (range.start, range.end));
            ranges.dedup();
        }
        let (root, clashes) = merge::merge(roots);
        (Self { files, root, masks, resolved: HashMap::new() }, clashes)
    }

    /// Takes what references became.
    pub(super) fn veil(&mut self, resolved: HashMap<String, String>) {
        self.resolved = resolved;
    }

    pub(super) fn root(&self) -> &Node {
        &self.root
    }

    pub(super) fn files(&self) -> &[File] {
        &self.files
    }

    /// Whether something is written at this JSON Pointer.
    pub fn has(&self, pointer: &str) -> bool {
        self.find(pointer).is_some()
    }

    /// An error at the value that a JSON Pointer names, or at its nearest ancestor. A message that begins with a verb
    /// (`is`, `has`, `must`, ...) is the rest of a sentence: the key is put before it.
    pub fn error(&self, pointer: &str, message: impl Into<String>) -> Diagnostic {
        self.report(Severity::Error, pointer, message.into())
    }

    /// An error of the configuration as a whole, at no line of it.
    pub fn error_of_all(&self, message: impl Into<String>) -> Diagnostic {
        let file = if let [only] = self.files.as_slice() { only.shown.as_str() } else { "" };
        Diagnostic::whole(file, message)
    }

    /// Like [`Self::error`], for what does not keep the configuration from being used.
    pub fn warning(&self, pointer: &str, message: impl Into<String>) -> Diagnostic {
        self.report(Severity::Warning, pointer, message.into())
    }

    /// Like [`Self::error`], but points at the key.
    pub fn error_at_key(&self, pointer: &str, message: impl Into<String>) -> Diagnostic {
        let node = self.nearest(pointer);
        self.locate(node.key.unwrap_or_else(|| node.place()), message.into())
    }

    /// A path that is relative to the file in which the value at this JSON Pointer stands.
    pub fn resolve_path(&self, pointer: &str, relative: &str) -> PathBuf {
        self.folder(self.nearest(pointer)).join(relative)
    }

    /// Reads a file of at most 4 MiB that the value at this JSON Pointer names. The error stands at that value.
    pub fn read_file(&self, pointer: &str, relative: &str) -> Result<Vec<u8>, Diagnostic> {
        let node = self.nearest(pointer);
        read::bytes(&self.resolve_path(pointer, relative), MAX_READ).map_err(|reason| {
            let subject = match node.text().and_then(references::first) {
                Some(reference) => format!("the file that {reference} names"),
                None => format!("the file {}", quoted(relative)),
            };
            self.error(pointer, format!("{subject} {reason}"))
        })
    }

    /// The folder of the file in which a value stands.
    pub(super) fn folder(&self, node: &Node) -> &Path {
        &self.files[node.origin.file as usize].folder
    }

    /// The node that a JSON Pointer names.
    pub(super) fn find(&self, pointer: &str) -> Option<&Node> {
        tokens(pointer).iter().try_fold(&self.root, |node, token| node.step(token))
    }

    fn nearest(&self, pointer: &str) -> &Node {
        let mut node = &self.root;
        for token in tokens(pointer) {
            match node.step(&token) {
                Some(next) => node = next,
                None => break,
            }
        }
        node
    }

    fn report(&self, severity: Severity, pointer: &str, message: String) -> Diagnostic {
        let verb = message.split(' ').next().is_some_and(|word| VERBS.contains(&word));
        let message = if verb { format!("{} {message}", self.subject(pointer)) } else { message };
        let message = self.veiled(pointer, message);
        Diagnostic { severity, ..self.locate(self.nearest(pointer).place(), message) }
    }

    /// A message with the reference in place of what it became.
    fn veiled(&self, pointer: &str, message: String) -> String {
        const SHORT: usize = 4;
        let Some(value) = self.resolved.get(pointer) else { return message };
        let reference = self.find(pointer).and_then(Node::text).and_then(references::first).unwrap_or_default();
        let message = message.replace(&format!("`{value}`"), &format!("`{reference}`"));
        // A short text may be part of any word.
        if value.len() < SHORT { message } else { message.replace(value, &reference) }
    }

    /// What a sentence about a value begins with; the value itself is never shown.
    pub(super) fn subject(&self, pointer: &str) -> String {
        if let Some(reference) = self.find(pointer).and_then(Node::text).and_then(references::first) {
            return format!("the value of {reference}");
        }
        let path = tokens(pointer);
        match path.as_slice() {
            [] => "the configuration".into(),
            [.., list, item] if item.bytes().all(|b| b.is_ascii_digit()) => format!("an item of {}", quoted(list)),
            [.., key] => quoted(key),
        }
    }

    pub(super) fn locate(&self, span: Span, message: String) -> Diagnostic {
        let file = span.file as usize;
        self.files[file].locate(span.range(), Masks::Ranges(&self.masks[file])).error(message)
    }

    pub(super) fn second_place(&self, pointer: &str, label: String) -> Also {
        self.second_span(self.nearest(pointer).place(), label)
    }

    pub(super) fn second_span(&self, span: Span, label: String) -> Also {
        files::second(&self.files, span, label, Masks::Ranges(&self.masks[span.file as usize]))
    }

    /// Whether a value, or a value in it, is a secret or holds a reference, so that no message may repeat it.
    pub(super) fn is_veiled(&self, node: &Node) -> bool {
        match &node.data {
            Data::Scalar(_) => {
                let masks = &self.masks[node.origin.file as usize];
                node.text().is_some_and(|text| text.contains("${")) || masks.contains(&node.origin.range())
            }
            Data::Sequence(items) => items.iter().any(|item| self.is_veiled(item)),
            Data::Mapping(entries) => entries.iter().any(|(_, item)| self.is_veiled(item)),
        }
    }
}
