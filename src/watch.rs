//! Notices when files change, however that is done: written in place, renamed over, or behind a
//! symbolic link that was swapped.
//!
//! The kernel tells of most changes at once. Of a file on NFS, of one that is mounted into a container by
//! itself, and when its limits are used up it tells nothing: so the files are compared now and then too.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsString;
use std::fs::{metadata, read_link};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf, absolute};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

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

fn wanted(files: &[FileState]) -> BTreeSet<PathBuf> {
    let mut parents = HashSet::new();
    let files = files.iter().map(|file| &file.path);
    // There may be thousands in one directory, and to all that are no links it is the same way.
    let files = files.filter(|file| parents.insert(file.parent()) || file.is_symlink());
    files.flat_map(|file| directories(file)).collect()
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

/// As the kernel follows them (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// Long enough for who copies a certificate and then its key.
const QUIET: Duration = Duration::from_millis(250);

/// Whoever never stops writing is not waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// A certificate that was put on NFS is served a quarter of a minute later, and a thousand files are a
/// thousand system calls.
const INTERVAL: Duration = Duration::from_secs(15);

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

    fn site_of(content: &str) -> (tempfile::TempDir, PathBuf) {
        let (site, path) = site();
        write(path.join("srv.pem"), content).unwrap();
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
        let mut watch = Watch::new(&[file]);
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
        let mut watch = Watch::new(&[FileState::of(&file)]);
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
        let mut watch = Watch::new(&[FileState::of(&file)]);
        let keep = async {
            // File systems may know no moment shorter than a tick.
            sleep(QUIET).await;
            write(&file, "two").unwrap();
            let file = File::options().write(true).open(&file).unwrap();
            file.set_modified(modified).unwrap();
        };
        noticed(&mut watch, keep).await;
    }

    /// A watch whose directories the kernel tells nothing of, as on NFS.
    fn deaf(file: &Path) -> Watch {
        let mut watch = Watch::new(&[FileState::of(file)]);
        watch.interval = Duration::from_millis(100);
        watch
    }

    #[tokio::test]
    async fn a_change_that_the_kernel_does_not_tell_of_is_noticed() {
        let (_site, at) = site();
        let (_other, elsewhere) = site_of("mounted by itself");
        // Written in another directory than the one that is watched: a hard link has both.
        let file = at.join("srv.pem");
        std::fs::hard_link(elsewhere.join("srv.pem"), &file).unwrap();
        let mut watch = deaf(&file);
        let write_there = async {
            sleep(3 * QUIET).await;
            write(elsewhere.join("srv.pem"), "another").unwrap();
        };
        noticed(&mut watch, write_there).await;
    }

    #[tokio::test]
    async fn a_watch_that_has_lost_the_kernel_goes_on() {
        let (_site, at) = site();
        let file = at.join("srv.pem");
        write(&file, "one").unwrap();
        let mut watch = deaf(&file);
        watch.say("cannot watch files", &rustix::io::Errno::MFILE.into());
        watch.inotify = None;
        assert!(timeout(QUIET, watch.event()).await.is_err(), "no event");
        noticed(&mut watch, async {
            write(&file, "two, and longer").unwrap()
        })
        .await;
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
