//! `[listener.tunnel]`.

use super::section::Section;

/// `[listener.tunnel]`: clients may bring many connections in one, as streams of HTTP/2 (RFC 9113 §8.5).
///
/// The listener needs TLS that requires client certificates.
///
/// ```
/// use vestibule::options::TunnelOptions;
///
/// let tunnel = TunnelOptions::default().alpn("hbone").streams(500);
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "options have an effect in a `ListenerOptions`"]
pub struct TunnelOptions(pub(super) Section);

impl TunnelOptions {
    /// The protocol (ALPN) by which clients say that they bring a tunnel, of 1 to 255 bytes. Default: `h2`.
    pub fn alpn(mut self, protocol: impl Into<String>) -> Self {
        self.0.set("alpn", protocol.into());
        self
    }

    /// How many streams may be open on one tunnel, from 1 to 8190. Default: 100.
    pub fn streams(mut self, most: u32) -> Self {
        self.0.set("streams", most);
        self
    }

    /// Whether workers may come through tunnels, to serve the backends that admit them. Default: `false`. See
    /// [`BackendOptions::workers`](super::BackendOptions::workers).
    pub fn workers(mut self, workers: bool) -> Self {
        self.0.set("workers", workers);
        self
    }
}
