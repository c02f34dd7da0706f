//! Writes lines to stderr through a bounded queue and a thread, because stderr may not be read.
//!
//! ```text
//! log lines, errors, panics ─► Queue ─► thread ─► stderr
//!                                │ full: dropped and counted
//!                                └─ room again: the count, as a line of its own
//! ```
//!
//! A write to a full pipe blocks. On a worker it would stop every connection of that worker.

mod queue;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::Cell;
use std::fmt::Display;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::panic::{self, PanicHookInfo};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tracing::{Metadata, error, warn};
use tracing_subscriber::fmt::MakeWriter;

use self::queue::{Queue, Room};

/// Targets of the count of lost lines, and of panics. No filter hides them.
pub(super) const LOG_HEALTH: &str = "vestibule::log";
pub(super) const PANIC: &str = "vestibule::panic";
/// Target of start-up lines, and of the reason why the process ends. They are never dropped, since
/// scripts read them.
pub(super) const START: &str = "vestibule::start";

/// Starts the thread that writes, if it does not run yet. From then on, panics are logged through the
/// queue too.
///
/// # Errors
///
/// The thread cannot be started.
pub(super) fn start() -> io::Result<()> {
    static STARTED: OnceLock<Result<(), io::ErrorKind>> = OnceLock::new();
    let started = STARTED.get_or_init(|| {
        let write = || QUEUE.write_all(&mut write, report);
        thread::Builder::new()
            .name("log".into())
            .spawn(write)
            .map_err(|error| error.kind())?;
        panic::set_hook(Box::new(say_panic));
        Ok(())
    });
    started.map_err(io::Error::from)
}

/// Writes the reason why the process ends. It may have any length. [`flush`] waits for it.
pub(super) fn last_words(text: &impl Display) {
    put(text, Room::Needed);
}

/// Writes a line. Drops it if the queue is full.
pub(super) fn say(text: &impl Display) {
    put(text, Room::Bounded);
}

fn put(text: &impl Display, room: Room) {
    match start() {
        Ok(()) => QUEUE.push(format!("{text}\n").as_bytes(), room, 1),
        // Without the thread this write may block, but there is no other way to report the error.
        Err(_) => drop(writeln!(io::stderr(), "{text}")),
    }
}

/// Waits until all lines are written, as long as stderr takes them.
pub(super) fn flush() {
    QUEUE.flush(PATIENCE, LONGEST_FLUSH);
}

/// The writer for `tracing_subscriber`, which writes one line at a time.
#[derive(Debug)]
pub(super) struct Stderr;

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(Room::Bounded)
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line {
        Line(match metadata.target() {
            START | LOG_HEALTH => Room::Needed,
            _ => Room::Bounded,
        })
    }
}

/// Takes one log line.
#[derive(Debug)]
pub(super) struct Line(Room);

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        QUEUE.push(line, self.0, STANDS_FOR.take().max(1));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reports how many lines were lost. Called on the thread that writes.
fn report(dropped: u64) {
    STANDS_FOR.set(dropped);
    if has_log() {
        warn!(target: LOG_HEALTH, dropped, "log lines were dropped: stderr was not read in time");
    } else {
        let text =
            format!("vestibule: {dropped} lines were dropped: stderr was not read in time\n");
        QUEUE.push(text.as_bytes(), Room::Needed, STANDS_FOR.take());
    }
}

/// Logs a panic, and waits a little until it is written: the process may be about to abort.
fn say_panic(panic: &PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("no message");
    let location = panic.location().map(tracing::field::display);
    let thread = thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let backtrace = Backtrace::capture();
    let is_captured = backtrace.status() == BacktraceStatus::Captured;
    let backtrace = is_captured.then(|| tracing::field::display(&backtrace));
    if has_log() {
        error!(target: PANIC, thread, location, backtrace, "panicked: {message}");
    } else if let Some(location) = location {
        say(&format_args!(
            "vestibule: panicked at {location}: {message}"
        ));
    }
    QUEUE.flush(PANIC_PATIENCE, PANIC_PATIENCE);
}

/// Writes all bytes, however long that takes, also if another process made stderr non-blocking.
fn write(mut bytes: &[u8]) -> io::Result<()> {
    let stderr = io::stderr();
    while !bytes.is_empty() {
        match rustix::io::write(stderr.as_fd(), bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut room = [PollFd::new(&stderr, PollFlags::OUT)];
                match poll(&mut room, None) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Log events are available from now on: panics and lost lines are reported as events.
pub(super) fn log_starts() {
    HAS_LOG.store(true, Ordering::Relaxed);
}

pub(super) fn has_log() -> bool {
    HAS_LOG.load(Ordering::Relaxed)
}

static HAS_LOG: AtomicBool = AtomicBool::new(false);

static QUEUE: Queue = Queue::new();

thread_local! {
    /// The number of lost lines that the next line of this thread reports.
    static STANDS_FOR: Cell<u64> = const { Cell::new(0) };
}

/// How long an exit waits while stderr takes nothing.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long an exit waits for a slow reader.
const LONGEST_FLUSH: Duration = Duration::from_secs(3);
/// Short, because the connections of the worker that panicked wait meanwhile.
const PANIC_PATIENCE: Duration = Duration::from_millis(100);
