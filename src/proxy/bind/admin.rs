//! Opens the sockets of the admin API.

use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::{info, warn};

use super::advice;
use super::gate::{BoundGate, private_parent, runtime_directory};
use crate::config::{AdminAddress, AdminSettings, Choice, Config, WritesOverTcp};
use crate::facts::Endpoint;
use crate::log_filter::LogSwitch;
use crate::proxy::error::{BindError, PathError};
use crate::proxy::{START, WithAdmin};
use crate::sys::directory::PrivateDirectory;
use crate::sys::lock::LockError;
use crate::sys::tcp;
use crate::sys::unix::{self, Access, SocketFile};

/// The open sockets of the admin API. Clients wait until it is served; dropping it closes the sockets.
#[derive(Debug)]
#[must_use = "clients wait until it is served"]
pub struct AdminListener {
    pub(crate) sockets: Vec<AdminSocket>,
    pub(crate) writes_over_tcp: WritesOverTcp,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) file: Option<AdminFile>,
    /// `None`: the API cannot change the log filter.
    pub(crate) log: Option<LogSwitch>,
}

#[derive(Debug)]
pub(crate) enum AdminSocket {
    Unix(std::os::unix::net::UnixListener),
    Tcp(TcpListener),
}

/// The file of a Unix socket. It is removed before its directory.
#[derive(Debug)]
pub(crate) struct AdminFile {
    _file: SocketFile,
    _directory: Option<Arc<PrivateDirectory>>,
}

/// Binds the sockets of the admin API. `gate` may have made a fresh runtime directory, which is then
/// used for both.
pub(in crate::proxy) fn bind_admin(
    with_admin: WithAdmin,
    config: &Config,
    gate: Option<&BoundGate>,
) -> Result<Option<AdminListener>, BindError> {
    let (WithAdmin::Yes, Some(settings)) = (with_admin, &config.admin) else {
        return Ok(None);
    };
    let bound = match &settings.address {
        AdminAddress::Tcp { host, port } => over_tcp(settings, host, *port),
        AdminAddress::Unix(path) => over_unix(settings, path, config, gate),
    };
    match (bound, settings.choice) {
        (Ok(bound), _) => Ok(Some(bound)),
        (Err(error), Choice::Given) => Err(error),
        (Err(error), Choice::Default) => {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            warn!(
                "no admin socket: {error}: {}; set `admin.address` or `runtime.directory`, or \
                 `admin.address = \"none\"` for none",
                source.unwrap_or_default()
            );
            Ok(None)
        }
    }
}

fn over_tcp(settings: &AdminSettings, host: &str, port: u16) -> Result<AdminListener, BindError> {
    let bound = tcp::bind(host, port, 1, None).map_err(|error| {
        let tcp::Unbound { address, error } = error;
        let source = match address {
            Some(address) => advice::of_port(error, address),
            None => advice::of_name(error, host),
        };
        BindError::admin(format!("tcp:{host}:{port}"), source)
    })?;
    let endpoints: Vec<Endpoint> = (bound.iter().map(|(it, _)| Endpoint::Tcp(*it))).collect();
    if let Some((address, _)) = bound
        .iter()
        .find(|(it, _)| !it.ip().to_canonical().is_loopback())
    {
        warn!(
            "other machines can reach the admin API at {address}; it has no passwords: use \
             `tcp:127.0.0.1:{}` or a Unix socket",
            address.port()
        );
    }
    let sockets = bound.into_iter().flat_map(|(_, sockets)| sockets);
    Ok(AdminListener {
        sockets: sockets.map(AdminSocket::Tcp).collect(),
        writes_over_tcp: settings.writes_over_tcp,
        endpoints,
        file: None,
        log: None,
    })
}

fn over_unix(
    settings: &AdminSettings,
    path: &Path,
    config: &Config,
    gate: Option<&BoundGate>,
) -> Result<AdminListener, BindError> {
    let (path, directory) = place(path, config, gate)?;
    let bound = match (
        unix::bind(&path, &Access::PRIVATE, BACKLOG),
        settings.choice,
    ) {
        (Err(LockError::Held(_)), Choice::Default) => {
            let path = path.with_file_name(format!("admin-{}.sock", std::process::id()));
            unix::bind(&path, &Access::PRIVATE, BACKLOG).map_err(|error| (path, error))
        }
        (bound, _) => bound.map_err(|error| (path, error)),
    };
    let bound = bound.map_err(|(path, error)| {
        let source = advice::of_path(error, &path);
        BindError::admin(format!("unix:{}", path.display()), source)
    })?;
    let path = bound.file.path().to_owned();
    Ok(AdminListener {
        sockets: vec![AdminSocket::Unix(bound.listener)],
        writes_over_tcp: settings.writes_over_tcp,
        endpoints: vec![Endpoint::Unix(path)],
        file: Some(AdminFile {
            _file: bound.file,
            _directory: directory,
        }),
        log: None,
    })
}

/// The path, and its directory if we have to remove it.
fn place(
    path: &Path,
    config: &Config,
    gate: Option<&BoundGate>,
) -> Result<(PathBuf, Option<Arc<PrivateDirectory>>), BindError> {
    let cannot = |error: BindError| {
        let (directory, source) = match error {
            BindError::Directory { path, source } => (path, source),
            other => return other,
        };
        let message = format!("cannot use the directory {}: {source}", directory.display());
        let source = PathError::Io(io::Error::new(source.kind(), message));
        BindError::admin(format!("unix:{}", path.display()), source)
    };
    if path.is_absolute() {
        private_parent(path, 0o700).map_err(cannot)?;
        return Ok((path.to_owned(), None));
    }
    let of_gate = gate.and_then(|gate| gate.directory.clone());
    let directory = match of_gate {
        Some(directory) => directory,
        None => Arc::new(runtime_directory(&config.runtime).map_err(cannot)?),
    };
    Ok((directory.path().join(path), Some(directory)))
}

impl AdminListener {
    /// Lets `/v1/log` change the log filter of the program for a limited time. Without this it answers 409.
    ///
    /// `configured` is the filter that the program has now, in the syntax of `RUST_LOG`. `change` gets
    /// another one, which is a list of levels and of modules with a level, or `None` for the configured one.
    /// It returns false if it cannot apply the filter and has changed nothing.
    pub fn with_log_filter(
        mut self,
        configured: impl Into<String>,
        change: impl Fn(Option<&str>) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.log = Some(LogSwitch::new(configured.into(), change));
        self
    }

    /// Logs the addresses, with the real port if the configured one is 0. A browser needs TCP.
    pub(crate) fn announce(&self) {
        let addresses: Vec<String> = self.addresses().collect();
        info!(target: START, "admin API at {}", addresses.join(", "));
        let browser = self.endpoints.iter().find_map(|it| match it {
            Endpoint::Tcp(address) if address.ip().is_loopback() => Some(address),
            Endpoint::Tcp(_) | Endpoint::Unix(_) => None,
        });
        if let Some(address) = browser {
            info!(target: START, "dashboard at http://{address}/");
        }
    }

    /// The addresses where it listens, for example `tcp:127.0.0.1:9901`.
    pub fn addresses(&self) -> impl Iterator<Item = String> {
        self.endpoints.iter().map(|endpoint| match endpoint {
            Endpoint::Tcp(address) => format!("tcp:{address}"),
            Endpoint::Unix(path) => format!("unix:{}", path.display()),
        })
    }
}

/// More clients than the admin API serves at a time only wait for a refusal.
const BACKLOG: i32 = 128;
