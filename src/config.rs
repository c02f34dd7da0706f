//! The configuration: read once into what the mechanisms take, with every problem in one go.

mod client_mode;
mod decode;
mod explain;
mod files;
mod handshake;
mod problem;
mod proxy_protocol;
mod reader;
mod routes;
mod summary;
#[cfg(test)]
mod tests;
mod value;
mod words;

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

pub use self::explain::{Question, QuestionError};
pub use self::problem::{ConfigError, Problem};
pub use self::summary::Summary;
use crate::address::Address;
use crate::backend::pool::{Balance, Health};
use crate::backend::{self, Park, To};
use crate::connection::Timeouts;
use crate::proxy_protocol::{ProxyProtocol, Trusted};
use crate::route::{Action, Routes, Rule};
use crate::tls::Engine;
use crate::tls::certs::Certificate;
use crate::tls::connector;
use crate::tls::roots::Roots;
use crate::watch::FileState;
use crate::{gate, limits, relay, tls};

/// A configuration that has been checked: files read, names resolved, certificates matched.
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
    pub(crate) limits: limits::Settings,
    pub(crate) timeouts: Timeouts,
    /// How long a drain may take; `None` is unlimited.
    pub(crate) drain: Option<Duration>,
    /// TCP_USER_TIMEOUT of every TCP connection.
    pub(crate) unacknowledged: Option<Duration>,
    pub(crate) gate: Option<gate::Settings>,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) routes: Routes,
    pub(crate) backends: Vec<backend::Settings>,
    files: Vec<FileState>,
    warnings: Vec<Problem>,
    expired: Vec<Problem>,
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
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
    pub tls: Option<tls::Settings>,
    /// Of a listener behind load balancers.
    pub proxies: Option<Trusted>,
}

impl Config {
    /// Reads a file. Relative paths in it are relative to its directory; certificates that are not
    /// there are looked for in the working directory.
    ///
    /// # Errors
    ///
    /// Every problem of the file, each with its line and column.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let itself = FileState::of(path);
        let text =
            fs::read_to_string(path).map_err(|error| ConfigError::unreadable(&name, &error))?;
        let base = path.parent().unwrap_or(Path::new(""));
        let mut config =
            decode::decode(&text, base).map_err(|problems| ConfigError::new(&name, problems))?;
        config.files.push(itself);
        Ok(config)
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

    /// One listener in front of one backend: what `vestibule run --listen … --to …` runs.
    ///
    /// The listener and the backend are both named `default`.
    ///
    /// # Errors
    ///
    /// Says which part is wrong and what would be right.
    pub fn sidecar(sidecar: &Sidecar) -> Result<Self, SidecarError> {
        let chains = [&sidecar.certificate, &sidecar.backend_certificate];
        let pairs = chains.into_iter().flatten();
        let files = pairs.flat_map(|(chain, key)| [chain, key]);
        let files = files
            .chain(&sidecar.backend_ca)
            .map(FileState::of)
            .collect();
        let certificate = certificate(sidecar.certificate.as_ref())?;
        let (to, tls) = match sidecar.to.strip_prefix("tls:") {
            Some(address) => (address, Some(towards_backend(sidecar)?)),
            None if sidecar.backend_ca.is_some() || sidecar.backend_certificate.is_some() => {
                return Err(SidecarError::WithoutTls);
            }
            None => (sidecar.to.as_str(), None),
        };
        let to = match words::to(to) {
            Ok(To::Dialled(addresses)) if tls.is_some() && !has_names(&addresses) => {
                Err("the host is a name or an IP address, as in `tls:api.internal:443`".into())
            }
            Ok(To::Gate | To::Hello | To::Echo) if tls.is_some() => {
                Err("`tls:` is for a host and port, as in `tls:api.internal:443`".into())
            }
            read => read,
        }
        .map_err(|error| SidecarError::Backend(sidecar.to.clone(), error))?;
        let gate = match (&sidecar.gate, &to) {
            (Some(path), _) => Some(gate::Settings {
                path: path.clone(),
                ..Default::default()
            }),
            (None, To::Gate) => Some(gate::Settings::default()),
            (None, To::Dialled(_) | To::Hello | To::Echo) => None,
        };
        proxy_protocol::check(sidecar.proxy_protocol.map(|_| &to))
            .map_err(|error| SidecarError::Backend(sidecar.to.clone(), error.into()))?;
        let mut config = Self::of_one(sidecar.listen.clone(), certificate, to, gate);
        for backend in &mut config.backends {
            backend.tls.clone_from(&tls);
            backend.proxy_protocol = sidecar.proxy_protocol;
        }
        Ok(Self { files, ..config })
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

    /// What was right once: certificates that have expired. They are served all the same.
    pub fn expired(&self) -> &[Problem] {
        &self.expired
    }

    /// The listeners, their certificates and the backends, for people.
    pub fn summary(&self) -> Summary<'_> {
        Summary::of(self)
    }

    /// What to log, `runtime.log`, in the syntax of `RUST_LOG`.
    pub fn log(&self) -> Option<&str> {
        self.runtime.log.as_deref()
    }

    /// How log lines look, `runtime.log_format`.
    pub fn log_format(&self) -> LogFormat {
        self.runtime.log_format
    }

    fn of_one(
        address: Address,
        certificate: Option<Certificate>,
        to: To,
        gate: Option<gate::Settings>,
    ) -> Self {
        let name = String::from("default");
        let tls = certificate.map(tls::Settings::with);
        let route = Rule {
            action: Action::Backend(name.clone()),
            ..Rule::default()
        };
        let backend = backend::Settings {
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
            limits: limits::Settings::default(),
            timeouts: Timeouts::default(),
            drain: Some(DRAIN),
            unacknowledged: Some(UNACKNOWLEDGED),
            gate,
            listeners: vec![Listener {
                name,
                address,
                tls,
                proxies: None,
            }],
            routes: Routes::new(vec![route]),
            backends: vec![backend],
            files: Vec::new(),
            warnings: Vec::new(),
            expired: Vec::new(),
        }
    }
}

/// Reads a configuration that stands nowhere; relative paths are relative to the working directory.
impl FromStr for Config {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        decode::decode(text, Path::new(""))
            .map_err(|problems| ConfigError::new("configuration", problems))
    }
}

/// One listener and one backend, as given on a command line.
#[derive(Clone, Debug)]
pub struct Sidecar {
    /// Where clients connect.
    pub listen: Address,
    /// The certificate chain and private key, in PEM; `None` listens without TLS.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// An address, `tls:host:port` for one that is spoken to with TLS, or `gate`, `hello` or `echo`.
    pub to: String,
    /// What a dialled backend is sent first; `None` is nothing but the client's bytes.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Whom to trust about the certificate of a `tls:` backend, in PEM; `None`: whom this machine does.
    pub backend_ca: Option<PathBuf>,
    /// What to show a `tls:` backend that asks who we are: a chain and its private key, in PEM.
    pub backend_certificate: Option<(PathBuf, PathBuf)>,
    /// Where workers come; absolute, or relative to the runtime directory. `None`: a gate at its
    /// default place if `to` is `gate`, and no gate otherwise.
    pub gate: Option<PathBuf>,
}

/// What is wrong with a [`Sidecar`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SidecarError {
    /// The chain or key cannot be used.
    #[error("{}: {}", .0.display(), .1)]
    Certificate(PathBuf, String),
    /// `to` is no backend.
    #[error("backend {0:?}: {1}")]
    Backend(String, String),
    /// Nobody would be trusted about a backend's certificate.
    #[error("{0}")]
    Roots(String),
    /// Something was said of TLS towards a backend that is spoken to without.
    #[error("a CA or certificate towards the backend is for one that is given as `tls:HOST:PORT`")]
    WithoutTls,
}

fn certificate(files: Option<&(PathBuf, PathBuf)>) -> Result<Option<Certificate>, SidecarError> {
    let Some((chain, key)) = files else {
        return Ok(None);
    };
    match Certificate::from_files(chain, key) {
        Ok(certificate) => Ok(Some(certificate)),
        Err(error) => {
            let file = if error.is_of_the_key() { key } else { chain };
            Err(SidecarError::Certificate(file.clone(), error.to_string()))
        }
    }
}

fn towards_backend(sidecar: &Sidecar) -> Result<connector::Settings, SidecarError> {
    let roots = match &sidecar.backend_ca {
        None => Roots::of_platform().map_err(|error| SidecarError::Roots(error.to_string()))?,
        Some(path) => fs::read(path)
            .map_err(|error| format!("cannot read the bundle: {error}"))
            .and_then(|pem| Roots::from_pem(&pem).map_err(|error| error.to_string()))
            .map_err(|error| SidecarError::Roots(format!("{}: {error}", path.display())))?,
    };
    Ok(connector::Settings {
        server_name: None,
        roots,
        certificate: certificate(sidecar.backend_certificate.as_ref())?,
        alpn: Vec::new(),
        allow: Vec::new(),
    })
}

/// Whether each address says by itself what name a certificate should have.
fn has_names(addresses: &[Address]) -> bool {
    addresses.iter().all(|address| match address {
        Address::Unix(_) => false,
        Address::Tcp { host, .. } => connector::server_name(host).is_some(),
    })
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            handshake: Some(Duration::from_secs(10)),
            backend: Some(Duration::from_secs(5)),
            relay: relay::Settings {
                idle: Some(Duration::from_secs(60 * 60)),
                half_close: Some(Duration::from_secs(60)),
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
