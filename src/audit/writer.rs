//! Makes lines of events, and keeps or counts those that cannot be written now.

use std::io::{self, Write};
use std::mem;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use tracing::{info, warn};

use super::file::{LogFile, Unwritten};
use crate::journal::Event;

/// Writes lines to a file. While that fails, it keeps up to 1 MiB of lines, and drops the lines behind
/// them; these are recorded as a gap.
pub(super) struct Writer {
    file: LogFile,
    /// Whole lines that are not written yet.
    lines: Vec<u8>,
    /// The lines that were dropped after those.
    gap: Option<Gap>,
    trouble: Option<Trouble>,
    /// Dropped lines that the owner has not taken yet.
    lost: u64,
}

/// The file cannot be written.
struct Trouble {
    next_try: Instant,
    cause: String,
}

/// Lines that were dropped, in a row.
struct Gap {
    dropped: u64,
    since: SystemTime,
    cause: String,
}

impl Writer {
    pub(super) fn new(file: LogFile) -> Self {
        Self {
            file,
            lines: Vec::new(),
            gap: None,
            trouble: None,
            lost: 0,
        }
    }

    /// Adds the line of an event.
    pub(super) fn add(&mut self, event: &Event) {
        // A batch may be large, if clients have long names.
        if self.lines.len() >= WRITE_AT {
            self.write();
        }
        match self.gap.is_some() || self.lines.len() >= MOST_KEPT {
            true => self.drop_line(event.time),
            false => put(&mut self.lines, event),
        }
    }

    /// Records events that the queue has dropped.
    pub(super) fn missed(&mut self, dropped: u64) {
        if dropped == 0 {
            return;
        }
        let gap = self.gap.get_or_insert_with(|| Gap {
            dropped: 0,
            since: SystemTime::now(),
            cause: "the queue was full".into(),
        });
        gap.dropped += dropped;
        // Before the events that were received after the gap.
        if self.trouble.is_none() {
            self.put_gap();
        }
    }

    /// Writes the lines, unless this has failed just now.
    pub(super) fn write(&mut self) {
        if self.next_try().is_some_and(|time| Instant::now() < time) {
            return;
        }
        loop {
            match self.file.append(&self.lines) {
                Ok(()) => self.lines.clear(),
                Err(Unwritten { written, error }) => {
                    self.lines.drain(..written);
                    return self.fail(&error);
                }
            }
            if !self.put_gap() {
                break;
            }
        }
        // A burst may have made it large.
        self.lines.shrink_to(WRITE_AT);
        if self.trouble.take().is_some() {
            info!("the audit log can be written again");
        }
    }

    /// When [`Self::write`] has something to do without a new line.
    pub(super) fn next_try(&self) -> Option<Instant> {
        self.trouble.as_ref().map(|trouble| trouble.next_try)
    }

    /// Opens the path again. If that fails, lines go to the old file.
    pub(super) fn reopen(&mut self) {
        match self.file.reopen() {
            Ok(()) => {
                info!(path = %self.file.path().display(), "the audit log is reopened");
                self.retry();
            }
            Err(error) => warn!(
                path = %self.file.path().display(), %error,
                "cannot reopen the audit log; it goes on in the old file"
            ),
        }
    }

    /// Writes to another file from now on. Lines that the old one did not take go there too.
    pub(super) fn change(&mut self, file: LogFile) {
        self.file = file;
        self.retry();
    }

    /// Counts what was not written as lost.
    pub(super) fn give_up(&mut self) {
        let lines = self.lines.iter().filter(|byte| **byte == b'\n').count() as u64;
        if lines > 0 {
            let dropped = lines + self.gap.as_ref().map_or(0, |gap| gap.dropped);
            warn!(dropped, "the last lines of the audit log were not written");
            self.lost += lines;
            self.lines.clear();
        }
    }

    /// The number of lines that were dropped since the last call.
    pub(super) fn take_lost(&mut self) -> u64 {
        mem::take(&mut self.lost)
    }

    pub(super) fn retry(&mut self) {
        if let Some(trouble) = &mut self.trouble {
            trouble.next_try = Instant::now();
            self.write();
        }
    }

    fn drop_line(&mut self, since: SystemTime) {
        self.lost += 1;
        let cause = self.trouble.as_ref().map(|trouble| trouble.cause.clone());
        let gap = self.gap.get_or_insert_with(|| Gap {
            dropped: 0,
            since,
            cause: cause.unwrap_or_default(),
        });
        gap.dropped += 1;
    }

    /// Puts the line about the gap behind the others. Returns false if there is none.
    fn put_gap(&mut self) -> bool {
        let Some(gap) = self.gap.take() else {
            return false;
        };
        let line = GapLine {
            time: rfc3339(SystemTime::now()),
            event: "gap",
            dropped: gap.dropped,
            since: rfc3339(gap.since),
            cause: &gap.cause,
        };
        put(&mut self.lines, &line);
        true
    }

    fn fail(&mut self, error: &io::Error) {
        let trouble = Trouble {
            next_try: Instant::now() + RETRY,
            cause: error.to_string(),
        };
        if self.trouble.replace(trouble).is_none() {
            warn!(
                path = %self.file.path().display(), %error,
                "cannot write the audit log; lines are dropped until this works again"
            );
        }
    }
}

#[derive(Serialize)]
struct GapLine<'a> {
    time: String,
    event: &'static str,
    dropped: u64,
    since: String,
    cause: &'a str,
}

fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

fn put(lines: &mut Vec<u8>, line: &impl Serialize) {
    serde_json::to_writer(&mut *lines, line).expect("events have string keys");
    lines.write_all(b"\n").expect("memory");
}

/// Large enough that one write has many lines.
const WRITE_AT: usize = 256 * 1024;

/// What is kept while the file cannot be written. More would cost memory in the hour of need.
const MOST_KEPT: usize = 1024 * 1024;

/// Short enough that nobody waits for the log after space was made, long enough to cost nothing.
const RETRY: Duration = Duration::from_millis(500);
