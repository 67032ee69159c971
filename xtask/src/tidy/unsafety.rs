//! Where `unsafe` may stand, and the comment it owes its reader.

use super::Finding;
use super::lex::Source;

/// Every other room works through these.
const PLACES: [&str; 5] = [
    "enforcer-ebpf/",
    "enforcer/src/kernel/",
    "enforcer/src/kernel.rs",
    "enforcer-common/src/wire.rs",
    "tests/",
];

/// How far above the word its comment may begin.
const REACH: usize = 8;

pub(super) fn check(source: &Source, findings: &mut Vec<Finding>) {
    for (index, token) in source.tokens.iter().enumerate().filter(|(_, token)| token.text == "unsafe") {
        // An attribute such as `#[unsafe(no_mangle)]`: its room is right where linking matters.
        if source.follows(index + 1, &["("]) {
            continue;
        }
        if !PLACES.iter().any(|place| source.path.starts_with(place)) {
            let words = "`unsafe` lives in enforcer-ebpf, enforcer/src/kernel, enforcer-common/src/wire.rs and tests only";
            findings.push(Finding::new(&source.path, token.line, words));
        }
        // A type of a function pointer promises nothing.
        if source.follows(index + 1, &["fn", "("]) || source.follows(index + 1, &["extern", "\"", "fn", "("])
        {
            continue;
        }
        if !explained(source, token.line) {
            let words =
                "`unsafe` without a `// SAFETY:` comment (or `# Safety` in the documentation) above it";
            findings.push(Finding::new(&source.path, token.line, words));
        }
    }
}

fn explained(source: &Source, line: usize) -> bool {
    let above = source.raw.iter().take(line).skip(line.saturating_sub(REACH + 1));
    above.into_iter().any(|text| {
        let comment = text.split_once("//").map_or("", |(_, comment)| comment);
        comment.contains("SAFETY:") || comment.contains("# Safety")
    })
}

#[cfg(test)]
mod tests {
    use super::super::findings_of;
    use super::*;

    #[test]
    fn only_some_rooms_may() {
        let text = "// SAFETY: nothing happens.\nunsafe { x() }\n";
        assert!(findings_of(check, "enforcer/src/kernel/maps.rs", text).is_empty());
        assert_eq!(findings_of(check, "enforcer/src/domain/a.rs", text).len(), 1);
        assert_eq!(findings_of(check, "xtask/src/main.rs", text).len(), 1);
    }

    #[test]
    fn each_one_is_explained() {
        let path = "enforcer-ebpf/src/maps.rs";
        assert_eq!(findings_of(check, path, "fn f() { unsafe { x() } }").len(), 1);
        assert_eq!(findings_of(check, path, "unsafe impl Sync for X {}").len(), 1);
        assert!(findings_of(check, path, "/// # Safety\n/// Never twice.\nunsafe fn f() {}").is_empty());
        assert!(
            findings_of(check, path, "type F = unsafe extern \"C\" fn(u8);\n#[unsafe(no_mangle)]\n")
                .is_empty()
        );
        let far = format!("// SAFETY: too far.\n{}unsafe {{}}", "\n".repeat(REACH + 1));
        assert_eq!(findings_of(check, path, &far).len(), 1);
    }
}
