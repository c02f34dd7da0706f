//! Long work beside threads that must not wait for it.
//!
//! Looking at ten thousand connections takes some milliseconds. If that runs on the CPU of a worker, the kernel lets
//! the worker wait for its next tick, which may take 4 ms. So such work offers the CPU to others in between.

use std::thread;
use std::time::{Duration, Instant};

/// The time since others could last have the CPU.
#[derive(Debug)]
pub(crate) struct TimeSlice {
    began: Instant,
    steps: u32,
}

impl TimeSlice {
    pub(crate) fn begin() -> Self {
        Self {
            began: Instant::now(),
            steps: 0,
        }
    }

    /// To be called between two small steps, and without a lock: lets other threads run if it is time.
    pub(crate) fn step(&mut self) {
        self.steps += 1;
        // Reading the clock costs as much as a small step.
        if self.steps.is_multiple_of(STEPS) && self.began.elapsed() >= LONGEST {
            thread::yield_now();
            self.began = Instant::now();
        }
    }
}

/// The items, with a step of a [`TimeSlice`] before each.
pub(crate) fn in_slices<I: IntoIterator>(items: I) -> impl Iterator<Item = I::Item> {
    let mut slice = TimeSlice::begin();
    items.into_iter().inspect(move |_| slice.step())
}

/// A text that is written in slices.
#[derive(Debug)]
pub(crate) struct SlicedText {
    text: Vec<u8>,
    slice: TimeSlice,
}

impl SlicedText {
    pub(crate) fn new() -> Self {
        Self {
            text: Vec::new(),
            slice: TimeSlice::begin(),
        }
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.text
    }
}

impl std::io::Write for SlicedText {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.slice.step();
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A worker waits for so long at most: less than it takes for one handshake.
const LONGEST: Duration = Duration::from_micros(100);

const STEPS: u32 = 16;

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn nothing_is_lost_between_two_slices() {
        let slowly = |item: &u32| {
            let begun = Instant::now();
            while begun.elapsed() < LONGEST / 4 {}
            *item
        };
        let items: Vec<u32> = (0..100).collect();
        assert_eq!(in_slices(&items).map(slowly).collect::<Vec<_>>(), items);
        let mut text = SlicedText::new();
        for item in &items {
            write!(text, "{item} ").expect("memory");
        }
        let expected: String = items.iter().map(|item| format!("{item} ")).collect();
        assert_eq!(text.into_bytes(), expected.as_bytes());
    }
}
