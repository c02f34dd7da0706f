//! The positions of payloads in a buffer from which they can be sent without a copy.
//!
//! ```text
//! PLAIN        payload payload payload
//! of a suite   header payload tag, header payload tag     only the payloads are filled in
//! ```

use super::aead::TAG;
use super::cipher::{MAX_PAYLOAD, Suite};
use crate::wire::{MOST_PLACES, Places};

/// The room that the writer needs around each payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    before: usize,
    after: usize,
    /// The maximum length of a payload.
    longest: usize,
}

impl Layout {
    /// Payloads without gaps, for a writer that does not seal.
    pub(crate) const PLAIN: Self = Self {
        before: 0,
        after: 0,
        longest: usize::MAX,
    };

    pub(super) fn of(suite: Suite) -> Self {
        Self {
            before: suite.before(),
            after: suite.inner() + TAG,
            longest: MAX_PAYLOAD,
        }
    }

    /// The room that is needed before the first record of a suite if records are opened to this
    /// layout: no payload can be moved to a position behind the start of its own record.
    pub(super) fn headroom(self, suite: Suite) -> usize {
        let theirs = Self::of(suite);
        let grows = (self.before + self.after).saturating_sub(theirs.before + theirs.after);
        self.before.saturating_sub(theirs.before) + MOST_PIECES * grows
    }

    /// The places to read payloads into: as many as fit into `buffer`, each of the maximum length.
    pub(crate) fn places(self, buffer: &mut [u8]) -> Places<'_> {
        let length = self.longest.min(buffer.len() - self.before - self.after);
        Places::new(buffer, self.before, length, self.after)
    }
}

/// The payloads in a buffer, from its start, in a [`Layout`].
///
/// They are too large to be copied at each read, and stay beside the buffer.
#[derive(Debug)]
pub(crate) struct Pieces {
    layout: Layout,
    /// Only the first `count` are valid.
    lengths: [usize; MOST_PIECES],
    count: usize,
    length: usize,
    /// The end of the last payload, and the bytes that will follow it.
    end: usize,
}

/// The position of the next payload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub at: usize,
    begins: Begins,
}

#[derive(Clone, Copy, Debug)]
enum Begins {
    Piece,
    /// It continues the last one.
    Nothing,
}

impl Pieces {
    /// Without payloads.
    pub(crate) const fn new(layout: Layout) -> Self {
        Self {
            layout,
            lengths: [0; MOST_PIECES],
            count: 0,
            length: 0,
            end: 0,
        }
    }

    /// Removes all payloads, before the buffer is filled in this layout.
    pub(crate) fn clear(&mut self, layout: Layout) {
        self.layout = layout;
        self.count = 0;
        self.length = 0;
        self.end = 0;
    }

    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    /// Adds the payloads of a read of `length` bytes into [`Layout::places`].
    pub(crate) fn add_read(&mut self, mut length: usize) {
        while length > 0 {
            let part = length.min(self.layout.longest);
            let Some(place) = self.place(part) else {
                return;
            };
            self.add(place, part);
            length -= part;
        }
    }

    /// Bytes of payload.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    pub(super) fn lengths(&self) -> &[usize] {
        &self.lengths[..self.count]
    }

    /// The position for a payload of at most `longest` bytes: directly behind the last one if both
    /// fit into one record. `None` if there is no room for another one.
    pub(super) fn place(&self, longest: usize) -> Option<Place> {
        match self.lengths().last() {
            Some(last) if last.saturating_add(longest) <= self.layout.longest => Some(Place {
                at: self.end - self.layout.after,
                begins: Begins::Nothing,
            }),
            _ if self.count < MOST_PIECES => Some(Place {
                at: self.end + self.layout.before,
                begins: Begins::Piece,
            }),
            _ => None,
        }
    }

    /// Adds a payload that is in its place.
    pub(super) fn add(&mut self, place: Place, length: usize) {
        match place.begins {
            _ if length == 0 => return,
            Begins::Piece => {
                self.lengths[self.count] = length;
                self.count += 1;
            }
            Begins::Nothing => self.lengths[self.count - 1] += length,
        }
        self.length += length;
        self.end = place.at + length + self.layout.after;
    }
}

/// The number of full records that are moved at a time.
pub(super) const RECORDS: usize = MOST_PLACES;

/// Two neighbours together are longer than one record, or they would be one payload, and at most
/// [`RECORDS`] full records are opened at a time.
pub(super) const MOST_PIECES: usize = 2 * RECORDS + 1;
