//! A control group with a limit of memory, for one process.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::process::Command;

/// Dropping it removes it, once its process has ended.
pub(crate) struct Group {
    directory: PathBuf,
}

impl Group {
    /// `None` if this machine does not let the test make one.
    pub(crate) fn new(limit: usize) -> Option<Self> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("vestibule-test-{}-{number}", std::process::id());
        let bases = [
            ("/sys/fs/cgroup", "memory.max"),
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        ];
        bases.into_iter().find_map(|(base, file)| {
            let base = Path::new(base);
            // Of version 2. It fails in a group with processes, and then there is no group below with a limit.
            let control = base.join("cgroup.subtree_control");
            let _ = control.exists().then(|| fs::write(control, "+memory"));
            let directory = base.join(&name);
            fs::create_dir(&directory).ok()?;
            let group = Self { directory };
            // On version 1, the first base is no group, and would take any file.
            let file = group.directory.join(file);
            let is_limited = file.exists() && fs::write(file, limit.to_string()).is_ok();
            is_limited.then_some(group)
        })
    }

    /// The most that the group has used, in bytes.
    pub(crate) fn peak(&self) -> usize {
        let files = ["memory.peak", "memory.max_usage_in_bytes"].into_iter();
        let mut texts = files.flat_map(|it| fs::read_to_string(self.directory.join(it)));
        let peak = texts.next().and_then(|it| it.trim().parse().ok());
        peak.expect("since Linux 5.19, or version 1")
    }

    /// The command inside of the group.
    pub(crate) fn run(&self, command: &Command) -> Command {
        let inner = command.as_std();
        let mut outer = Command::new("/bin/sh");
        outer
            .args(["-c", "echo $$ > \"$0\" && exec \"$@\""])
            .arg(self.directory.join("cgroup.procs"))
            .arg(inner.get_program())
            .args(inner.get_args());
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => outer.env(name, value),
                None => outer.env_remove(name),
            };
        }
        outer
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Fails while a process is in it: the kernel may not have buried that yet.
        for _ in 0..100 {
            if fs::remove_dir(&self.directory).is_ok() {
                return;
            }
            std::thread::yield_now();
        }
    }
}
