//! `[limits]` and `[timeouts]`.

use std::time::Duration;

use super::section::Section;

/// `[limits]`: how many connections and handshakes there may be.
///
/// Each limit is exact. It is from 1 to `u32::MAX`, or `None` for unlimited. 0 is refused.
///
/// ```
/// use vestibule::options::LimitOptions;
///
/// let limits = LimitOptions::default().connections(500).handshakes_per_second(None);
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "options have an effect in a `ConfigBuilder`"]
pub struct LimitOptions(pub(super) Section);

impl LimitOptions {
    /// Open connections, over all listeners. Default: 10,000. Each takes two file descriptors.
    pub fn connections(mut self, limit: impl Into<Option<usize>>) -> Self {
        self.0.set_limit("connections", limit.into());
        self
    }

    /// Open connections of one client, an IPv4 address or an IPv6 /64. Default: 1000.
    pub fn connections_per_ip(mut self, limit: impl Into<Option<usize>>) -> Self {
        self.0.set_limit("connections_per_ip", limit.into());
        self
    }

    /// Open connections with the same names in the client certificate. Default: 1000.
    pub fn connections_per_identity(mut self, limit: impl Into<Option<usize>>) -> Self {
        self.0.set_limit("connections_per_identity", limit.into());
        self
    }

    /// Connections that wait for a backend, after the handshake. Default: 1024. Each may hold 16 KiB.
    pub fn pending(mut self, limit: impl Into<Option<usize>>) -> Self {
        self.0.set_limit("pending", limit.into());
        self
    }

    /// Connections in the handshake. Default: 1024. Each may hold 64 KiB. One client may have an eighth.
    pub fn handshaking(mut self, limit: impl Into<Option<usize>>) -> Self {
        self.0.set_limit("handshaking", limit.into());
        self
    }

    /// Handshakes that start in one second on all TLS listeners. Default: unlimited. The number for 100
    /// ms may come at once.
    pub fn handshakes_per_second(mut self, limit: impl Into<Option<usize>>) -> Self {
        self.0.set_limit("handshakes_per_second", limit.into());
        self
    }

    /// As [`handshakes_per_second`](Self::handshakes_per_second), for each client. Default: unlimited.
    pub fn handshakes_per_second_per_ip(mut self, limit: impl Into<Option<usize>>) -> Self {
        self.0
            .set_limit("handshakes_per_second_per_ip", limit.into());
        self
    }
}

/// `[timeouts]`: how long each phase of a connection may take.
///
/// Every timeout is above zero, or `None` for unlimited.
///
/// ```
/// use std::time::Duration;
/// use vestibule::options::TimeoutOptions;
///
/// let timeouts = TimeoutOptions::default().idle(Duration::from_secs(60)).drain(None);
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "options have an effect in a `ConfigBuilder`"]
pub struct TimeoutOptions(pub(super) Section);

impl TimeoutOptions {
    /// From the accept to the end of the handshake. Default: 10 s.
    pub fn handshake(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.0.set_timeout("handshake", timeout.into());
        self
    }

    /// From the end of the handshake until a backend has the connection. Default: 5 s.
    pub fn backend(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.0.set_timeout("backend", timeout.into());
        self
    }

    /// The time without a byte in either direction. Default: 1 h.
    pub fn idle(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.0.set_timeout("idle", timeout.into());
        self
    }

    /// The time without progress after one side has closed. Default: 60 s.
    pub fn half_close(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.0.set_timeout("half_close", timeout.into());
        self
    }

    /// From the accept to the end of the connection, whatever it transfers. Default: unlimited.
    pub fn lifetime(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.0.set_timeout("lifetime", timeout.into());
        self
    }

    /// How long a drain may take. [`Config::drain_timeout`](crate::Config::drain_timeout) returns it,
    /// for [`Running::drain`](crate::Running::drain). Default: 30 s.
    pub fn drain(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.0.set_timeout("drain", timeout.into());
        self
    }

    /// How long a peer may acknowledge nothing and answer no keepalive before it is cut: from 1 ms to
    /// 24 days. Default: 30 s. A reload refuses a change.
    pub fn unacknowledged(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.0.set_timeout("unacknowledged", timeout.into());
        self
    }
}
