//! The project's own commands: `cargo xtask COMMAND`.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "these commands exist to tell a person something"
)]

mod archive;
mod bench;
mod bypass;
mod clean;
mod cluster_test;
mod conformance;
mod dashboards;
mod deb;
mod demo;
mod ebpf;
mod fuzz;
mod image;
mod lint;
mod manifests;
mod release;
mod setup;
mod shell;
mod soak;
mod suite;
mod telemetry;
mod test;
mod tidy;
mod toolchain;
mod verifier;
mod vm;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Commands of the enforcer project.
///
/// `cargo xtask demo` shows it at work, `cargo xtask test` proves it.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Setup(setup::Arguments),
    Ebpf(ebpf::Arguments),
    Test(test::Arguments),
    Lint(lint::Arguments),
    Tidy(tidy::Arguments),
    Vm(vm::Arguments),
    Bypass(bypass::Arguments),
    Verifier(verifier::Arguments),
    Bench(bench::Arguments),
    ClusterTest(cluster_test::Arguments),
    Conformance(conformance::Arguments),
    Demo(demo::Arguments),
    Soak(soak::Arguments),
    Telemetry(telemetry::Arguments),
    Dashboards(dashboards::Arguments),
    Manifests(manifests::Arguments),
    Image(image::Arguments),
    Deb(deb::Arguments),
    Fuzz(fuzz::Arguments),
    Clean(clean::Arguments),
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{} {error:#}", shell::bold("error:"));
            ExitCode::from(2)
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Setup(arguments) => setup::run(&arguments),
        Command::Ebpf(arguments) => ebpf::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::Lint(arguments) => lint::run(&arguments),
        Command::Tidy(arguments) => tidy::run(&arguments),
        Command::Vm(arguments) => vm::run(&arguments),
        Command::Bypass(arguments) => bypass::run(&arguments),
        Command::Verifier(arguments) => verifier::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::ClusterTest(arguments) => cluster_test::run(&arguments),
        Command::Conformance(arguments) => conformance::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Soak(arguments) => soak::run(&arguments),
        Command::Telemetry(arguments) => telemetry::run(&arguments),
        Command::Dashboards(arguments) => dashboards::run(&arguments),
        Command::Manifests(arguments) => manifests::run(&arguments),
        Command::Image(arguments) => image::run(&arguments),
        Command::Deb(arguments) => deb::run(&arguments),
        Command::Fuzz(arguments) => fuzz::run(&arguments),
        Command::Clean(arguments) => clean::run(&arguments),
    }
}
