//! Moving bytes both ways between a client and its backend until both have closed.

mod quiet;
pub(crate) mod stream;

use std::time::Duration;

/// How long a connection may be quiet; `None` is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// While both sides are open.
    pub idle: Option<Duration>,
    /// Once one side has closed. Counted from the close or the last byte, whichever was later: an
    /// answer that takes its time is not cut while it moves.
    pub half_close: Option<Duration>,
}

/// How a relay came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Both sides closed, and every byte was passed on.
    Done,
    /// The client's connection failed.
    ClientReset,
    /// The client's stream ended where TLS says it did not (RFC 8446 §6.1).
    ClientTruncated,
    /// The backend's connection failed.
    BackendReset(Answer),
    /// Nothing moved for `idle`.
    Idle,
    /// One side had closed, and nothing moved for `half_close`.
    HalfClosed,
}

/// What the client had of the backend when the backend's connection failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// All of it: the backend closed its side cleanly and would not read on.
    Whole,
    /// An unknown part of it.
    Broken,
}
