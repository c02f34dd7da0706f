//! The payload: a stream in which every byte follows from its position.

/// A prime, so that an offset by a power of two, a record or a page is noticed.
pub(crate) const PERIOD: usize = 65_521;
/// The longest piece that can be requested.
const LONGEST: usize = 256 * 1024;

/// The stream, as a table that repeats.
pub(crate) struct Pattern {
    table: Vec<u8>,
}

impl Pattern {
    /// Writes the table.
    pub(crate) fn new() -> Self {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut table: Vec<u8> = (0..PERIOD)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 32) as u8
            })
            .collect();
        for n in 0..LONGEST {
            table.push(table[n]);
        }
        Self { table }
    }

    /// `length` bytes from `offset` on, at most 256 KiB.
    pub(crate) fn piece(&self, offset: u64, length: usize) -> &[u8] {
        let start = (offset % PERIOD as u64) as usize;
        &self.table[start..start + length]
    }

    /// Whether `bytes` equals the stream at `offset`.
    pub(crate) fn matches(&self, offset: u64, bytes: &[u8]) -> bool {
        bytes == self.piece(offset, bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_or_changed_byte_does_not_match() {
        let pattern = Pattern::new();
        let mut bytes = pattern.piece(1 << 40, LONGEST).to_vec();
        assert!(pattern.matches(1 << 40, &bytes));
        assert!(!pattern.matches((1 << 40) + 1, &bytes));
        assert!(!pattern.matches((1 << 40) + 16_384, &bytes));
        bytes[LONGEST - 1] ^= 1;
        assert!(!pattern.matches(1 << 40, &bytes));
    }

    #[test]
    fn pieces_join() {
        let pattern = Pattern::new();
        let whole = pattern.piece(PERIOD as u64 - 10, 20).to_vec();
        assert_eq!(pattern.piece(PERIOD as u64 - 10, 10), &whole[..10]);
        assert_eq!(pattern.piece(PERIOD as u64, 10), &whole[10..]);
    }
}
