//! Reading a tree strictly: every field is known, every value has its type, every problem is told.
//!
//! A reading method returns `None` after it has reported why; the caller goes on with the next field, so that all
//! problems of a document are told at once.

use std::ops::Range;

use super::{Entry, MAX_PROBLEMS, Node, Value};
use crate::domain::policy::diagnostic::{Code, Diagnostic, Location, Severity, Source, nearest, quote};
use crate::domain::timestamp::Timestamp;

/// Most problems that are kept before they are put in order and cut to [`MAX_PROBLEMS`].
const KEPT_PROBLEMS: usize = 10 * MAX_PROBLEMS;

/// The problems found so far in one file.
#[derive(Debug)]
pub struct Reader<'a> {
    source: &'a Source<'a>,
    /// What to say about well-known fields of other languages: (field, help).
    hints: &'static [(&'static str, &'static str)],
    now: Timestamp,
    diagnostics: Vec<Diagnostic>,
    errors: usize,
    /// The last problem beyond the limit: a bomb of problems is counted, not kept.
    beyond: Option<Diagnostic>,
    dropped: usize,
}

/// A mapping whose fields are all known.
#[derive(Clone, Copy, Debug)]
pub struct Mapping<'n> {
    /// The node itself.
    pub node: &'n Node,
    entries: &'n [Entry],
}

impl<'n> Mapping<'n> {
    /// The field, if it is there.
    pub fn entry(&self, name: &str) -> Option<&'n Entry> {
        self.entries.iter().find(|entry| entry.key == name)
    }

    /// The field's value, if it is there.
    pub fn get(&self, name: &str) -> Option<&'n Node> {
        self.entry(name).map(|entry| &entry.value)
    }

    /// All fields.
    pub fn entries(&self) -> &'n [Entry] {
        self.entries
    }

    /// A short place for what the mapping lacks: its first key.
    pub fn place(&self) -> Range<usize> {
        self.entries.first().map_or_else(|| self.node.span.clone(), |entry| entry.span.clone())
    }
}

impl<'a> Reader<'a> {
    /// A reader without problems.
    pub fn new(source: &'a Source<'a>) -> Self {
        Self {
            source,
            hints: &[],
            now: Timestamp::EARLIEST,
            diagnostics: Vec::new(),
            errors: 0,
            beyond: None,
            dropped: 0,
        }
    }

    /// Also answers well-known fields of other languages with a hint.
    #[must_use]
    pub fn with_hints(self, hints: &'static [(&'static str, &'static str)]) -> Self {
        Self { hints, ..self }
    }

    /// Answers well-known fields of other languages with these hints from now on.
    pub fn set_hints(&mut self, hints: &'static [(&'static str, &'static str)]) {
        self.hints = hints;
    }

    /// Also knows what the clock says, for things that can be over.
    #[must_use]
    pub fn with_now(self, now: Timestamp) -> Self {
        Self { now, ..self }
    }

    /// What the clock says; long ago if nobody told.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// The file.
    pub fn source(&self) -> &'a Source<'a> {
        self.source
    }

    /// All problems in the order of the text; of too many only the first.
    pub fn finish(self) -> Vec<Diagnostic> {
        let mut diagnostics = self.diagnostics;
        diagnostics.sort_by_key(|diagnostic| (diagnostic.location.start, diagnostic.severity));
        if diagnostics.len() > MAX_PROBLEMS {
            let more = diagnostics.len() + self.dropped - MAX_PROBLEMS;
            diagnostics.truncate(MAX_PROBLEMS);
            if let Some(last) = diagnostics.last().cloned() {
                let message = format!("at least {more} more problems in this file are not shown");
                diagnostics.push(diagnostic(last.location, Severity::Error, Code::TooMany, message));
            }
        }
        diagnostics
    }

    /// Number of errors so far: a part is fine if reading it adds none.
    pub fn errors(&self) -> usize {
        self.errors
    }

    /// The place of a span of this file.
    pub fn location(&self, span: &Range<usize>) -> Location {
        self.source.location(span)
    }

    /// Reports an error; the caller adds label, help and other places.
    pub fn error(&mut self, span: &Range<usize>, code: Code, message: impl Into<String>) -> &mut Diagnostic {
        self.push(Severity::Error, span, code, message.into())
    }

    /// Reports a warning.
    pub fn warning(
        &mut self,
        span: &Range<usize>,
        code: Code,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        self.push(Severity::Warning, span, code, message.into())
    }

    fn push(
        &mut self,
        severity: Severity,
        span: &Range<usize>,
        code: Code,
        message: String,
    ) -> &mut Diagnostic {
        self.errors += usize::from(severity == Severity::Error);
        if self.diagnostics.len() >= KEPT_PROBLEMS {
            self.dropped += 1;
            // Nobody will see it, so its place, which costs a look at its line, does not matter.
            let place =
                self.beyond.take().map_or_else(|| self.source.location(&(0..0)), |last| last.location);
            return self.beyond.insert(diagnostic(place, severity, code, message));
        }
        self.diagnostics.push(diagnostic(self.source.location(span), severity, code, message));
        let last = self.diagnostics.len() - 1;
        &mut self.diagnostics[last]
    }

    /// The mapping, after its unknown fields have been reported.
    pub fn mapping<'n>(&mut self, node: &'n Node, what: &str, known: &[&str]) -> Option<Mapping<'n>> {
        self.mapping_of(node, what, known, known)
    }

    /// The same, where some of the known fields are not worth suggesting.
    pub fn mapping_of<'n>(
        &mut self,
        node: &'n Node,
        what: &str,
        known: &[&str],
        suggested: &[&str],
    ) -> Option<Mapping<'n>> {
        let mapping = self.any_mapping(node, what)?;
        for entry in mapping.entries {
            if known.contains(&entry.key.as_str()) {
                continue;
            }
            let message = format!("unknown field {} in {what}", quote(&entry.key));
            let hint = self.hints.iter().find(|(field, _)| *field == entry.key);
            let help = match (hint, nearest(&entry.key, suggested.iter().copied())) {
                (Some((_, help)), _) => (*help).to_owned(),
                (None, Some(name)) => format!("did you mean `{name}`?"),
                (None, None) => format!("known fields: {}", list(suggested)),
            };
            self.error(&entry.span, Code::UnknownField, message).label("unknown field").help(help);
        }
        Some(mapping)
    }

    /// The mapping, whatever its keys.
    pub fn any_mapping<'n>(&mut self, node: &'n Node, what: &str) -> Option<Mapping<'n>> {
        let Value::Mapping(entries) = &node.value else {
            self.wrong_type(node, what, "a mapping", None);
            return None;
        };
        Some(Mapping { node, entries })
    }

    /// The field's value, which must be there.
    pub fn required<'n>(
        &mut self,
        mapping: &Mapping<'n>,
        what: &str,
        name: &str,
        help: Option<&str>,
    ) -> Option<&'n Node> {
        let found = mapping.get(name);
        if found.is_none() {
            let message = format!("{what} has no `{name}`");
            let diagnostic = self.error(&mapping.place(), Code::MissingField, message);
            diagnostic.label(format!("`{name}` is missing here"));
            if let Some(help) = help {
                diagnostic.help(help);
            }
        }
        found
    }

    /// The text.
    pub fn text<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n str> {
        if let Value::Text(text) = &node.value {
            return Some(text);
        }
        let written = self.source.text().get(node.span.clone()).unwrap_or_default();
        let help = match node.value {
            Value::Null if written == "null" || written == "~" => {
                Some(format!("quote it if text is meant: \"{written}\""))
            }
            Value::Bool(_) | Value::Integer(_) | Value::Number(_) => Some(format!("quote it: \"{written}\"")),
            _ => None,
        };
        self.wrong_type(node, what, "a string", help.as_deref());
        None
    }

    /// The whole number.
    pub fn integer(&mut self, node: &Node, what: &str) -> Option<i64> {
        if let Value::Integer(integer) = node.value {
            return Some(integer);
        }
        let help = match &node.value {
            Value::Text(text) if text.parse::<i64>().is_ok() => Some(format!("without quotes: {text}")),
            _ => None,
        };
        self.wrong_type(node, what, "a whole number", help.as_deref());
        None
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, node: &Node, what: &str) -> Option<bool> {
        if let Value::Bool(value) = node.value {
            return Some(value);
        }
        self.wrong_type(node, what, "true or false", None);
        None
    }

    /// The items of a list that has at most `limit` of them.
    pub fn list<'n>(&mut self, node: &'n Node, what: &str, limit: usize) -> Option<&'n [Node]> {
        let Value::List(items) = &node.value else {
            let help = match node.value {
                Value::Null => None,
                Value::Mapping(_) => Some("put a `-` before its first field"),
                _ => Some("put it in brackets, or behind a `-`"),
            };
            self.wrong_type(node, what, "a list", help);
            return None;
        };
        if let Some(first) = items.get(limit) {
            let message = format!("{what} has {} items, more than the limit of {limit}", items.len());
            self.error(&first.span, Code::TooLarge, message).label("the first item too many");
            return None;
        }
        Some(items)
    }

    /// The choice whose word it is.
    pub fn choice<T: Copy>(&mut self, node: &Node, what: &str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(node, what)?;
        if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
        let message = format!("{what} can't be {}", quote(text));
        let help = match nearest(text, words.iter().copied()) {
            Some(word) => format!("did you mean `{word}`?"),
            None => format!("known values: {}", list(&words)),
        };
        self.error(&node.span, Code::UnknownValue, message).label("unknown value").help(help);
        None
    }

    fn wrong_type(&mut self, node: &Node, what: &str, expected: &str, help: Option<&str>) {
        if node.value == Value::Refused {
            return;
        }
        let message = format!("{what} must be {expected}, not {}", node.value.kind());
        // A long value would bury the message; its first line is enough to find it.
        let text = self.source.text().get(node.span.clone()).unwrap_or_default();
        let first = text.lines().next().map_or(0, str::len);
        let span = node.span.start..node.span.start + first;
        // No empty value is suggested: some mean everyone, some mean nobody, and neither should be a guess.
        let missing = (text != "null" && node.value == Value::Null)
            .then_some("nothing follows here: write the value, or remove the field");
        let diagnostic = self.error(&span, Code::WrongType, message);
        diagnostic.label(format!("expected {expected}"));
        if let Some(help) = help.or(missing) {
            diagnostic.help(help);
        }
    }
}

fn diagnostic(location: Location, severity: Severity, code: Code, message: String) -> Diagnostic {
    Diagnostic { severity, code, location, message, label: String::new(), help: None, related: Vec::new() }
}

/// `a`, `b`, `c`
fn list(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}
