//! Which metrics a query of Prometheus names.

use std::collections::BTreeSet;

/// Words that are no metric where they stand alone.
const WORDS: [&str; 14] = [
    "and",
    "or",
    "unless",
    "bool",
    "offset",
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "inf",
    "nan",
    "atan2",
];
/// Words behind which labels stand in parentheses.
const LISTS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];

/// Names of metrics, in order. What stands in quotes, in braces, in brackets or in a list of labels is none.
pub(super) fn metrics(query: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut rest = query;
    let mut list = false;
    while let Some(first) = rest.chars().next() {
        match first {
            '"' => rest = behind_quote(&rest[1..]),
            '{' => rest = behind_brace(&rest[1..]),
            '[' => rest = rest.split_once(']').map_or("", |(_, rest)| rest),
            '(' if list => {
                rest = rest.split_once(')').map_or("", |(_, rest)| rest);
                list = false;
            }
            _ if first.is_ascii_alphabetic() || first == '_' || first == ':' => {
                let end = rest.find(|it: char| !is_part(it)).unwrap_or(rest.len());
                let (word, behind) = rest.split_at(end);
                rest = behind;
                let lower = word.to_ascii_lowercase();
                list = LISTS.contains(&lower.as_str());
                // What a parenthesis follows is a function, or `sum by (...) (...)`.
                let called = behind.trim_start().starts_with('(') || follows_list(behind);
                if !called && !WORDS.contains(&lower.as_str()) {
                    found.insert(word.to_owned());
                }
            }
            // A variable of Grafana, which stands for a time where it stands outside of brackets.
            '$' => rest = rest[1..].trim_start_matches(is_part),
            // A number with its unit, like 5m or 1e3.
            _ if first.is_ascii_digit() => {
                let end =
                    rest.find(|it: char| !it.is_ascii_alphanumeric() && it != '.').unwrap_or(rest.len());
                rest = &rest[end..];
            }
            _ => rest = &rest[first.len_utf8()..],
        }
    }
    found
}

fn is_part(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_' || letter == ':'
}

/// `sum by (a) (x)`: the word before is an aggregation.
fn follows_list(behind: &str) -> bool {
    let behind = behind.trim_start();
    ["by", "without"]
        .iter()
        .any(|word| behind.strip_prefix(word).is_some_and(|rest| rest.trim_start().starts_with('(')))
}

fn behind_quote(text: &str) -> &str {
    let mut escaped = false;
    for (at, letter) in text.char_indices() {
        match letter {
            '\\' if !escaped => escaped = true,
            '"' if !escaped => return &text[at + 1..],
            _ => escaped = false,
        }
    }
    ""
}

fn behind_brace(text: &str) -> &str {
    let mut rest = text;
    while let Some(at) = rest.find(['"', '}']) {
        if rest.as_bytes()[at] == b'}' {
            return &rest[at + 1..];
        }
        rest = behind_quote(&rest[at + 1..]);
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(query: &str) -> Vec<String> {
        metrics(query).into_iter().collect()
    }

    #[test]
    fn names_are_told_from_everything_else() {
        assert_eq!(
            of(r#"sum by (source, le) (rate(a_total{x="b_total}",y=~"c|"}[5m])) > 0.5e3 or vector(0)"#),
            ["a_total"]
        );
        assert_eq!(
            of("topk(10, a / on (instance) group_left (version) b:c) unless d offset 5m"),
            ["a", "b:c", "d"]
        );
        assert_eq!(of(r#"label_replace(up, "edge", "$1 \" x", "from", "(.*)")"#), ["up"]);
        assert_eq!(of("sum(a) by (b) / count without (c) (d)"), ["a", "d"]);
        assert_eq!(of("a offset $__range >= 0 or last_over_time(b[$__range])"), ["a", "b"]);
        assert_eq!(of("time() - 3"), Vec::<String>::new());
        assert_eq!(of("enforce_ready"), ["enforce_ready"], "also what begins otherwise");
    }
}
