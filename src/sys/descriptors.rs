//! File descriptors: how many there may be, and what to do when there are no more.

use std::fs::File;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard one and returns the limit then in force; `None` is unlimited.
pub(crate) fn raise_limit() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current;
    }
    match setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    ) {
        Ok(()) => maximum,
        // The limit in force is what is shown to the operator, so nothing is hidden.
        Err(_) => current,
    }
}

/// Whether the process or the system is out of descriptors, or of memory for sockets: nothing
/// that a peer did, and nothing that trying again at once would change.
pub(crate) fn is_exhausted(error: &io::Error) -> bool {
    let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|errno| exhausted.contains(&errno))
}

/// As the kernel says it of a process.
pub(crate) fn exhausted() -> io::Error {
    Errno::MFILE.into()
}

/// One descriptor kept back, to be spent when there is none left and something must be answered.
#[derive(Debug)]
pub(crate) struct Reserve(Mutex<Option<File>>);

impl Reserve {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(Mutex::new(Some(File::open("/dev/null")?))))
    }

    /// Gives the descriptor up, so that one `accept` can succeed. False when it is spent already.
    pub(crate) fn spend(&self) -> bool {
        self.lock().take().is_some()
    }

    /// Takes a descriptor back if it was spent and there is one to be had.
    pub(crate) fn refill(&self) {
        Self::hold(&mut self.lock());
    }

    /// Does `work` while the descriptor is kept back, which the work can then not take. `None` while
    /// there is none to keep.
    pub(crate) fn beside<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        let mut held = self.lock();
        Self::hold(&mut held);
        held.is_some().then(work)
    }

    /// Does `work` with the descriptor, which is kept back again when nothing is left of the work.
    pub(crate) fn instead(&self, work: impl FnOnce()) {
        let mut held = self.lock();
        if held.take().is_some() {
            work();
            Self::hold(&mut held);
        }
    }

    fn hold(held: &mut Option<File>) {
        if held.is_none() {
            *held = File::open("/dev/null").ok();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<File>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
