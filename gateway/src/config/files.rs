//! The files of a configuration.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use ring::digest::{Context, SHA256};

use super::{
    document::Problem,
    error::Diagnostic,
    excerpt::{Excerpt, Masks, excerpt},
    node::Span,
    read,
};

/// Largest file, in bytes.
const MAX_FILE: u64 = 4 << 20;
/// Most files of a folder.
const MAX_FILES: usize = 256;

/// One file, read once.
#[derive(Debug)]
pub(super) struct File {
    /// Name as the user gave it.
    pub(super) shown: String,
    /// The folder that relative paths in it start from.
    pub(super) folder: PathBuf,
    pub(super) text: String,
    /// Where the lines begin.
    lines: Vec<usize>,
}

/// A place in a file, for people.
pub(super) struct Located {
    pub(super) file: String,
    pub(super) line: u32,
    pub(super) column: u32,
    pub(super) span: Range<usize>,
    pub(super) excerpt: Option<Box<Excerpt>>,
}

impl File {
    pub(super) fn new(path: &Path, text: String) -> Self {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
        Self { shown: path.display().to_string(), folder, text, lines }
    }

    fn read(path: &Path) -> Result<Self, Diagnostic> {
        let wrong = |reason| Diagnostic::whole(path.display().to_string(), format!("the file {reason}"));
        read::text(path, MAX_FILE).map(|text| Self::new(path, text)).map_err(wrong)
    }

    /// Finds the line and column of a range, and cuts out the line.
    pub(super) fn locate(&self, at: Range<usize>, masks: Masks<'_>) -> Located {
        let start = self.text.floor_char_boundary(at.start);
        let line = self.lines.partition_point(|begin| *begin <= start).max(1) - 1;
        let begin = self.lines[line];
        let end = self.lines.get(line + 1).map_or(self.text.len(), |next| next - 1);
        let end = begin + self.text[begin..end].trim_end_matches('\r').len();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).saturating_add(1);
        Located {
            file: self.shown.clone(),
            line: count(line),
            column: count(self.text[begin..start].chars().count()),
            excerpt: excerpt(&self.text, begin..end, &(start..at.end), masks).map(Box::new),
            span: at,
        }
    }
}

impl Located {
    /// An error at this place.
    pub(super) fn error(self, message: String) -> Diagnostic {
        let Self { file, line, column, span, excerpt } = self;
        Diagnostic { line, column, span, excerpt, ..Diagnostic::whole(file, message) }
    }
}

/// Reads a file, or the `*.yaml` and `*.yml` files of a folder in the order of their names; names that begin with a
/// dot are left alone.
pub(super) fn read_all(path: &Path) -> Result<Vec<File>, Vec<Diagnostic>> {
    if !path.is_dir() {
        return File::read(path).map(|file| vec![file]).map_err(|wrong| vec![wrong]);
    }
    let paths = listed(path).map_err(|reason| vec![Diagnostic::whole(path.display().to_string(), reason)])?;
    let mut wrong = Vec::new();
    let mut files = Vec::new();
    for path in paths {
        match File::read(&path) {
            Ok(file) => files.push(file),
            Err(diagnostic) => wrong.push(diagnostic),
        }
    }
    if wrong.is_empty() { Ok(files) } else { Err(wrong) }
}

fn listed(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let cannot = |error: std::io::Error| format!("the folder {}", read::reason(&error));
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(cannot)? {
        let name = entry.map_err(cannot)?.file_name();
        let extension = Path::new(&name).extension().and_then(|extension| extension.to_str());
        if matches!(extension, Some("yaml" | "yml")) && !name.as_encoded_bytes().starts_with(b".") {
            paths.push(folder.join(name));
        }
        if paths.len() > MAX_FILES {
            return Err(format!("the folder has more than {MAX_FILES} files"));
        }
    }
    if paths.is_empty() {
        return Err("the folder has no *.yaml or *.yml file".into());
    }
    paths.sort();
    Ok(paths)
}

/// Hexadecimal SHA-256 over the names, without their folder, and the texts.
pub(super) fn hash(files: &[File]) -> String {
    let mut context = Context::new(&SHA256);
    for file in files {
        let name = Path::new(&file.shown).file_name().unwrap_or_default().as_encoded_bytes();
        for part in [name, file.text.as_bytes()] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
    }
    let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or_default();
    context.finish().as_ref().iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// What is wrong with a file that is not a document.
pub(super) fn broken(files: &[File], file: usize, problem: Problem) -> Diagnostic {
    let mut diagnostic = files[file].locate(problem.at, Masks::ByLook).error(problem.message);
    diagnostic.help = problem.help.map(Into::into);
    diagnostic.also = problem.also.map(|(span, label)| Box::new(second(files, span, label.into(), Masks::ByLook)));
    diagnostic
}

/// A second place.
pub(super) fn second(files: &[File], span: Span, label: String, masks: Masks<'_>) -> super::error::Also {
    let located = files[span.file as usize].locate(span.range(), masks);
    let Located { file, line, column, excerpt, .. } = located;
    super::error::Also { label, file, line, column, excerpt }
}
