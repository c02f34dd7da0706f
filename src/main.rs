//! The `vestibule` command: a thin user of the library.

mod cli;

use std::process::ExitCode;

/// The allocator of glibc keeps the memory of a burst of connections. This one returns it to the
/// system, also the memory that AWS-LC uses.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    cli::main()
}
