//! Why an attempt to reach an address failed.

use std::io;

/// Who is at fault, or what is to be done.
#[derive(Debug)]
pub(crate) enum DialError {
    /// Nobody is at fault for long: the listener's queue is full, or we are out of descriptors.
    /// To be tried again, and no sign of bad health.
    Busy,
    /// The backend does not answer.
    Down(io::Error),
    /// The backend answers, and is not whom it should be, or does not want us.
    Untrusted(String),
    /// The listener at a registered address is this user's, who has not registered it.
    Foreign(u32),
    /// It leads back to us.
    Ours,
    /// The backend has taken the connection and broken it before it was told whose it is.
    Reset,
}
