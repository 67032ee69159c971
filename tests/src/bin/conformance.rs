//! `cargo xtask conformance`: the cases of public suites, offline. The work is in `enforcer_tests::conformance`.
#![allow(clippy::print_stderr, reason = "a command says what is wrong")]

use std::process::ExitCode;

use enforcer_tests::conformance;

fn main() -> ExitCode {
    match conformance::run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(2)
        }
    }
}
