//! The `enforcer` binary: a doorbell.

use std::process::ExitCode;

fn main() -> ExitCode {
    enforcer::cli::main()
}
