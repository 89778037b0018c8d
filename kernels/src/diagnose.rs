//! What a user is told when a workload is wrong: what, where, and what to do.
//!
//! Every check of a declaration or of WGSL ends in a [`WorkloadError`]: a typed kind to branch on and
//! a place to show. Rendering is codespan-reporting's, the same that naga uses for its own errors.
//! Invariant: nothing in a workload folder, however malformed, gets past the checks as a panic.

use std::fmt;
use std::ops::Range;

use codespan_reporting::diagnostic::{Diagnostic, Label};
use codespan_reporting::files::{Files, SimpleFile};
use codespan_reporting::term;

/// A place in a file of the workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file's name within the workload's folder.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
    /// The message with the lines around the place and a caret.
    rendered: String,
}

/// Why a workload cannot be used.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkloadError {
    /// What is wrong.
    pub kind: Box<ErrorKind>,
    /// Where, when a line of a file is to blame.
    pub place: Option<Place>,
}

impl std::error::Error for WorkloadError {}

impl fmt::Display for WorkloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => f.write_str(place.rendered.trim_end()),
            None => {
                write!(f, "{}", self.kind)?;
                self.kind.help().map_or(Ok(()), |help| write!(f, "\n  help: {help}"))
            }
        }
    }
}

/// What can be wrong with a workload.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are the words of the message")]
pub enum ErrorKind {
    #[error("cannot read `{file}`: {cause}")]
    Unreadable { file: String, cause: String },
    #[error("`{file}` has {bytes} bytes, at most {limit} are read")]
    TooLarge { file: String, bytes: u64, limit: u64 },
    #[error("not a declaration: {cause}")]
    Toml { cause: String, suggestion: Option<String> },
    #[error("{cause}")]
    Declaration { cause: String, help: String },
    #[error("unknown {what} `{name}`")]
    Unknown { what: &'static str, name: String, known: Vec<String> },
    #[error("brackets are nested {depth} deep, at most {limit} levels are read")]
    NestedTooDeep { depth: usize, limit: usize },
    #[error("{what}: {count}, at most {limit} are read")]
    TooComplex { what: &'static str, count: usize, limit: usize },
    #[error("{cause}")]
    Wgsl { cause: String, notes: Vec<String> },
    #[error("`{name}` is bound in the WGSL, but the declaration has no such buffer")]
    BindingWithoutBuffer { name: String, known: Vec<String> },
    #[error("the declaration says that `{entry}` {does} `{buffer}`, but the kernel has no variable `{variable}`")]
    BufferWithoutBinding { entry: String, does: &'static str, buffer: String, variable: String },
    #[error("`{buffer}` is declared as `{declared}`, but the WGSL has `{found}`")]
    ElementMismatch { buffer: String, declared: String, found: String },
    #[error("`{entry}` {does} `{buffer}`, which its pass does not declare")]
    UndeclaredAccess { entry: String, does: &'static str, buffer: String, help: String },
    #[error("`{entry}` never {does} `{buffer}`, though its pass declares it")]
    UnusedAccess { entry: String, does: &'static str, buffer: String },
    #[error("`{entry}` reads `{buffer}` {given} elements away along {axis}, its pass declares {declared}")]
    BeyondHalo { entry: String, buffer: String, axis: char, given: i64, declared: String },
    #[error("a halo of {halo} does not fit a tile of {tile} along {axis}")]
    HaloTooLarge { halo: u32, tile: u32, axis: char },
    #[error("`{entry}` loops for ever: this loop has no way out")]
    EndlessLoop { entry: String },
    #[error("{what}: {needed}, and {limit_name} is {limit}")]
    Limit { what: String, needed: u64, limit_name: String, limit: u64 },
}

impl ErrorKind {
    /// What the user can do, when that is not plain from the message.
    pub fn help(&self) -> Option<String> {
        match self {
            ErrorKind::Toml { suggestion, .. } => suggestion.as_ref().map(|name| format!("did you mean `{name}`?")),
            ErrorKind::Declaration { help, .. } | ErrorKind::UndeclaredAccess { help, .. } => (!help.is_empty()).then(|| help.clone()),
            ErrorKind::Unknown { name, known, .. } | ErrorKind::BindingWithoutBuffer { name, known } => {
                let base = name.strip_suffix("_next").unwrap_or(name);
                match nearest(base, known) {
                    Some(near) => Some(format!("did you mean `{near}`?")),
                    None if known.is_empty() => None,
                    None => Some(format!("there is {}", list(known))),
                }
            }
            ErrorKind::BufferWithoutBinding { variable, does, .. } => Some(format!(
                "add `var<storage, {}> {variable}: array<…>;`, or take it out of the pass",
                if *does == "writes" { "read_write" } else { "read" }
            )),
            ErrorKind::ElementMismatch { found, .. } => Some(format!("declare `element = \"{found}\"`, or change the WGSL")),
            ErrorKind::UnusedAccess { .. } => Some("take it out of the pass: what is declared is shipped".into()),
            ErrorKind::BeyondHalo { given, buffer, .. } => Some(format!("declare `reads = {{ {buffer} = {{ halo = {} }} }}`", given.unsigned_abs())),
            ErrorKind::HaloTooLarge { halo, .. } => Some(format!("use tiles of at least {halo} along every axis")),
            ErrorKind::EndlessLoop { .. } => Some("add a `break`, a `break if` or a `return` that can be reached".into()),
            ErrorKind::Wgsl { notes, .. } => (!notes.is_empty()).then(|| notes.join("; ")),
            _ => None,
        }
    }
}

/// The known word that is most like a misspelt one; of two, one that it is the beginning of.
pub fn nearest<'a>(name: &str, known: &'a [String]) -> Option<&'a str> {
    known
        .iter()
        .map(|word| (strsim::damerau_levenshtein(name, word), !word.starts_with(name), word))
        .filter(|(distance, _, word)| *distance <= 1 + name.len().max(word.len()) / 4)
        .min()
        .map(|(.., word)| word.as_str())
}

fn list(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

impl From<ErrorKind> for WorkloadError {
    fn from(kind: ErrorKind) -> Self {
        WorkloadError { kind: Box::new(kind), place: None }
    }
}

/// An error at a place of a text.
pub fn error_at(kind: ErrorKind, file: &str, text: &str, span: Range<usize>) -> WorkloadError {
    let end = text.len();
    let span = span.start.min(end)..span.end.min(end).max(span.start.min(end));
    let files = SimpleFile::new(file, text);
    let Ok(location) = files.location((), span.start) else { return kind.into() };
    let mut diagnostic = Diagnostic::error().with_message(kind.to_string()).with_label(Label::primary((), span));
    if let Some(help) = kind.help() {
        diagnostic = diagnostic.with_note(format!("help: {help}"));
    }
    let config = term::Config { tab_width: 4, ..term::Config::default() };
    let rendered = term::emit_into_string(&config, &files, &diagnostic).unwrap_or_else(|_| kind.to_string());
    let place = Place { file: file.into(), line: location.line_number, column: location.column_number, rendered };
    WorkloadError { kind: Box::new(kind), place: Some(place) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_shown_with_a_caret() {
        let known = vec!["temperature".to_string()];
        let kind = ErrorKind::Unknown { what: "buffer", name: "temprature".into(), known };
        let error = error_at(kind, "workload.toml", "a = 1\nreads = \"temprature\"\n", 14..26);
        let place = error.place.as_ref().unwrap();
        assert_eq!((place.line, place.column), (2, 9));
        insta::assert_snapshot!(error, @r#"
        error: unknown buffer `temprature`
          ┌─ workload.toml:2:9
          │
        2 │ reads = "temprature"
          │         ^^^^^^^^^^^^
          │
          = help: did you mean `temperature`?
        "#);
    }
}
