//! What the kernel says about this machine and this process.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Reads /proc and /sys below a root, which is another directory in tests.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    pub root: PathBuf,
    pub now: SystemTime,
    /// `$XDG_RUNTIME_DIR`.
    pub users_directory: Option<PathBuf>,
}

impl Machine {
    pub(super) fn this() -> Self {
        let users = std::env::var_os("XDG_RUNTIME_DIR").filter(|path| !path.is_empty());
        Self {
            root: "/".into(),
            now: SystemTime::now(),
            users_directory: users.map(PathBuf::from),
        }
    }

    /// The text of a file, without spaces around it. `path` is relative to the root.
    pub(super) fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        let text = fs::read_to_string(self.root.join(path)).ok()?;
        Some(text.trim().to_owned())
    }

    pub(super) fn number(&self, path: impl AsRef<Path>) -> Option<u64> {
        self.text(path)?.parse().ok()
    }

    /// The soft and the hard limit of open files; an inner `None` is unlimited.
    pub(super) fn open_files(&self) -> Option<(Option<u64>, Option<u64>)> {
        let limits = self.text("proc/self/limits")?;
        let mut lines = limits.lines();
        let line = lines.find_map(|line| line.strip_prefix("Max open files"))?;
        let mut words = line.split_whitespace();
        let mut limit = || match words.next()? {
            "unlimited" => Some(None),
            number => Some(Some(number.parse().ok()?)),
        };
        Some((limit()?, limit()?))
    }

    /// The inotify instances of the processes that this user may look at.
    pub(super) fn inotify_instances(&self) -> u64 {
        let entries = |path: PathBuf| fs::read_dir(path).into_iter().flatten().flatten();
        let is_process = |name: &OsStr| name.to_string_lossy().parse::<u32>().is_ok();
        let processes = entries(self.root.join("proc")).filter(|it| is_process(&it.file_name()));
        let descriptors = processes.flat_map(|it| entries(it.path().join("fd")));
        let targets = descriptors.filter_map(|it| fs::read_link(it.path()).ok());
        let instances = targets.filter(|it| it.ends_with("anon_inode:inotify"));
        instances.count() as u64
    }

    /// The memory of the machine, or of a cgroup that this process is in, in bytes: the smallest, and
    /// where it comes from.
    pub(super) fn memory(&self) -> Option<(u64, &'static str)> {
        let meminfo = self.text("proc/meminfo")?;
        let total = meminfo
            .lines()
            .find_map(|it| it.strip_prefix("MemTotal:"))?;
        let kib: u64 = total.split_whitespace().next()?.parse().ok()?;
        let machine = (kib.saturating_mul(1024), "the machine");
        let cgroup = self.cgroup_memory().map(|bytes| (bytes, "the cgroup"));
        [Some(machine), cgroup].into_iter().flatten().min()
    }

    /// The smallest limit of the cgroups above this process (cgroups(7)).
    fn cgroup_memory(&self) -> Option<u64> {
        let groups = self.text("proc/self/cgroup")?;
        let limits = groups.lines().flat_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next().unwrap_or("-"), fields.next().unwrap_or(""));
            let (base, file) = match controllers {
                "" => ("sys/fs/cgroup", "memory.max"),
                it if it.split(',').any(|it| it == "memory") => {
                    ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
                }
                _ => return Vec::new(),
            };
            // In a container, the path may be that of the host, and the base is the container's group.
            let above = Path::new(path.trim_start_matches('/')).ancestors();
            above
                .filter_map(|it| self.number(Path::new(base).join(it).join(file)))
                .collect()
        });
        limits.min()
    }
}
