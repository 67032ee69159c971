//! YAML as a tree whose every node knows its place in the text. Strict where YAML is loose.
//!
//! The parser's events are turned into [`Node`]s directly, instead of through its own tree, for three reasons: all
//! duplicate keys are reported with both places, nesting is bounded before anything recurses, and a document with a
//! syntax error does not hide the problems of the documents around it.
//!
//! Invariants: a span is a range of bytes on character boundaries within the text; the depth of a tree is at most
//! [`MAX_DEPTH`]; keys of a mapping are unique. JSON is YAML and reads the same. Not supported, and said so where it
//! is written: aliases, merge keys, tags, keys that are not plain text.

pub mod json;
mod parse;
mod read;
mod scalar;
pub mod write;

use std::ops::Range;

pub use parse::{Document, parse, parse_up_to};
pub use read::{Mapping, Reader};

/// Longest text that is parsed, in bytes.
pub const MAX_BYTES: usize = 1 << 20;
/// Deepest nesting of lists and mappings. A policy has 10.
pub const MAX_DEPTH: usize = 32;
/// Most problems that are reported for one file.
pub const MAX_PROBLEMS: usize = 100;

/// A value and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where it is. A missing value (`key:`) has the place of its key.
    pub span: Range<usize>,
    /// What it is.
    pub value: Value,
}

/// What a node is, by YAML's core schema.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Something that was refused where it was parsed; reading it says nothing more.
    Refused,
    /// Nothing, `~` or `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// Any other number, as written.
    Number(String),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping in the order of the text.
    Mapping(Vec<Entry>),
}

impl Value {
    /// `a list`, `a string` and so on, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Refused => "something unsupported",
            Self::Null => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Integer(_) => "a number",
            Self::Number(_) => "a fraction or too large a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Mapping(_) => "a mapping",
        }
    }
}

impl Node {
    /// Takes away every field that has no value, at any depth: where Kubernetes decodes an object, a field that is `null` is a
    /// field that is missing. Items of lists stay.
    pub fn drop_nulls(&mut self) {
        match &mut self.value {
            Value::List(items) => {
                for item in items {
                    item.drop_nulls();
                }
            }
            Value::Mapping(entries) => {
                entries.retain(|entry| entry.value.value != Value::Null);
                for entry in entries {
                    entry.value.drop_nulls();
                }
            }
            _ => {}
        }
    }

    /// The value of a field, if this is a mapping that has it.
    pub fn field(&self, name: &str) -> Option<&Self> {
        let Value::Mapping(entries) = &self.value else { return None };
        entries.iter().find(|entry| entry.key == name).map(|entry| &entry.value)
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        if let Value::Text(text) = &self.value { Some(text) } else { None }
    }
}

/// One key of a mapping and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key as text.
    pub key: String,
    /// Where the key is.
    pub span: Range<usize>,
    /// The value.
    pub value: Node,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::command::PolicyFile;
    use crate::domain::policy::diagnostic::Source;

    /// Every node of the text in the order of the text, as the text it spans.
    fn spans(text: &str) -> Vec<String> {
        fn walk(text: &str, node: &Node, found: &mut Vec<String>) {
            found.push(text[node.span.clone()].to_owned());
            match &node.value {
                Value::List(items) => items.iter().for_each(|item| walk(text, item, found)),
                Value::Mapping(entries) => {
                    for entry in entries {
                        found.push(text[entry.span.clone()].to_owned());
                        walk(text, &entry.value, found);
                    }
                }
                _ => {}
            }
        }
        let file = PolicyFile { name: "f".into(), text: text.into() };
        let source = Source::new(0, &file);
        let mut reader = Reader::new(&source);
        let documents = parse(&mut reader);
        assert_eq!(reader.errors(), 0, "{:?}", reader.finish());
        let mut found = Vec::new();
        for document in documents {
            walk(text, &document.root, &mut found);
        }
        found
    }

    #[test]
    fn spans_are_bytes_of_the_text_itself() {
        let text = "# ä日\nü: \"é\" # ß\nb: {x: 日, y: ['ö' , 2]}\n# end\n---\n- |\n  blöck\n  two\n\n-\n- ñ # c-d\n";
        let first = "ü: \"é\" # ß\nb: {x: 日, y: ['ö' , 2]}";
        let second = "- |\n  blöck\n  two\n\n-\n- ñ";
        let expected = [
            first,
            "ü",
            "\"é\"",
            "b",
            "{x: 日, y: ['ö' , 2]}",
            "x",
            "日",
            "y",
            "['ö' , 2]",
            "'ö'",
            "2",
            second,
            "|\n  blöck\n  two",
            "-",
            "ñ",
        ];
        let actual = spans(text);
        // The parser starts a block scalar's span at its content.
        assert_eq!(actual[..12], expected[..12]);
        assert_eq!(actual[13..], expected[13..]);
        assert!(actual[12].ends_with("blöck\n  two"), "{:?}", actual[12]);
    }
}
