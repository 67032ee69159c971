//! A document as JSON, for the API of a cluster.

use serde_json::Value as Json;

use super::{Node, Value};

/// The same value as JSON. What was refused, or is no number JSON has, is text or nothing: a check comes before.
pub fn json(node: &Node) -> Json {
    match &node.value {
        Value::Refused | Value::Null => Json::Null,
        Value::Bool(value) => (*value).into(),
        Value::Integer(value) => (*value).into(),
        Value::Number(text) => serde_json::from_str(text).unwrap_or_else(|_| text.clone().into()),
        Value::Text(text) => text.clone().into(),
        Value::List(items) => items.iter().map(json).collect(),
        Value::Mapping(entries) => {
            entries.iter().map(|entry| (entry.key.clone(), json(&entry.value))).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::command::PolicyFile;
    use crate::domain::policy::diagnostic::Source;
    use crate::domain::yaml::{Reader, parse};

    #[test]
    fn values_keep_their_types() {
        let text = "a: 1\nb: '1'\nc: [true, null, 1.5, x]\nd: {e: {}}\n";
        let file = PolicyFile { name: "x".into(), text: text.into() };
        let source = Source::new(0, &file);
        let mut reader = Reader::new(&source);
        let documents = parse(&mut reader);
        let expected = serde_json::json!({
            "a": 1, "b": "1", "c": [true, null, 1.5, "x"], "d": { "e": {} },
        });
        assert_eq!(json(&documents[0].root), expected);
    }
}
