//! Tells that something has happened in directories (inotify(7)).

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The directories that are watched. What happened is not asked: whoever watches looks for himself.
#[derive(Debug)]
pub(crate) struct Inotify {
    descriptor: AsyncFd<OwnedFd>,
    watches: BTreeSet<i32>,
}

impl Inotify {
    /// One that watches nothing yet.
    ///
    /// # Errors
    ///
    /// The user has too many of them (fs.inotify.max_user_instances), or the process too many descriptors.
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
    /// The first of those that cannot be watched, with the reason; the others are.
    pub(crate) fn follow(
        &mut self,
        directories: &BTreeSet<PathBuf>,
    ) -> Result<(), (PathBuf, io::Error)> {
        let mut result = Ok(());
        let mut watches = BTreeSet::new();
        for directory in directories {
            // There may be another one behind the path than there was; one that is watched stays so.
            match inotify::add_watch(&self.descriptor, directory, EVENTS) {
                Ok(watch) => _ = watches.insert(watch),
                // It has gone since the look, and the next will find what is there instead.
                Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {}
                Err(error) => result = result.and(Err((directory.clone(), error.into()))),
            }
        }
        for old in self.watches.difference(&watches) {
            // It has ended by itself if its directory is gone.
            let _ = inotify::remove_watch(&self.descriptor, *old);
        }
        self.watches = watches;
        result
    }

    /// Waits until something happens in one of the directories.
    ///
    /// # Errors
    ///
    /// The kernel's; nothing more will be told.
    ///
    /// # Cancel safety
    ///
    /// Safe: what is not told is told the next time.
    pub(crate) async fn event(&self) -> io::Result<()> {
        self.descriptor
            .async_io(Interest::READABLE, |descriptor| {
                // A part of the events leaves the descriptor ready: the rest is told again.
                match rustix::io::read(descriptor, &mut [0; 4096]) {
                    Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(_) => Ok(()),
                    Err(error) => Err(error.into()),
                }
            })
            .await
    }
}

/// Whoever opens a file to read it changes nothing, and we are one of them.
const EVENTS: WatchFlags = WatchFlags::ONLYDIR
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::MOVE_SELF);
