//! Errors of binding, and whether another process or listener is the reason.

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
        /// The reason.
        source: PathError,
    },
    /// The gate cannot be bound.
    #[error("cannot open the gate at {}", path.display())]
    Gate {
        /// The socket's path.
        path: PathBuf,
        /// The reason.
        source: PathError,
    },
    /// The admin API cannot be opened.
    #[error("cannot open the admin API at {address}")]
    Admin {
        /// Its address.
        address: String,
        /// The reason.
        source: PathError,
    },
    /// The runtime directory cannot be used.
    #[error("cannot use the directory {} for the gate", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// `runtime.max_memory` is set, and the memory of this process cannot be measured.
    #[error("cannot measure the memory of this process (runtime.max_memory); is /proc mounted?")]
    Memory(#[source] io::Error),
    /// The audit log cannot be opened.
    #[error("cannot open the audit log {}", path.display())]
    Audit {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The revoked identities cannot be read.
    #[error("cannot read the revocations in {}", path.display())]
    Revocations {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The address of a backend is an address where this proxy itself listens.
    #[error(
        "the address {address} of backend {backend:?} is the address of {holder} of this \
         Vestibule; change one of the two"
    )]
    LeadsBack {
        /// The backend's name.
        backend: String,
        /// The configured address.
        address: Address,
        /// The part of this proxy that listens there.
        holder: String,
    },
    /// TLS cannot be set up.
    #[error("cannot set up TLS (listener {listener:?})")]
    Tls {
        /// The listener's name.
        listener: String,
        /// The error of rustls.
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

    pub(super) fn admin(address: String, source: PathError) -> Self {
        Self::Admin { address, source }
    }

    /// Whether the address is in use by another process, or by another part of this one. This is an
    /// error of the configuration, and a retry does not help.
    pub fn is_held_by_another(&self) -> bool {
        match self {
            Self::Listener { source, .. }
            | Self::Gate { source, .. }
            | Self::Admin { source, .. } => {
                matches!(source, PathError::Held(_))
            }
            Self::LeadsBack { .. } => true,
            Self::Directory { .. }
            | Self::Audit { .. }
            | Self::Revocations { .. }
            | Self::Tls { .. }
            | Self::Memory(_)
            | Self::Worker(_) => false,
        }
    }
}

/// Why an address cannot be bound.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// A live process uses the path. Its process id, if it is known.
    #[error(
        "{} uses it; stop that process, or choose another path or runtime directory",
        .0.map_or("another process".into(), shown)
    )]
    Held(Option<u32>),
    /// The system refused.
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
