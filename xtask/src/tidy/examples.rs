//! Every policy example says what it is expected to do.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::Finding;

const EXPECTED: &str = ".expect.yaml";

pub(super) fn check(root: &Path, findings: &mut Vec<Finding>) -> Result<()> {
    let folder = root.join("policies");
    if !folder.is_dir() {
        return Ok(());
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    findings.extend(alone(&names));
    Ok(())
}

fn alone(names: &[String]) -> Vec<Finding> {
    let has = |wanted: String| names.contains(&wanted);
    let mut findings = Vec::new();
    for name in names {
        let file = format!("policies/{name}");
        if let Some(stem) = name.strip_suffix(EXPECTED) {
            if !has(format!("{stem}.yaml")) {
                findings.push(Finding::new(
                    &file,
                    1,
                    format!("expects something of {stem}.yaml, which is not there"),
                ));
            }
        } else if let Some(stem) = name.strip_suffix(".yaml")
            && !has(format!("{stem}{EXPECTED}"))
        {
            findings.push(Finding::new(
                &file,
                1,
                format!("an example without its verdicts: write {stem}{EXPECTED}"),
            ));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_and_verdicts_come_in_pairs() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert!(alone(&names(&["a.yaml", "a.expect.yaml", "README.md"])).is_empty());
        assert_eq!(alone(&names(&["a.yaml", "b.expect.yaml"])).len(), 2);
    }
}
