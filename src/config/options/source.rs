//! The source of certificates, keys, lists and secrets.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

/// A file, or the same bytes in memory.
///
/// The key that takes it determines the format of the bytes: PEM for chains, private keys and
/// authorities; PEM or DER for revocation lists; DER for OCSP responses; 32 random bytes or more for a
/// ticket secret.
///
/// - A file must be a regular file of at most 64 MiB, and its path must be UTF-8. A relative path is
///   relative to the working directory. [`Config::files`](crate::Config::files) lists the file.
/// - Bytes in memory are shared by clones, and overwritten with zeros when the last clone is dropped.
///   Copies that the parsers make are not overwritten; this is the same for a file. `Debug` shows the
///   number of bytes, and not their content.
///
/// ```
/// use vestibule::options::DataSource;
///
/// let file = DataSource::file("/etc/ssl/ca.pem");
/// let memory = DataSource::memory(include_bytes!("../../../certs/ca.pem"));
/// assert!(format!("{memory:?}").ends_with(" bytes in memory"));
/// ```
#[derive(Clone)]
pub struct DataSource(pub(super) Origin);

#[derive(Clone)]
pub(super) enum Origin {
    File(PathBuf),
    Memory(Arc<Zeroizing<Vec<u8>>>),
}

impl DataSource {
    /// A file. [`ConfigBuilder::build`](super::ConfigBuilder::build) reads it.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Origin::File(path.into()))
    }

    /// Bytes in memory. A `Vec` is used without a copy, because a copy would not be overwritten.
    pub fn memory(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Origin::Memory(Arc::new(Zeroizing::new(bytes.into()))))
    }
}

impl From<PathBuf> for DataSource {
    fn from(path: PathBuf) -> Self {
        Self::file(path)
    }
}

impl From<&Path> for DataSource {
    fn from(path: &Path) -> Self {
        Self::file(path)
    }
}

impl fmt::Debug for DataSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Origin::File(path) => write!(f, "{path:?}"),
            Origin::Memory(bytes) => write!(f, "{} bytes in memory", bytes.len()),
        }
    }
}
