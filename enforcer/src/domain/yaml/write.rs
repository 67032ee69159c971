//! Documents for people and `kubectl`: block style, with texts in double quotes where YAML would read them otherwise.

use serde_json::Value;

/// One document, begun with `---`.
pub fn document(value: &Value) -> String {
    let mut text = "---\n".to_owned();
    block(value, 0, &mut text);
    text
}

/// The lines of a mapping or list; anything else in one line.
fn block(value: &Value, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                text.push_str(&indent);
                text.push_str(&scalar(name));
                text.push(':');
                below(value, depth + 1, text);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                text.push_str(&indent);
                text.push('-');
                // The first line of the item goes behind the dash.
                let mut inner = String::new();
                block(item, depth + 1, &mut inner);
                let is_block = matches!(item, Value::Object(fields) if !fields.is_empty())
                    || matches!(item, Value::Array(items) if !items.is_empty());
                text.push(' ');
                text.push_str(if is_block { inner.trim_start() } else { &inner });
            }
        }
        _ => {
            text.push_str(&inline(value));
            text.push('\n');
        }
    }
}

/// What stands behind a name.
fn below(value: &Value, depth: usize, text: &mut String) {
    let is_block = matches!(value, Value::Object(fields) if !fields.is_empty())
        || matches!(value, Value::Array(items) if !items.is_empty());
    if is_block {
        text.push('\n');
        block(value, depth, text);
    } else {
        text.push(' ');
        text.push_str(&inline(value));
        text.push('\n');
    }
}

fn inline(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text),
        other => other.to_string(),
    }
}

/// As it is where it can only be read as this text, else quoted: a JSON string is a YAML string.
fn scalar(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-$".contains(c);
    let is_word = text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(is_plain);
    let is_reserved = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"]
        .contains(&text.to_ascii_lowercase().as_str());
    if is_word && !is_reserved { text.to_owned() } else { Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn block_style() {
        let value = json!({
            "kind": "X", "empty": {}, "none": [], "list": [1, "two words", { "a": [true, null], "b": "yes" }, ["x"]],
            "text": "a: b\n",
        });
        let expected = "---\nempty: {}\nkind: X\nlist:\n  - 1\n  - \"two words\"\n  - a:\n      - true\n      - null\n    b: \"yes\"\n  - - x\nnone: []\ntext: \"a: b\\n\"\n";
        assert_eq!(document(&value), expected);
    }
}
