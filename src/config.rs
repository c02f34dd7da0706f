//! The configuration: parses and checks TOML, and reports every problem at once.

mod admin;
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

pub(crate) use self::admin::{AdminAddress, AdminSettings, Choice, WritesOverTcp};
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
use crate::active_config::{JoinSettings, Timeouts};
use crate::address::Address;
use crate::audit::AuditSettings;
use crate::backend::pool::Health;
use crate::backend::{self, To};
use crate::ledger::AccessLog;
use crate::proxy_protocol::Trusted;
use crate::route::{Action, Routes, Rule};
use crate::sys::file;
use crate::sys::unix::Access;
use crate::tls::Engine;
use crate::tls::certs::Certificate;
use crate::tunnel::TunnelSettings;
use crate::watch::FileState;
use crate::{gate, limits, relay, tls};

/// A checked configuration: its files are read, and its certificates match their keys.
///
/// It is read from TOML, from a file ([`Config::from_file`]) or a string (`parse`), or built in code
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
    /// How long a drain may take. `None` is unlimited.
    pub(crate) drain: Option<Duration>,
    /// How long a TCP peer may leave bytes or keepalives unacknowledged. `None` is unlimited.
    pub(crate) unacknowledged: Option<Duration>,
    pub(crate) gate: Option<gate::GateSettings>,
    /// `None`: no admin API.
    pub(crate) admin: Option<AdminSettings>,
    pub(crate) audit: Option<AuditSettings>,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) routes: Routes,
    pub(crate) backends: Vec<backend::BackendSettings>,
    pub(crate) joins: Vec<JoinSettings>,
    base: PathBuf,
    files: Vec<FileState>,
    warnings: Vec<Problem>,
    expired: Vec<Problem>,
    unready: Unready,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Runtime {
    /// `None`: one for each CPU that this process may use.
    pub workers: Option<usize>,
    /// `None`: `$XDG_RUNTIME_DIR/vestibule`, or a fresh directory.
    pub directory: Option<PathBuf>,
    pub log: Option<String>,
    pub log_format: LogFormat,
    pub access_log: AccessLog,
    /// Who processes TLS records, for all listeners and backends with TLS.
    pub engine: Engine,
    /// Whether core dumps are allowed; they contain the private keys.
    pub core_dumps: bool,
    /// The most memory, in bytes. `None` is unlimited.
    pub max_memory: Option<u64>,
    /// A file to touch while connections are open.
    pub heartbeat: Option<PathBuf>,
    /// The time without a connection after which to end.
    pub idle_exit: Option<Duration>,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogFormat {
    /// Text for people.
    #[default]
    Text,
    /// One JSON object for each line.
    Json,
}

#[derive(Clone, Debug)]
pub(crate) struct Listener {
    pub name: String,
    pub address: Address,
    pub tls: Option<tls::AcceptorSettings>,
    /// The permissions of a Unix socket.
    pub access: Access,
    /// The trusted load balancers. `None`: the listener accepts no PROXY protocol.
    pub proxies: Option<Trusted>,
    /// `None`: no client brings a tunnel.
    pub tunnel: Option<TunnelSettings>,
}

impl Config {
    /// Starts to build a configuration in code. [`ConfigBuilder`] has an example.
    pub fn builder() -> ConfigBuilder {
        ConfigBuilder::default()
    }

    /// Reads a configuration file, and the files that it names. Blocks on the file system.
    ///
    /// Relative paths in it are relative to its directory. If none of its relative files exists there,
    /// and all of them exist in the working directory, they are relative to the working directory, with
    /// a warning.
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

    /// Reads a configuration file again, with the [`base`](Self::base) that was found the first time.
    /// So its relative paths never change their meaning, even if files are removed.
    ///
    /// # Errors
    ///
    /// As [`Config::from_file`].
    pub fn from_file_in(path: impl AsRef<Path>, base: &Path) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let (text, itself) = read(path)?;
        Self::of_text(&path.display(), &text, base, Some(itself))
    }

    /// The directory for the relative paths. An empty path is the working directory.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// The demo: TLS on 127.0.0.1:8443 with the development certificate, and the built-in hello page.
    pub fn demo() -> Self {
        let certificate =
            Certificate::for_development().expect("the compiled-in certificate is tested");
        let address = Address::Tcp {
            host: "127.0.0.1".into(),
            port: 8443,
        };
        Self::of_one(address, Some(certificate), To::Hello, None)
    }

    /// `timeouts.drain`: how long a drain may take. `None` is unlimited.
    pub fn drain_timeout(&self) -> Option<Duration> {
        self.drain
    }

    /// The files that were read, in the state in which they were read: the configuration file itself,
    /// certificates, keys, revocation lists and secrets.
    pub fn files(&self) -> &[FileState] {
        &self.files
    }

    /// Problems that need attention later, such as a certificate that expires within 14 days.
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    /// Certificates that peers refuse, because they have expired, or because an authority of their
    /// chain may not issue them. A proxy serves them all the same.
    pub fn expired(&self) -> &[Problem] {
        &self.expired
    }

    /// Conditions that would keep a start from binding an address on this machine now, such as a
    /// missing directory. They may have changed by the time of the start. The first call resolves host
    /// names, and blocks meanwhile.
    pub fn unready(&self) -> &[Problem] {
        self.unready.all()
    }

    /// Describes the listeners, their certificates and the backends, for people.
    pub fn summary(&self) -> Summary<'_> {
        Summary::of(self)
    }

    /// Whether a backend has `to = "gate"`, so that a gate is needed.
    pub(crate) fn is_claimed(&self) -> bool {
        self.backends.iter().any(|backend| backend.to == To::Gate)
    }

    /// `runtime.log`: the log filter, in the syntax of `RUST_LOG`.
    pub fn log(&self) -> Option<&str> {
        self.runtime.log.as_deref()
    }

    /// `audit.path`: the audit log, if there is one.
    pub fn audit_log(&self) -> Option<&Path> {
        self.audit.as_ref().map(|audit| audit.path.as_path())
    }

    /// `runtime.log_format`: the format of log lines.
    pub fn log_format(&self) -> LogFormat {
        self.runtime.log_format
    }

    /// `itself` is the file with the text, if there is one.
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
        let backend = backend::BackendSettings::new(&name, to);
        Self {
            runtime: Runtime::default(),
            limits: limits::AdmissionSettings::default(),
            timeouts: Timeouts::default(),
            drain: Some(DRAIN),
            unacknowledged: Some(UNACKNOWLEDGED),
            gate,
            admin: Some(AdminSettings::default()),
            audit: None,
            listeners: vec![Listener {
                name,
                address,
                tls,
                access: Access::PRIVATE,
                proxies: None,
                tunnel: None,
            }],
            routes: Routes::new(vec![route]),
            backends: vec![backend],
            joins: Vec::new(),
            base: PathBuf::new(),
            files: Vec::new(),
            warnings: Vec::new(),
            expired: Vec::new(),
            unready: Unready::default(),
        }
    }
}

/// The text of a configuration, and the state of the file before it was read.
fn read(path: &Path) -> Result<(String, FileState), ConfigError> {
    let itself = FileState::of(path);
    match file::read_to_string(path) {
        Ok(text) => Ok((text, itself)),
        Err(error) => Err(ConfigError::unreadable(&path.display(), &error, itself)),
    }
}

/// Parses a configuration. Relative paths are relative to the working directory.
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

/// The default name of the listener and the backend.
const DEFAULT: &str = "default";

const HERE: &str = "relative paths are resolved in the working directory: it has all files, and \
 the directory of the configuration has none of them";
