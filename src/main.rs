//! The `vestibule` command: a thin user of the library.

mod cli;

use std::process::ExitCode;

/// glibc's allocator keeps the memory of a burst of connections. jemalloc returns it to the system, and
/// AWS-LC uses it too.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    cli::main()
}
