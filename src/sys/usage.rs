//! What this process uses of the machine.

use std::fs;

/// Resident memory in bytes. `None` if /proc cannot be read, for example without a free descriptor.
pub(crate) fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|it| it.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// The number of open descriptors. `None` if /proc cannot be read.
///
/// Since Linux 6.2 the size of the directory is that number; before, it is zero. Then each descriptor
/// is looked at: some milliseconds with tens of thousands of them.
pub(crate) fn descriptors() -> Option<usize> {
    const DIRECTORY: &str = "/proc/self/fd";
    match fs::metadata(DIRECTORY).ok()?.len() {
        // One of them reads the directory.
        0 => Some(fs::read_dir(DIRECTORY).ok()?.count().saturating_sub(1)),
        count => usize::try_from(count).ok(),
    }
}

/// The soft limit of descriptors. `None` is unlimited.
pub(crate) fn most_descriptors() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}
