//! Moving bytes both ways between a client and its backend until both have closed.
//!
//! There is one relay, [`joint`]. Each of its two sides is [`clear`], where every byte is payload, or has
//! [`records`], which are opened and sealed here. What is promised is said here and tested for all.

mod clear;
mod drive;
mod endpoint;
mod idle_timer;
mod joint;
mod records;
mod write_buffer;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub(crate) use self::endpoint::{Endpoint, poll_discard};
#[cfg(any(test, fuzzing))]
pub(crate) use self::joint::state::State as Exported;
pub(crate) use self::joint::{Heard, Joint};
pub(crate) use self::records::Records;
use crate::traffic::Traffic;

/// What a relay goes by, and where it counts.
#[derive(Clone, Copy)]
pub(crate) struct Relay<'a> {
    pub settings: &'a InactivityTimeouts,
    pub traffic: &'a Traffic,
}

/// How long a connection may be quiet; `None` is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InactivityTimeouts {
    /// While both sides are open.
    pub idle: Option<Duration>,
    /// Once one side has closed. Counted from the close or the last byte, whichever was later: an
    /// answer that takes its time is not cut while it moves.
    pub half_close: Option<Duration>,
    /// How long a peer may owe an acknowledgement of what it was sent.
    pub unacknowledged: Option<Duration>,
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
    /// Nothing more was to be read, and what had been read was delivered.
    Stopped,
    /// The keys have sealed all that they may, and TLS 1.2 has no others (RFC 8446 §5.5).
    KeysSpent,
}

/// One of the two that a relay joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    Backend,
}

/// What the client had of the backend when the backend's connection failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// All of it: the backend closed its side cleanly and would not read on.
    Whole,
    /// An unknown part of it.
    Broken,
}

#[cfg(test)]
mod tests;
