//! YAML text to a tree of nodes that know where they stand. Every bound that untrusted text could strain is here.

use std::{
    collections::{HashMap, hash_map::Entry},
    ops::Range,
};

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, ScanError, StructureStyle, Tag, options};
use serde_json::Value;

use super::{
    node::{Data, Node, Span},
    quoted, scalar,
};

/// Deepest nesting.
pub(super) const MAX_DEPTH: usize = 64;
const MAX_NODES: usize = 200_000;
const MAX_TEXT: usize = 16 << 20;
const MAX_PROBLEMS: usize = 50;

/// What all files of a configuration may hold together, aliases written out and what an anchor names counted again.
#[derive(Debug)]
pub(super) struct Budget {
    nodes: usize,
    text: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { nodes: MAX_NODES, text: MAX_TEXT }
    }
}

impl Budget {
    fn take(&mut self, nodes: usize, text: usize, at: &Range<usize>) -> Result<(), Problem> {
        match (self.nodes.checked_sub(nodes), self.text.checked_sub(text)) {
            (Some(nodes), Some(text)) => {
                *self = Self { nodes, text };
                Ok(())
            }
            _ => Err(Problem::new(
                format!("more than {MAX_NODES} values or {} MiB of text, aliases written out", MAX_TEXT >> 20),
                at,
            )),
        }
    }
}

/// What is wrong with a document, and where in its text.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) message: String,
    pub(super) help: Option<&'static str>,
    pub(super) at: Range<usize>,
    pub(super) also: Option<(Span, &'static str)>,
}

impl Problem {
    fn new(message: impl Into<String>, at: &Range<usize>) -> Self {
        Self { message: message.into(), help: None, at: at.clone(), also: None }
    }

    fn syntax(error: &ScanError, text: &str) -> Self {
        let start = text.floor_char_boundary(error.marker().byte_offset().unwrap_or(0));
        let at = start..text[start..].chars().next().map_or(start, |c| start + c.len_utf8());
        match error.kind() {
            ErrorKind::RecursionLimitExceeded => too_deep(&at),
            ErrorKind::TabNotAllowed
            | ErrorKind::TabInBlockIndentation
            | ErrorKind::TabInIndentation
            | ErrorKind::TabAtBlockScalarStart
            | ErrorKind::TabInPlainScalar => {
                Self { help: Some("indent with spaces"), ..Self::new("a tab cannot stand here", &at) }
            }
            _ => {
                let line = text[..start].rfind('\n').map_or(0, |end| end + 1)
                    ..text[start..].find('\n').map_or(text.len(), |n| start + n);
                let reference = text[line].contains("${");
                let help = reference.then_some("inside { } or [ ] a reference must stand in quotes: \"${env:NAME}\"");
                Self { help, ..Self::new(format!("not YAML: {}", error.info()), &at) }
            }
        }
    }
}

fn too_deep(at: &Range<usize>) -> Problem {
    Problem::new(format!("nested more than {MAX_DEPTH} deep"), at)
}

/// Reads one document. All duplicate keys and tags are reported together; anything else ends the reading.
pub(super) fn compose(file: u32, text: &str, budget: &mut Budget) -> Result<Node, Vec<Problem>> {
    let options = options! { emit_comments: false, disallow_directives: true };
    let events = Parser::new_from_str_with_options(text, options);
    let mut composer = Composer { file, text, events, budget, anchors: HashMap::new(), problems: Vec::new() };
    match composer.document() {
        Ok(root) if composer.problems.is_empty() => Ok(root),
        Ok(_) => Err(composer.problems),
        Err(last) => {
            composer.problems.push(last);
            Err(composer.problems)
        }
    }
}

struct Anchored {
    node: Node,
    nodes: usize,
    text: usize,
    height: usize,
}

struct Composer<'t, 'b, I> {
    file: u32,
    text: &'t str,
    events: I,
    budget: &'b mut Budget,
    anchors: HashMap<usize, Anchored>,
    problems: Vec<Problem>,
}

type Place = granit_parser::Span;
type Made<T> = Result<T, Problem>;

impl<'t, I: Iterator<Item = Result<(Event<'t>, Place), ScanError>>> Composer<'t, '_, I> {
    fn next(&mut self) -> Made<(Event<'t>, Range<usize>)> {
        match self.events.next() {
            Some(Ok((event, place))) => Ok((event, place.byte_range().unwrap_or_default())),
            Some(Err(error)) => Err(Problem::syntax(&error, self.text)),
            None => Err(Problem::new("not YAML: the text ends too soon", &(self.text.len()..self.text.len()))),
        }
    }

    fn span(&self, at: &Range<usize>) -> Span {
        Span::new(self.file, at)
    }

    fn document(&mut self) -> Made<Node> {
        let mut root = None;
        loop {
            match self.next()? {
                (Event::StreamStart | Event::DocumentEnd, _) => {}
                (Event::StreamEnd, at) => {
                    let nothing = Node::new(self.span(&(at.start..at.start)), Data::Scalar(Value::Null));
                    return Ok(root.unwrap_or(nothing));
                }
                (Event::DocumentStart(..), at) => {
                    if root.is_some() {
                        return Err(Problem::new("a second document: a file holds one", &at));
                    }
                }
                (event, at) => root = Some(self.node(event, &at, 0)?),
            }
        }
    }

    fn node(&mut self, event: Event<'t>, at: &Range<usize>, depth: usize) -> Made<Node> {
        if depth > MAX_DEPTH {
            return Err(too_deep(at));
        }
        let (node, anchor) = match event {
            Event::Alias(id) => return self.alias(id, at, depth),
            Event::Scalar(text, style, anchor, tag) => {
                self.budget.take(1, text.len(), at)?;
                self.refuse_tag(tag.as_deref(), at);
                let value = if style == ScalarStyle::Plain { scalar::plain(&text) } else { text.into_owned().into() };
                (Node::new(self.span(at), Data::Scalar(value)), anchor)
            }
            Event::SequenceStart(style, anchor, tag) => {
                self.budget.take(1, 0, at)?;
                self.refuse_tag(tag.as_deref(), at);
                (self.sequence(style, at, depth)?, anchor)
            }
            Event::MappingStart(style, anchor, tag) => {
                self.budget.take(1, 0, at)?;
                self.refuse_tag(tag.as_deref(), at);
                (self.mapping(style, at, depth)?, anchor)
            }
            _ => return Err(Problem::new("not YAML: a value is missing", at)),
        };
        if anchor > 0 {
            let (nodes, text, height) = node.weigh();
            self.budget.take(nodes, text, at)?;
            self.anchors.insert(anchor, Anchored { node: node.clone(), nodes, text, height });
        }
        Ok(node)
    }

    fn refuse_tag(&mut self, tag: Option<&Tag>, at: &Range<usize>) {
        if tag.is_some() && self.problems.len() < MAX_PROBLEMS {
            let help = Some("leave the tag (`!...`) out; quotes make a text");
            self.problems.push(Problem { help, ..Problem::new("tags are not supported", at) });
        }
    }

    fn alias(&mut self, id: usize, at: &Range<usize>, depth: usize) -> Made<Node> {
        let Some(anchored) = self.anchors.get(&id) else {
            return Err(Problem::new("the alias stands inside the value that it names", at));
        };
        if depth + anchored.height > MAX_DEPTH {
            return Err(too_deep(at));
        }
        self.budget.take(anchored.nodes, anchored.text, at)?;
        Ok(Node { key: None, span: Span::new(self.file, at), ..anchored.node.clone() })
    }

    fn sequence(&mut self, style: StructureStyle, start: &Range<usize>, depth: usize) -> Made<Node> {
        let mut items = Vec::new();
        loop {
            let (event, at) = self.next()?;
            if event == Event::SequenceEnd {
                let end = extent(style, &at, items.last(), start.end);
                return Ok(Node::new(self.span(&(start.start..end)), Data::Sequence(items)));
            }
            items.push(self.node(event, &at, depth + 1)?);
        }
    }

    fn mapping(&mut self, style: StructureStyle, start: &Range<usize>, depth: usize) -> Made<Node> {
        let mut entries: Vec<(String, Node)> = Vec::new();
        let mut seen: HashMap<String, Span> = HashMap::new();
        let mut merged = None;
        let mut last = start.end;
        loop {
            let (event, at) = self.next()?;
            if event == Event::MappingEnd {
                last = if style == StructureStyle::Flow { at.end } else { last };
                break;
            }
            let (key, style) = self.key(event, &at)?;
            let (event, value_at) = self.next()?;
            let mut node = self.node(event, &value_at, depth + 1)?;
            last = at.end.max(node.span.end());
            node.key = Some(self.span(&at));
            if key == "<<" && style == ScalarStyle::Plain {
                match &merged {
                    Some(Node { key: Some(first), .. }) => self.duplicate("<<", *first, &at),
                    _ => merged = Some(node),
                }
                continue;
            }
            match seen.entry(key) {
                Entry::Occupied(first) => self.duplicate(first.key(), *first.get(), &at),
                Entry::Vacant(free) => {
                    entries.push((free.key().clone(), node));
                    free.insert(Span::new(self.file, &at));
                }
            }
        }
        for (key, node) in merged.map(merged_entries).transpose()?.into_iter().flatten() {
            if let Entry::Vacant(free) = seen.entry(key) {
                entries.push((free.key().clone(), node));
                free.insert(Span::new(self.file, start));
            }
        }
        Ok(Node::new(self.span(&(start.start..last)), Data::Mapping(entries)))
    }

    fn key(&mut self, event: Event<'t>, at: &Range<usize>) -> Made<(String, ScalarStyle)> {
        let Event::Scalar(text, style, _, tag) = event else {
            return Err(Problem::new("a key must be a text", at));
        };
        self.refuse_tag(tag.as_deref(), at);
        if text.is_empty() {
            return Err(Problem::new("a key is missing", at));
        }
        self.budget.take(0, text.len(), at)?;
        Ok((text.into_owned(), style))
    }

    fn duplicate(&mut self, key: &str, first: Span, at: &Range<usize>) {
        if self.problems.len() < MAX_PROBLEMS {
            let message = format!("the key {} stands twice in this mapping", quoted(key));
            self.problems.push(Problem { also: Some((first, "it stands here too")), ..Problem::new(message, at) });
        }
    }
}

/// The entries that `<<` brings in; the first of a list wins.
fn merged_entries(node: Node) -> Made<Vec<(String, Node)>> {
    let at = node.key.unwrap_or(node.span).range();
    let wrong = || Problem::new("`<<` takes a mapping, or a list of mappings", &at);
    match node.data {
        Data::Mapping(entries) => Ok(entries),
        Data::Sequence(items) => {
            let mut all = Vec::new();
            for item in items {
                let Data::Mapping(entries) = item.data else { return Err(wrong()) };
                all.extend(entries);
            }
            Ok(all)
        }
        Data::Scalar(_) => Err(wrong()),
    }
}

/// Where a collection ends: a block ends with its last item, not where the next thing begins.
fn extent(style: StructureStyle, end: &Range<usize>, last: Option<&Node>, fallback: usize) -> usize {
    match (style, last) {
        (StructureStyle::Flow, _) => end.end,
        (_, Some(node)) => node.span.end(),
        (_, None) => fallback,
    }
}
