//! Lists of documents, as `kubectl get -o yaml` prints them: `kind: List` or `kind: NetworkPolicyList`.

use std::ops::Range;

use super::diagnostic::{Code, Source};
use super::document::version;
use super::key::PolicyKind;
use crate::domain::yaml::{Document, Entry, Node, Reader, Value};

/// Most items of one list.
const MAX_DOCUMENTS: usize = 20_000;

/// A document on its own.
#[derive(Debug)]
pub(super) struct Item {
    /// Its root.
    pub(super) root: Node,
    /// Its own text, comments included; checks to the same policy.
    pub(super) text: String,
}

/// The documents that one document stands for: those of the list that it is, or itself.
pub(super) fn expand(reader: &mut Reader<'_>, document: Document) -> Vec<Item> {
    let Some(List { element }) = list(&document.root) else {
        let text = reader.source().text().get(document.text).unwrap_or_default();
        return vec![Item { root: document.root, text: format!("{text}\n") }];
    };
    let source = reader.source();
    let Some(list) = reader.mapping(&document.root, "a list", &["apiVersion", "kind", "metadata", "items"])
    else {
        return Vec::new();
    };
    let items = match list.get("items") {
        Some(node) if node.value != Value::Null => reader.list(node, "`items`", MAX_DOCUMENTS),
        _ => Some(&[][..]),
    };
    if items.is_some_and(<[Node]>::is_empty) {
        reader.warning(&list.place(), Code::EmptyFile, "the list has no items").label("nothing here");
    }
    items.unwrap_or_default().iter().map(|item| self::item(source, item.clone(), element)).collect()
}

/// A list of documents.
struct List {
    /// The kind of those that say none of their own.
    element: Option<PolicyKind>,
}

/// Whether it is one.
fn list(root: &Node) -> Option<List> {
    let (kind, api) = (root.field("kind")?.as_text()?, root.field("apiVersion")?.as_text()?);
    if (kind, api) == ("List", "v1") {
        return Some(List { element: None });
    }
    let element = kind.strip_suffix("List")?;
    let kind = PolicyKind::ALL.into_iter().find(|kind| kind.label() == element && version(*kind) == api)?;
    Some(List { element: Some(kind) })
}

fn item(source: &Source<'_>, mut root: Node, element: Option<PolicyKind>) -> Item {
    let mut text = text(source, &root.span);
    let is_mapping = matches!(root.value, Value::Mapping(_));
    // The items of a typed list carry no type of their own where they come from the API itself.
    if let Some(kind) = element.filter(|_| is_mapping && root.field("kind").is_none()) {
        let fields = [("kind", kind.label()), ("apiVersion", version(kind))];
        for (key, value) in fields {
            if root.field(key).is_some() {
                continue;
            }
            text = with_field(&text, key, value);
            let (span, place) = (root.span.start..root.span.start, root.span.start..root.span.start);
            let value = Node { span: place, value: Value::Text(value.to_owned()) };
            if let Value::Mapping(entries) = &mut root.value {
                entries.insert(0, Entry { key: key.to_owned(), span, value });
            }
        }
    }
    Item { root, text }
}

/// The text of an item as a document of its own: what is a block keeps its indentation, so that its lines still align.
fn text(source: &Source<'_>, span: &Range<usize>) -> String {
    let all = source.text();
    let own = all.get(span.clone()).unwrap_or_default();
    if own.starts_with(['{', '[']) {
        return format!("{own}\n");
    }
    let before = all.get(..span.start).unwrap_or_default();
    let line = before.rfind('\n').map_or(0, |newline| newline + 1);
    let column = before.get(line..).map_or(0, |text| text.chars().count());
    // The last value may be missing, and its place is then that of its key: the colon behind it belongs to it too.
    let rest = all.get(span.end..).unwrap_or_default();
    let end = span.end + rest.find('\n').unwrap_or(rest.len());
    let own = all.get(span.start..end).unwrap_or_default();
    format!("{}{own}\n", " ".repeat(column))
}

/// The text with one more field in front.
fn with_field(text: &str, key: &str, value: &str) -> String {
    if let Some(rest) = text.strip_prefix('{') {
        // A comma would be too much in front of nothing, but an empty item has no name and is refused anyway.
        let comma = if rest.trim_start().starts_with('}') { "" } else { ", " };
        return format!("{{\"{key}\": \"{value}\"{comma}{rest}");
    }
    let indentation = text.len() - text.trim_start_matches(' ').len();
    format!("{}{key}: {value}\n{text}", " ".repeat(indentation))
}
