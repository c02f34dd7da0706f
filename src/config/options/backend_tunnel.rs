//! `[backend.tunnel]`.

use super::section::Section;

/// `[backend.tunnel]`: connections are streams in a few TLS connections to each address, as streams of HTTP/2
/// (RFC 9113 §8.5).
///
/// The backend needs addresses and [`BackendOptions::tls`](super::BackendOptions::tls).
///
/// ```
/// use vestibule::options::BackendTunnelOptions;
///
/// let tunnel = BackendTunnelOptions::new("db:5432").connections(1).streams(500);
/// ```
#[derive(Clone, Debug)]
#[must_use = "options have an effect in a `BackendOptions`"]
pub struct BackendTunnelOptions(pub(super) Section);

impl BackendTunnelOptions {
    /// Tunnels whose streams ask for this host and port.
    pub fn new(authority: impl Into<String>) -> Self {
        let mut section = Section::default();
        section.set("authority", authority.into());
        Self(section)
    }

    /// The number of TLS connections that each worker opens to each address, from 1 to 100. Default: 2.
    pub fn connections(mut self, most: u32) -> Self {
        self.0.set("connections", most);
        self
    }

    /// The number of streams that may be open in one tunnel, from 1 to 8190. The server may allow fewer.
    /// Default: 100.
    pub fn streams(mut self, most: u32) -> Self {
        self.0.set("streams", most);
        self
    }
}
