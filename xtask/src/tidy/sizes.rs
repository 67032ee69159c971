//! Files and functions that a reader can hold in mind.

use super::Finding;
use super::lex::{Source, item_end};

const FILE: usize = 400;
const FUNCTION: usize = 80;
/// The verifier's view of a function grows faster than its text.
const KERNEL_FUNCTION: usize = 60;

pub(super) fn check(source: &Source, findings: &mut Vec<Finding>) {
    let size = file_size(source);
    if size > FILE {
        findings.push(Finding::new(
            &source.path,
            1,
            format!("{size} lines of code, at most {FILE}; split the file"),
        ));
    }
    let limit = if source.path.starts_with("enforcer-ebpf/") { KERNEL_FUNCTION } else { FUNCTION };
    for (name, line, lines) in functions(source) {
        if lines > limit {
            let words = format!("`{name}` has {lines} lines of code, at most {limit}; name its parts");
            findings.push(Finding::new(&source.path, line, words));
        }
    }
}

/// Lines of code outside test items.
fn file_size(source: &Source) -> usize {
    let mut all = source.code_lines(1, source.code.len());
    let mut index = 0;
    while let Some(first) = source.tokens.get(index) {
        let length = source.tokens.iter().skip(index).take_while(|token| token.test == first.test).count();
        if first.test
            && let Some(last) = source.tokens.get(index + length - 1)
        {
            all = all.saturating_sub(source.code_lines(first.line, last.line));
        }
        index += length;
    }
    all
}

fn functions(source: &Source) -> impl Iterator<Item = (&str, usize, usize)> {
    let named = source.tokens.windows(2).enumerate();
    named.filter_map(|(index, pair)| {
        let [word, name] = pair else { return None };
        let is_name = name.text.starts_with(|letter: char| letter.is_alphabetic() || letter == '_');
        if word.text != "fn" || !is_name || word.test {
            return None;
        }
        let last = source.tokens.get(item_end(&source.tokens, index) - 1)?;
        Some((name.text.as_str(), word.line, source.code_lines(word.line, last.line)))
    })
}

#[cfg(test)]
mod tests {
    use super::super::findings_of;
    use super::*;

    #[test]
    fn long_files_are_found_and_tests_do_not_count() {
        let long = "const A: u8 = 1;\n".repeat(401);
        assert_eq!(findings_of(check, "x/src/a.rs", &long).len(), 1);
        let blank = format!("{}// words\n\n", "const A: u8 = 1;\n".repeat(400));
        assert!(findings_of(check, "x/src/a.rs", &blank).is_empty());
        let tests = format!("#[cfg(test)]\nmod tests {{\n{long}}}\n");
        assert!(findings_of(check, "x/src/a.rs", &tests).is_empty());
    }

    #[test]
    fn long_functions_are_found() {
        let body = |lines: usize| {
            format!("fn f<T: Into<[u8; 2]>>(x: T)\nwhere\n{{\n{}}}\nfn g();\n", "x();\n".repeat(lines))
        };
        assert!(findings_of(check, "enforcer/src/a.rs", &body(76)).is_empty());
        assert_eq!(findings_of(check, "enforcer/src/a.rs", &body(77)).len(), 1);
        assert!(findings_of(check, "enforcer-ebpf/src/a.rs", &body(56)).is_empty());
        assert_eq!(findings_of(check, "enforcer-ebpf/src/a.rs", &body(57)).len(), 1);
    }
}
