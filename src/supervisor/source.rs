//! Where a configuration comes from, again at each reload.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use tracing::warn;

use crate::config::{Config, ConfigError, Problem, Sidecar, SidecarError};
use crate::printable;
use crate::watch::FileState;

/// Where a configuration comes from: a file, or code.
///
/// Clones are the same source.
#[derive(Clone)]
pub struct ConfigSource(Kind);

#[derive(Clone)]
enum Kind {
    File {
        path: PathBuf,
        /// What its relative paths are relative to, once that was found.
        base: Arc<OnceLock<PathBuf>>,
    },
    Code(Arc<dyn Fn() -> Result<Config, ReadError> + Send + Sync>),
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// It has problems.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// What was given for a sidecar is wrong.
    #[error(transparent)]
    Sidecar(#[from] SidecarError),
    /// The reading has panicked.
    #[error("reading the configuration panicked")]
    Panicked,
}

impl ReadError {
    /// The files that were read, or were not there to be read: once one of them changes it may be
    /// worth trying again.
    pub(super) fn files(&self) -> &[FileState] {
        match self {
            Self::Config(error) => error.files(),
            // The same ones each time.
            Self::Sidecar(_) | Self::Panicked => &[],
        }
    }
}

impl ConfigSource {
    /// A configuration file, as [`Config::from_file`] reads it. What its relative paths are relative to
    /// is found at the first read.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Kind::File {
            path: path.into(),
            base: Arc::default(),
        })
    }

    /// As [`Config::sidecar`] makes it.
    pub fn sidecar(sidecar: Sidecar) -> Self {
        Self::code(move || Ok(Config::sidecar(&sidecar)?))
    }

    /// Code that makes a configuration. It may block: it runs on a thread for that.
    pub fn code(make: impl Fn() -> Result<Config, ReadError> + Send + Sync + 'static) -> Self {
        Self(Kind::Code(Arc::new(make)))
    }

    /// Reads the configuration as it is now.
    ///
    /// # Errors
    ///
    /// Every problem of it.
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

    /// Logs what an operator will have to see to: [`Config::expired`] and [`Config::warnings`].
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
