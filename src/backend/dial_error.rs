//! Why an attempt to reach an address failed.

use std::io;

/// Who is at fault, and whether to try again.
#[derive(Debug)]
pub(crate) enum DialError {
    /// The listener's queue is full. Try again; it does not count against the address's health.
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
}
