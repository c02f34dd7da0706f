//! Notices when files change, however that is done: written in place, renamed over, or behind a
//! symbolic link that was swapped.

use std::collections::BTreeSet;
use std::fs::{metadata, read_link};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// Watches files.
///
/// Not the files are watched but the directories that they, and the links to them, are in: a file
/// that is replaced by another is another one (inotify(7)).
///
/// ```no_run
/// # async fn example(config: vestibule::Config) -> Result<(), Box<dyn std::error::Error>> {
/// let mut watch = vestibule::Watch::new(config.files())?;
/// watch.changed().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Watch {
    watcher: RecommendedWatcher,
    events: mpsc::Receiver<()>,
    /// As they were last.
    files: Vec<FileState>,
    directories: BTreeSet<PathBuf>,
}

/// A file, and what tells it from others that may come to be in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileState {
    path: PathBuf,
    /// `None` is no file.
    print: Option<Print>,
}

/// Device, inode, time of the last change in seconds and nanoseconds, size.
type Print = (u64, u64, i64, i64, u64);

impl FileState {
    /// The file as it is now, or that there is none.
    pub fn of(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let print = metadata(&path).ok().map(|data| {
            (
                data.dev(),
                data.ino(),
                data.mtime(),
                data.mtime_nsec(),
                data.size(),
            )
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
    /// # Errors
    ///
    /// The system watches no more: see fs.inotify.max_user_instances and max_user_watches.
    pub fn new(files: &[FileState]) -> io::Result<Self> {
        // One place: what matters is that something happened, and not what or how often.
        let (sender, events) = mpsc::channel(1);
        let notify = move |_: notify::Result<notify::Event>| {
            // Full is as good as sent, and when nobody listens nobody wants to know.
            let _ = sender.try_send(());
        };
        let mut watch = Self {
            watcher: notify::recommended_watcher(notify).map_err(io_error)?,
            events,
            files: Vec::new(),
            directories: BTreeSet::new(),
        };
        watch.follow(files)?;
        Ok(watch)
    }

    /// Watches these files from now on, and no others.
    ///
    /// # Errors
    ///
    /// As [`Watch::new`].
    pub fn follow(&mut self, files: &[FileState]) -> io::Result<()> {
        self.files = files.to_vec();
        self.watch_directories()
    }

    /// Waits until one of the files is another than it was, and then until they have been left alone
    /// for a moment: a certificate and its key are two files.
    ///
    /// # Cancel safety
    ///
    /// Safe: a change that was noticed meanwhile is noticed again.
    pub async fn changed(&mut self) {
        // Also of what has changed before anybody watched.
        while !self.has_changed() {
            if self.events.recv().await.is_none() {
                // Nobody is left who could tell.
                return std::future::pending().await;
            }
            // There may be others who write in these directories all the time.
            sleep(QUIET).await;
        }
        let patience = Instant::now() + PATIENCE;
        while let Ok(Some(())) = timeout_at(patience, self.quiet()).await {}
        // Links may lead elsewhere now. Where that cannot be watched, a signal may still ask.
        let _ = self.watch_directories();
        self.files = self.files.iter().map(FileState::now).collect();
    }

    fn has_changed(&self) -> bool {
        self.files.iter().any(|file| *file != file.now())
    }

    /// The next event, if it comes soon.
    async fn quiet(&mut self) -> Option<()> {
        timeout(QUIET, self.events.recv()).await.ok().flatten()
    }

    fn watch_directories(&mut self) -> io::Result<()> {
        let wanted: BTreeSet<PathBuf> = self
            .files
            .iter()
            .flat_map(|file| directories(&file.path))
            .collect();
        for gone in self.directories.difference(&wanted) {
            // It may be gone altogether.
            let _ = self.watcher.unwatch(gone);
        }
        for directory in &wanted {
            // Again also where it is the same path: there may be another directory behind it.
            let _ = self.watcher.unwatch(directory);
            match self.watcher.watch(directory, RecursiveMode::NonRecursive) {
                Ok(()) => {}
                Err(error) if matches!(error.kind, notify::ErrorKind::PathNotFound) => {}
                Err(error) => return Err(io_error(error)),
            }
        }
        self.directories = wanted;
        Ok(())
    }
}

/// Where a file is, and where each link on the way to it is.
fn directories(file: &Path) -> Vec<PathBuf> {
    let mut directories = Vec::new();
    let mut path = file.to_owned();
    for _ in 0..MOST_LINKS {
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let target = read_link(&path).map(|target| directory.join(target));
        directories.push(directory);
        match target {
            Ok(target) => path = target,
            Err(_) => break,
        }
    }
    directories
}

fn io_error(error: notify::Error) -> io::Error {
    match error.kind {
        notify::ErrorKind::Io(error) => error,
        _ => io::Error::other(error),
    }
}

/// As the kernel follows them (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// Long enough for who copies a certificate and then its key.
const QUIET: Duration = Duration::from_millis(250);

/// Whoever never stops writing is not waited for.
const PATIENCE: Duration = Duration::from_secs(5);
