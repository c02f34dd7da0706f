//! The `vestibule` command: a thin user of the library.

mod cli;

use std::process::ExitCode;

/// glibc's keeps what a burst of connections took; this one gives it back to the system, and is
/// AWS-LC's as well.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    cli::main()
}
