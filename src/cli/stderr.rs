//! Lines for stderr, which nobody may be reading: a bounded queue, and a thread that writes.
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

/// The count of lost lines, and panics: no filter hides them.
pub(super) const ABOUT_THE_LOG: &str = "vestibule::log";
pub(super) const PANIC: &str = "vestibule::panic";
/// Start-up, and why the process ends: it is never dropped, since scripts read it.
pub(super) const START: &str = "vestibule::start";

/// Starts the thread that writes, once. Panics take the same way from then on.
///
/// # Errors
///
/// There is no room for a thread.
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

/// Writes why the process ends, of any length. [`flush`] waits for it.
pub(super) fn last_words(text: &impl Display) {
    put(text, Room::Needed);
}

/// Writes a line, or drops it where stderr is full.
pub(super) fn say(text: &impl Display) {
    put(text, Room::Bounded);
}

fn put(text: &impl Display, room: Room) {
    match start() {
        Ok(()) => QUEUE.push(format!("{text}\n").as_bytes(), room, 1),
        // Without a thread it may block; there is no other way left to say it.
        Err(_) => drop(writeln!(io::stderr(), "{text}")),
    }
}

/// Waits until all that was said is written, as long as somebody reads it.
pub(super) fn flush() {
    QUEUE.flush(PATIENCE, LONGEST_FLUSH);
}

/// For `tracing_subscriber`, which writes a line at a time.
#[derive(Debug)]
pub(super) struct Stderr;

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(Room::Bounded)
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line {
        Line(match metadata.target() {
            START | ABOUT_THE_LOG => Room::Needed,
            _ => Room::Bounded,
        })
    }
}

/// Takes one line.
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

/// Says, on the thread that writes, how many lines were lost.
fn report(dropped: u64) {
    STANDS_FOR.set(dropped);
    if has_log() {
        warn!(target: ABOUT_THE_LOG, dropped, "log lines were dropped: stderr was not read in time");
    } else {
        let text =
            format!("vestibule: {dropped} lines were dropped: stderr was not read in time\n");
        QUEUE.push(text.as_bytes(), Room::Needed, STANDS_FOR.take());
    }
}

/// Says what a panic says, and waits a little for it to be written: the process may be about to abort.
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
    QUEUE.flush(PATIENCE_OF_A_PANIC, PATIENCE_OF_A_PANIC);
}

/// Writes all of it, however long that takes; also where another process made stderr non-blocking.
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

/// The log is set up: what is to be said becomes one of its events.
pub(super) fn log_starts() {
    HAS_LOG.store(true, Ordering::Relaxed);
}

pub(super) fn has_log() -> bool {
    HAS_LOG.load(Ordering::Relaxed)
}

static HAS_LOG: AtomicBool = AtomicBool::new(false);

static QUEUE: Queue = Queue::new();

thread_local! {
    /// For how many lost lines the next line of this thread stands.
    static STANDS_FOR: Cell<u64> = const { Cell::new(0) };
}

/// How long an exit waits while stderr takes nothing.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long an exit waits for a reader that is slow.
const LONGEST_FLUSH: Duration = Duration::from_secs(3);
/// The connections of a worker wait for it.
const PATIENCE_OF_A_PANIC: Duration = Duration::from_millis(100);
