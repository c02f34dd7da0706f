//! Session tickets from a server (RFC 8446 §4.6.1).

use std::fmt::Debug;

/// Stores tickets for later connections.
pub(crate) trait Keeper: Debug + Send {
    /// Stores the body of a NewSessionTicket.
    ///
    /// # Errors
    ///
    /// The body is not a NewSessionTicket.
    fn keep(&mut self, ticket: &[u8]) -> Result<(), Unreadable>;
}

/// A message whose body does not match its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable;

/// The tickets of a connection, while they are waited for.
#[derive(Debug)]
pub(super) struct Tickets {
    keeper: Box<dyn Keeper>,
    /// The received part of the next ticket. Empty for a ticket that is too long to be stored.
    part: Vec<u8>,
}

impl Tickets {
    pub(super) fn new(keeper: Box<dyn Keeper>) -> Self {
        Self {
            keeper,
            part: Vec::new(),
        }
    }

    /// Adds a part of a ticket with this total length.
    pub(super) fn add(&mut self, length: usize, part: &[u8]) {
        if length <= LONGEST_KEPT {
            self.part.extend_from_slice(part);
        }
    }

    /// The ticket is complete.
    pub(super) fn keep(&mut self, length: usize) -> Result<(), Unreadable> {
        let ticket = std::mem::take(&mut self.part);
        match length {
            ..=LONGEST_KEPT => self.keeper.keep(&ticket),
            _ => Ok(()),
        }
    }
}

/// A session with a certificate chain has a few KiB. A longer ticket is accepted but not stored.
const LONGEST_KEPT: usize = 16 * 1024;
