//! A byte queue: bytes are added at the end and consumed at the front.

/// A buffer that grows on demand and never shrinks.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// Its content.
    pub(crate) fn filled(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    /// The length of its content in bytes.
    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    /// At least `wanted` bytes to write into. Call [`Self::add`] with the number of bytes that were
    /// used.
    pub(crate) fn room(&mut self, wanted: usize) -> &mut [u8] {
        if self.bytes.len() - self.end < wanted {
            // The rest is a part of a record or of a message, so this moves few bytes.
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            if self.bytes.len() - self.end < wanted {
                self.bytes.resize(self.end + wanted, 0);
            }
        }
        &mut self.bytes[self.end..]
    }

    /// Adds the first `count` bytes of the room to the content.
    pub(crate) fn add(&mut self, count: usize) {
        self.end += count;
        debug_assert!(self.end <= self.bytes.len());
    }

    /// Removes the first `count` bytes.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.end);
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Appends `bytes`.
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        self.room(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.add(bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_in_the_order_they_came() {
        let mut buffer = Buffer::default();
        let (mut sent, mut got) = (Vec::new(), Vec::new());
        for step in 0..200usize {
            let bytes: Vec<u8> = (0..step % 13).map(|n| (step + n) as u8).collect();
            buffer.append(&bytes);
            sent.extend(bytes);
            let count = buffer.len().min(step % 7);
            got.extend_from_slice(&buffer.filled()[..count]);
            buffer.consume(count);
        }
        got.extend_from_slice(buffer.filled());
        assert_eq!(sent, got);
    }
}
