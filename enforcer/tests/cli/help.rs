//! What the command line says about itself.

use clap::{Command, CommandFactory as _};
use enforcer::cli::args::Cli;
use enforcer::config::SETTINGS;

use crate::golden::check;

/// Every command with its full name, outermost first.
fn commands() -> Vec<(String, Command)> {
    fn walk(path: &str, command: &Command, all: &mut Vec<(String, Command)>) {
        all.push((path.to_owned(), command.clone()));
        for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
            walk(&format!("{path} {}", inner.get_name()), inner, all);
        }
    }
    let mut root = Cli::command().term_width(100);
    root.build();
    let mut all = Vec::new();
    walk("enforcer", &root, &mut all);
    all
}

#[test]
fn help_of_every_command_is_the_recorded_one() {
    let texts: Vec<_> = commands()
        .into_iter()
        .map(|(path, mut command)| format!("=== {path} ===\n{}\n", command.render_long_help()))
        .collect();
    let text = texts.concat();
    check("help.txt", &text);
}

#[test]
fn every_command_has_an_example_of_itself() {
    for (path, command) in commands() {
        let help = command.clone().render_long_help().to_string();
        let example = help.split_once("Example:\n").map(|(_, example)| example.trim());
        let example = example.unwrap_or_else(|| panic!("{path} has no example"));
        assert!(example.starts_with(&path), "the example of {path} is of something else: {example}");
    }
}

#[test]
fn examples_are_accepted() {
    for (_, command) in commands() {
        let help = command.clone().render_long_help().to_string();
        let example = help.split_once("Example:\n").map(|(_, example)| example.trim()).unwrap_or_default();
        for part in example.split("&&") {
            let words = part.split('>').next().unwrap_or_default().split_whitespace();
            let parsed = Cli::command().try_get_matches_from(words);
            assert!(parsed.is_ok(), "{part}: {}", parsed.unwrap_err());
        }
    }
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn run_has_a_flag_for_every_setting_and_no_other() {
    let all = commands();
    let (_, run) = all.iter().find(|(path, _)| path == "enforcer run").unwrap();
    let mut flags: Vec<_> = run.get_arguments().filter_map(|argument| argument.get_long()).collect();
    flags.sort_unstable();
    let mut expected: Vec<_> = SETTINGS.iter().map(|setting| setting.key).collect();
    expected.extend(["color", "config", "help", "verbose"]);
    expected.sort_unstable();
    assert_eq!(flags, expected);
}
