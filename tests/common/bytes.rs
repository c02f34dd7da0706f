//! Streams in which every byte is known, so that lost, repeated and reordered bytes are found.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// A generator in which every byte depends on the seed and its position (xorshift64*).
#[derive(Clone, Debug)]
pub struct Bytes {
    state: u64,
}

impl Bytes {
    pub fn seeded(seed: u64) -> Self {
        Self {
            state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        }
    }

    fn next(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            let bytes = self.next().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }

    /// A length from 1 to `most` bytes, for the next piece.
    pub fn length(&mut self, most: usize) -> usize {
        (self.next() as usize % most) + 1
    }
}

/// Bytes are generated and checked in blocks of this size. It is a multiple of 8, so that the size
/// of pieces does not matter.
const BLOCK: usize = 64 * 1024;

/// Writes `total` bytes of the stream `seed` in pieces of random size, and closes the side.
pub async fn send<W: AsyncWrite + Unpin>(
    writer: &mut W,
    seed: u64,
    total: usize,
) -> io::Result<()> {
    let mut bytes = Bytes::seeded(seed);
    let mut pieces = Bytes::seeded(!seed);
    let mut block = vec![0; BLOCK];
    let mut left = total;
    while left > 0 {
        let size = left.min(BLOCK);
        bytes.fill(&mut block[..size]);
        let mut rest = &block[..size];
        while !rest.is_empty() {
            let piece = pieces.length(32 * 1024).min(rest.len());
            writer.write_all(&rest[..piece]).await?;
            rest = &rest[piece..];
        }
        left -= size;
    }
    writer.shutdown().await
}

/// Reads to the end, and checks that the bytes are the complete stream `seed`.
pub async fn expect<R: AsyncRead + Unpin>(reader: &mut R, seed: u64, total: usize) {
    let mut bytes = Bytes::seeded(seed);
    let (mut block, mut wanted) = (vec![0; BLOCK], vec![0; BLOCK]);
    let mut seen = 0;
    while seen < total {
        let size = (total - seen).min(BLOCK);
        reader
            .read_exact(&mut block[..size])
            .await
            .expect("more bytes");
        bytes.fill(&mut wanted[..size]);
        assert!(
            block[..size] == wanted[..size],
            "wrong bytes within {seen}..{}",
            seen + size
        );
        seen += size;
    }
    let more = reader.read(&mut block).await.expect("a clean end");
    assert_eq!(more, 0, "more bytes than were sent");
}
