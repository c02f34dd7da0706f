//! What happened, and its JSON form: the line of the audit log.

use std::sync::Arc;
use std::time::SystemTime;

use serde::{Serialize, Serializer};

use crate::facts::{Endpoint, Facts};
use crate::outcome::Outcome;

/// Something that happened in a proxy.
///
/// The JSON form is one object with `time`, `event`, and the fields of the kind.
#[derive(Debug)]
pub(crate) struct Event {
    pub time: SystemTime,
    pub kind: EventKind,
}

/// The kinds of events. Each connection has exactly one `Refuse`, or one `Open` and then one `Close`.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum EventKind {
    /// The proxy accepts connections from now on.
    Start { version: &'static str, pid: u32 },
    /// All connections have ended. `cut` is how many were closed because the time was up.
    Stop { cut: usize },
    /// A client was admitted: its handshake is done, and a route chose its backend.
    Open(Arc<Facts>),
    /// The connection of a client that was admitted has ended.
    Close(ConnectionEnd),
    /// The connection has ended before its client was admitted. The facts are those known by then.
    Refuse(ConnectionEnd),
    /// The configuration was read again.
    Reload {
        /// `ok` or `failed`.
        result: &'static str,
        /// How many connections the new configuration does not admit.
        #[serde(skip_serializing_if = "Option::is_none")]
        revoked: Option<usize>,
        /// Why nothing has changed.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// A limit has refused clients. There is one event a second at most for each limit.
    Limit {
        /// The key of the limit, for example `limits.connections`.
        limit: &'static str,
        /// How many clients since the last event of this limit.
        clients: u64,
        /// The listener and the address of the last of them.
        listener: Arc<str>,
        peer: Option<Endpoint>,
    },
    /// An identity was revoked, or its revocation removed.
    Revoke {
        /// `revoked` or `removed`.
        result: &'static str,
        /// The id of the revocation.
        revocation: String,
        /// The identity, for example `cn:alice`.
        what: String,
        /// How many open connections this has ended.
        ended: usize,
    },
    /// An address of a backend has come up or gone down, or an operator has changed its state.
    Backend {
        backend: String,
        address: String,
        /// By order of an operator: `up`, `drain` or `down`.
        state: &'static str,
        /// `up` or `down`.
        health: &'static str,
        /// The error, or who has changed the state.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// Somebody has changed something through the admin API.
    Admin {
        #[serde(flatten)]
        author: Author,
        /// What was asked for, for example `DELETE /v1/connections?identity=cn:alice`.
        action: String,
        /// The answer, for example `200`.
        #[serde(skip_serializing_if = "Option::is_none")]
        result: Option<String>,
    },
}

/// How a connection has ended.
#[derive(Debug, Serialize)]
pub(crate) struct ConnectionEnd {
    #[serde(serialize_with = "word")]
    pub outcome: Outcome,
    /// Why, in words.
    pub cause: Box<str>,
    /// Payload bytes from the client that the backend's socket has taken.
    pub bytes_in: u64,
    /// Payload bytes from the backend that the client's socket has taken.
    pub bytes_out: u64,
    /// The time since accept.
    #[serde(serialize_with = "millis")]
    pub seconds: f64,
    #[serde(flatten)]
    pub facts: Arc<Facts>,
}

/// Who used the admin API.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Author {
    /// The user id of a client at the Unix socket.
    Uid(u32),
    /// The address of a client over TCP.
    Address(Endpoint),
}

impl Event {
    /// An event of this moment.
    pub(crate) fn now(kind: EventKind) -> Self {
        Self {
            time: SystemTime::now(),
            kind,
        }
    }
}

impl EventKind {
    /// The word for the audit log and for event streams, for example `close`.
    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::Start { .. } => "start",
            Self::Stop { .. } => "stop",
            Self::Open(_) => "open",
            Self::Close(_) => "close",
            Self::Refuse(_) => "refuse",
            Self::Reload { .. } => "reload",
            Self::Limit { .. } => "limit",
            Self::Revoke { .. } => "revoke",
            Self::Backend { .. } => "backend",
            Self::Admin { .. } => "admin",
        }
    }

    /// Whether the audit log has a line for it: its list of events is closed.
    pub(crate) const fn is_audited(&self) -> bool {
        match self {
            // It has one event for each refused client already.
            Self::Backend { .. } | Self::Limit { .. } => false,
            Self::Start { .. }
            | Self::Stop { .. }
            | Self::Open(_)
            | Self::Close(_)
            | Self::Refuse(_)
            | Self::Reload { .. }
            | Self::Revoke { .. }
            | Self::Admin { .. } => true,
        }
    }
}

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Line<'a> {
            #[serde(serialize_with = "rfc3339")]
            time: SystemTime,
            event: &'static str,
            #[serde(flatten)]
            kind: &'a EventKind,
        }
        let line = Line {
            time: self.time,
            event: self.kind.as_str(),
            kind: &self.kind,
        };
        line.serialize(serializer)
    }
}

fn rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(*time))
}

fn word<S: Serializer>(outcome: &Outcome, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(outcome.as_str())
}

/// Whole milliseconds: the digits behind them are noise.
fn millis<S: Serializer>(seconds: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((seconds * 1000.0).round() / 1000.0)
}
