//! The commands that the documentation shows are commands.

use std::fs;
use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use enforcer::cli::args::Cli;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// The pages that people read.
fn pages() -> Vec<PathBuf> {
    let docs = fs::read_dir(Path::new(ROOT).join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut pages: Vec<_> = docs.filter(|path| path.extension().is_some_and(|end| end == "md")).collect();
    pages.extend(["README.md", "policies/README.md"].map(|page| Path::new(ROOT).join(page)));
    pages.sort();
    pages
}

/// What is typed in the consoles of a page, without comments.
fn typed(page: &str) -> impl Iterator<Item = &str> {
    let consoles = page.split("```console\n").skip(1).filter_map(|rest| rest.split("\n```").next());
    let lines = consoles.flat_map(str::lines);
    let typed = lines.filter_map(|line| line.strip_prefix("$ ").or_else(|| line.strip_prefix("# ")));
    typed.map(|line| line.split("  #").next().unwrap_or_default().split(" # ").next().unwrap_or_default())
}

/// The calls of the program in a line: by itself, or at the end of another's words.
fn calls(line: &str) -> impl Iterator<Item = Vec<String>> {
    let parts = line.split(['|', '>', '&', ';']).map(str::trim);
    parts.filter_map(|part| {
        let own = if part.starts_with("enforcer ") { part } else { part.split_once(" -- ")?.1 };
        own.starts_with("enforcer ")
            .then(|| own.split_whitespace().map(|word| word.trim_matches('\'').to_owned()).collect())
    })
}

#[test]
fn every_command_of_the_documentation_is_accepted() {
    let mut found = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for words in typed(&text).flat_map(calls) {
            found += 1;
            let parsed = Cli::command().try_get_matches_from(&words);
            assert!(parsed.is_ok(), "{}: {}\n{}", page.display(), words.join(" "), parsed.unwrap_err());
        }
    }
    assert!(found >= 40, "{found}");
}
