//! Words and paths that are forbidden, everywhere or in the pure rooms.

use super::Finding;
use super::lex::Source;
use super::paths;

/// What the pure rooms may not reach: the world, other threads, the clock.
const IMPURE: [&str; 14] = [
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "std::os",
    "std::time::SystemTime::now",
    "std::time::Instant::now",
    "SystemTime::now",
    "Instant::now",
    "tokio",
    "aya",
];

const PURE: [&str; 2] = ["domain", "engine"];

pub(super) fn check(source: &Source, findings: &mut Vec<Finding>) {
    everywhere(source, findings);
    outside_tests(source, findings);
    if let Some(("enforcer", module)) = source.module()
        && let Some(room) = PURE.into_iter().find(|room| module.split('/').next() == Some(room))
    {
        pure(source, room, findings);
    }
}

fn everywhere(source: &Source, findings: &mut Vec<Finding>) {
    const SEQUENCES: [(&[&str], &str); 4] = [
        (&["static", "mut"], "`static mut` is a data race waiting; use a cell or an atomic"),
        (&["todo", "!"], "`todo!` is not finished"),
        (&["unimplemented", "!"], "`unimplemented!` is not finished"),
        (
            &["#", "[", "ignore"],
            "an ignored test is a promise nobody keeps; let it run or skip with a reason",
        ),
    ];
    for (index, token) in source.tokens.iter().enumerate() {
        for (sequence, words) in SEQUENCES {
            if source.follows(index, sequence) {
                findings.push(Finding::new(&source.path, token.line, words));
            }
        }
    }
}

fn outside_tests(source: &Source, findings: &mut Vec<Finding>) {
    if source.test {
        return;
    }
    // Constant assertions of the shared structs run in the compiler, where a panic is an error message.
    let constants = source.path.starts_with("enforcer-common/src/");
    for (index, token) in source.tokens.iter().enumerate().filter(|(_, token)| !token.test) {
        let unwraps = source.follows(index, &[".", "unwrap", "("]);
        let expects = source.follows(index, &[".", "expect", "("]) && !constants;
        if unwraps || expects {
            let words = "a panic outside tests; return the error, or write the case away with types";
            findings.push(Finding::new(&source.path, token.line, words));
        }
    }
}

fn pure(source: &Source, room: &str, findings: &mut Vec<Finding>) {
    for reference in paths::of(source) {
        if let Some(path) = IMPURE.into_iter().find(|path| reference.is_below(path)) {
            let words = format!(
                "`{room}` only computes: `{path}` belongs into an adapter, its result comes in as a value"
            );
            findings.push(Finding::new(&source.path, reference.line, words));
        }
    }
    for token in source.product().filter(|token| ["async", "await"].contains(&token.text.as_str())) {
        let words = format!("`{room}` only computes: nothing in it waits (`{}`)", token.text);
        findings.push(Finding::new(&source.path, token.line, words));
    }
}

#[cfg(test)]
mod tests {
    use super::super::findings_of;
    use super::*;

    fn count(path: &str, text: &str) -> usize {
        findings_of(check, path, text).len()
    }

    #[test]
    fn unfinished_work_is_found_even_in_tests() {
        for text in [
            "static mut X: u8 = 0;",
            "fn f() { todo!() }",
            "fn f() { unimplemented!() }",
            "#[ignore = \"x\"]",
        ] {
            assert_eq!(count("tests/suite/a.rs", text), 1, "{text}");
        }
        assert_eq!(count("enforcer/src/cli/a.rs", "// todo!()\nconst A: &str = \"static mut\";"), 0);
    }

    #[test]
    fn panics_are_found_outside_tests() {
        assert_eq!(count("enforcer/src/cli/a.rs", "fn f() { a.unwrap(); b\n.expect(\"c\"); }"), 2);
        assert_eq!(
            count("enforcer/src/cli/a.rs", "fn f() { a.unwrap_or(1); }\n#[cfg(test)]\nmod t { a.unwrap() }"),
            0
        );
        assert_eq!(count("enforcer-common/src/wire.rs", "const A: u8 = B.expect(\"c\");"), 0);
        assert_eq!(count("tests/src/lib.rs", "fn f() { a.unwrap(); }"), 0);
    }

    #[test]
    fn pure_rooms_reach_nothing() {
        let text = "use std::net::{IpAddr, TcpStream};\nfn f() { Instant::now(); std::env::var(x); tokio::spawn(y); }";
        assert_eq!(count("enforcer/src/domain/a.rs", text), 4);
        assert_eq!(count("enforcer/src/engine/mod.rs", "async fn f() { g().await }"), 2);
        assert_eq!(count("enforcer/src/agent/mod.rs", text), 0);
        assert_eq!(count("enforcer/src/domain/a.rs", "use std::net::IpAddr;"), 0);
    }
}
