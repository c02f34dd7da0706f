//! Measures the memory of this process, or of its control group.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Measures how much memory is used. Its files stay open: there may be no descriptor when memory is
/// short.
#[derive(Debug)]
pub(crate) struct MemoryMeter(Source);

#[derive(Debug)]
enum Source {
    Group(Group),
    Process(File),
}

/// A control group with a limit, in which no other process is.
#[derive(Debug)]
struct Group {
    usage: File,
    stat: File,
    /// The key of the pages of files that the kernel would drop first.
    key: &'static str,
    limit: u64,
    /// The value of the key, and when it was read.
    inactive: Option<(u64, Instant)>,
}

impl MemoryMeter {
    /// # Errors
    ///
    /// The memory of this process cannot be read, for example because /proc is not mounted.
    pub(crate) fn open() -> io::Result<Self> {
        Self::open_in(Path::new("/"))
    }

    /// With the file systems below `root`.
    fn open_in(root: &Path) -> io::Result<Self> {
        Ok(Self(match Group::find(root) {
            Some(group) => Source::Group(group),
            None => Source::Process(File::open(root.join("proc/self/statm"))?),
        }))
    }

    /// Bytes. Of a group without the pages of files that are not in use, as `kubectl top` shows them.
    pub(crate) fn used(&mut self) -> io::Result<u64> {
        match &mut self.0 {
            Source::Group(group) => group.used(),
            Source::Process(statm) => {
                let text = read(statm)?;
                let pages: Option<u64> = text.split(' ').nth(1).and_then(|it| it.parse().ok());
                let pages = pages.ok_or(io::ErrorKind::InvalidData)?;
                Ok(pages * rustix::param::page_size() as u64)
            }
        }
    }

    /// `cgroup` or `process`.
    pub(crate) fn source(&self) -> &'static str {
        match self.0 {
            Source::Group(_) => "cgroup",
            Source::Process(_) => "process",
        }
    }

    /// The limit of the group, in bytes.
    pub(crate) fn limit(&self) -> Option<u64> {
        match &self.0 {
            Source::Group(group) => Some(group.limit),
            Source::Process(_) => None,
        }
    }
}

impl Group {
    /// The group of this process, if it has a limit and only this process. Others in it would count as
    /// memory that no closed connection gives back.
    fn find(root: &Path) -> Option<Self> {
        let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
        groups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            match controllers {
                "" => Self::open(&directory(root, "sys/fs/cgroup", path)?, &UNIFIED),
                it if it.split(',').any(|it| it == "memory") => {
                    Self::open(&directory(root, "sys/fs/cgroup/memory", path)?, &LEGACY)
                }
                _ => None,
            }
        })
    }

    fn open(directory: &Path, files: &Files) -> Option<Self> {
        let text = |name| fs::read_to_string(directory.join(name)).ok();
        // Without a limit: `max`, or a number that no machine has.
        let limit: u64 = text(files.limit)?.trim().parse().ok()?;
        let is_alone = text("cgroup.procs")?.lines().count() == 1;
        (limit < NO_LIMIT && is_alone).then_some(())?;
        Some(Self {
            usage: File::open(directory.join(files.usage)).ok()?,
            stat: File::open(directory.join("memory.stat")).ok()?,
            key: files.inactive,
            limit,
            inactive: None,
        })
    }

    fn used(&mut self) -> io::Result<u64> {
        let usage = read(&self.usage)?.trim().parse::<u64>();
        let usage = usage.map_err(|_| io::ErrorKind::InvalidData)?;
        let is_old = |at: Instant| at.elapsed() >= INACTIVE_KEPT;
        if self.inactive.is_none_or(|(_, at)| is_old(at)) {
            let inactive = value(&read(&self.stat)?, self.key).unwrap_or(0);
            self.inactive = Some((inactive, Instant::now()));
        }
        let inactive = self.inactive.map_or(0, |(bytes, _)| bytes);
        Ok(usage.saturating_sub(inactive))
    }
}

/// The directory of a group. In a container, the path may be that of the host, and the mount shows the
/// container's group.
fn directory(root: &Path, mount: &str, path: &str) -> Option<PathBuf> {
    let mount = root.join(mount);
    let inner = mount.join(path.trim_start_matches('/'));
    [inner, mount]
        .into_iter()
        .find(|it| it.join("cgroup.procs").exists())
}

/// The names of the files of a group.
struct Files {
    usage: &'static str,
    limit: &'static str,
    inactive: &'static str,
}

const UNIFIED: Files = Files {
    usage: "memory.current",
    limit: "memory.max",
    inactive: "inactive_file",
};

const LEGACY: Files = Files {
    usage: "memory.usage_in_bytes",
    limit: "memory.limit_in_bytes",
    inactive: "total_inactive_file",
};

/// In version 1 of control groups, no limit is the largest number of pages.
const NO_LIMIT: u64 = 1 << 60;

/// The kernel sums `memory.stat` up at every read, and it changes slowly.
const INACTIVE_KEPT: Duration = Duration::from_secs(1);

/// The text of a small file of the kernel, from its start.
fn read(file: &File) -> io::Result<String> {
    let mut buffer = [0; 16 * 1024];
    let length = file.read_at(&mut buffer, 0)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

fn value(text: &str, key: &str) -> Option<u64> {
    let line = |line: &str| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok();
    text.lines().find_map(line)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn machine(files: &[(&str, &str)]) -> TempDir {
        let root = tempfile::tempdir().expect("a directory");
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a directory")).expect("ours");
            fs::write(path, text).expect("ours");
        }
        root
    }

    /// The source, the bytes used and the limit.
    fn measured(files: &[(&str, &str)]) -> (&'static str, u64, Option<u64>) {
        let root = machine(&[&[("proc/self/statm", "900 25 10 1 0 20 0\n")], files].concat());
        let mut meter = MemoryMeter::open_in(root.path()).expect("a process");
        let used = meter.used().expect("a number");
        (meter.source(), used, meter.limit())
    }

    fn process() -> (&'static str, u64, Option<u64>) {
        ("process", 25 * rustix::param::page_size() as u64, None)
    }

    #[test]
    fn a_group_with_a_limit_counts_without_the_files_that_are_not_in_use() {
        let stat = "anon 100\nfile 60\ninactive_file 50\nactive_file 10\n";
        let unified = [
            ("proc/self/cgroup", "0::/app\n"),
            ("sys/fs/cgroup/app/cgroup.procs", "7\n"),
            ("sys/fs/cgroup/app/memory.max", "1000\n"),
            ("sys/fs/cgroup/app/memory.current", "350\n"),
            ("sys/fs/cgroup/app/memory.stat", stat),
        ];
        assert_eq!(measured(&unified), ("cgroup", 300, Some(1000)));
        let stat = "inactive_file 1\ntotal_cache 9\ntotal_inactive_file 50\n";
        let legacy = [
            (
                "proc/self/cgroup",
                "5:cpu:/x\n4:hugetlb,memory:/x\n0::/other\n",
            ),
            ("sys/fs/cgroup/memory/x/cgroup.procs", "7\n"),
            ("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "1000\n"),
            ("sys/fs/cgroup/memory/x/memory.usage_in_bytes", "350\n"),
            ("sys/fs/cgroup/memory/x/memory.stat", stat),
        ];
        assert_eq!(measured(&legacy), ("cgroup", 300, Some(1000)));
        let in_a_container = [
            ("proc/self/cgroup", "4:memory:/host/path\n"),
            ("sys/fs/cgroup/memory/cgroup.procs", "7\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "1000\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "350\n"),
            ("sys/fs/cgroup/memory/memory.stat", stat),
        ];
        assert_eq!(measured(&in_a_container), ("cgroup", 300, Some(1000)));
    }

    #[test]
    fn the_process_counts_without_a_limit_or_beside_other_processes() {
        assert_eq!(measured(&[]), process());
        let group = |limit, processes| {
            measured(&[
                ("proc/self/cgroup", "0::/app\n"),
                ("sys/fs/cgroup/app/cgroup.procs", processes),
                ("sys/fs/cgroup/app/memory.max", limit),
                ("sys/fs/cgroup/app/memory.current", "350\n"),
                ("sys/fs/cgroup/app/memory.stat", "inactive_file 50\n"),
            ])
        };
        assert_eq!(group("1000\n", "7\n").0, "cgroup");
        assert_eq!(group("max\n", "7\n"), process());
        assert_eq!(group("9223372036854771712\n", "7\n"), process());
        assert_eq!(group("1000\n", "7\n8\n"), process());
    }

    #[test]
    fn this_process_is_measured_again_and_again() {
        let mut meter = MemoryMeter(Source::Process(
            File::open("/proc/self/statm").expect("/proc"),
        ));
        let before = meter.used().expect("a number");
        let held = vec![1_u8; 64 << 20];
        let after = meter.used().expect("a number");
        assert!(after >= before + (48 << 20), "{before} {after}");
        drop(held);
    }
}
