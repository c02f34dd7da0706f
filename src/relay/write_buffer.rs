//! Bytes that were read and that the writer has not accepted yet.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

/// It owns memory only while it contains something.
#[derive(Debug, Default)]
pub(crate) struct WriteBuffer {
    bytes: Vec<u8>,
    sent: usize,
}

impl From<Vec<u8>> for WriteBuffer {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, sent: 0 }
    }
}

impl WriteBuffer {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The buffer, for appending.
    pub(super) fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Writes everything and frees the memory. `taken` is called with the size of every write.
    pub(super) fn poll_write<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        writer: &mut W,
        taken: impl FnMut(usize),
    ) -> Poll<io::Result<()>> {
        self.poll_write_by(|bytes| Pin::new(&mut *writer).poll_write(cx, bytes), taken)
    }

    /// Like [`Self::poll_write`], with a function that writes.
    pub(super) fn poll_write_by(
        &mut self,
        mut write: impl FnMut(&[u8]) -> Poll<io::Result<usize>>,
        mut taken: impl FnMut(usize),
    ) -> Poll<io::Result<()>> {
        while self.sent < self.bytes.len() {
            match ready!(write(&self.bytes[self.sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => {
                    self.sent += count;
                    taken(count);
                }
            }
        }
        if !self.bytes.is_empty() {
            self.clear();
        }
        Poll::Ready(Ok(()))
    }
}
