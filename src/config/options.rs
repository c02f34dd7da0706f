//! The options of a [`Config`](crate::Config) that is built in code with
//! [`Config::builder`](crate::Config::builder).
//!
//! Each type represents a table of the configuration file. Each method represents the key of the same
//! name, with the same default, bounds and meaning (docs/configuration.md):
//!
//! | type | table |
//! |---|---|
//! | [`RuntimeOptions`] | `[runtime]` |
//! | [`LimitOptions`] | `[limits]` |
//! | [`TimeoutOptions`] | `[timeouts]` |
//! | [`GateOptions`] | `[gate]` |
//! | [`AdminOptions`] | `[admin]` |
//! | [`AuditOptions`] | `[audit]` |
//! | [`ListenerOptions`], [`ListenerTlsOptions`] | `[[listener]]`, `[listener.tls]` |
//! | [`CertificateOptions`] | an entry of `listener.tls.certificates`, and `backend.tls.certificate` |
//! | [`RouteOptions`] | `[[route]]` |
//! | [`BackendOptions`], [`HealthOptions`], [`BackendTlsOptions`] | `[[backend]]`, `backend.health`, `[backend.tls]` |
//! | [`BackendTunnelOptions`] | `[backend.tunnel]` |
//! | [`JoinOptions`] | `[[join]]`; its `tls` is a [`BackendTlsOptions`] |
//!
//! - An option that is not set has its default.
//! - Limits and timeouts take a value, or `None` for unlimited. 0 is refused.
//! - Where the file names a file, a [`DataSource`] takes a path or the bytes themselves.
//! - A method that takes a list replaces the list that was set before.
//! - Nothing is checked before [`ConfigBuilder::build`], which reports every problem at once, in the
//!   words of the file.

mod admin;
mod audit;
mod backend;
mod backend_tls;
mod backend_tunnel;
mod join;
mod limits;
mod listener;
mod listener_tls;
mod render;
mod route;
mod runtime;
mod section;
mod source;
#[cfg(test)]
mod tests;
mod tunnel;

pub use self::admin::AdminOptions;
pub use self::audit::AuditOptions;
pub use self::backend::{BackendOptions, BackendTarget, HealthOptions};
pub use self::backend_tls::BackendTlsOptions;
pub use self::backend_tunnel::BackendTunnelOptions;
pub use self::join::JoinOptions;
pub use self::limits::{LimitOptions, TimeoutOptions};
pub use self::listener::{AcceptProxyProtocol, Account, ListenerOptions};
pub use self::listener_tls::{
    CertificateOptions, ClientAuthMode, ListenerTlsOptions, SessionTickets,
};
use self::render::Rendered;
pub use self::route::RouteOptions;
pub use self::runtime::{GateOptions, RelayMode, RuntimeOptions};
use self::section::Section;
pub use self::source::DataSource;
pub use self::tunnel::TunnelOptions;
use super::document::Document;
use super::files::Files;
use super::problem::{ConfigError, UNNAMED};
use super::{Config, decode};
pub use crate::backend::pool::Balance;
pub use crate::ledger::AccessLog;
pub use crate::tls::MinVersion;
pub use crate::tls::hosts::UnknownSni;

/// Builds a [`Config`] in code.
///
/// At least one listener and one backend are required, or one [`join`](Self::join) alone. With a single backend no route is needed.
///
/// ```
/// use std::time::Duration;
///
/// use vestibule::Config;
/// use vestibule::options::{
///     BackendOptions, BackendTarget, CertificateOptions, GateOptions, ListenerOptions,
///     ListenerTlsOptions, TimeoutOptions,
/// };
///
/// // The bytes could also come from a secret store: nothing is read from a file.
/// let chain = include_bytes!("../../certs/server.pem");
/// let key = include_bytes!("../../certs/server-key.pem");
///
/// let tls = ListenerTlsOptions::new(CertificateOptions::from_pem(chain, key)).alpn(["http/1.1"]);
/// let config = Config::builder()
///     .listener(ListenerOptions::new("https", "127.0.0.1:0".parse()?).tls(tls))
///     .backend(BackendOptions::new("app", BackendTarget::Gate))
///     // Only this program serves `app`; without a gate, no other process can.
///     .gate(GateOptions::none())
///     .timeouts(TimeoutOptions::default().idle(Duration::from_secs(600)).lifetime(None))
///     .build()?;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let proxy = vestibule::Proxy::builder(config).bind().await?;
/// let app = proxy.backend("app");
/// # drop(app);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "nothing is checked before `build`"]
pub struct ConfigBuilder {
    runtime: Option<Section>,
    limits: Option<Section>,
    timeouts: Option<Section>,
    gate: Option<Section>,
    admin: Option<Section>,
    audit: Option<Section>,
    listeners: Vec<Section>,
    routes: Vec<Section>,
    backends: Vec<Section>,
    joins: Vec<Section>,
}

impl ConfigBuilder {
    /// Sets `[runtime]`.
    pub fn runtime(mut self, runtime: RuntimeOptions) -> Self {
        self.runtime = Some(runtime.0);
        self
    }

    /// Sets `[limits]`.
    pub fn limits(mut self, limits: LimitOptions) -> Self {
        self.limits = Some(limits.0);
        self
    }

    /// Sets `[timeouts]`.
    pub fn timeouts(mut self, timeouts: TimeoutOptions) -> Self {
        self.timeouts = Some(timeouts.0);
        self
    }

    /// Sets `[gate]`.
    pub fn gate(mut self, gate: GateOptions) -> Self {
        self.gate = Some(gate.0);
        self
    }

    /// Sets `[admin]`.
    pub fn admin(mut self, admin: AdminOptions) -> Self {
        self.admin = Some(admin.0);
        self
    }

    /// Sets `[audit]`.
    pub fn audit(mut self, audit: AuditOptions) -> Self {
        self.audit = Some(audit.0);
        self
    }

    /// Adds a listener. Its name and address must be unique.
    pub fn listener(mut self, listener: ListenerOptions) -> Self {
        self.listeners.push(listener.0);
        self
    }

    /// Adds a route after those that were added before. The first route that matches wins.
    pub fn route(mut self, route: RouteOptions) -> Self {
        self.routes.push(route.0);
        self
    }

    /// Adds a backend. Its name must be unique.
    pub fn backend(mut self, backend: BackendOptions) -> Self {
        self.backends.push(backend.0);
        self
    }

    /// Adds fronts to serve for.
    pub fn join(mut self, join: JoinOptions) -> Self {
        self.joins.push(join.0);
        self
    }

    /// Checks the options as a configuration file is checked, and reads the files that they name.
    /// Blocks on the file system.
    ///
    /// # Errors
    ///
    /// Every problem. The message names the key as in a file, and the listener, backend or route that
    /// has it: ``listener "https": `listener.tls.alpn`: …``. Routes are counted from 0: `route[0]`.
    /// [`Problem::line`](crate::Problem::line) is 0, because there are no lines.
    pub fn build(self) -> Result<Config, ConfigError> {
        let Rendered {
            text,
            parts,
            memory,
        } = render::render(self)?;
        let files = Files::in_memory(memory);
        let decoded = decode::decode(Document::of_parts(&text, parts), &files);
        Config::of_decoded(&UNNAMED, decoded, files, None)
    }
}
