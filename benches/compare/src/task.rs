//! What to measure, as it comes on the command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

/// One measurement of one proxy.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Task {
    /// What the clients do.
    pub(crate) work: Work,
    /// Where the proxy listens.
    pub(crate) target: SocketAddr,
    /// What the clients speak.
    pub(crate) tls: Tls,
    /// PEM file of the certificate that the proxy must show, a single one.
    pub(crate) certificate: PathBuf,
    /// Where the proxy dials: `unix:/path` or `host:port`. Bound here for as long as this runs.
    pub(crate) backend: String,
    /// What the backend shows of itself in TLS 1.3; without it the backend has no TLS.
    #[serde(default)]
    pub(crate) backend_tls: Option<Certificate>,
    /// The processes of the proxy; the CPU time of all their threads is what is measured.
    pub(crate) pids: Vec<i32>,
    /// Connections open at a time.
    pub(crate) connections: usize,
    /// Bytes of a message: of the work `echo`, and of the one that comes before `idle`.
    #[serde(default)]
    pub(crate) size: usize,
    /// Whether the clients of `handshakes` offer their last session, and need it to be taken.
    #[serde(default)]
    pub(crate) sessions: Sessions,
    /// What strangers do meanwhile, of the work `starve`.
    #[serde(default)]
    pub(crate) flood: Option<Flood>,
    /// Traffic before the measurement.
    #[serde(default)]
    pub(crate) warm_up_ms: u64,
    /// Length of the measurement.
    #[serde(default)]
    pub(crate) measure_ms: u64,
}

/// The kinds of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Work {
    /// Connect, handshake, one byte there and back, close in order; again and again.
    Handshakes,
    /// A message there and back, then the next.
    Echo,
    /// The backend sends as fast as it can.
    ToClient,
    /// The clients send as fast as they can.
    FromClient,
    /// Both at once.
    BothWays,
    /// Connections that have echoed a message and say no more, until a line comes on stdin.
    Idle,
    /// A message there and back on each connection at fixed times, while strangers bring handshakes.
    Starve,
}

/// Handshakes that are always under way.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Flood {
    /// How many at a time.
    pub(crate) in_flight: usize,
    /// Bytes of each ClientHello, if it is to be longer than it has to.
    #[serde(default)]
    pub(crate) hello: usize,
    /// PEM files of a certificate chain and its key, which the clients show and which is refused.
    /// Without one they leave once the server has shown its own.
    #[serde(default)]
    pub(crate) refused: Option<Certificate>,
}

/// Two PEM files.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Certificate {
    pub(crate) chain: PathBuf,
    pub(crate) key: PathBuf,
}

/// What is spoken between client and proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum Tls {
    /// Plain TCP.
    #[serde(rename = "none")]
    None,
    /// TLS 1.2, ECDHE-ECDSA-AES128-GCM-SHA256.
    #[serde(rename = "1.2")]
    V12,
    /// TLS 1.3, TLS_AES_128_GCM_SHA256.
    #[serde(rename = "1.3")]
    V13,
}

/// What becomes of a session once its connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Sessions {
    /// Each handshake is a full one.
    #[default]
    Forgotten,
    /// The next connection of the same lane offers it.
    Resumed,
}

impl Task {
    /// Traffic before the measurement.
    pub(crate) fn warm_up(&self) -> Duration {
        Duration::from_millis(self.warm_up_ms)
    }

    /// Length of the measurement.
    pub(crate) fn measure(&self) -> Duration {
        Duration::from_millis(self.measure_ms)
    }
}
