//! `[[listener]]`.

use super::listener_tls::ListenerTlsOptions;
use super::section::{Item, Section};
use super::tunnel::TunnelOptions;
use crate::address::Address;

/// `[[listener]]`: an address where clients connect.
///
/// ```
/// use vestibule::options::ListenerOptions;
///
/// let inside = ListenerOptions::new("inside", "unix:/run/example.sock".parse()?).mode(0o660);
/// # Ok::<(), vestibule::ParseAddressError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "options have an effect in a `ConfigBuilder`"]
pub struct ListenerOptions(pub(super) Section);

/// A user or a group of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Account {
    /// By name, as in /etc/passwd or /etc/group.
    Name(String),
    /// By number.
    Id(u32),
}

/// Whether a listener requires a PROXY protocol header, version 1 or 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AcceptProxyProtocol {
    /// Connections have no header.
    None,
    /// Each connection must start with a header.
    Required,
}

impl ListenerOptions {
    /// A listener without TLS.
    ///
    /// The name is unique and has 1 to 64 ASCII letters, digits, `-`, `_` and `.`. With port 0 the
    /// system chooses a port; [`Proxy::addresses`](crate::Proxy::addresses) returns it.
    pub fn new(name: impl Into<String>, address: Address) -> Self {
        let mut section = Section::default();
        section.set("name", name.into());
        section.set("address", address);
        Self(section)
    }

    /// Terminates TLS.
    pub fn tls(mut self, tls: ListenerTlsOptions) -> Self {
        self.0.set("tls", tls.0);
        self
    }

    /// Takes tunnels from clients.
    pub fn tunnel(mut self, tunnel: TunnelOptions) -> Self {
        self.0.set("tunnel", tunnel.0);
        self
    }

    /// The mode of a Unix listener's socket, from `0o000` to `0o777`. Default: `0o600`, with a group `0o660`.
    pub fn mode(mut self, mode: u32) -> Self {
        self.0.set("mode", format!("{mode:04o}"));
        self
    }

    /// The owner of a Unix listener's socket. Default: the user of this process. Only root may set
    /// another.
    pub fn owner(mut self, user: impl Into<Account>) -> Self {
        self.0.set("owner", user.into());
        self
    }

    /// The group of a Unix listener's socket. Default: the group of this process.
    pub fn group(mut self, group: impl Into<Account>) -> Self {
        self.0.set("group", group.into());
        self
    }

    /// Whether load balancers send the client's address. Default: [`AcceptProxyProtocol::None`].
    pub fn accept_proxy_protocol(mut self, accept: AcceptProxyProtocol) -> Self {
        let word = match accept {
            AcceptProxyProtocol::None => "none",
            AcceptProxyProtocol::Required => "required",
        };
        self.0.set("accept_proxy_protocol", word);
        self
    }

    /// The networks or addresses that may send headers, such as `10.0.0.0/8`. Required with
    /// [`accept_proxy_protocol`](Self::accept_proxy_protocol) on a TCP listener.
    pub fn trusted_proxies(mut self, networks: impl IntoIterator<Item: ToString>) -> Self {
        self.0.set_texts("trusted_proxies", networks);
        self
    }
}

impl From<u32> for Account {
    fn from(id: u32) -> Self {
        Self::Id(id)
    }
}

impl From<&str> for Account {
    fn from(name: &str) -> Self {
        Self::Name(name.to_owned())
    }
}

impl From<String> for Account {
    fn from(name: String) -> Self {
        Self::Name(name)
    }
}

impl From<Account> for Item {
    fn from(account: Account) -> Self {
        match account {
            Account::Name(name) => name.into(),
            Account::Id(id) => id.into(),
        }
    }
}
