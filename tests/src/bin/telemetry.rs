//! `cargo xtask telemetry`: a real Prometheus asks everything that dashboards and rules ask. What is done is in
//! `enforcer_tests::telemetry`.

use std::process::ExitCode;

use enforcer_tests::{puppet, telemetry};

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some(puppet::ARGUMENT) => {
            puppet::live();
            ExitCode::SUCCESS
        }
        _ => telemetry::run(),
    }
}
