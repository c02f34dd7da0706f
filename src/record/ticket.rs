//! What a server sends its client to resume the session with (RFC 8446 §4.6.1).

use std::fmt::Debug;

/// Somebody who keeps tickets for later connections.
pub(crate) trait Keeper: Debug + Send {
    /// Takes the body of a NewSessionTicket.
    ///
    /// # Errors
    ///
    /// It is none.
    fn keep(&mut self, ticket: &[u8]) -> Result<(), Unreadable>;
}

/// A message that is not what its type says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable;

/// The tickets of a connection, for as long as somebody waits for them.
#[derive(Debug)]
pub(super) struct Tickets {
    keeper: Box<dyn Keeper>,
    /// What has come of the next one; nothing of one that is too long to be kept.
    part: Vec<u8>,
}

impl Tickets {
    pub(super) fn new(keeper: Box<dyn Keeper>) -> Self {
        Self {
            keeper,
            part: Vec::new(),
        }
    }

    /// A part of a ticket of this length.
    pub(super) fn add(&mut self, length: usize, part: &[u8]) {
        if length <= LONGEST_KEPT {
            self.part.extend_from_slice(part);
        }
    }

    /// The ticket is whole.
    pub(super) fn keep(&mut self, length: usize) -> Result<(), Unreadable> {
        let ticket = std::mem::take(&mut self.part);
        match length {
            ..=LONGEST_KEPT => self.keeper.keep(&ticket),
            _ => Ok(()),
        }
    }
}

/// A session with a chain of certificates has a few KiB. What is longer is taken and not kept.
const LONGEST_KEPT: usize = 16 * 1024;
