//! Licences, sources and names of dependencies, by the lists of deny.toml: what `cargo deny` checks too, without it and
//! without the network.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::Finding;
use crate::shell;

/// The lists.
const FILE: &str = "deny.toml";

pub(super) fn check(root: &Path, findings: &mut Vec<Finding>) -> Result<()> {
    let lists = fs::read_to_string(root.join(FILE)).with_context(|| format!("cannot read {FILE}"))?;
    let lists = Lists::read(&lists);
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut cargo = shell::cargo(root);
    cargo.args(["metadata", "--format-version", "1", "--locked", "--filter-platform", &platform]);
    let metadata: Value =
        serde_json::from_str(&shell::capture(&mut cargo, "asking cargo for the dependencies")?)?;
    for package in metadata["packages"].as_array().into_iter().flatten() {
        findings.extend(lists.judge(package).map(|words| Finding::new("Cargo.lock", 1, words)));
    }
    Ok(())
}

/// What deny.toml allows and forbids.
#[derive(Debug, Default)]
struct Lists {
    licenses: Vec<String>,
    registries: Vec<String>,
    banned: Vec<String>,
}

impl Lists {
    /// The strings of `licenses.allow`, `sources.allow-registry` and `bans.deny`. Not a reader of TOML: our own file, one item or one
    /// list a line.
    fn read(text: &str) -> Self {
        let mut lists = Self::default();
        let (mut section, mut key) = (String::new(), String::new());
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                name.clone_into(&mut section);
                continue;
            }
            let mut items = line;
            // An item of the list `deny` has an equals sign of its own.
            if let Some((name, value)) = line.split_once('=').filter(|_| !line.starts_with('{')) {
                name.trim().clone_into(&mut key);
                items = value;
            }
            let list = match (&*section, &*key) {
                ("licenses", "allow") => &mut lists.licenses,
                ("sources", "allow-registry") => &mut lists.registries,
                ("bans", "deny") => &mut lists.banned,
                _ => continue,
            };
            list.extend(items.split('"').skip(1).step_by(2).map(str::to_owned));
        }
        lists
    }

    /// What is wrong with a package of `cargo metadata`.
    fn judge(&self, package: &Value) -> Option<String> {
        let name = package["name"].as_str().unwrap_or_default();
        if self.banned.iter().any(|banned| banned == name) {
            return Some(format!("{name} is banned by {FILE}"));
        }
        if let Some(source) = package["source"].as_str()
            && !self.registries.iter().any(|known| source.strip_prefix("registry+") == Some(known))
        {
            return Some(format!("{name} comes from {source}, which {FILE} does not allow"));
        }
        let license = package["license"].as_str().unwrap_or_default();
        (!self.allows(license))
            .then(|| format!("{name} has the licence `{license}`, which {FILE} does not allow"))
    }

    /// Whether a licence expression (SPDX) can be met by what is allowed.
    fn allows(&self, expression: &str) -> bool {
        let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
        let words: Vec<&str> = spaced.split_whitespace().collect();
        let mut rest = &*words;
        self.either(&mut rest).unwrap_or(false) && rest.is_empty()
    }

    /// `A OR B`; `OR` binds less than `AND`.
    fn either(&self, words: &mut &[&str]) -> Option<bool> {
        let mut met = self.both(words)?;
        while words.first() == Some(&"OR") {
            *words = &words[1..];
            met |= self.both(words)?;
        }
        Some(met)
    }

    fn both(&self, words: &mut &[&str]) -> Option<bool> {
        let mut met = self.one(words)?;
        while words.first() == Some(&"AND") {
            *words = &words[1..];
            met &= self.one(words)?;
        }
        Some(met)
    }

    /// A licence, with an exception perhaps, or something in parentheses.
    fn one(&self, words: &mut &[&str]) -> Option<bool> {
        let (first, rest) = words.split_first()?;
        *words = rest;
        if *first == "(" {
            let met = self.either(words)?;
            let (close, rest) = words.split_first()?;
            *words = rest;
            return (*close == ")").then_some(met);
        }
        let name = match **words {
            ["WITH", exception, ..] => {
                *words = &words[2..];
                format!("{first} WITH {exception}")
            }
            _ => (*first).to_owned(),
        };
        Some(self.licenses.contains(&name))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lists() -> Lists {
        Lists::read(include_str!("../../../deny.toml"))
    }

    #[test]
    fn the_lists_are_read() {
        let lists = lists();
        assert!(lists.licenses.iter().any(|it| it == "MIT") && lists.licenses.len() > 5, "{lists:?}");
        assert_eq!(lists.registries, ["https://github.com/rust-lang/crates.io-index"]);
        assert!(lists.banned.iter().any(|it| it == "openssl-sys") && lists.banned.len() > 3, "{lists:?}");
    }

    #[test]
    fn expressions_are_met_or_not() {
        for (expression, met) in [
            ("MIT", true),
            ("GPL-3.0-only", false),
            ("GPL-3.0-only OR MIT", true),
            ("MIT AND GPL-3.0-only", false),
            ("MIT/Apache-2.0", true),
            ("(MIT OR GPL-3.0-only) AND Unicode-3.0", true),
            ("GPL-3.0-only OR MIT AND GPL-2.0-only", false),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("MIT WITH Classpath-exception-2.0", false),
            ("", false),
            ("(MIT", false),
            ("MIT)", false),
        ] {
            assert_eq!(lists().allows(expression), met, "{expression}");
        }
    }

    #[test]
    fn strangers_are_found() {
        let package =
            |name: &str, source: Option<&str>| json!({ "name": name, "license": "MIT", "source": source });
        let known = Some("registry+https://github.com/rust-lang/crates.io-index");
        assert_eq!(lists().judge(&package("a", known)), None);
        assert_eq!(lists().judge(&package("ours", None)), None);
        assert!(lists().judge(&package("a", Some("git+https://example.org/a"))).is_some());
        assert!(lists().judge(&package("openssl-sys", known)).is_some());
    }
}
