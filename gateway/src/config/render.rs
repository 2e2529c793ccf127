//! Diagnostics as text for people.

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet, normalize_untrusted_str};

use super::{
    error::{Diagnostic, Severity},
    excerpt::Excerpt,
};

/// One diagnostic: title, place, the line, help.
pub(super) fn diagnostic(diagnostic: &Diagnostic, colour: bool) -> String {
    let level = if diagnostic.severity == Severity::Error { Level::ERROR } else { Level::WARNING };
    let mut group = Group::with_title(level.primary_title(diagnostic.message.as_str()));
    if !diagnostic.file.is_empty() {
        let at = (diagnostic.line, diagnostic.column);
        group = place(group, &diagnostic.file, at, diagnostic.excerpt.as_deref(), None);
    }
    if let Some(also) = diagnostic.also.as_deref() {
        group = place(group, &also.file, (also.line, also.column), also.excerpt.as_deref(), Some(&also.label));
    }
    if let Some(help) = &diagnostic.help {
        group = group.element(Level::HELP.message(normalize_untrusted_str(help)));
    }
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    closed_up(&renderer.render(&[group]))
}

/// Places are given apart from the lines, because masks may have moved the text of a line; the renderer takes such a line
/// for one of no file and says so with `:::` alone, which is left out.
fn closed_up(text: &str) -> String {
    let lines: Vec<&str> = text.split('\n').filter(|line| bare(line) != ":::").collect();
    lines.join("\n")
}

/// A line without escape sequences and outer spaces.
fn bare(line: &str) -> String {
    let mut parts = line.split('\x1b');
    let mut bare = parts.next().unwrap_or_default().to_owned();
    parts.for_each(|part| bare.push_str(part.split_once('m').map_or("", |(_, after)| after)));
    bare.trim().to_owned()
}

fn place<'a>(
    group: Group<'a>,
    file: &'a str,
    (line, column): (u32, u32),
    excerpt: Option<&'a Excerpt>,
    label: Option<&'a str>,
) -> Group<'a> {
    let mut origin = Origin::path(file);
    if line > 0 {
        origin = origin.line(line as usize).char_column(column as usize);
    }
    let group = group.element(origin);
    let Some(excerpt) = excerpt else { return group };
    let kind = if label.is_some() { AnnotationKind::Context } else { AnnotationKind::Primary };
    let annotation = kind.span(excerpt.mark.clone()).label(label);
    group.element(Snippet::source(excerpt.line.as_str()).line_start(line as usize).annotation(annotation))
}
