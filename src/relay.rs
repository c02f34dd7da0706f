//! Moves bytes in both directions between a client and its backend until both have closed.
//!
//! There is one relay, [`joint`]. Each of its two sides is either [`clear`], a stream of payload,
//! or [`records`], whose TLS records are opened and sealed here. All combinations are tested for
//! the same promises.

mod clear;
mod drive;
mod endpoint;
mod idle_timer;
mod joint;
mod pass;
mod record_stream;
mod records;
mod write_buffer;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub(crate) use self::endpoint::{Endpoint, poll_discard};
#[cfg(any(test, fuzzing))]
pub(crate) use self::joint::state::State as Exported;
pub(crate) use self::joint::{Heard, Joint};
pub(crate) use self::record_stream::RecordStream;
pub(crate) use self::records::Records;
use crate::traffic::Traffic;
use crate::wire::Patience;

/// The limits of a relay, and its counters.
#[derive(Clone, Copy)]
pub(crate) struct Relay<'a> {
    pub settings: &'a InactivityTimeouts,
    pub traffic: &'a Traffic,
}

/// How long a connection may be inactive; `None` is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InactivityTimeouts {
    /// Without a byte in either direction, while both sides are open.
    pub idle: Option<Duration>,
    /// After one side has closed. Counted from the close or the last byte, whichever is later: a
    /// slow answer is not cut while it moves.
    pub half_close: Option<Duration>,
    /// How long a peer may leave sent bytes unacknowledged.
    pub unacknowledged: Option<Duration>,
}

impl From<InactivityTimeouts> for Patience {
    fn from(timeouts: InactivityTimeouts) -> Self {
        Self {
            half_close: timeouts.half_close,
            unacknowledged: timeouts.unacknowledged,
        }
    }
}

/// How a relay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Both sides closed, and every byte was passed on.
    Done,
    /// The client's connection failed.
    ClientReset,
    /// The client's stream ended without `close_notify` (RFC 8446 §6.1).
    ClientTruncated,
    /// The backend's connection failed.
    BackendReset(Answer),
    /// Nothing moved for `idle`.
    Idle,
    /// One side had closed, and nothing moved for `half_close`.
    HalfClosed,
    /// The relay was told to read no more, and everything that it had read was delivered.
    Stopped,
    /// The keys have sealed as many records as they may, and TLS 1.2 cannot replace them (RFC 8446
    /// §5.5).
    KeysSpent,
}

/// One of the two sides of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    Backend,
}

/// What the client had received when the backend's connection failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// The complete answer: the backend closed its side in order and did not read any more.
    Whole,
    /// An unknown part of the answer.
    Broken,
}

#[cfg(test)]
mod tests;
