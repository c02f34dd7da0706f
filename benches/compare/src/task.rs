//! The measurement, as given on the command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

/// One measurement of one proxy.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Task {
    /// The behaviour of the clients.
    pub(crate) work: Work,
    /// The address of the proxy.
    pub(crate) target: SocketAddr,
    /// The protocol of the clients.
    pub(crate) tls: Tls,
    /// The PEM file with the single certificate that the proxy must present.
    pub(crate) certificate: PathBuf,
    /// The address that the proxy dials: `unix:/path` or `host:port`. This program listens there.
    pub(crate) backend: String,
    /// The certificate of a backend with TLS 1.3; without it the backend has no TLS.
    #[serde(default)]
    pub(crate) backend_tls: Option<Certificate>,
    /// The processes of the proxy. The CPU time of all their threads is measured.
    pub(crate) pids: Vec<i32>,
    /// The number of connections at a time.
    pub(crate) connections: usize,
    /// Bytes of a message: for `echo`, and for the message before `idle`.
    #[serde(default)]
    pub(crate) size: usize,
    /// Whether the clients of `handshakes` offer their last session, which must then be resumed.
    #[serde(default)]
    pub(crate) sessions: Sessions,
    /// For `handshakes`, the hosts that clients ask for, instead of localhost with its `certificate`.
    #[serde(default)]
    pub(crate) hosts: Vec<Host>,
    /// The key exchanges that the clients offer.
    #[serde(default)]
    pub(crate) groups: Groups,
    /// The certificate of the clients of `idle` and of tunnels, if they have one.
    #[serde(default)]
    pub(crate) own: Option<Certificate>,
    /// The number of tunnels that carry the connections as streams; 0 is none.
    #[serde(default)]
    pub(crate) tunnels: usize,
    /// How long every byte is on its way to the proxy, and back: a network between them. 0 is none.
    #[serde(default)]
    pub(crate) one_way_ms: u64,
    /// For `echo` in tunnels, one more stream.
    #[serde(default)]
    pub(crate) beside: Option<Beside>,
    /// For `starve`, the time between two messages of a connection.
    #[serde(default = "period_ms")]
    pub(crate) period_ms: u64,
    /// For `starve`, the number of measurements on the same connections, each with its warm-up. The
    /// answer of each is a line on stdout.
    #[serde(default = "one")]
    pub(crate) windows: u32,
    /// The flood beside the work `starve`.
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
    /// Connect, handshake, one byte in each direction, close in order; again and again.
    Handshakes,
    /// Round trips of messages, one after the other.
    Echo,
    /// The backend sends as fast as it can.
    ToClient,
    /// The clients send as fast as they can.
    FromClient,
    /// Both at the same time.
    BothWays,
    /// The backend sends, and the clients discard what arrives without opening it.
    SaturatedToClient,
    /// The clients send what was sealed before, and the backend discards it.
    SaturatedFromClient,
    /// Connections that have echoed a message and are idle until a line comes on stdin.
    Idle,
    /// Round trips at fixed times on each connection, beside a flood of handshakes.
    Starve,
}

/// A stream beside the echoes of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Beside {
    /// The backend sends without end, and the client gives no room.
    UnreadByClient,
    /// The client sends as much as it may, and the backend reads nothing.
    UnreadByBackend,
    /// The backend sends as fast as it can.
    ToClient,
    /// The client sends as fast as it can.
    FromClient,
}

/// Handshakes that are always in progress.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Flood {
    /// The number of handshakes at a time.
    pub(crate) in_flight: usize,
    /// Bytes of each ClientHello, if it must be longer than necessary.
    #[serde(default)]
    pub(crate) hello: usize,
    /// PEM files of a certificate chain and its key, which the clients present and the server
    /// refuses. Without them, the clients leave after the server has presented its certificate.
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

/// The protocol between client and proxy.
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

/// A name, and the PEM file with the certificate that the proxy must present for it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Host {
    /// For SNI.
    pub(crate) name: String,
    /// The file.
    pub(crate) certificate: PathBuf,
}

/// Key exchanges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Groups {
    /// X25519 alone.
    #[default]
    Classic,
    /// X25519MLKEM768, or X25519 with a server that does not know it.
    Hybrid,
}

/// What happens to a session after its connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Sessions {
    /// Every handshake is a full one.
    #[default]
    Forgotten,
    /// The next connection of the same lane offers it.
    Resumed,
}

fn period_ms() -> u64 {
    20
}

fn one() -> u32 {
    1
}

impl Task {
    /// The time between two messages of a connection, whether the first one was answered or not. If a
    /// message waits to be sent, it waits for the proxy, and that counts.
    pub(crate) fn period(&self) -> Duration {
        Duration::from_millis(self.period_ms)
    }

    /// How long every byte is on its way.
    pub(crate) fn one_way(&self) -> Duration {
        Duration::from_millis(self.one_way_ms)
    }

    /// Traffic before the measurement.
    pub(crate) fn warm_up(&self) -> Duration {
        Duration::from_millis(self.warm_up_ms)
    }

    /// Length of the measurement.
    pub(crate) fn measure(&self) -> Duration {
        Duration::from_millis(self.measure_ms)
    }
}
