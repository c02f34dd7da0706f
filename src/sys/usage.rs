//! What this process uses of the machine.

use std::fs;

/// Resident memory in bytes. `None` if /proc cannot be read, for example without a free descriptor.
pub(crate) fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|it| it.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// The number of open descriptors. `None` if /proc cannot be read. It looks at each descriptor: some
/// milliseconds with tens of thousands of them.
pub(crate) fn descriptors() -> Option<usize> {
    // One of them reads the directory.
    Some(
        fs::read_dir("/proc/self/fd")
            .ok()?
            .count()
            .saturating_sub(1),
    )
}

/// The soft limit of descriptors. `None` is unlimited.
pub(crate) fn most_descriptors() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}
