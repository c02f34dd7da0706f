//! Notices changes of files: written in place, replaced by a rename, or behind a symbolic link that was
//! swapped.
//!
//! The kernel (inotify) reports most changes at once. It reports nothing for files on NFS, for a single
//! file that is mounted into a container, and when its limits are used up. So the files are also
//! compared at intervals.

mod directories;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs::metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use self::directories::wanted;
use crate::sys::inotify::Inotify;

/// Watches files for changes.
///
/// It watches the directories of the files, and of the symbolic links on their paths, and not the files
/// themselves: inotify follows a file and not its path, so it would miss a file that is replaced
/// (inotify(7)).
///
/// ```no_run
/// # async fn example(config: vestibule::Config) -> Result<(), Box<dyn std::error::Error>> {
/// let mut watch = vestibule::Watch::new(config.files());
/// watch.changed().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Watch {
    /// `None` if the kernel gives us no instance.
    inotify: Option<Inotify>,
    /// Whether the log says already that the kernel does not report all changes.
    is_said: bool,
    /// The files as they were at the last look.
    files: Vec<FileState>,
    directories: BTreeSet<PathBuf>,
    /// How often the files are compared if the kernel reports nothing.
    interval: Duration,
}

/// The state of the file at a path: which file it is, and when it changed.
///
/// Two states are equal if they have the same path, and the same file unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileState {
    path: PathBuf,
    /// `None` if there is no file.
    print: Option<Print>,
}

/// What tells one state of a file from another. Times are in seconds and nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Print {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    /// The time of the last change of the content or the metadata. `modified` can be set back, as `cp
    /// -p` does; this time cannot. It is also the only thing that changes when a file becomes readable.
    /// A hard link to the file changes it too: that causes a reload that does no harm.
    changed: (i64, i64),
}

impl FileState {
    /// Reads the state of the file at `path` from the file system. A file that is missing, or that
    /// cannot be accessed, is a state too. Blocks on the file system.
    pub fn of(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let print = metadata(&path).ok().map(|data| Print {
            device: data.dev(),
            inode: data.ino(),
            size: data.size(),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
        });
        Self { path, print }
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn now(&self) -> Self {
        Self::of(&self.path)
    }
}

impl Watch {
    /// Watches for changes since the given states. Files that do not exist yet are watched for too.
    ///
    /// Changes that the kernel does not report are noticed within 15 s, for example on NFS, or when
    /// fs.inotify.max_user_instances are in use. Call it in a tokio runtime: outside, inotify starts
    /// with the first [`changed`](Self::changed).
    pub fn new(files: &[FileState]) -> Self {
        Self {
            // Open inotify now: later, clients may hold all descriptors. If that fails, `changed` logs
            // the reason.
            inotify: Handle::try_current().ok().and_then(|_| Inotify::new().ok()),
            is_said: false,
            files: files.to_vec(),
            directories: BTreeSet::new(),
            interval: INTERVAL,
        }
    }

    /// Watches these files from now on, and no others.
    pub fn follow(&mut self, files: &[FileState]) {
        self.files = files.to_vec();
    }

    /// Waits until a file has changed, and then until all files were left alone for 250 ms (at most 5
    /// s): a certificate and its key are two files.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a change that was noticed but not returned is noticed by the next call.
    pub async fn changed(&mut self) {
        loop {
            // The path may lead through other directories than before.
            let wanted = self.look(|files| wanted(&files)).await;
            let is_new = wanted != self.directories;
            self.watch(wanted);
            // This also finds changes from before the watch.
            if self.now().await != self.files {
                break;
            }
            // No event reports a change between the look and the start of the watch, so look again.
            if !is_new {
                let _ = timeout(self.interval, self.event()).await;
            }
            // Limits the looks per second if other programs write into these directories all the time.
            sleep(QUIET).await;
        }
        self.settle().await;
    }

    /// Waits until nothing changes any more, and stores the state of the files at that time.
    async fn settle(&mut self) {
        let patience = Instant::now() + PATIENCE;
        let mut last = self.now().await;
        while Instant::now() < patience {
            let is_told = timeout(QUIET, self.event()).await.is_ok();
            if is_told {
                continue;
            }
            let now = self.now().await;
            if now == last {
                break;
            }
            last = now;
        }
        self.files = self.now().await;
    }

    /// The files as they are now.
    async fn now(&self) -> Vec<FileState> {
        self.look(|files| files.iter().map(FileState::now).collect())
            .await
    }

    /// Asks the file system on a blocking thread: a network file system may be slow.
    async fn look<T: Default + Send + 'static>(
        &self,
        ask: impl FnOnce(Vec<FileState>) -> T + Send + 'static,
    ) -> T {
        let files = self.files.clone();
        // `ask` does not panic on the content of a file system. The task fails if the runtime ends.
        let asked = spawn_blocking(move || ask(files)).await;
        asked.unwrap_or_default()
    }

    fn watch(&mut self, directories: BTreeSet<PathBuf>) {
        if self.inotify.is_none() {
            match Inotify::new() {
                Ok(inotify) => self.inotify = Some(inotify),
                Err(error) => self.say("cannot watch files", &error),
            }
        }
        let watched = self.inotify.as_mut().map(|it| it.follow(&directories));
        if let Some(Err((directory, error))) = watched {
            self.say(&format!("cannot watch {}", directory.display()), &error);
        }
        self.directories = directories;
    }

    /// Waits for an event in one of the directories. Waits for ever if the kernel reports nothing.
    async fn event(&mut self) {
        if let Some(inotify) = &self.inotify {
            match inotify.event().await {
                Ok(()) => return,
                Err(error) => {
                    self.inotify = None;
                    self.say("the kernel stopped reporting file changes", &error);
                }
            }
        }
        std::future::pending().await
    }

    /// Logs once why changes are noticed late, and what helps.
    fn say(&mut self, what: &str, error: &io::Error) {
        if std::mem::replace(&mut self.is_said, true) {
            return;
        }
        let errno = error
            .raw_os_error()
            .map(rustix::io::Errno::from_raw_os_error);
        let help = match errno {
            Some(rustix::io::Errno::MFILE) => {
                "; this user has no inotify instance left; raise the sysctl \
                 fs.inotify.max_user_instances"
            }
            Some(rustix::io::Errno::NOSPC) => {
                "; this user has no inotify watch left; raise the sysctl fs.inotify.max_user_watches"
            }
            _ => "",
        };
        warn!(
            "{what}: {error}{help}; files are compared every {} s instead",
            self.interval.as_secs()
        );
    }
}

/// Long enough for a copy of a certificate and then of its key.
const QUIET: Duration = Duration::from_millis(250);

/// A program that never stops writing is waited for no longer than this.
const PATIENCE: Duration = Duration::from_secs(5);

/// A certificate on NFS is served at most 15 s later. A comparison costs one system call for each file.
const INTERVAL: Duration = Duration::from_secs(15);
