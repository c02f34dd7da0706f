//! Wrappers around the kernel's interfaces.

pub(crate) mod descriptors;
pub(crate) mod directory;
pub(crate) mod dumps;
pub(crate) mod either;
pub(crate) mod file;
pub(crate) mod inotify;
pub(crate) mod listeners;
pub(crate) mod lock;
pub(crate) mod memory;
pub(crate) mod process;
pub(crate) mod queue;
pub(crate) mod reach;
pub(crate) mod socket;
pub(crate) mod tcp;
pub(crate) mod unix;
pub(crate) mod unix_stream;
pub(crate) mod usage;
pub(crate) mod users;
