//! Where payloads lie in a buffer, so that they can be sent from there without a copy.
//!
//! ```text
//! PLAIN        payload payload payload
//! of a suite   header payload tag, header payload tag     the payloads alone are there yet
//! ```

use super::aead::TAG;
use super::cipher::{MAX_PAYLOAD, Suite};
use crate::wire::{MOST_PLACES, Places};

/// What the writer of payloads wants to have around each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    before: usize,
    after: usize,
    /// The longest that one may be.
    longest: usize,
}

impl Layout {
    /// One behind the other, for a writer that seals nothing.
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

    /// What must be left before the first of a suite's records if they are opened to this layout:
    /// no payload can be opened to a place behind its own record's start.
    pub(super) fn headroom(self, suite: Suite) -> usize {
        let theirs = Self::of(suite);
        let grows = (self.before + self.after).saturating_sub(theirs.before + theirs.after);
        self.before.saturating_sub(theirs.before) + MOST_PIECES * grows
    }

    /// The places to read payloads into: as many as fit into `buffer`, all of the greatest length.
    pub(crate) fn places(self, buffer: &mut [u8]) -> Places<'_> {
        let length = self.longest.min(buffer.len() - self.before - self.after);
        Places::new(buffer, self.before, length, self.after)
    }
}

/// The payloads that lie in a buffer, from its start, as a [`Layout`] has them.
///
/// It is larger than a connection should copy at each read: it stays where the buffer is.
#[derive(Debug)]
pub(crate) struct Pieces {
    layout: Layout,
    /// Only the first `count` have a meaning.
    lengths: [usize; MOST_PIECES],
    count: usize,
    length: usize,
    /// Where the last one ends, with what is to come behind it.
    end: usize,
}

/// Where the next payload is to go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub at: usize,
    begins: Begins,
}

#[derive(Clone, Copy, Debug)]
enum Begins {
    Piece,
    /// It goes on with the last one.
    Nothing,
}

impl Pieces {
    /// None yet.
    pub(crate) const fn new(layout: Layout) -> Self {
        Self {
            layout,
            lengths: [0; MOST_PIECES],
            count: 0,
            length: 0,
            end: 0,
        }
    }

    /// Forgets them: the buffer is to be filled again, to this layout.
    pub(crate) fn clear(&mut self, layout: Layout) {
        self.layout = layout;
        self.count = 0;
        self.length = 0;
        self.end = 0;
    }

    /// How they lie.
    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    /// Takes what a read of so many bytes has left in [`Layout::places`].
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

    /// Where a payload of no more than `longest` bytes is to go: behind the last one, if they fit into
    /// one record. `None` when there is no room for another.
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

    /// A payload has come to its place.
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

/// How many full records are moved at a time.
pub(super) const RECORDS: usize = MOST_PLACES;

/// Two neighbours are longer than one record together, or they would be one, and no more is opened
/// at a time than [`RECORDS`] full ones.
pub(super) const MOST_PIECES: usize = 2 * RECORDS + 1;
