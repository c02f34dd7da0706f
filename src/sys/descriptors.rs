//! File descriptors: their limit, and what to do when none is free.

use std::fs::File;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard limit. Returns the limit that applies then; `None` is unlimited.
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
        // The operator sees the limit that applies.
        Err(_) => current,
    }
}

/// Whether the process or the system has no free descriptors, or no memory for sockets. No peer is at
/// fault, and an immediate retry does not help.
pub(crate) fn is_exhausted(error: &io::Error) -> bool {
    let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|errno| exhausted.contains(&errno))
}

/// The kernel's error for a process without free descriptors.
pub(crate) fn exhausted() -> io::Error {
    Errno::MFILE.into()
}

/// One descriptor in reserve, for an answer that needs one when no other is free.
#[derive(Debug)]
pub(crate) struct Reserve(Mutex<Option<File>>);

impl Reserve {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(Mutex::new(Some(File::open("/dev/null")?))))
    }

    /// Closes the descriptor, so that one `accept` can succeed. Returns false if it was closed already.
    pub(crate) fn spend(&self) -> bool {
        self.lock().take().is_some()
    }

    /// Opens the descriptor again, if it was spent and one is free.
    pub(crate) fn refill(&self) {
        Self::hold(&mut self.lock());
    }

    /// Runs `work` while the reserve holds its descriptor, so that `work` cannot use it. `None`,
    /// without running it, if the reserve has no descriptor.
    pub(crate) fn beside<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        let mut held = self.lock();
        Self::hold(&mut held);
        held.is_some().then(work)
    }

    /// Frees the descriptor for `work`, and takes one again after it. Does nothing if the reserve is
    /// spent.
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
