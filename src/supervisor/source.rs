//! The source of a configuration, which is read again at each reload.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use tracing::warn;

use crate::config::{Config, ConfigError, Problem, Sidecar, SidecarError};
use crate::printable;
use crate::watch::FileState;

/// The source of a configuration: a file, or code.
///
/// A clone is the same source.
#[derive(Clone)]
pub struct ConfigSource(Kind);

#[derive(Clone)]
enum Kind {
    File {
        path: PathBuf,
        /// The directory for its relative paths, once it was found.
        base: Arc<OnceLock<PathBuf>>,
    },
    Code(Arc<dyn Fn() -> Result<Config, ReadError> + Send + Sync>),
}

/// Why a configuration cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The configuration has problems.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The settings of a sidecar are wrong.
    #[error(transparent)]
    Sidecar(#[from] SidecarError),
    /// The code that reads the configuration panicked.
    #[error("reading the configuration panicked")]
    Panicked,
}

impl ReadError {
    /// The files that were read, or that are missing. A change of one of them is worth another attempt.
    pub(super) fn files(&self) -> &[FileState] {
        match self {
            Self::Config(error) => error.files(),
            // The settings are the same at each attempt.
            Self::Sidecar(_) | Self::Panicked => &[],
        }
    }
}

impl ConfigSource {
    /// A configuration file, as [`Config::from_file`] reads it. The directory for its relative paths is
    /// found at the first read, and stays.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Kind::File {
            path: path.into(),
            base: Arc::default(),
        })
    }

    /// A configuration as [`Config::sidecar`] makes it.
    pub fn sidecar(sidecar: Sidecar) -> Self {
        Self::code(move || Ok(Config::sidecar(&sidecar)?))
    }

    /// Code that makes a configuration. It may block: the supervisor calls it on a blocking thread.
    pub fn code(make: impl Fn() -> Result<Config, ReadError> + Send + Sync + 'static) -> Self {
        Self(Kind::Code(Arc::new(make)))
    }

    /// Reads the current configuration. Blocks on the file system.
    ///
    /// # Errors
    ///
    /// Every problem of the configuration.
    pub fn read(&self) -> Result<Config, ReadError> {
        let (path, base) = match &self.0 {
            Kind::File { path, base } => (path, base),
            Kind::Code(make) => return make(),
        };
        let config = match base.get() {
            Some(base) => Config::from_file_in(path, base)?,
            None => Config::from_file(path)?,
        };
        base.get_or_init(|| config.base().to_owned());
        Ok(config)
    }

    /// Logs the warnings of a configuration: [`Config::expired`] and [`Config::warnings`].
    pub fn warn(&self, config: &Config) {
        for problem in config.expired().iter().chain(config.warnings()) {
            let Problem {
                line,
                column,
                message,
                ..
            } = problem;
            match &self.0 {
                Kind::File { path, .. } => {
                    warn!("{}:{line}:{column}: {message}", path.display());
                }
                Kind::Code(_) => warn!("{}", printable::line(message)),
            }
        }
    }
}

impl fmt::Debug for ConfigSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::File { path, .. } => f.debug_tuple("File").field(path).finish(),
            Kind::Code(_) => f.write_str("Code"),
        }
    }
}
