//! The bytes of a stream that HTTP/2 has taken and not sent yet.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper::body::Buf;

/// How many bytes of a stream wait until the peer gives room for them. A reset of the stream would destroy them.
#[derive(Clone, Debug, Default)]
pub(super) struct Queued(Arc<AtomicUsize>);

impl Queued {
    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// A copy of the bytes, which count here until they have left.
    pub(super) fn payload(&self, bytes: &[u8]) -> Payload {
        self.of(bytes.to_vec(), bytes.len())
    }

    /// The first `length` bytes of a room. If they fill little of it, they are copied, and it is used again.
    pub(super) fn payload_in(&self, room: Vec<u8>, length: usize) -> Payload {
        if length >= ROOM / 2 {
            return self.of(room, length);
        }
        let payload = self.payload(&room[..length]);
        put_back(room);
        payload
    }

    fn of(&self, bytes: Vec<u8>, length: usize) -> Payload {
        self.0.fetch_add(length, Ordering::Relaxed);
        Payload {
            bytes,
            unsent: 0..length,
            queued: Some(self.clone()),
        }
    }
}

/// Memory for a read whose bytes become a payload.
pub(super) fn room() -> Vec<u8> {
    let room = ROOMS.with_borrow_mut(Vec::pop);
    room.unwrap_or_else(|| vec![0; ROOM])
}

pub(super) fn put_back(room: Vec<u8>) {
    ROOMS.with_borrow_mut(|rooms| {
        if rooms.len() < MOST_ROOMS {
            rooms.push(room);
        }
    });
}

/// A read of the relay.
const ROOM: usize = 64 * 1024;
/// The rooms that a thread keeps for the next reads.
const MOST_ROOMS: usize = 16;

thread_local! {
    static ROOMS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// The content of a frame of data. Dropped when all of it was sent, or will never be.
#[derive(Debug)]
pub(crate) struct Payload {
    bytes: Vec<u8>,
    unsent: Range<usize>,
    queued: Option<Queued>,
}

impl Payload {
    /// An empty frame, for the end of a stream.
    pub(super) fn none() -> Self {
        Vec::new().into()
    }

    fn leave(&self, count: usize) {
        if let Some(queued) = &self.queued {
            queued.0.fetch_sub(count, Ordering::Relaxed);
        }
    }
}

/// They count nowhere.
impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self {
            unsent: 0..bytes.len(),
            bytes,
            queued: None,
        }
    }
}

impl Buf for Payload {
    fn remaining(&self) -> usize {
        self.unsent.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes[self.unsent.clone()]
    }

    fn advance(&mut self, count: usize) {
        assert!(count <= self.unsent.len(), "it has so many bytes");
        self.unsent.start += count;
        self.leave(count);
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        self.leave(self.unsent.len());
        if self.bytes.len() == ROOM {
            put_back(std::mem::take(&mut self.bytes));
        }
    }
}
