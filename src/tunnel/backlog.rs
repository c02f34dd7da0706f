//! What was taken of a tunnel for one of its streams, and was not read yet.

use std::collections::VecDeque;
use std::io::IoSlice;

use hyper::body::{Buf, Bytes};

/// The bytes in their order. Without any, it owns no memory.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    first: Bytes,
    more: VecDeque<Bytes>,
    /// Behind these.
    small: Vec<u8>,
    length: usize,
}

impl Backlog {
    pub(super) fn length(&self) -> usize {
        self.length
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The next bytes, as far as they lie in one piece.
    pub(super) fn first(&self) -> &[u8] {
        &self.first
    }

    /// A long frame stays as it is. Short ones are copied together: each of them would hold the whole memory into which
    /// HTTP/2 has read it, and be a write of its own.
    pub(super) fn push(&mut self, frame: Bytes) {
        self.length += frame.len();
        if self.first.is_empty() {
            self.first = frame;
        } else if frame.len() >= LONG {
            self.close_small();
            self.more.push_back(frame);
        } else {
            self.push_short(&frame);
        }
    }

    fn push_short(&mut self, frame: &[u8]) {
        if self.small.len() + frame.len() > PIECE {
            self.close_small();
        }
        if self.small.capacity() - self.small.len() < frame.len() {
            // Twice as much each time, and not more than will be filled.
            let more = self.small.len().min(PIECE - self.small.len());
            self.small.reserve_exact(more.max(frame.len()));
        }
        self.small.extend_from_slice(frame);
    }

    fn close_small(&mut self) {
        if !self.small.is_empty() {
            self.more.push_back(std::mem::take(&mut self.small).into());
        }
    }

    /// The first pieces. Returns how many they are.
    pub(super) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let pieces = std::iter::once(&*self.first)
            .chain(self.more.iter().map(|piece| &**piece))
            .chain([&*self.small]);
        let pieces = pieces.filter(|piece| !piece.is_empty());
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(pieces) {
            *slice = IoSlice::new(piece);
            count += 1;
        }
        count
    }

    /// Drops the next bytes, which were read. There must be as many.
    pub(super) fn consume(&mut self, mut count: usize) {
        self.length -= count;
        while count > 0 {
            let part = count.min(self.first.len());
            self.first.advance(part);
            count -= part;
            if !self.first.is_empty() {
                break;
            }
            self.first = match self.more.pop_front() {
                Some(piece) => piece,
                None => std::mem::take(&mut self.small).into(),
            };
        }
        if self.more.is_empty() {
            self.more.shrink_to_fit();
        }
    }
}

/// A frame of at least so many bytes is long. The memory into which HTTP/2 reads frames is two to three times as large.
const LONG: usize = 12 * 1024;
/// Short ones are copied together to pieces of this size.
const PIECE: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames of these lengths, and their bytes.
    fn filled(lengths: &[usize]) -> (Backlog, Vec<u8>) {
        let mut backlog = Backlog::default();
        let mut all = Vec::new();
        for (index, length) in lengths.iter().enumerate() {
            let frame: Vec<u8> = (0..*length).map(|at| (at + index) as u8).collect();
            all.extend_from_slice(&frame);
            backlog.push(frame.into());
        }
        assert_eq!(backlog.length(), all.len());
        (backlog, all)
    }

    const LENGTHS: &[&[usize]] = &[
        &[],
        &[0, 0],
        &[1],
        &[LONG],
        &[20, 20, 20],
        &[LONG, 20, LONG, 20, 0, 20],
        &[20, LONG, LONG - 1, 1, LONG - 1, 20, LONG],
    ];

    #[test]
    fn bytes_keep_their_order_however_they_are_read() {
        for lengths in LENGTHS {
            for at_once in [1, 7, LONG - 1, LONG, 10 * LONG] {
                let (mut backlog, all) = filled(lengths);
                let mut read = Vec::new();
                while !backlog.is_empty() {
                    let mut slices = [IoSlice::new(&[]); 2];
                    let count = backlog.slices(&mut slices);
                    let seen: Vec<u8> = slices[..count].iter().flat_map(|it| it.to_vec()).collect();
                    assert!(seen.starts_with(backlog.first()) && !backlog.first().is_empty());
                    let taken = seen.len().min(at_once);
                    read.extend_from_slice(&seen[..taken]);
                    backlog.consume(taken);
                }
                assert_eq!(read, all, "{lengths:?}, {at_once}");
                let memory = (backlog.more.capacity(), backlog.small.capacity());
                assert_eq!(memory, (0, 0), "{lengths:?}, {at_once}");
            }
        }
    }

    #[test]
    fn short_frames_become_one_piece_and_long_ones_are_not_copied() {
        let (backlog, _) = filled(&[16; 4096]);
        assert!(backlog.slices(&mut [IoSlice::new(&[]); 8]) == 5);
        let memory: usize = backlog.more.iter().map(|piece| piece.len()).sum();
        assert_eq!(memory + backlog.small.capacity(), 4 * PIECE);
        let mut backlog = Backlog::default();
        backlog.push(vec![1].into());
        let long = Bytes::from(vec![2; LONG]);
        backlog.push(long.clone());
        assert_eq!(backlog.more[0].as_ptr(), long.as_ptr());
    }
}
