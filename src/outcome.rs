//! Why a connection ended: one word from a closed list.

use std::fmt;

/// The single reason why a connection ended.
///
/// ```
/// use vestibule::Outcome;
///
/// assert_eq!(Outcome::ClientTruncated.to_string(), "client_truncated");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Outcome {
    /// Both sides closed, and every byte was passed on.
    Done,
    /// The client reset the connection, or its TLS session failed after the handshake.
    ClientReset,
    /// The client's stream ended without `close_notify` (RFC 8446 §6.1).
    ClientTruncated,
    /// The backend reset the connection.
    BackendReset,
    /// No backend accepted the connection, and `park` was off.
    BackendRefused,
    /// No backend accepted the connection within `timeouts.backend`.
    BackendTimeout,
    /// The TLS handshake failed, or the PROXY protocol header was invalid.
    HandshakeFailed,
    /// The handshake did not end within `timeouts.handshake`.
    HandshakeTimeout,
    /// The first bytes on a TLS listener were not TLS.
    NotTls,
    /// No route matched.
    NoRoute,
    /// A route denied it, or the peer is not in `trusted_proxies`.
    Denied,
    /// A limit under `[limits]` was reached.
    OverLimit,
    /// Closed to relieve memory pressure.
    Shed,
    /// No worker claimed the connection within `timeouts.backend`.
    Expired,
    /// The client left before a backend took the connection.
    ClientGone,
    /// No byte moved in either direction for `timeouts.idle`.
    Idle,
    /// One side had closed, and the other one sent nothing for `timeouts.half_close`.
    HalfClosed,
    /// The connection reached `timeouts.lifetime`.
    Lifetime,
    /// An operator ended it.
    Killed,
    /// The client is not admitted any more: its identity or certificate was revoked, or after a reload no
    /// route accepts it.
    Revoked,
    /// The connection was cut at the end of a drain.
    Drained,
    /// The connection's task panicked or was dropped.
    Aborted,
}

impl Outcome {
    /// Every outcome, in the order of the documentation.
    pub const ALL: [Self; 22] = [
        Self::Done,
        Self::ClientReset,
        Self::ClientTruncated,
        Self::BackendReset,
        Self::BackendRefused,
        Self::BackendTimeout,
        Self::HandshakeFailed,
        Self::HandshakeTimeout,
        Self::NotTls,
        Self::NoRoute,
        Self::Denied,
        Self::OverLimit,
        Self::Shed,
        Self::Expired,
        Self::ClientGone,
        Self::Idle,
        Self::HalfClosed,
        Self::Lifetime,
        Self::Killed,
        Self::Revoked,
        Self::Drained,
        Self::Aborted,
    ];

    /// The word for logs, metrics and the audit log, for example `client_reset`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::ClientReset => "client_reset",
            Self::ClientTruncated => "client_truncated",
            Self::BackendReset => "backend_reset",
            Self::BackendRefused => "backend_refused",
            Self::BackendTimeout => "backend_timeout",
            Self::HandshakeFailed => "handshake_failed",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::NotTls => "not_tls",
            Self::NoRoute => "no_route",
            Self::Denied => "denied",
            Self::OverLimit => "over_limit",
            Self::Shed => "shed",
            Self::Expired => "expired",
            Self::ClientGone => "client_gone",
            Self::Idle => "idle",
            Self::HalfClosed => "half_closed",
            Self::Lifetime => "lifetime",
            Self::Killed => "killed",
            Self::Revoked => "revoked",
            Self::Drained => "drained",
            Self::Aborted => "aborted",
        }
    }
}

/// The causes that end a connection from outside, in any stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndCause {
    /// An operator ended it.
    Killed,
    /// An operator put down the address that serves it.
    AddressDown,
    /// An operator has revoked the client's identity, or the configuration after a reload does not admit
    /// the client any more.
    Revoked,
    /// The time for the drain is over.
    Drained,
    /// Memory is short, and others have been idle for a shorter time.
    Shed,
}

impl EndCause {
    const ALL: [Self; 5] = [
        Self::Killed,
        Self::AddressDown,
        Self::Revoked,
        Self::Drained,
        Self::Shed,
    ];

    /// A number above zero, which [`Self::from_u8`] converts back.
    pub(crate) const fn to_u8(self) -> u8 {
        self as u8 + 1
    }

    pub(crate) fn from_u8(number: u8) -> Option<Self> {
        let index = usize::from(number).checked_sub(1)?;
        Self::ALL.get(index).copied()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
