//! Bytes that come in at the end and leave at the front.

/// A buffer that grows when asked for room and is never shrunk.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// What is in it.
    pub(crate) fn filled(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    /// How much is in it.
    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    /// At least `wanted` bytes to write into; say with [`Self::add`] how many were used.
    pub(crate) fn room(&mut self, wanted: usize) -> &mut [u8] {
        if self.bytes.len() - self.end < wanted {
            // What is left is a part of a record or of a message, so this moves little.
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            if self.bytes.len() - self.end < wanted {
                self.bytes.resize(self.end + wanted, 0);
            }
        }
        &mut self.bytes[self.end..]
    }

    /// Takes the next `count` bytes of the room in.
    pub(crate) fn add(&mut self, count: usize) {
        self.end += count;
        debug_assert!(self.end <= self.bytes.len());
    }

    /// Drops the first `count` bytes.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.end);
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Takes all of `bytes` in.
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
