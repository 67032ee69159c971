//! The `enforcer` binary: a doorbell.

use std::process::ExitCode;

/// Reading many workloads leaves holes in the heap. The C library's allocator keeps them; this one gives them back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    enforcer::cli::main()
}
