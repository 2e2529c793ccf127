//! The one line of a file that a diagnostic shows, with everything that may be a secret masked.

use std::ops::Range;

/// Longest line that is shown, in bytes.
const MAX_LINE: usize = 1024;
/// What stands in place of a masked text.
const MASK: &str = "***";

/// Parts of key names whose values are taken for secrets where the schema cannot say.
const SECRET_WORDS: [&str; 7] = ["secret", "token", "passw", "credential", "private", "api_key", "apikey"];

/// A line of a file, and the part of it that is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Excerpt {
    pub(super) line: String,
    pub(super) mark: Range<usize>,
}

/// Which parts of a text are never shown.
#[derive(Debug, Clone, Copy)]
pub(super) enum Masks<'a> {
    /// These, in order; the document was understood.
    Ranges(&'a [Range<usize>]),
    /// What looks like a secret; the document was not understood.
    ByLook,
}

/// The line that `at` begins on, which is `line` of `text`.
pub(super) fn excerpt(text: &str, line: Range<usize>, at: &Range<usize>, masks: Masks<'_>) -> Option<Excerpt> {
    if line.len() > MAX_LINE {
        return None;
    }
    let clip = |at: usize| at.clamp(line.start, line.end);
    let at = &(clip(at.start)..clip(at.end));
    let found;
    let masks = match masks {
        Masks::Ranges(ranges) => ranges,
        Masks::ByLook => {
            found = by_look(text, &line);
            &found
        }
    };
    let from = masks.partition_point(|mask| mask.end <= line.start);
    let mut shown = String::with_capacity(line.len());
    let mut mark = 0..0;
    let mut done = line.start;
    for mask in masks[from..].iter().take_while(|mask| mask.start < line.end) {
        let start = mask.start.max(done);
        copy(text, done..start, at, &mut shown, &mut mark);
        let before = shown.len();
        shown.push_str(MASK);
        let end = mask.end.min(line.end).max(start);
        if (start..end).contains(&at.start) {
            mark.start = before;
        }
        if at.end > start {
            mark.end = shown.len();
        }
        done = end;
    }
    copy(text, done..line.end, at, &mut shown, &mut mark);
    mark.end = mark.end.max(mark.start);
    Some(Excerpt { line: shown, mark })
}

/// Copies a part of the line that is not masked, and carries the mark along.
fn copy(text: &str, part: Range<usize>, at: &Range<usize>, shown: &mut String, mark: &mut Range<usize>) {
    let before = shown.len();
    shown.push_str(&text[part.clone()]);
    if (part.start..=part.end).contains(&at.start) {
        mark.start = before + (at.start - part.start);
    }
    if at.end > part.start {
        mark.end = before + (at.end.min(part.end) - part.start);
    }
}

/// What looks like a secret on a line: what follows a key with a telling name. A line without a key belongs to the
/// last key before it.
fn by_look(text: &str, line: &Range<usize>) -> Vec<Range<usize>> {
    let shown = &text[line.clone()];
    let start = secret_value(shown).or_else(|| {
        let mut before = text[..line.start].lines().rev();
        let owner = if shown.contains(':') { None } else { before.find(|line| line.contains(':')) };
        owner.and_then(secret_value).map(|_| 0)
    });
    start.map(|start| line.start + start..line.end).into_iter().collect()
}

/// Where the first value begins that has a telling key; a reference is no secret.
fn secret_value(line: &str) -> Option<usize> {
    line.match_indices(':').map(|(at, _)| at).find_map(|at| {
        let key = line[..at].trim_end().trim_end_matches(['"', '\'']);
        let key = key.rsplit(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-')).next().unwrap_or_default();
        let value = line[at + 1..].trim_start();
        let secret = is_telling(key) && !value.trim_start_matches(['"', '\'']).starts_with("${");
        secret.then_some(line.len() - value.len())
    })
}

fn is_telling(key: &str) -> bool {
    let key = key.to_ascii_lowercase().replace('-', "_");
    key == "key" || SECRET_WORDS.iter().any(|word| key.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, at: Range<usize>, masks: Masks<'_>) -> (String, String) {
        let start = text[..at.start].rfind('\n').map_or(0, |n| n + 1);
        let end = text[start..].find('\n').map_or(text.len(), |n| start + n);
        let Excerpt { line, mark } = excerpt(text, start..end, &at, masks).unwrap();
        let marked = line[mark].to_owned();
        (line, marked)
    }

    #[test]
    fn masked_ranges_are_cut_out_and_the_mark_follows() {
        let text = "a: {b: hunter2, c: d}\n";
        let secret = 7..14;
        let masks = [secret.clone()];
        let pair = |at| shown(text, at, Masks::Ranges(&masks));
        assert_eq!(pair(3..4), ("a: {b: ***, c: d}".into(), "{".into()));
        assert_eq!(pair(secret), ("a: {b: ***, c: d}".into(), "***".into()));
        assert_eq!(pair(16..17).1, "c");
        assert_eq!(pair(3..21).1, "{b: ***, c: d}");
    }

    #[test]
    fn a_mask_over_several_lines_covers_each() {
        let text = "t: |\n  one\n  two\n";
        let masks = Vec::from_iter([(3, 17)].map(|(start, end)| start..end));
        assert_eq!(shown(text, 7..10, Masks::Ranges(&masks)).0, "***");
    }

    #[test]
    fn what_looks_like_a_secret_is_masked() {
        for (text, line) in [
            ("token: hunter2: x", "token: ***"),
            ("{ client_secret: 'x', a: b", "{ client_secret: ***"),
            ("token: ${env:X}: y", "token: ${env:X}: y"),
            ("\"Token\" : x", "\"Token\" : ***"),
            ("path: /token", "path: /token"),
        ] {
            assert_eq!(shown(text, 0..0, Masks::ByLook).0, line);
        }
        let text = "password: >\n  hunter2\n  hunter3";
        assert_eq!(shown(text, 24..25, Masks::ByLook).0, "***");
    }

    #[test]
    fn a_very_long_line_is_not_shown() {
        let text = "x".repeat(MAX_LINE + 1);
        assert_eq!(excerpt(&text, 0..text.len(), &(0..1), Masks::ByLook), None);
    }
}
