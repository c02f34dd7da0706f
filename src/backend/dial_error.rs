//! Why an attempt to reach an address failed.

use std::io;

/// Who is at fault, and whether to try again.
#[derive(Debug)]
pub(crate) enum DialError {
    /// The listener's queue is full, or there is no place in the tunnels to it. Try again; it does not count against the address's health.
    Busy,
    /// Vestibule: this process or this machine has no free descriptor, or no memory for a socket. Try
    /// again.
    Exhausted,
    /// The backend does not answer.
    Down(io::Error),
    /// The backend answers, but its certificate is not accepted, or it does not accept ours.
    Untrusted(String),
    /// The listener at a registered address belongs to this uid, which did not register it.
    Foreign(u32),
    /// The address leads back to this Vestibule.
    Ours,
    /// The backend accepted the connection and reset it before it had read the PROXY protocol
    /// header.
    Reset,
    /// The server of a tunnel refuses the stream, and will refuse the next one as well.
    Refused(String),
    /// A stream or its tunnel has failed before the answer: the backend may have been asked.
    Lost(String),
}

impl DialError {
    /// The same error for another connection that waited for the same attempt.
    pub(super) fn shared(&self) -> Self {
        match self {
            Self::Busy => Self::Busy,
            Self::Exhausted => Self::Exhausted,
            Self::Down(error) => Self::Down(io::Error::new(error.kind(), error.to_string())),
            Self::Untrusted(error) => Self::Untrusted(error.clone()),
            Self::Foreign(owner) => Self::Foreign(*owner),
            Self::Ours => Self::Ours,
            Self::Reset => Self::Reset,
            Self::Refused(error) => Self::Refused(error.clone()),
            Self::Lost(error) => Self::Lost(error.clone()),
        }
    }
}
