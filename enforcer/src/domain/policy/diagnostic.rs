//! Diagnostics: everything that is wrong with a document, each with its place in the text.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::domain::command::PolicyFile;

macro_rules! codes {
    ($($variant:ident $slug:literal $text:literal;)*) => {
        /// What kind of problem a diagnostic reports. The slugs are stable: scripts and docs may name them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Code { $(#[doc = $text] #[serde(rename = $slug)] $variant,)* }

        impl Code {
            /// Every code, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable name.
            pub const fn slug(self) -> &'static str {
                match self { $(Self::$variant => $slug,)* }
            }

            /// One sentence for the documentation.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

codes! {
    YamlSyntax "yaml-syntax" "The text is not YAML.";
    YamlAlias "yaml-alias" "An alias (`*name`) or a merge key (`<<`), neither of which is supported.";
    YamlTag "yaml-tag" "A tag (`!name`), which is not supported.";
    YamlKey "yaml-key" "A key that is a list or a mapping.";
    DuplicateKey "duplicate-key" "A key appears twice in one mapping.";
    TooLarge "too-large" "The file, or a list in it, is longer than its limit.";
    TooDeep "too-deep" "Lists and mappings are nested deeper than any document needs.";
    TooMany "too-many-problems" "There are more problems than are worth showing at once.";
    EmptyFile "empty-file" "The file has no document (a warning).";
    UnknownField "unknown-field" "A field that this kind of object does not have.";
    MissingField "missing-field" "A required field is missing.";
    WrongType "wrong-type" "A value of another type than the field needs.";
    UnknownVersion "unknown-version" "An `apiVersion` that this version does not know.";
    UnknownKind "unknown-kind" "A `kind` that this version does not know.";
    Unsupported "unsupported" "A known thing that this version can't enforce yet.";
    UnknownValue "unknown-value" "A word that is none of the field's choices.";
    BadName "bad-name" "A name that is not as RFC 1123 wants it.";
    BadLabel "bad-label" "A label key or value that is not as Kubernetes wants it.";
    ReservedLabel "reserved-label" "A label key with a prefix that workloads can't have.";
    EmptyValue "empty-value" "A list or text that must not be empty.";
    ConflictingFields "conflicting-fields" "Fields that exclude each other, or one that needs another.";
    BadAddress "bad-address" "Not an IP address or CIDR block.";
    HostBits "host-bits" "A CIDR block whose address has bits behind the prefix.";
    ExceptOutside "except-outside" "An `except` block that is not a smaller part of its `cidr`.";
    BadPort "bad-port" "A port outside 1-65535, or a range that ends before it starts.";
    BadPath "bad-path" "A cgroup path that is not absolute and plain.";
    BadTime "bad-time" "A time that is not as RFC 3339 wants it.";
    Expired "expired" "A policy or rule whose time is over (a warning).";
    NoDirection "no-direction" "A policy with none of `ingress`, `egress`, `listen` and `sockets`.";
    Duplicate "duplicate" "Two things of one set have the same name, directory or address.";
    ShadowedRule "shadowed-rule" "A rule that never decides, because another one always comes before it (a warning).";
    NoEffect "no-effect" "A part of a document that does nothing where it stands (a warning).";
    Pending "pending" "A peer that is accepted and matches nobody yet, because this version can't tell who it is (a warning).";
    NeverMatches "never-matches" "A selector whose conditions exclude each other (a warning).";
    SelectsNothing "selects-nothing" "A selector that matches no workload of the cluster (a lint).";
    UnreachablePort "unreachable-port" "A port on which no workload that it could be listens (a lint).";
    BroadPeer "broad-peer" "A rule that lets in, or out, more than its author is likely to mean (a lint).";
    BadExpectation "bad-expectation" "An expectation that contradicts itself or names what is not there.";
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The document is not accepted.
    Error,
    /// The document is accepted, and probably does not do what it was written for.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// A place in a text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Location {
    /// Index of the file in the checked set.
    pub file: usize,
    /// Its name.
    pub name: String,
    /// First byte.
    pub start: usize,
    /// The byte after the last.
    pub end: usize,
    /// Line of the first byte, from 1.
    pub line: usize,
    /// Column of the first byte in characters, from 1.
    pub column: usize,
}

impl Location {
    /// The bytes.
    pub fn span(&self) -> Range<usize> {
        self.start..self.end
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.name, self.line, self.column)
    }
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[must_use]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What kind of problem.
    pub code: Code,
    /// Where.
    pub location: Location,
    /// What is wrong, one sentence without a full stop.
    pub message: String,
    /// What to say at the place itself, some words.
    pub label: String,
    /// What to write instead.
    pub help: Option<String>,
    /// Other places that belong to it.
    pub related: Vec<(Location, String)>,
}

impl Diagnostic {
    /// Sets the words at the place itself.
    pub fn label(&mut self, label: impl Into<String>) -> &mut Self {
        self.label = label.into();
        self
    }

    /// Says what to write instead.
    pub fn help(&mut self, help: impl Into<String>) -> &mut Self {
        self.help = Some(help.into());
        self
    }

    /// Names another place.
    pub fn related(&mut self, location: Location, label: impl Into<String>) -> &mut Self {
        self.related.push((location, label.into()));
        self
    }

    /// Line of the place, from 1.
    pub fn line(&self) -> usize {
        self.location.line
    }

    /// Column of the place in characters, from 1.
    pub fn column(&self) -> usize {
        self.location.column
    }

    /// Whether it keeps the document from being accepted.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// `file:line:column: error[slug]: message; help: ...`, always one line.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}[{}]: {}", self.location, self.severity, self.code.slug(), self.message)?;
        for (location, label) in &self.related {
            write!(f, "; {location}: {label}")?;
        }
        match &self.help {
            Some(help) => write!(f, "; help: {help}"),
            None => Ok(()),
        }
    }
}

/// A file with an index of its lines, which turns spans into places.
#[derive(Clone, Debug)]
pub struct Source<'a> {
    index: usize,
    file: &'a PolicyFile,
    /// First byte of each line.
    lines: Vec<usize>,
}

impl<'a> Source<'a> {
    /// Indexes the file, which is the `index`th of its set.
    pub fn new(index: usize, file: &'a PolicyFile) -> Self {
        let starts = file.text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self { index, file, lines: std::iter::once(0).chain(starts).collect() }
    }

    /// Index of the file in its set.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The text.
    pub fn text(&self) -> &'a str {
        &self.file.text
    }

    /// The place of a span. What lies outside the text or inside a character is moved to the nearest place before.
    pub fn location(&self, span: &Range<usize>) -> Location {
        let start = self.text().floor_char_boundary(span.start);
        let end = self.text().floor_char_boundary(span.end).max(start);
        let line = self.lines.partition_point(|first| *first <= start).max(1);
        let first = self.lines.get(line - 1).copied().unwrap_or(0);
        let column = self.text().get(first..start).map_or(0, |before| before.chars().count()) + 1;
        Location { file: self.index, name: self.file.name.clone(), start, end, line, column }
    }
}

/// Text from a document as part of a message: quoted, on one line, not too long.
pub fn quote(text: &str) -> String {
    const LONGEST: usize = 60;
    let mut quoted = String::from("`");
    for character in text.chars().take(LONGEST) {
        // Text of a stranger may be printed on a terminal: no control character gets through.
        if character.is_control() || character == '`' {
            quoted.extend(character.escape_default());
        } else {
            quoted.push(character);
        }
    }
    if text.chars().nth(LONGEST).is_some() {
        quoted.push('…');
    }
    quoted.push('`');
    quoted
}

/// Of `known`, the name that was probably meant.
pub fn nearest<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    // The distance costs the product of the lengths; no field is nearly this long.
    const LONGEST: usize = 64;
    if name.is_empty() || name.len() > LONGEST {
        return None;
    }
    let lower = name.to_lowercase();
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len().max(lower.len()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_characters_and_stay_inside() {
        let file = PolicyFile { name: "f".into(), text: "a: é\nü: ß\n".into() };
        let source = Source::new(0, &file);
        let at = |start, end| {
            let location = source.location(&(start..end));
            (location.line, location.column, location.start, location.end)
        };
        assert_eq!(at(0, 1), (1, 1, 0, 1));
        assert_eq!(at(6, 8), (2, 1, 6, 8));
        assert_eq!(at(10, 12), (2, 4, 10, 12));
        assert_eq!(at(11, 12), (2, 4, 10, 12), "inside a character");
        assert_eq!(at(99, 200), (3, 1, 13, 13), "behind the end");
    }

    #[test]
    fn near_names() {
        let known = ["ingress", "egress", "subject"];
        assert_eq!(nearest("ingres", known), Some("ingress"));
        assert_eq!(nearest("Egress", known), Some("egress"));
        assert_eq!(nearest("podSelector", known), None);
        assert_eq!(nearest("ICMP", ["TCP", "UDP"]), None);
        assert_eq!(nearest(&"x".repeat(100_000), known), None);
    }

    #[test]
    fn quotes_never_break_a_line() {
        assert_eq!(quote("a\nb\u{1b}[0m"), "`a\\nb\\u{1b}[0m`");
        assert_eq!(quote(&"é".repeat(80)).chars().count(), 63);
    }
}
