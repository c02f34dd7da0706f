//! The configuration: read once into what the mechanisms take, with every problem in one go.

mod client_mode;
mod decode;
mod document;
mod explain;
mod files;
mod forecast;
mod foreign;
mod handshake;
mod lines;
pub mod options;
mod parts;
mod problem;
mod proxy_protocol;
mod routes;
mod sidecar;
mod summary;
mod table;
#[cfg(test)]
mod tests;
mod unix;
mod unready;
mod validity;
mod value;
mod words;

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use self::document::Document;
pub use self::explain::{Question, QuestionError};
use self::files::Files;
use self::lines::Place;
use self::options::ConfigBuilder;
use self::problem::UNNAMED;
pub use self::problem::{ConfigError, Problem};
pub use self::sidecar::{Sidecar, SidecarError};
pub use self::summary::Summary;
use self::unready::Unready;
use crate::active_config::Timeouts;
use crate::address::Address;
use crate::backend::pool::{Balance, Health};
use crate::backend::{self, Park, To};
use crate::proxy_protocol::Trusted;
use crate::route::{Action, Routes, Rule};
use crate::sys::file;
use crate::sys::unix::Access;
use crate::tls::Engine;
use crate::tls::certs::Certificate;
use crate::watch::FileState;
use crate::{gate, limits, relay, tls};

/// A configuration that has been checked: files read, names resolved, certificates matched.
///
/// It is read from TOML, a file ([`Config::from_file`]) or a string (`parse`), or built in code
/// ([`Config::builder`]).
///
/// ```
/// use vestibule::Config;
///
/// let config: Config = r#"
///     [[listener]]
///     name = "plain"
///     address = "tcp:127.0.0.1:0"
///
///     [[backend]]
///     name = "app"
///     to = "gate"
/// "#
/// .parse()?;
///
/// let wrong = "[limits]\nconections = 5\n".parse::<Config>().unwrap_err();
/// assert!(wrong.to_string().contains("did you mean `connections`?"));
/// # Ok::<(), vestibule::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) runtime: Runtime,
    pub(crate) limits: limits::AdmissionSettings,
    pub(crate) timeouts: Timeouts,
    /// How long a drain may take; `None` is unlimited.
    pub(crate) drain: Option<Duration>,
    /// TCP_USER_TIMEOUT of every TCP connection.
    pub(crate) unacknowledged: Option<Duration>,
    pub(crate) gate: Option<gate::GateSettings>,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) routes: Routes,
    pub(crate) backends: Vec<backend::BackendSettings>,
    base: PathBuf,
    files: Vec<FileState>,
    warnings: Vec<Problem>,
    expired: Vec<Problem>,
    unready: Unready,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Runtime {
    /// `None`: as many as the process may use CPUs.
    pub workers: Option<usize>,
    /// `None`: in the user's runtime directory, or fresh.
    pub directory: Option<PathBuf>,
    pub log: Option<String>,
    pub log_format: LogFormat,
    /// Of all listeners with TLS.
    pub engine: Engine,
    /// Whether the memory may be dumped, with the keys that are in it.
    pub core_dumps: bool,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Clone, Debug)]
pub(crate) struct Listener {
    pub name: String,
    pub address: Address,
    pub tls: Option<tls::AcceptorSettings>,
    /// Who may connect, where it is a Unix socket.
    pub access: Access,
    /// Of a listener behind load balancers.
    pub proxies: Option<Trusted>,
}

impl Config {
    /// Begins to build a configuration in code. [`ConfigBuilder`] has an example.
    pub fn builder() -> ConfigBuilder {
        ConfigBuilder::default()
    }

    /// Reads a file. Relative paths in it are relative to its directory. Where none of the files is
    /// there and all are in the working directory, they are relative to that, with a warning.
    ///
    /// # Errors
    ///
    /// Every problem of the file, each with its line and column.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let (text, itself) = read(path)?;
        let files = Files::new(path.parent().unwrap_or(Path::new("")));
        let decoded = decode::decode(Document::new(&text), &files);
        if !files.are_here() {
            return Self::of_decoded(&path.display(), decoded, files, Some(itself));
        }
        let mut config = Self::of_text(&path.display(), &text, Path::new(""), Some(itself))?;
        config.warnings.push(Problem::at(Place::START, HERE));
        Ok(config)
    }

    /// Reads a file again, whose relative paths are relative to the [`base`](Self::base) that was
    /// found the first time: whatever becomes of its files, those of another directory are not taken
    /// for them.
    ///
    /// # Errors
    ///
    /// As [`Config::from_file`].
    pub fn from_file_in(path: impl AsRef<Path>, base: &Path) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let (text, itself) = read(path)?;
        Self::of_text(&path.display(), &text, base, Some(itself))
    }

    /// What relative paths are relative to; empty for the working directory.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// TLS on 127.0.0.1:8443 with the development certificate, and the hello page behind it.
    pub fn demo() -> Self {
        let certificate =
            Certificate::for_development().expect("the compiled-in certificate is tested");
        let address = Address::Tcp {
            host: "127.0.0.1".into(),
            port: 8443,
        };
        Self::of_one(address, Some(certificate), To::Hello, None)
    }

    /// How long a drain may take, `timeouts.drain`; `None` is unlimited.
    pub fn drain_timeout(&self) -> Option<Duration> {
        self.drain
    }

    /// The files that were read for it, as they were: itself, certificates, keys, revocation lists,
    /// secrets.
    pub fn files(&self) -> &[FileState] {
        &self.files
    }

    /// What an operator will have to see to, such as a certificate that expires within 14 days.
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    /// Certificates that peers refuse: they have expired, or an authority of their chain may not issue
    /// them. They are served all the same.
    pub fn expired(&self) -> &[Problem] {
        &self.expired
    }

    /// What would keep a start from binding an address on this machine now, such as a directory that
    /// is not there: it may be by then. The first call looks up the names of hosts, and may take as long
    /// as that.
    pub fn unready(&self) -> &[Problem] {
        self.unready.all()
    }

    /// The listeners, their certificates and the backends, for people.
    pub fn summary(&self) -> Summary<'_> {
        Summary::of(self)
    }

    /// Whether a backend is one for workers, who come to a gate.
    pub(crate) fn is_claimed(&self) -> bool {
        self.backends.iter().any(|backend| backend.to == To::Gate)
    }

    /// What to log, `runtime.log`, in the syntax of `RUST_LOG`.
    pub fn log(&self) -> Option<&str> {
        self.runtime.log.as_deref()
    }

    /// How log lines look, `runtime.log_format`.
    pub fn log_format(&self) -> LogFormat {
        self.runtime.log_format
    }

    /// `itself` is the file that the text is from.
    fn of_text(
        name: &dyn Display,
        text: &str,
        base: &Path,
        itself: Option<FileState>,
    ) -> Result<Self, ConfigError> {
        let files = Files::new(base);
        let decoded = decode::decode(Document::new(text), &files);
        Self::of_decoded(name, decoded, files, itself)
    }

    fn of_decoded(
        name: &dyn Display,
        decoded: Result<Self, Vec<Problem>>,
        files: Files<'_>,
        itself: Option<FileState>,
    ) -> Result<Self, ConfigError> {
        let base = files.base.to_owned();
        let files = files.into_states().into_iter().chain(itself).collect();
        match decoded {
            Ok(config) => Ok(Self {
                base,
                files,
                ..config
            }),
            Err(problems) => Err(ConfigError::new(name, problems, files)),
        }
    }

    fn of_one(
        address: Address,
        certificate: Option<Certificate>,
        to: To,
        gate: Option<gate::GateSettings>,
    ) -> Self {
        let name = String::from(DEFAULT);
        let tls = certificate.map(tls::AcceptorSettings::with);
        let route = Rule {
            action: Action::Backend(name.clone()),
            ..Rule::default()
        };
        let backend = backend::BackendSettings {
            name: name.clone(),
            to,
            balance: Balance::LeastConnections,
            park: Park::Hold,
            health: Health::default(),
            proxy_protocol: None,
            tls: None,
        };
        Self {
            runtime: Runtime::default(),
            limits: limits::AdmissionSettings::default(),
            timeouts: Timeouts::default(),
            drain: Some(DRAIN),
            unacknowledged: Some(UNACKNOWLEDGED),
            gate,
            listeners: vec![Listener {
                name,
                address,
                tls,
                access: Access::PRIVATE,
                proxies: None,
            }],
            routes: Routes::new(vec![route]),
            backends: vec![backend],
            base: PathBuf::new(),
            files: Vec::new(),
            warnings: Vec::new(),
            expired: Vec::new(),
            unready: Unready::default(),
        }
    }
}

/// A configuration's text, and the file as it was before.
fn read(path: &Path) -> Result<(String, FileState), ConfigError> {
    let itself = FileState::of(path);
    match file::read_to_string(path) {
        Ok(text) => Ok((text, itself)),
        Err(error) => Err(ConfigError::unreadable(&path.display(), &error, itself)),
    }
}

/// Reads a configuration that stands nowhere; relative paths are relative to the working directory.
impl FromStr for Config {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        Self::of_text(&UNNAMED, text, Path::new(""), None)
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            handshake: Some(Duration::from_secs(10)),
            backend: Some(Duration::from_secs(5)),
            relay: relay::InactivityTimeouts {
                idle: Some(Duration::from_secs(60 * 60)),
                half_close: Some(Duration::from_secs(60)),
                unacknowledged: Some(UNACKNOWLEDGED),
            },
            lifetime: None,
        }
    }
}

impl Default for Health {
    fn default() -> Self {
        Self { fall: 3, rise: 2 }
    }
}

const DRAIN: Duration = Duration::from_secs(30);
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// The name of a listener and a backend that need none.
const DEFAULT: &str = "default";

const HERE: &str = "relative paths are resolved in the working directory: it has all files, and \
 the directory of the configuration has none of them";
