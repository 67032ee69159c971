//! From text to trees.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span};

use super::{Entry, MAX_BYTES, MAX_DEPTH, Node, Reader, Value};
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
    let text = reader.source().text();
    if text.len() > MAX_BYTES {
        let message = format!("the file has {} bytes, more than the limit of {MAX_BYTES}", text.len());
        reader.error(&(0..0), Code::TooLarge, message).help("split it into several files");
        return Vec::new();
    }
    let mut documents = Vec::new();
    let mut base = 0;
    // After a syntax error, go on with the next document: its problems are worth telling too.
    while let Some(after) = stream(reader, base, &mut documents) {
        let rest = text.get(after..).unwrap_or_default();
        match rest.find("\n---") {
            Some(separator) => base = after + separator + 1,
            None => break,
        }
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
        if len == 0 && self.text.get(..span.start).is_some_and(|before| before.ends_with('-')) {
            // An item without a value: show its dash.
            return span.start - 1..span.start;
        }
        span.start..span.start + len
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

/// The parser's words for its commonest errors, translated for people who write policies.
fn explain(info: &str, line: &str) -> (Code, String, Option<&'static str>) {
    let (message, help) = if info.contains("tab") && !info.contains("expected") {
        ("a tab can't indent YAML", "use spaces")
    } else if info.contains("unknown anchor") && line.starts_with('*') {
        let help = "quote it if a star is meant: \"*\"";
        return (
            Code::YamlAlias,
            "aliases are not supported, and this one refers to nothing".into(),
            Some(help),
        );
    } else if info.contains("mapping values are not allowed") {
        (
            "a `:` that no key can have here",
            "check the indentation of this line and the one before it, and quote values that contain `: `",
        )
    } else if info.contains("simple key expect") {
        ("the line before this one is not `key: value`", "add the missing `:`, with a space behind it")
    } else if info.contains("did not find expected '-'") {
        ("this line is neither an item of the list above nor indented as its parent", "check the indentation")
    } else if info.contains("did not find expected key") || info.contains("invalid indentation") {
        ("the indentation fits none of the lines above", "indent by the same number of spaces")
    } else if info.contains("unexpected end of stream") {
        ("a quoted string that never ends", "add the closing quote")
    } else if info.contains("trailing content after double-quoted") {
        ("text behind the closing quote", "write a quote inside single quotes twice, or use double quotes")
    } else if info.contains("unexpected character") {
        ("a value can't start with this character", "quote the value")
    } else if info.contains("unprintable") {
        ("a control character", "save the file as plain UTF-8 text")
    } else {
        return (Code::YamlSyntax, format!("not valid YAML: {info}"), None);
    };
    (Code::YamlSyntax, message.into(), Some(help))
}

/// Length of a quoted text up to its closing quote, properties before it included.
fn quoted_len(text: &str, mark: char) -> usize {
    let mut start = 0;
    while let Some(rest) = text.get(start..).filter(|rest| rest.starts_with(['&', '!'])) {
        let Some(space) = rest.find(char::is_whitespace) else { break };
        start += rest.len() - rest[space..].trim_start().len();
    }
    let mut characters = text.char_indices().skip_while(|(at, _)| *at <= start).peekable();
    while let Some((at, character)) = characters.next() {
        if character == '\\' && mark == '"' {
            characters.next();
        } else if character == mark {
            if mark == '\'' && characters.next_if(|(_, next)| *next == mark).is_some() {
                continue;
            }
            return at + 1;
        }
    }
    text.len()
}

/// A scalar by the core schema: what is quoted is text.
fn scalar(text: Cow<'_, str>, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return Value::Text(text.into_owned());
    }
    match text.as_ref() {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let integer = match text.get(..2) {
        Some("0x") => i64::from_str_radix(&text[2..], 16).ok(),
        Some("0o") => i64::from_str_radix(&text[2..], 8).ok(),
        _ => text.parse().ok(),
    };
    if let Some(integer) = integer {
        return Value::Integer(integer);
    }
    let bare = text.trim_start_matches(['+', '-']);
    let is_number = matches!(bare, ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN")
        || (bare.starts_with(|first: char| first.is_ascii_digit() || first == '.')
            && text.parse::<f64>().is_ok());
    if is_number { Value::Number(text.into_owned()) } else { Value::Text(text.into_owned()) }
}
