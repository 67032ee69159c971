//! `cargo xtask bench`: what enforcement costs. The work is in `enforcer_tests::bench`.
#![allow(clippy::print_stderr, reason = "a command says what is wrong")]

use std::process::ExitCode;

use enforcer_tests::bench::{self, load};
use enforcer_tests::{direct, puppet};

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some(puppet::ARGUMENT) => {
            puppet::live();
            ExitCode::SUCCESS
        }
        Some(load::ARGUMENT) => {
            load::live();
            ExitCode::SUCCESS
        }
        Some("datapath") => match bench::Options::read(std::env::args().skip(2)) {
            Ok(options) => {
                let code = bench::run(options);
                direct::finish();
                code
            }
            Err(problem) => {
                eprintln!("{problem}");
                ExitCode::from(2)
            }
        },
        Some("policy") => match bench::Options::read(std::env::args().skip(2)) {
            Ok(options) => bench::policy::run(options.gate, options.json),
            Err(problem) => {
                eprintln!("{problem}");
                ExitCode::from(2)
            }
        },
        Some("cluster") => match bench::Options::read(std::env::args().skip(2)) {
            Ok(options) => bench::cluster::run(options.gate, options.json),
            Err(problem) => {
                eprintln!("{problem}");
                ExitCode::from(2)
            }
        },
        Some("telemetry") => match bench::Options::read(std::env::args().skip(2)) {
            Ok(options) => bench::telemetry::run(options),
            Err(problem) => {
                eprintln!("{problem}");
                ExitCode::from(2)
            }
        },
        _ => {
            eprintln!("there are four benchmarks: cluster, datapath, policy and telemetry");
            ExitCode::from(2)
        }
    }
}
