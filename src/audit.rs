//! The audit log: a file with one JSON object for each event of the journal.
//!
//! ```text
//! workers ─ publish ─► Journal ─► queue ─► thread "audit" ─► Writer ─► LogFile ─► audit.log
//!                                  │                          │                   audit.log.1 …
//!                                  └─ full: dropped ──────────┴─ disk full: dropped
//!                                              both counted, and recorded as a gap
//! ```
//!
//! Only its own thread touches the file, so a slow or full disk delays no connection.

mod file;
#[cfg(test)]
mod tests;
mod writer;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;
use std::{io, mem};

use tokio::runtime;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use self::file::LogFile;
use self::writer::Writer;
use crate::deadline::Deadline;
use crate::journal::{Event, Journal, Subscription, Unsubscriber};
use crate::sys::directory::PrivateDirectory;

/// `[audit]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AuditSettings {
    /// Absolute.
    pub path: PathBuf,
    /// The runtime directory, if the file is in it: it is created with mode 0700 if it is missing.
    pub directory: Option<PathBuf>,
    /// The size from which a new file is begun. `None`: never.
    pub rotate: Option<u64>,
    /// How many rotated files are kept.
    pub keep: usize,
}

/// The audit log of a proxy, if the configuration has one.
#[derive(Debug, Default)]
pub(crate) struct AuditLog(Mutex<Threads>);

#[derive(Debug, Default)]
struct Threads {
    running: Option<Running>,
    /// Logs that were switched off, whose threads may still write what was queued.
    ending: Vec<oneshot::Receiver<()>>,
}

#[derive(Debug)]
struct Running {
    settings: AuditSettings,
    commands: mpsc::Sender<Command>,
    events: Unsubscriber,
    /// Closed when the thread has ended.
    ended: oneshot::Receiver<()>,
}

#[derive(Debug)]
enum Command {
    /// Another program has moved the file away: open the path again.
    Reopen,
    /// Write to another file, or with other settings.
    Change(Box<LogFile>),
}

impl AuditLog {
    /// Starts, changes or ends the log. Lines that are queued go to the old file. Blocks on the file
    /// system.
    ///
    /// # Errors
    ///
    /// The file cannot be opened. Then nothing has changed.
    pub(crate) fn change(
        &self,
        settings: Option<&AuditSettings>,
        journal: &Arc<Journal>,
    ) -> io::Result<()> {
        let mut threads = self.threads();
        let Some(settings) = settings else {
            threads.end();
            return Ok(());
        };
        let running = &mut threads.running;
        if running.as_ref().is_some_and(|it| it.settings == *settings) {
            return Ok(());
        }
        if let Some(directory) = &settings.directory {
            drop(PrivateDirectory::named(directory, 0o700)?);
        }
        let file = LogFile::open(settings)?;
        match running.as_mut() {
            Some(running) => {
                running.send(Command::Change(Box::new(file)))?;
                running.settings = settings.clone();
            }
            None => {
                *running = Some(start(file, settings.clone(), journal)?);
            }
        }
        Ok(())
    }

    /// Opens the file at the path again, after another program has moved it away. Lines that are queued
    /// go to the old file. Returns false if there is no audit log.
    pub(crate) fn reopen(&self) -> bool {
        match &self.threads().running {
            Some(running) => {
                if let Err(error) = running.send(Command::Reopen) {
                    warn!(%error, "cannot reopen the audit log");
                }
                true
            }
            None => false,
        }
    }

    /// Writes what is queued, and ends the log. Gives up after five seconds: a file system may hang.
    pub(crate) async fn finish(&self) {
        let ending = {
            let mut threads = self.threads();
            threads.end();
            mem::take(&mut threads.ending)
        };
        let end = async {
            for ended in ending {
                // The thread drops the other side.
                let _ = ended.await;
            }
        };
        if Deadline::after(MOST_TO_END).bound(end).await.is_err() {
            warn!("the audit log cannot be written; its last lines are lost");
        }
    }

    fn threads(&self) -> MutexGuard<'_, Threads> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Threads {
    /// The running log gets no more events: its thread ends when it has written those that are queued.
    fn end(&mut self) {
        self.ending
            .retain_mut(|ended| ended.try_recv() == Err(TryRecvError::Empty));
        if let Some(running) = self.running.take() {
            running.events.unsubscribe();
            self.ending.push(running.ended);
        }
    }
}

impl Running {
    fn send(&self, command: Command) -> io::Result<()> {
        self.commands
            .try_send(command)
            .map_err(|_| io::Error::other("its thread does not answer, because the disk is slow"))
    }
}

/// Starts the thread. It ends when its subscription has ended, or with the journal.
fn start(file: LogFile, settings: AuditSettings, journal: &Arc<Journal>) -> io::Result<Running> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let (sender, commands) = mpsc::channel(COMMANDS);
    let (has_ended, ended) = oneshot::channel::<()>();
    let subscription = journal.subscribe("audit", CAPACITY);
    let events = subscription.unsubscriber();
    let life = Life {
        writer: Writer::new(file),
        events: subscription,
        counted: 0,
    };
    thread::Builder::new().name("audit".into()).spawn(move || {
        runtime.block_on(life.run(commands));
        drop(has_ended);
    })?;
    Ok(Running {
        settings,
        commands: sender,
        events,
        ended,
    })
}

/// What the thread has.
struct Life {
    writer: Writer,
    events: Subscription,
    /// The events lost in the queue that were recorded.
    counted: u64,
}

impl Life {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut rest_until = Instant::now();
        loop {
            let behind = self.writer.next_try();
            tokio::select! {
                biased;
                Some(command) = commands.recv() => {
                    self.take_queued();
                    match command {
                        Command::Reopen => self.writer.reopen(),
                        Command::Change(file) => self.writer.change(*file),
                    }
                }
                received = after(rest_until, &mut self.events, &mut batch) => {
                    if received == 0 {
                        return self.end();
                    }
                    self.write(batch.drain(..));
                    rest_until = Instant::now() + REST;
                }
                () = wake_at(behind) => self.write([]),
            }
        }
    }

    fn write(&mut self, events: impl IntoIterator<Item = Arc<Event>>) {
        let dropped = self.events.dropped();
        self.writer.missed(dropped - self.counted);
        self.counted = dropped;
        for event in events.into_iter().filter(|it| it.kind.is_audited()) {
            self.writer.add(&event);
        }
        self.writer.write();
        self.events.lose(self.writer.take_lost());
    }

    /// Writes what is queued now. The bound is for events that come meanwhile.
    fn take_queued(&mut self) {
        let queued: Vec<_> = std::iter::from_fn(|| self.events.next_queued())
            .take(CAPACITY)
            .collect();
        self.write(queued);
    }

    fn end(&mut self) {
        self.write([]);
        self.writer.give_up();
        self.events.lose(self.writer.take_lost());
    }
}

/// Waits until `begin`, and then for events.
///
/// # Cancel safety
///
/// Cancel safe: no event is lost.
async fn after(begin: Instant, events: &mut Subscription, batch: &mut Vec<Arc<Event>>) -> usize {
    sleep_until(begin).await;
    events.receive(batch, BATCH).await
}

async fn wake_at(time: Option<std::time::Instant>) {
    match time {
        Some(time) => sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

/// How many events may wait for the thread: a second of a busy machine. Each costs about 300 bytes, and
/// its connection's facts stay for as long. When it is full, events are dropped and counted.
const CAPACITY: usize = 16 * 1024;

/// The events that one write may have.
const BATCH: usize = 1024;

/// After a write, events gather for this time: a wake-up and a write for each of them would cost more
/// than the lines.
const REST: Duration = Duration::from_millis(20);

/// More than an operator gives while a disk is slow. When it is full, the next is refused.
const COMMANDS: usize = 8;

const MOST_TO_END: Duration = Duration::from_secs(5);
