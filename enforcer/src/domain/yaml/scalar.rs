//! Scalars: where they end and what they are.

use std::borrow::Cow;

use saphyr_parser::ScalarStyle;

use super::Value;

/// Length of a quoted text up to its closing quote, properties before it included.
pub(super) fn quoted_len(text: &str, mark: char) -> usize {
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
pub(super) fn scalar(text: Cow<'_, str>, style: ScalarStyle) -> Value {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_by_the_core_schema() {
        let plain = |text: &'static str| scalar(text.into(), ScalarStyle::Plain);
        let text = |text: &str| Value::Text(text.into());
        let number = |text: &str| Value::Number(text.into());
        for (written, value) in [
            ("", Value::Null),
            ("~", Value::Null),
            ("True", Value::Bool(true)),
            ("yes", text("yes")),
            ("no", text("no")),
            ("0x1f", Value::Integer(31)),
            ("0o17", Value::Integer(15)),
            ("-7", Value::Integer(-7)),
            ("99999999999999999999", number("99999999999999999999")),
            ("1e3", number("1e3")),
            (".5", number(".5")),
            ("-.inf", number("-.inf")),
            ("inf", text("inf")),
            ("1.2.3.4", text("1.2.3.4")),
            ("10.0.0.0/8", text("10.0.0.0/8")),
            ("é", text("é")),
        ] {
            assert_eq!(plain(written), value, "{written}");
        }
        assert_eq!(scalar("7".into(), ScalarStyle::DoubleQuoted), text("7"));
    }

    #[test]
    fn quoted_scalars_end_at_their_quote() {
        for (text, mark, quoted) in [
            (r#""a" # c"#, '"', r#""a""#),
            (r#""a\"b\\" x""#, '"', r#""a\"b\\""#),
            ("'it''s' # 'c'", '\'', "'it''s'"),
            ("&x !y 'é'  ", '\'', "&x !y 'é'"),
            ("\"open", '"', "\"open"),
        ] {
            assert_eq!(text.get(..quoted_len(text, mark)), Some(quoted));
        }
    }
}
