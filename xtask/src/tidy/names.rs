//! What a file is called and how it introduces itself.

use super::Finding;
use super::lex::Source;

/// Names that say where code ended up rather than what it does.
const EMPTY: [&str; 6] = ["utils", "util", "helpers", "helper", "misc", "common"];

pub(super) fn check(source: &Source, findings: &mut Vec<Finding>) {
    if !source.raw.first().is_some_and(|line| line.starts_with("//! ") && line.len() > 8) {
        findings.push(Finding::new(&source.path, 1, "the first line says what the file is for: `//! ...`"));
    }
    let inner = source.path.split('/').skip(1);
    for name in inner.map(|part| part.strip_suffix(".rs").unwrap_or(part)) {
        if EMPTY.contains(&name) {
            findings.push(Finding::new(&source.path, 1, words(name)));
        }
    }
    for pair in source.tokens.windows(2) {
        if let [module, name] = pair
            && module.text == "mod"
            && EMPTY.contains(&name.text.as_str())
        {
            findings.push(Finding::new(&source.path, name.line, words(&name.text)));
        }
    }
}

fn words(name: &str) -> String {
    format!("a module named `{name}` says nothing; name it after what it does")
}

#[cfg(test)]
mod tests {
    use super::super::findings_of;
    use super::*;

    #[test]
    fn a_file_introduces_itself() {
        assert!(findings_of(check, "enforcer-common/src/id.rs", "//! Numbers.\n").is_empty());
        assert_eq!(findings_of(check, "enforcer-common/src/id.rs", "// Numbers.\n").len(), 1);
        assert_eq!(findings_of(check, "enforcer-common/src/id.rs", "").len(), 1);
    }

    #[test]
    fn empty_names_are_found() {
        assert_eq!(findings_of(check, "enforcer/src/api/utils.rs", "//! Numbers.\n").len(), 1);
        assert_eq!(findings_of(check, "enforcer/src/api/mod.rs", "//! Numbers.\nmod helpers {}\n").len(), 1);
    }
}
