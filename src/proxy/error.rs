//! Why a proxy cannot start, and whether another one is the reason.

use std::io;
use std::path::{Path, PathBuf};

use crate::address::Address;
use crate::sys::lock::LockError;
use crate::sys::process::shown;

/// Why a proxy cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// A listener's address cannot be bound.
    #[error("cannot listen on {address} (listener {listener:?})")]
    Listener {
        /// The listener's name.
        listener: String,
        /// Its address.
        address: Address,
        /// What stands in the way.
        source: PathError,
    },
    /// The gate cannot be bound.
    #[error("cannot open the gate at {}", path.display())]
    Gate {
        /// The socket's path.
        path: PathBuf,
        /// What stands in the way.
        source: PathError,
    },
    /// The runtime directory cannot be used.
    #[error("cannot use the directory {} for the gate", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What stands in the way.
        source: io::Error,
    },
    /// A backend is where this proxy listens itself.
    #[error(
        "the address {address} of backend {backend:?} is the address of {holder} of this \
         Vestibule; change one of the two"
    )]
    LeadsBack {
        /// The backend's name.
        backend: String,
        /// The address that it is to have.
        address: Address,
        /// Who is there.
        holder: String,
    },
    /// TLS cannot be set up.
    #[error("cannot set up TLS (listener {listener:?})")]
    Tls {
        /// The listener's name.
        listener: String,
        /// What rustls says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A worker cannot be started.
    #[error("cannot start a worker")]
    Worker(#[source] io::Error),
}

impl BindError {
    pub(super) fn directory(path: &Path, source: io::Error) -> Self {
        Self::Directory {
            path: path.to_owned(),
            source,
        }
    }

    /// Whether somebody else is at the address, another process or another part of this one: a matter
    /// of configuration, not of luck.
    pub fn is_held_by_another(&self) -> bool {
        match self {
            Self::Listener { source, .. } | Self::Gate { source, .. } => {
                matches!(source, PathError::Held(_))
            }
            Self::LeadsBack { .. } => true,
            Self::Directory { .. } | Self::Tls { .. } | Self::Worker(_) => false,
        }
    }
}

/// What stands in the way of binding an address.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// A live process has the path; its id, where it is known.
    #[error(
        "{} uses it; stop that process, or choose another path or runtime directory",
        .0.map_or("another process".into(), shown)
    )]
    Held(Option<u32>),
    /// The system says no.
    #[error(transparent)]
    Io(io::Error),
}

impl From<LockError> for PathError {
    fn from(error: LockError) -> Self {
        match error {
            LockError::Held(pid) => Self::Held(pid),
            LockError::Io(error) => Self::Io(error),
        }
    }
}
