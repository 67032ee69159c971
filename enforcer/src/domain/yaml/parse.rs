//! From text to trees.

use std::collections::BTreeMap;
use std::ops::Range;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span};

use super::scalar::{quoted_len, scalar};
use super::{Entry, MAX_BYTES, MAX_DEPTH, MAX_PROBLEMS, Node, Reader, Value};
use crate::domain::policy::diagnostic::{Code, quote};

/// One document of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Its root.
    pub root: Node,
    /// Its own text with its comments, without separators. Parses to the same tree.
    pub text: Range<usize>,
}

/// All documents of the reader's text that are well-formed YAML; empty ones are skipped. Problems go to the reader.
pub fn parse(reader: &mut Reader<'_>) -> Vec<Document> {
    parse_up_to(reader, MAX_BYTES)
}

/// The same with another limit of bytes.
pub fn parse_up_to(reader: &mut Reader<'_>, limit: usize) -> Vec<Document> {
    let text = reader.source().text();
    if text.len() > limit {
        let message = format!("the file has {} bytes, more than the limit of {limit}", text.len());
        reader.error(&(0..0), Code::TooLarge, message).help("split it into several files");
        return Vec::new();
    }
    let mut documents = Vec::new();
    let mut base = 0;
    // After a syntax error, go on with the next document: its problems are worth telling too. Each try reads on from
    // where the last one stopped; their number is bounded because each looks at all that is left.
    for _ in 0..=MAX_PROBLEMS {
        let Some(stopped) = stream(reader, base, &mut documents) else { break };
        // The error may be the separator itself, where something before it is not closed.
        let after = text.floor_char_boundary(stopped.saturating_sub(1)).max(base);
        let Some(separator) = text.get(after..).and_then(|rest| rest.find("\n---")) else { break };
        base = after + separator + 1;
    }
    documents
}

/// Parses from `base` to the end, or to the first syntax error, whose position is returned.
fn stream(reader: &mut Reader<'_>, base: usize, documents: &mut Vec<Document>) -> Option<usize> {
    let text = reader.source().text();
    let part = text.get(base..)?;
    let offsets = Offsets::new(part, base);
    let mut builder = Builder { reader, text, offsets, stack: Vec::new(), root: None };
    let mut start = base;
    let mut explicit = None;
    for event in Parser::new_from_str(part) {
        let (event, span) = match event {
            Ok(event) => event,
            Err(error) => return Some(builder.syntax(&error)),
        };
        match event {
            Event::DocumentStart(true) => explicit = Some(builder.offsets.span(&span)),
            Event::DocumentEnd => {
                let end = builder.offsets.span(&span);
                // What stands before the first separator belongs to the first document: comments, mostly.
                if let Some(separator) = explicit.take()
                    && text.get(start..separator.start).is_none_or(|before| before.trim().is_empty())
                {
                    start = separator.end;
                }
                if let Some(root) = builder.root.take()
                    && root.value != Value::Null
                {
                    documents.push(Document { root, text: trim(text, start..end.start) });
                }
                start = if text.get(end.clone()) == Some("...") { end.end } else { end.start };
            }
            event => {
                if let Err(stop) = builder.event(event, &span) {
                    return Some(stop);
                }
            }
        }
    }
    None
}

/// Without the white space around it.
fn trim(text: &str, span: Range<usize>) -> Range<usize> {
    let inner = text.get(span.clone()).unwrap_or_default();
    // Leading spaces may be the indentation of the first line: only whole blank lines go.
    let mut start = span.start;
    for line in inner.split_inclusive('\n') {
        if !line.trim().is_empty() {
            break;
        }
        start += line.len();
    }
    start..(span.start + inner.trim_end().len()).max(start)
}

/// The parser counts characters from where it started; spans here are bytes from the start of the text.
struct Offsets {
    base: usize,
    len: usize,
    /// Byte offset of each character; empty if all have one byte.
    characters: Vec<usize>,
}

impl Offsets {
    fn new(part: &str, base: usize) -> Self {
        let characters =
            if part.is_ascii() { Vec::new() } else { part.char_indices().map(|(at, _)| at).collect() };
        Self { base, len: part.len(), characters }
    }

    fn byte(&self, marker: Marker) -> usize {
        let index = marker.index();
        let byte = if self.characters.is_empty() {
            index.min(self.len)
        } else {
            self.characters.get(index).copied().unwrap_or(self.len)
        };
        self.base + byte
    }

    fn span(&self, span: &Span) -> Range<usize> {
        let start = self.byte(span.start);
        start..self.byte(span.end).max(start)
    }
}

/// A list or mapping that is still open.
enum Open {
    List { start: usize, items: Vec<Node> },
    Mapping { start: usize, entries: Vec<Entry>, places: BTreeMap<String, Range<usize>>, key: Key },
}

/// What a mapping waits for.
enum Key {
    /// The next key.
    Wanted,
    /// The value of this key.
    Text(String, Range<usize>),
    /// The value of a key that was refused.
    Refused,
}

struct Builder<'r, 'a> {
    reader: &'r mut Reader<'a>,
    text: &'a str,
    offsets: Offsets,
    stack: Vec<Open>,
    root: Option<Node>,
}

impl Builder<'_, '_> {
    /// Takes one event; `Err` is the position after which it makes no sense to go on.
    fn event(&mut self, event: Event<'_>, span: &Span) -> Result<(), usize> {
        let span = self.offsets.span(span);
        match event {
            Event::Scalar(text, style, _, tag) => {
                if tag.is_some() {
                    self.refuse_tag(&span);
                }
                let span = self.scalar_span(span, style);
                self.add(Node { value: scalar(text, style), span });
            }
            Event::Alias(_) => {
                let written = self.text.get(span.clone()).unwrap_or_default();
                let message = format!("aliases are not supported: {}", quote(written));
                self.reader
                    .error(&span, Code::YamlAlias, message)
                    .label("alias")
                    .help("repeat the value here; if a star is meant, quote it");
                self.add(Node { value: Value::Refused, span });
            }
            Event::SequenceStart(_, tag) => {
                self.open(tag.is_some(), &span, Open::List { start: span.start, items: Vec::new() })?;
            }
            Event::MappingStart(_, tag) => {
                let (entries, places) = (Vec::new(), BTreeMap::new());
                let open = Open::Mapping { start: span.start, entries, places, key: Key::Wanted };
                self.open(tag.is_some(), &span, open)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(&span),
            _ => {}
        }
        Ok(())
    }

    fn open(&mut self, tagged: bool, span: &Range<usize>, open: Open) -> Result<(), usize> {
        if tagged {
            self.refuse_tag(span);
        }
        if self.stack.len() >= MAX_DEPTH {
            let message = format!("lists and mappings are nested more than {MAX_DEPTH} deep");
            self.reader.error(span, Code::TooDeep, message).label("one level too many");
            return Err(span.end);
        }
        self.stack.push(open);
        Ok(())
    }

    fn close(&mut self, end: &Range<usize>) {
        let Some(open) = self.stack.pop() else { return };
        let (start, last, value) = match open {
            Open::List { start, items } => {
                (start, items.last().map(|item| item.span.end), Value::List(items))
            }
            Open::Mapping { start, entries, .. } => {
                let last = entries.last().map(|entry| entry.value.span.end.max(entry.span.end));
                (start, last, Value::Mapping(entries))
            }
        };
        // The end of a block has no text of its own and is found at the next token, behind blank lines and comments.
        let end = if end.is_empty() { last.unwrap_or(start) } else { end.end };
        self.add(Node { span: start..end.max(start), value });
    }

    fn add(&mut self, node: Node) {
        match self.stack.last_mut() {
            None => self.root = Some(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Mapping { key, .. }) => match std::mem::replace(key, Key::Wanted) {
                Key::Wanted => {
                    let accepted = self.key(node);
                    if let Some(Open::Mapping { key, .. }) = self.stack.last_mut() {
                        *key = accepted;
                    }
                }
                Key::Refused => {}
                Key::Text(text, span) => self.entry(text, span, node),
            },
        }
    }

    /// Turns a node into a key.
    fn key(&mut self, node: Node) -> Key {
        let written = self.text.get(node.span.clone()).unwrap_or_default();
        let text = match node.value {
            Value::List(_) | Value::Mapping(_) => {
                let message = format!("a key must be a string, not {}", node.value.kind());
                self.reader.error(&node.span, Code::YamlKey, message).label("not a string");
                return Key::Refused;
            }
            Value::Refused => return Key::Refused,
            Value::Text(text) => text,
            // As in JSON, a key is always text: `1:` and `true:` are the texts "1" and "true".
            _ => written.to_owned(),
        };
        if written == "<<" {
            let message = "merge keys (`<<`) are not supported";
            self.reader
                .error(&node.span, Code::YamlAlias, message)
                .label("merge key")
                .help("write the fields here");
            return Key::Refused;
        }
        Key::Text(text, node.span)
    }

    fn entry(&mut self, text: String, span: Range<usize>, mut value: Node) {
        let Some(Open::Mapping { entries, places, .. }) = self.stack.last_mut() else { return };
        if let Some(first) = places.get(&text) {
            let first = self.reader.source().location(first);
            let message = format!("the key {} appears twice in this mapping", quote(&text));
            self.reader
                .error(&span, Code::DuplicateKey, message)
                .label("second")
                .related(first, "first")
                .help("remove one of them");
            return;
        }
        if value.span.is_empty() {
            value.span = span.clone();
        }
        places.insert(text.clone(), span.clone());
        entries.push(Entry { key: text, span, value });
    }

    fn refuse_tag(&mut self, span: &Range<usize>) {
        self.reader
            .error(span, Code::YamlTag, "tags are not supported")
            .label("tagged")
            .help("remove the tag; quote the value if it is meant as a string");
    }

    /// The parser's span of a quoted scalar runs to the end of the line, and that of a block to the next token.
    fn scalar_span(&self, span: Range<usize>, style: ScalarStyle) -> Range<usize> {
        let text = self.text.get(span.clone()).unwrap_or_default();
        let len = match style {
            ScalarStyle::DoubleQuoted => quoted_len(text, '"'),
            ScalarStyle::SingleQuoted => quoted_len(text, '\''),
            ScalarStyle::Plain | ScalarStyle::Literal | ScalarStyle::Folded => text.trim_end().len(),
        };
        if len == 0
            && let Some(Open::List { start, items }) = self.stack.last()
            && let Some(dash) = self.dash(items.last().map_or(*start, |item| item.span.end), span.start)
        {
            return dash;
        }
        span.start..span.start + len
    }

    /// The dash of an item without a value, which the parser places at the next token.
    fn dash(&self, after: usize, before: usize) -> Option<Range<usize>> {
        let mut at = after;
        for line in self.text.get(after..before.max(after))?.split_inclusive('\n') {
            let dash = line.split('#').next().and_then(|code| code.find('-'));
            if let Some(dash) = dash {
                return Some(at + dash..at + dash + 1);
            }
            at += line.len();
        }
        None
    }

    /// Reports a syntax error and returns its position.
    fn syntax(&mut self, error: &ScanError) -> usize {
        let at = self.offsets.byte(*error.marker());
        let line = self.text.get(at..).and_then(|rest| rest.lines().next()).unwrap_or_default();
        let width = line.chars().next().map_or(0, char::len_utf8);
        let (code, message, help) = explain(error.info(), line);
        let diagnostic = self.reader.error(&(at..at + width), code, message);
        if let Some(help) = help {
            diagnostic.help(help);
        }
        at
    }
}

/// The parser's words for its commonest errors, translated for people who write policies: (words, message, help). The
/// first row that fits counts.
const EXPLANATIONS: [(&[&str], &str, &str); 11] = [
    (&["tabs disallowed", "a tab", "tab cannot"], "a tab can't indent YAML", "use spaces"),
    (
        &["mapping values are not allowed"],
        "a `:` that no key can have here",
        "check the indentation of this line and the one before it, and quote values that contain `: `",
    ),
    (
        &["simple key expect"],
        "the line before this one is not `key: value`",
        "add the missing `:`, with a space behind it",
    ),
    (
        &["did not find expected '-'"],
        "this line is neither an item of the list above nor indented as its parent",
        "check the indentation",
    ),
    (
        &["did not find expected key"],
        "the indentation fits none of the lines above",
        "indent by the same number of spaces",
    ),
    (
        &["indentation in quoted", "unexpected document indicator"],
        "a quoted string that does not end where it should",
        "add the closing quote",
    ),
    (&["unexpected end of stream"], "a quoted string that never ends", "add the closing quote"),
    (
        // A block can't have an invalid indentation that is not one of the errors above.
        &["expected ',' or", "expected node content", "':' indicator", "invalid indentation"],
        "a bracket or brace before this is not closed, or a `,` or a value is missing",
        "close it, or add what is missing",
    ),
    (
        &["trailing content after double-quoted"],
        "text behind the closing quote",
        "write a quote inside single quotes twice, or use double quotes",
    ),
    (&["unexpected character"], "a value can't start with this character", "quote the value"),
    (&["unprintable"], "a control character", "save the file as plain UTF-8 text"),
];

fn explain(info: &str, line: &str) -> (Code, String, Option<&'static str>) {
    if info.contains("recursion limit") {
        return (Code::TooDeep, "brackets and braces are nested too deep".into(), None);
    }
    if line.starts_with('*') && (info.contains("unknown anchor") || info.contains("anchor or alias")) {
        let message = "aliases are not supported, and this one refers to nothing";
        return (Code::YamlAlias, message.into(), Some("quote it if a star is meant: \"*\""));
    }
    let row = EXPLANATIONS.iter().find(|(words, ..)| words.iter().any(|words| info.contains(words)));
    match row {
        Some((_, message, help)) => (Code::YamlSyntax, (*message).into(), Some(help)),
        None => (Code::YamlSyntax, format!("not valid YAML: {info}"), None),
    }
}
