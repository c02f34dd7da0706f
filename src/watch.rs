//! Notices when files change, however that is done: written in place, renamed over, or behind a
//! symbolic link that was swapped.
//!
//! The kernel tells of most changes at once. Of a file on NFS, of one that is mounted into a container by
//! itself, and when its limits are used up it tells nothing: so the files are compared now and then too.

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

/// Watches files.
///
/// Not the files are watched but the directories that they, and the links on the way to them, are
/// in: a file that is replaced by another is another one (inotify(7)).
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
    /// `None` while the kernel has none for us.
    inotify: Option<Inotify>,
    /// Whether it was said that the kernel does not tell of all.
    is_said: bool,
    /// As they were last.
    files: Vec<FileState>,
    directories: BTreeSet<PathBuf>,
    /// How often they are compared though nothing was told of.
    interval: Duration,
}

/// A file, and what tells it from others that may come to be in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileState {
    path: PathBuf,
    /// `None` is no file.
    print: Option<Print>,
}

/// Times are in seconds and nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Print {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    /// Nobody can set it back, as `cp -p` does with the other; and a file that may be read at last
    /// is another in nothing else. A hard link to it changes it too: that reload does no harm.
    changed: (i64, i64),
}

impl FileState {
    /// The file as it is now, or that there is none.
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

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn now(&self) -> Self {
        Self::of(&self.path)
    }
}

impl Watch {
    /// Begins to watch for files that are not as given. Those that were not there are waited for.
    ///
    /// Where the kernel does not tell of changes, as on NFS or when fs.inotify.max_user_instances are in
    /// use, they are noticed within 15 s.
    pub fn new(files: &[FileState]) -> Self {
        Self {
            // Now, and not when clients may have all descriptors. If it cannot be had, the first look
            // says why.
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

    /// Waits until one of the files is another than it was, and then until they have been left alone
    /// for a moment: a certificate and its key are two files.
    ///
    /// # Cancel safety
    ///
    /// Safe: a change that was noticed meanwhile is noticed again.
    pub async fn changed(&mut self) {
        loop {
            // There may be other directories on the way than there were.
            let wanted = self.look(|files| wanted(&files)).await;
            let is_new = wanted != self.directories;
            self.watch(wanted);
            // Also what has changed before anybody watched.
            if self.now().await != self.files {
                break;
            }
            // Of what came after the look and before the watch no event tells.
            if !is_new {
                let _ = timeout(self.interval, self.event()).await;
            }
            // There may be others who write in these directories all the time.
            sleep(QUIET).await;
        }
        self.settle().await;
    }

    /// Waits until nothing happens, and takes the files as they are then.
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

    /// Asks the file system, which may take its time where it is another machine's.
    async fn look<T: Default + Send + 'static>(
        &self,
        ask: impl FnOnce(Vec<FileState>) -> T + Send + 'static,
    ) -> T {
        let files = self.files.clone();
        // It panics for nothing that is in a file system, and has no answer when the runtime ends.
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

    /// Waits until something happens in one of the directories, for ever where the kernel does not tell.
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

    /// Says once why changes are noticed late, and what helps.
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

/// Long enough for who copies a certificate and then its key.
const QUIET: Duration = Duration::from_millis(250);

/// Whoever never stops writing is not waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// A certificate that was put on NFS is served a quarter of a minute later, and a thousand files are a
/// thousand system calls.
const INTERVAL: Duration = Duration::from_secs(15);
