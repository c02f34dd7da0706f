//! The bounded queue between the threads that log and the one thread that writes.

use std::collections::VecDeque;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vestibule::lost_lines;

/// Lines that wait to be written.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// Wakes the thread that writes.
    has_work: Condvar,
    /// Wakes the threads that wait until everything is written.
    has_written: Condvar,
}

#[derive(Debug)]
struct State {
    lines: VecDeque<Line>,
    /// The bytes in `lines` and in the lines that are being written.
    bytes: usize,
    /// Lines that were lost and not yet reported. While there are any, all other lines are dropped too,
    /// so that each gap has one report.
    dropped: u64,
    /// Since when the output has taken nothing of what is being written.
    waits_since: Option<Instant>,
    /// The last write failed. A report would be lost as well, so the next line is tried first.
    is_broken: bool,
}

#[derive(Debug)]
struct Line {
    bytes: Box<[u8]>,
    /// The number of lines that are lost if this line is: 1, or the number in a report.
    stands_for: u64,
}

/// Whether a line may be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Bounded,
    Needed,
}

enum Work {
    Write { bytes: Vec<u8>, stands_for: u64 },
    Report(u64),
}

impl Queue {
    pub(super) const fn new() -> Self {
        Self {
            state: Mutex::new(State {
                lines: VecDeque::new(),
                bytes: 0,
                dropped: 0,
                waits_since: None,
                is_broken: false,
            }),
            has_work: Condvar::new(),
            has_written: Condvar::new(),
        }
    }

    /// Queues a line, or drops and counts it. Never waits for the output.
    pub(super) fn push(&self, line: &[u8], room: Room, stands_for: u64) {
        let mut state = self.state();
        if room == Room::Bounded && !state.has_room(line.len()) {
            state.dropped += stands_for;
            lost_lines::add(stands_for);
            return;
        }
        state.bytes += line.len();
        state.lines.push_back(Line {
            bytes: line.into(),
            stands_for,
        });
        drop(state);
        self.has_work.notify_one();
    }

    /// Writes lines for ever. `report` queues a line that says how many were lost.
    pub(super) fn write_all(
        &self,
        output: &mut impl FnMut(&[u8]) -> io::Result<()>,
        report: impl Fn(u64),
    ) {
        loop {
            self.write_next(output, &report);
        }
    }

    fn write_next(&self, output: &mut impl FnMut(&[u8]) -> io::Result<()>, report: &impl Fn(u64)) {
        match self.next() {
            Work::Report(dropped) => report(dropped),
            Work::Write { bytes, stands_for } => {
                let written = bytes.chunks(ATOMIC).try_for_each(|chunk| {
                    output(chunk)?;
                    self.state().waits_since = Some(Instant::now());
                    self.has_written.notify_all();
                    Ok(())
                });
                self.done(bytes.len(), stands_for, &written);
            }
        }
    }

    fn next(&self) -> Work {
        let mut state = self.state();
        loop {
            if let Some(work) = state.work() {
                return work;
            }
            let waited = self.has_work.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn done(&self, bytes: usize, stands_for: u64, written: &io::Result<()>) {
        let mut state = self.state();
        state.bytes -= bytes;
        state.waits_since = None;
        state.is_broken = written.is_err();
        if state.is_broken {
            state.dropped += stands_for;
            // A line that stands for others says that they were dropped, and they are counted.
            if stands_for == 1 {
                lost_lines::add(1);
            }
        }
        drop(state);
        self.has_written.notify_all();
    }

    /// Waits until everything is written. Gives up when the output has taken nothing for `patience`,
    /// and after `longest` in any case.
    pub(super) fn flush(&self, patience: Duration, longest: Duration) {
        let start = Instant::now();
        let mut state = self.state();
        while !state.is_written() {
            let last = state.waits_since.map_or(start, |since| since.max(start));
            let end = (last + patience).min(start + longest);
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.has_written.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn has_room(&self, bytes: usize) -> bool {
        // While the output is broken, each line is tried: the output may work again.
        let is_after_a_gap = self.dropped > 0 && !self.is_broken;
        let is_stuck = self
            .waits_since
            .is_some_and(|since| since.elapsed() >= STUCK);
        let most = if is_stuck { MOST_OF_STUCK } else { MOST };
        !is_after_a_gap && self.bytes + bytes <= most
    }

    /// The next thing for the thread that writes. Lines are written before the report of the gap after
    /// them.
    fn work(&mut self) -> Option<Work> {
        if self.dropped > 0 && !self.is_broken && self.bytes <= ROOM_AGAIN {
            return Some(Work::Report(std::mem::take(&mut self.dropped)));
        }
        let first = self.lines.pop_front()?;
        let mut bytes = first.bytes.into_vec();
        let mut stands_for = first.stands_for;
        while let Some(line) = self
            .lines
            .pop_front_if(|line| bytes.len() + line.bytes.len() <= ATOMIC)
        {
            bytes.extend_from_slice(&line.bytes);
            stands_for += line.stands_for;
        }
        self.waits_since = Some(Instant::now());
        Some(Work::Write { bytes, stands_for })
    }

    fn is_written(&self) -> bool {
        self.bytes == 0 && (self.dropped == 0 || self.is_broken)
    }
}

/// PIPE_BUF: a pipe takes up to this many bytes completely or not at all (pipe(7)), so that a process
/// that ends in the middle of a write leaves no half line.
const ATOMIC: usize = 4096;

/// The limit while the reader is slow: about a second of debug lines on a busy machine.
const MOST: usize = 4 << 20;

/// If the output has taken nothing for this long, nobody reads it.
const STUCK: Duration = Duration::from_secs(5);

/// The limit while nobody reads: enough for how the trouble began.
const MOST_OF_STUCK: usize = 64 << 10;

/// Lines are queued again when this little is left to write.
const ROOM_AGAIN: usize = MOST_OF_STUCK / 2;

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::sync::mpsc::sync_channel;
    use std::thread;

    use super::*;

    /// Writes until the queue is empty, and returns the output.
    fn written(queue: &Queue) -> String {
        let output = RefCell::new(Vec::new());
        while queue.state().bytes > 0 || queue.state().dropped > 0 {
            let mut write = |bytes: &[u8]| {
                output.borrow_mut().extend_from_slice(bytes);
                Ok(())
            };
            queue.write_next(&mut write, &|dropped| report(queue, dropped));
        }
        String::from_utf8(output.into_inner()).expect("text")
    }

    fn report(queue: &Queue, dropped: u64) {
        let line = format!("dropped {dropped}\n");
        queue.push(line.as_bytes(), Room::Needed, dropped);
    }

    fn say(queue: &Queue, line: &str) {
        queue.push(format!("{line}\n").as_bytes(), Room::Bounded, 1);
    }

    #[test]
    fn lines_are_written_whole_and_in_order() {
        let queue = Queue::new();
        let lines: Vec<String> = (0..2000).map(|i| format!("line {i}")).collect();
        for line in &lines {
            say(&queue, line);
        }
        assert!(written(&queue).lines().eq(lines.iter()));
    }

    #[test]
    fn lines_without_room_are_dropped_and_counted_at_the_gap() {
        let queue = Queue::new();
        let line = "x".repeat(1023);
        for _ in 0..MOST / 1024 + 7 {
            say(&queue, &line);
        }
        // Small enough to fit, but after the gap.
        say(&queue, "small");
        let first = written(&queue);
        say(&queue, "after");
        let all = first + &written(&queue);
        let mut lines = all.lines();
        assert_eq!(
            lines.by_ref().take_while(|it| *it == line).count(),
            MOST / 1024
        );
        let last: Vec<&str> = all.lines().skip(MOST / 1024).collect();
        assert_eq!(last, ["dropped 8", "after"]);
    }

    #[test]
    fn needed_lines_are_never_dropped() {
        let queue = Queue::new();
        let line = "x".repeat(MOST);
        queue.push(line.as_bytes(), Room::Needed, 1);
        queue.push(b"\nend\n", Room::Needed, 1);
        assert!(written(&queue).ends_with("x\nend\n"));
    }

    #[test]
    fn lines_that_fail_are_counted_and_reported_once_writing_works() {
        let queue = Queue::new();
        let mut fails = |_: &[u8]| Err(io::ErrorKind::BrokenPipe.into());
        for _ in 0..3 {
            say(&queue, "lost");
            queue.write_next(&mut fails, &|_| panic!("a report that would be lost"));
        }
        queue.flush(Duration::MAX / 4, Duration::MAX / 4);
        say(&queue, "kept");
        assert_eq!(written(&queue), "kept\ndropped 3\n");
    }

    #[test]
    fn a_report_that_is_lost_is_added_to_the_next() {
        let queue = Queue::new();
        queue.push(b"dropped 5\n", Room::Needed, 5);
        let mut fails = |_: &[u8]| Err(io::ErrorKind::StorageFull.into());
        queue.write_next(&mut fails, &|_| ());
        say(&queue, "kept");
        assert_eq!(written(&queue), "kept\ndropped 5\n");
    }

    #[test]
    fn little_is_kept_while_nobody_reads() {
        let queue = Queue::new();
        say(&queue, "first");
        drop(queue.next());
        queue.state().waits_since = Instant::now().checked_sub(STUCK);
        let line = "x".repeat(1023);
        for _ in 0..MOST / 1024 {
            say(&queue, &line);
        }
        assert!(queue.state().bytes <= MOST_OF_STUCK);
        assert!(queue.state().bytes > MOST_OF_STUCK - 2048);
    }

    #[test]
    fn a_flush_waits_for_the_writer_and_not_for_ever() {
        let queue = Queue::new();
        let (pipe, reader) = sync_channel(0);
        say(&queue, "last words");
        thread::scope(|scope| {
            let (begun, has_begun) = sync_channel(0);
            let queue = &queue;
            scope.spawn(move || {
                let mut write = |bytes: &[u8]| {
                    begun.send(()).expect("a test");
                    pipe.send(bytes.to_vec()).expect("a test");
                    Ok(())
                };
                queue.write_next(&mut write, &|_| ());
            });
            has_begun.recv().expect("a writer");
            let start = Instant::now();
            queue.flush(Duration::from_millis(20), Duration::MAX / 4);
            assert!(start.elapsed() >= Duration::from_millis(20));
            assert!(queue.state().bytes > 0, "nobody has read yet");
            let flushing = scope.spawn(|| queue.flush(Duration::MAX / 4, Duration::MAX / 4));
            assert_eq!(reader.recv().expect("a writer"), b"last words\n");
            flushing.join().expect("no panic");
            assert_eq!(queue.state().bytes, 0);
        });
    }
}
