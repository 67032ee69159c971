//! `cargo xtask demo`: the product at work, told line by line. The story is in `enforcer_tests::demo`.

use std::process::ExitCode;

use enforcer_tests::{demo, puppet};

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some(puppet::ARGUMENT) => {
            puppet::live();
            ExitCode::SUCCESS
        }
        argument => demo::run(argument == Some("--keep")),
    }
}
