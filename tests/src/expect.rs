//! Expectation files of the examples, as the product's own `policy test` reads them.

use std::path::Path;

use anyhow::{Context, bail};
use enforcer::domain::cluster_file::Cluster;
use enforcer::domain::command::PolicyFile;
pub use enforcer::domain::expectation::{Expectation, ExpectedFlow, ExpectedVerdict, ExpectedWorkload};
pub use enforcer::domain::offline::End;

/// Reads an expectation file; the error lists everything that is wrong with it.
///
/// # Errors
/// If the file can't be read, or is wrong.
pub fn load(path: &Path) -> anyhow::Result<Expectation> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    parse(&PolicyFile { name: path.display().to_string(), text })
}

/// Reads the text of an expectation file.
///
/// # Errors
/// If it is wrong.
pub fn parse(file: &PolicyFile) -> anyhow::Result<Expectation> {
    enforcer::domain::expectation::parse(file, &Cluster::default()).or_else(|diagnostics| {
        let lines: Vec<_> = diagnostics.iter().map(ToString::to_string).collect();
        bail!("{}", lines.join("\n"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<Expectation> {
        parse(&PolicyFile { name: "e".into(), text: text.into() })
    }

    #[test]
    fn the_examples_have_valid_expectations() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies");
        let mut count = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.to_string_lossy().ends_with(".expect.yaml") {
                let expectation = load(&path).unwrap();
                assert!(expectation.flows.len() >= 4, "{}", path.display());
                let is_live = expectation.flows.iter().any(|flow| flow.live);
                assert!(is_live || !expectation.is_plain(), "{}", path.display());
                count += 1;
            }
        }
        assert!(count >= 5);
    }

    #[test]
    fn defaults_and_ends() {
        let expectation = read(
            "workloads: [{name: web}, {name: db, namespace: prod}]\nflows:\n\
             - {from: web, to: prod/db, port: 1, verdict: FORWARDED}\n\
             - {from: \"2001:db8::1\", to: web, protocol: UDP, port: 2, verdict: AUDIT, reason: POLICY_DENIED}\n",
        )
        .unwrap();
        let [first, second] = &expectation.flows[..] else { panic!("{expectation:?}") };
        assert_eq!((first.from.to_string(), first.to.to_string()), ("default/web".into(), "prod/db".into()));
        assert!((first.protocol, first.live, first.line) == (6, true, 3), "{first:?}");
        assert!(matches!(second.from, End::Address(_)) && !second.live && second.protocol == 17);
    }

    #[test]
    fn everything_wrong_is_told() {
        let text = "workloads: [{name: web}, {name: web}, {name: host}]\nflows:\n\
             - {from: web, to: bd, port: 1, verdict: FORWARDED}\n\
             - {from: web, to: host, port: 0, verdict: ALLOWED}\n\
             - {from: web, to: host, port: 1, verdict: FORWARDED, errno: EPERM}\n\
             - {from: web, to: host, port: 1, verdict: DROPPED}\n\
             - {from: web, to: 192.0.2.1, port: 1, verdict: FORWARDED, live: true}\n\
             - {from: web, to: host, port: 1, verdict: AUDIT, reason: NO, rule: db, lives: no}\n";
        let error = read(text).unwrap_err().to_string();
        let told: Vec<_> = error.lines().filter_map(|line| line.split(": ").nth(1)).collect();
        assert_eq!(
            told,
            [
                "error[duplicate]",
                "error[bad-expectation]",
                "error[bad-expectation]",
                "error[bad-port]",
                "error[unknown-value]",
                "error[bad-expectation]",
                "error[missing-field]",
                "error[missing-field]",
                "error[bad-expectation]",
                "error[unknown-value]",
                "error[bad-expectation]",
                "error[unknown-field]",
            ],
            "{error}"
        );
        assert!(read("").is_err() && read("a: 1\n---\nb: 1").is_err());
    }
}
