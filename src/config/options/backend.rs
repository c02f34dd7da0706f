//! `[[backend]]`.

use std::time::Duration;

use super::backend_tls::BackendTlsOptions;
use super::backend_tunnel::BackendTunnelOptions;
use super::section::{Item, Section};
use crate::address::Address;
use crate::backend::pool::Balance;
use crate::proxy_protocol::ProxyProtocol;

/// `[[backend]]`: a server, or workers, for connections.
///
/// ```
/// use vestibule::options::{BackendOptions, BackendTarget, Balance};
/// use vestibule::Address;
///
/// let claimed = BackendOptions::new("app", BackendTarget::Gate);
/// let addresses: [Address; 2] = ["10.0.0.1:9000".parse()?, "10.0.0.2:9000".parse()?];
/// let dialled = BackendOptions::new("api", addresses).balance(Balance::Source);
/// # Ok::<(), vestibule::ParseAddressError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "options have an effect in a `ConfigBuilder`"]
pub struct BackendOptions(pub(super) Section);

/// Where the connections of a backend go.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BackendTarget {
    /// Addresses to dial, at least one. A host name means all of its addresses.
    Addresses(Vec<Address>),
    /// Workers at the gate, and [`Proxy::backend`](crate::Proxy::backend) in this program.
    Gate,
    /// A built-in page that shows the facts of the connection.
    Hello,
    /// A built-in echo: every byte goes back to the client.
    Echo,
}

/// `backend.health`: health checks, when an address is skipped, and when it is used again.
///
/// ```
/// use vestibule::options::HealthOptions;
///
/// let health = HealthOptions::default().fall(1);
/// let checks = health.interval(std::time::Duration::from_secs(2)).send("PING\r\n").expect("+PONG");
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "options have an effect in a `BackendOptions`"]
pub struct HealthOptions(Section);

impl BackendOptions {
    /// A backend. The name is unique and has 1 to 64 ASCII letters, digits, `-`, `_` and `.`.
    pub fn new(name: impl Into<String>, to: impl Into<BackendTarget>) -> Self {
        let mut section = Section::default();
        section.set("name", name.into());
        section.set("to", to.into());
        Self(section)
    }

    /// How the next address is chosen. Default: [`Balance::LeastConnections`].
    pub fn balance(mut self, balance: Balance) -> Self {
        let word = match balance {
            Balance::LeastConnections => "least_connections",
            Balance::RoundRobin => "round_robin",
            Balance::Source => "source",
        };
        self.0.set("balance", word);
        self
    }

    /// The PROXY protocol header that the backend gets first. `None`: no header. Default: `None`.
    pub fn proxy_protocol(mut self, version: impl Into<Option<ProxyProtocol>>) -> Self {
        let word = match version.into() {
            None => "none",
            Some(ProxyProtocol::V1) => "v1",
            Some(ProxyProtocol::V2) => "v2",
        };
        self.0.set("proxy_protocol", word);
        self
    }

    /// Whether connections wait, until `timeouts.backend`, while no address answers. Default: `true`.
    pub fn park(mut self, park: bool) -> Self {
        self.0.set("park", park);
        self
    }

    /// When an address is skipped, and when it is used again.
    pub fn health(mut self, health: HealthOptions) -> Self {
        self.0.set("health", health.0);
        self
    }

    /// Which workers may come for connections through tunnels, as in `uri:spiffe://corp/ns/*/sa/app`. Only with
    /// [`BackendTarget::Gate`]. Default: none.
    pub fn workers(mut self, rules: impl IntoIterator<Item: Into<String>>) -> Self {
        self.0
            .set_list("workers", rules.into_iter().map(Into::into));
        self
    }

    /// Uses TLS to the addresses.
    pub fn tls(mut self, tls: BackendTlsOptions) -> Self {
        self.0.set("tls", tls.0);
        self
    }

    /// Reaches the addresses through tunnels, which need [`tls`](Self::tls).
    pub fn tunnel(mut self, tunnel: BackendTunnelOptions) -> Self {
        self.0.set("tunnel", tunnel.0);
        self
    }
}

impl HealthOptions {
    /// The time between two checks of an address, at least 100 ms. `None`: no checks; only connections
    /// tell how an address is. Default: `None`.
    pub fn interval(mut self, interval: impl Into<Option<Duration>>) -> Self {
        match interval.into() {
            Some(interval) => self.0.set_timeout("interval", Some(interval)),
            None => self.0.set("interval", "none"),
        }
        self
    }

    /// What a check sends, at most 4096 bytes. Default: nothing.
    pub fn send(mut self, text: impl Into<String>) -> Self {
        self.0.set("send", text.into());
        self
    }

    /// What the first 64 KiB of the answer must contain, at most 4096 bytes. Default: nothing; then a
    /// check is a connection, and no answer is read.
    pub fn expect(mut self, text: impl Into<String>) -> Self {
        self.0.set("expect", text.into());
        self
    }

    /// The number of consecutive failures after which an address is skipped, at least 1. Default: 3.
    pub fn fall(mut self, failures: usize) -> Self {
        self.0.set("fall", failures);
        self
    }

    /// The number of consecutive successes after which it is used again, at least 1. Default: 2.
    pub fn rise(mut self, successes: usize) -> Self {
        self.0.set("rise", successes);
        self
    }
}

impl From<Address> for BackendTarget {
    fn from(address: Address) -> Self {
        Self::Addresses(vec![address])
    }
}

impl From<Vec<Address>> for BackendTarget {
    fn from(addresses: Vec<Address>) -> Self {
        Self::Addresses(addresses)
    }
}

impl<const N: usize> From<[Address; N]> for BackendTarget {
    fn from(addresses: [Address; N]) -> Self {
        Self::Addresses(addresses.into())
    }
}

impl From<BackendTarget> for Item {
    fn from(target: BackendTarget) -> Self {
        match target {
            BackendTarget::Addresses(addresses) => {
                Self::List(addresses.into_iter().map(Self::from).collect())
            }
            BackendTarget::Gate => "gate".into(),
            BackendTarget::Hello => "hello".into(),
            BackendTarget::Echo => "echo".into(),
        }
    }
}
