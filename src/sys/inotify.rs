//! Reports that something has changed in directories (inotify(7)).

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The watched directories. An event does not say what has changed: the caller looks at the files.
#[derive(Debug)]
pub(crate) struct Inotify {
    descriptor: AsyncFd<OwnedFd>,
    watches: BTreeSet<i32>,
}

impl Inotify {
    /// Makes an instance that watches nothing yet.
    ///
    /// # Errors
    ///
    /// The user has too many instances (fs.inotify.max_user_instances), or the process has too many
    /// descriptors.
    pub(crate) fn new() -> io::Result<Self> {
        let descriptor = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        #[expect(
            deprecated,
            reason = "unsound only for a type that may change its descriptor; the new call is unsafe"
        )]
        let descriptor = AsyncFd::with_interest(descriptor, Interest::READABLE)?;
        Ok(Self {
            descriptor,
            watches: BTreeSet::new(),
        })
    }

    /// Watches these directories and no others.
    ///
    /// # Errors
    ///
    /// The first directory that cannot be watched, with the reason. The others are watched.
    pub(crate) fn follow(
        &mut self,
        directories: &BTreeSet<PathBuf>,
    ) -> Result<(), (PathBuf, io::Error)> {
        let mut result = Ok(());
        let mut watches = BTreeSet::new();
        for directory in directories {
            // The path may lead to another directory than before. A directory that is watched already
            // keeps its watch.
            match inotify::add_watch(&self.descriptor, directory, EVENTS) {
                Ok(watch) => _ = watches.insert(watch),
                // The directory was removed after the look. The next look finds what is there instead.
                Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {}
                Err(error) => result = result.and(Err((directory.clone(), error.into()))),
            }
        }
        for old in self.watches.difference(&watches) {
            // Fails if the watch has ended because its directory was removed.
            let _ = inotify::remove_watch(&self.descriptor, *old);
        }
        self.watches = watches;
        result
    }

    /// Waits for an event in one of the directories.
    ///
    /// # Errors
    ///
    /// The kernel's error. There will be no more events.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: an event that was not returned is returned by the next call.
    pub(crate) async fn event(&self) -> io::Result<()> {
        self.descriptor
            .async_io(Interest::READABLE, |descriptor| {
                // If more events are left, the descriptor stays ready, and the next call returns at
                // once.
                match rustix::io::read(descriptor, &mut [0; 4096]) {
                    Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(_) => Ok(()),
                    Err(error) => Err(error.into()),
                }
            })
            .await
    }
}

/// Opening and reading a file are not among the events: they change nothing, and we do both ourselves.
const EVENTS: WatchFlags = WatchFlags::ONLYDIR
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::MOVE_SELF);
