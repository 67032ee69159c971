//! JSON values as YAML blocks, the way Helm's `toYaml` writes them: keys sorted, lists not indented.

use serde_json::Value;

/// The lines of a value, with a trailing newline after each but the last.
pub(super) fn block(value: &Value) -> String {
    let mut lines = Vec::new();
    write(value, &mut lines);
    lines.join("\n")
}

fn write(value: &Value, lines: &mut Vec<String>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                nested(&format!("{}:", scalar(key)), value, "  ", lines);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                let mut inner = Vec::new();
                write(item, &mut inner);
                for (index, line) in inner.iter().enumerate() {
                    lines.push(format!("{}{line}", if index == 0 { "- " } else { "  " }));
                }
            }
        }
        other => lines.push(inline(other)),
    }
}

/// A key with its value, on one line if it has no parts.
fn nested(head: &str, value: &Value, indent: &str, lines: &mut Vec<String>) {
    let mut inner = Vec::new();
    write(value, &mut inner);
    match value {
        Value::Object(map) if !map.is_empty() => {
            lines.push(head.to_owned());
            lines.extend(inner.iter().map(|line| format!("{indent}{line}")));
        }
        Value::Array(items) if !items.is_empty() => {
            lines.push(head.to_owned());
            lines.extend(inner);
        }
        _ => lines.push(format!("{head} {}", inner.concat())),
    }
}

fn inline(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text),
        other => other.to_string(),
    }
}

/// A string, quoted where a reader might take it for something else.
fn scalar(text: &str) -> String {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'/');
    let word = ["true", "false", "yes", "no", "on", "off", "null", "y", "n"];
    if begins && text.bytes().all(fits) && !word.contains(&text.to_lowercase().as_str()) {
        text.to_owned()
    } else {
        // A JSON string is a YAML string.
        Value::String(text.to_owned()).to_string()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn blocks_are_as_people_write_them() {
        let value =
            json!({ "a": { "b": ["c", { "d": 1, "e": true }], "f": {} }, "g": "on", "h": [], "i": "1Gi" });
        let text = "a:\n  b:\n  - c\n  - d: 1\n    e: true\n  f: {}\ng: \"on\"\nh: []\ni: \"1Gi\"";
        assert_eq!(block(&value), text);
        assert_eq!(block(&json!({})), "{}");
    }
}
