//! Notices when files change, however that is done: written in place, renamed over, or behind a
//! symbolic link that was swapped.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsString;
use std::fs::{metadata, read_link};
use std::io;
use std::mem;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf, absolute};
use std::time::Duration;

use notify::event::AccessKind;
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// Watches files.
///
/// Not the files are watched but the directories that they, and the links on the way to them, are
/// in: a file that is replaced by another is another one (inotify(7)).
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
    /// # Errors
    ///
    /// The system watches no more: see fs.inotify.max_user_instances and max_user_watches.
    pub fn new(files: &[FileState]) -> io::Result<Self> {
        // One place: what matters is that something happened, and not what or how often.
        let (sender, events) = mpsc::channel(1);
        let notify = move |event| {
            if may_be_a_change(&event) {
                // Full is as good as sent, and when nobody listens nobody wants to know.
                let _ = sender.try_send(());
            }
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
    /// As [`Watch::new`], or a directory may not be read. The others are watched all the same.
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
        loop {
            // There may be other directories on the way than there were. Where one cannot be
            // watched, a signal may still ask.
            let _ = self.watch_directories();
            // Also what has changed before anybody watched.
            if self.has_changed() {
                break;
            }
            // Of what came after the look and before the watch no event tells.
            if self.directories == self.wanted() && self.events.recv().await.is_none() {
                // Nobody is left who could tell.
                return std::future::pending().await;
            }
            // There may be others who write in these directories all the time.
            sleep(QUIET).await;
        }
        let patience = Instant::now() + PATIENCE;
        while let Ok(Some(())) = timeout_at(patience, self.quiet()).await {}
        self.files = self.files.iter().map(FileState::now).collect();
    }

    fn has_changed(&self) -> bool {
        self.files.iter().any(|file| *file != file.now())
    }

    /// The next event, if it comes soon.
    async fn quiet(&mut self) -> Option<()> {
        timeout(QUIET, self.events.recv()).await.ok().flatten()
    }

    /// What cannot be watched keeps nothing else from it; the error is the first.
    fn watch_directories(&mut self) -> io::Result<()> {
        for directory in mem::take(&mut self.directories) {
            // Also where the path is wanted again: there may be another directory behind it. And it
            // may be gone altogether.
            let _ = self.watcher.unwatch(&directory);
        }
        self.directories = self.wanted();
        let mut result = Ok(());
        for directory in &self.directories {
            match self.watcher.watch(directory, RecursiveMode::NonRecursive) {
                Ok(()) => {}
                // It has gone since the look, and the next will find what is there instead.
                Err(error) if matches!(error.kind, notify::ErrorKind::PathNotFound) => {}
                Err(error) => result = result.and(Err(io_error(error))),
            }
        }
        result
    }

    fn wanted(&self) -> BTreeSet<PathBuf> {
        let mut parents = HashSet::new();
        let files = self.files.iter().map(|file| &file.path);
        // There may be thousands in one directory, and to all that are no links it is the same way.
        let files = files.filter(|file| parents.insert(file.parent()) || file.is_symlink());
        files.flat_map(|file| directories(file)).collect()
    }
}

/// Whoever opens a file to read it changes nothing, and we are one of them.
fn may_be_a_change(event: &notify::Result<Event>) -> bool {
    let kind = event.as_ref().map(|event| event.kind);
    !matches!(kind, Ok(EventKind::Access(AccessKind::Open(_))))
}

/// Where something has to happen for another file to be at this path: in the directory that the file
/// is in, and in those of each link on the way and of what it leads to. If the way ends early, where
/// it ends.
fn directories(file: &Path) -> BTreeSet<PathBuf> {
    let mut directories = BTreeSet::new();
    // The way so far, without links; so that what is above it is its parent.
    let mut at = PathBuf::new();
    let mut ahead = steps(&absolute(file).unwrap_or_else(|_| file.to_owned()));
    let mut links = 0;
    while let Some(Step { name, is_last }) = ahead.pop() {
        if name == ".." {
            at.pop();
            continue;
        }
        let next = at.join(name);
        let target = read_link(&next);
        let leads_on = target.is_err() && next.is_dir();
        if is_last || !leads_on {
            directories.insert(at.clone());
        }
        match target {
            Ok(target) if links < MOST_LINKS => {
                links += 1;
                ahead.extend(steps(&target));
            }
            Err(_) if leads_on => at = next,
            _ => break,
        }
    }
    directories
}

/// One name of a path.
struct Step {
    name: OsString,
    is_last: bool,
}

/// The last comes first, as on a stack.
fn steps(path: &Path) -> Vec<Step> {
    let names = path.components().rev().enumerate();
    let steps = names.map(|(index, name)| Step {
        name: name.as_os_str().to_owned(),
        is_last: index == 0,
    });
    steps.collect()
}

fn io_error(error: notify::Error) -> io::Error {
    let kind = match &error.kind {
        notify::ErrorKind::Io(error) => error.kind(),
        _ => io::ErrorKind::Other,
    };
    // With the path that it is about.
    io::Error::new(kind, error)
}

/// As the kernel follows them (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// Long enough for who copies a certificate and then its key.
const QUIET: Duration = Duration::from_millis(250);

/// Whoever never stops writing is not waited for.
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::fs::{File, create_dir, create_dir_all, remove_dir_all, rename, write};
    use std::os::unix::fs::symlink;

    use super::*;

    /// Changes something once the watch waits, and waits until that is noticed.
    async fn noticed(watch: &mut Watch, change: impl Future<Output = ()>) {
        let both = async { tokio::join!(biased; watch.changed(), change) };
        let both = timeout(Duration::from_secs(10), both).await;
        both.expect("it is noticed");
    }

    /// A directory whose own path has no links.
    fn site() -> (tempfile::TempDir, PathBuf) {
        let site = tempfile::tempdir().unwrap();
        let path = site.path().canonicalize().unwrap();
        (site, path)
    }

    /// Makes the link, in the place of the one that is there.
    fn link(target: &str, at: &Path) {
        let beside = at.with_extension("new");
        symlink(target, &beside).unwrap();
        rename(beside, at).unwrap();
    }

    #[tokio::test]
    async fn a_directory_above_whose_link_is_swapped_is_noticed() {
        let (_site, at) = site();
        for release in ["r1", "r2", "r3"] {
            create_dir_all(at.join(release).join("certs")).unwrap();
            write(at.join(release).join("certs/srv.pem"), release).unwrap();
        }
        link("r1", &at.join("cur"));
        let file = FileState::of(at.join("cur/certs/srv.pem"));
        let mut watch = Watch::new(&[file]).unwrap();
        for release in ["r2", "r3"] {
            let swap = async { link(release, &at.join("cur")) };
            noticed(&mut watch, swap).await;
        }
    }

    #[tokio::test]
    async fn a_file_is_noticed_whose_directories_are_removed_and_made_again_one_by_one() {
        let (_site, at) = site();
        let (outer, inner) = (at.join("site"), at.join("site/certs"));
        let file = inner.join("srv.pem");
        create_dir_all(&inner).unwrap();
        write(&file, "").unwrap();
        let mut watch = Watch::new(&[FileState::of(&file)]).unwrap();
        noticed(&mut watch, async { remove_dir_all(&outer).unwrap() }).await;
        // Each in a moment of its own: what is noticed of the first must not be what shows the last.
        let again = async {
            create_dir(&outer).unwrap();
            sleep(3 * QUIET).await;
            create_dir(&inner).unwrap();
            sleep(3 * QUIET).await;
            write(&file, "").unwrap();
        };
        noticed(&mut watch, again).await;
    }

    #[tokio::test]
    async fn a_file_written_in_place_with_its_size_and_time_kept_is_noticed() {
        let (_site, at) = site();
        let file = at.join("srv.pem");
        write(&file, "one").unwrap();
        let modified = metadata(&file).unwrap().modified().unwrap();
        let mut watch = Watch::new(&[FileState::of(&file)]).unwrap();
        let keep = async {
            // File systems may know no moment shorter than a tick.
            sleep(QUIET).await;
            write(&file, "two").unwrap();
            let file = File::options().write(true).open(&file).unwrap();
            file.set_modified(modified).unwrap();
        };
        noticed(&mut watch, keep).await;
    }

    #[test]
    fn a_file_that_is_read_is_as_it_was() {
        let (_site, at) = site();
        let file = at.join("srv.pem");
        write(&file, "one").unwrap();
        let before = FileState::of(&file);
        std::fs::read(&file).unwrap();
        assert_eq!(FileState::of(&file), before);
    }

    #[test]
    fn each_link_on_the_way_is_watched_where_it_is_and_where_it_leads() {
        let (_site, at) = site();
        for directory in ["r1/certs", "far", "dir"] {
            create_dir_all(at.join(directory)).unwrap();
        }
        write(at.join("r1/certs/srv.pem"), "").unwrap();
        link("r1", &at.join("cur"));
        link(at.join("r1").to_str().unwrap(), &at.join("far/cur"));
        link("../cur/certs", &at.join("dir/up"));
        link("round", &at.join("round"));
        for (path, expected) in [
            ("r1/certs/srv.pem", &["r1/certs"][..]),
            ("cur/certs/srv.pem", &["", "r1/certs"]),
            ("far/cur/certs/srv.pem", &["far", "", "r1/certs"]),
            ("dir/up/srv.pem", &["dir", "", "r1", "r1/certs"]),
            ("dir/../r1/certs/srv.pem", &["r1/certs"]),
            ("round/srv.pem", &[""]),
            ("r1/certs/none.pem", &["r1/certs"]),
            ("r1/certs/srv.pem/none", &["r1/certs"]),
        ] {
            let expected: BTreeSet<PathBuf> = expected.iter().map(|it| at.join(it)).collect();
            // A slash at the end makes no difference to a path.
            assert_eq!(directories(&at.join(path)), expected, "{path}");
        }
    }

    #[test]
    fn a_relative_path_is_watched_from_the_working_directory() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(directories(Path::new("Cargo.toml")), BTreeSet::from([here]));
    }
}
