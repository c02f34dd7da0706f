//! The bytes of a stream that HTTP/2 has taken and not sent yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper::body::{Buf, Bytes};

/// How many bytes of a stream wait until the peer gives room for them. A reset of the stream would destroy them.
#[derive(Clone, Debug, Default)]
pub(super) struct Queued(Arc<AtomicUsize>);

impl Queued {
    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Bytes that count here until they have left.
    pub(super) fn payload(&self, bytes: Bytes) -> Payload {
        self.0.fetch_add(bytes.len(), Ordering::Relaxed);
        Payload {
            counted: bytes.len(),
            bytes,
            queued: Some(self.clone()),
        }
    }
}

/// The content of a frame of data. Dropped when all of it was sent, or will never be.
#[derive(Debug)]
pub(crate) struct Payload {
    bytes: Bytes,
    counted: usize,
    queued: Option<Queued>,
}

impl Payload {
    /// An empty frame, for the end of a stream.
    pub(super) fn none() -> Self {
        Bytes::new().into()
    }
}

/// They count nowhere.
impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self {
            bytes,
            counted: 0,
            queued: None,
        }
    }
}

impl Buf for Payload {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        if let Some(queued) = &self.queued {
            queued.0.fetch_sub(self.counted, Ordering::Relaxed);
        }
    }
}
