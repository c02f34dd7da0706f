//! Server-sent events: what happens, for pages and scripts that follow it.
//!
//! ```text
//! journal ─► Hub, one task: a frame for each event, ─┬─► queue ─► EventStream ─► client
//!            refusals once a second                  └─► queue ─► EventStream ─► client
//!                                                         │ full, or not read: cut and counted
//! ```
//!
//! The hub subscribes to the journal only while it has clients, and writes a frame once for all of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use hyper::body::Bytes;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::answer::Refusal;
use super::query;
use super::stream::{EventStream, Progress, Stay};
use crate::journal::{Event, EventKind, Journal, Subscription};
use crate::limits::Gauge;
use crate::pace::INTERVAL;

/// Admits clients, and hands them to the task of the hub.
pub(super) struct Events {
    newcomers: mpsc::Sender<Client>,
    places: Gauge,
}

/// The task that turns events into frames for all clients.
pub(super) struct Hub {
    journal: Arc<Journal>,
    newcomers: mpsc::Receiver<Client>,
}

/// The hub's side of a stream.
struct Client {
    kinds: Kinds,
    frames: mpsc::Sender<Bytes>,
    progress: Arc<Progress>,
    /// How many frames it had taken at the last ping. `None`: it has had none.
    taken: Option<u64>,
}

/// Makes a hub; the second part is to be run.
pub(super) fn hub(journal: &Arc<Journal>) -> (Events, Hub) {
    let (sender, newcomers) = mpsc::channel(MOST_STREAMS);
    let events = Events {
        newcomers: sender,
        places: Gauge::new(Some(MOST_STREAMS)),
    };
    let journal = Arc::clone(journal);
    (events, Hub { journal, newcomers })
}

impl Events {
    /// Begins a stream of the kinds that the query names, or of all.
    ///
    /// # Errors
    ///
    /// An unknown kind or parameter, no free place, or no free descriptor.
    pub(super) fn open(
        &self,
        query: Option<&str>,
        progress: &Arc<Progress>,
    ) -> Result<EventStream, Refusal> {
        let kinds = Kinds::of_query(query)?;
        if progress.stay() == Stay::OneAnswer {
            return Err(exhausted());
        }
        let place = self.places.take().ok_or_else(busy)?;
        let (sender, frames) = mpsc::channel(QUEUE);
        let client = Client {
            kinds,
            frames: sender,
            progress: Arc::clone(progress),
            taken: None,
        };
        self.newcomers.try_send(client).map_err(|_| busy())?;
        Ok(EventStream::begin(frames, progress, place))
    }
}

/// Checks the query of a request that wants no body.
pub(super) fn check(query: Option<&str>) -> Result<(), Refusal> {
    Kinds::of_query(query).map(drop)
}

fn busy() -> Refusal {
    Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "busy",
        format!("{MOST_STREAMS} clients follow the events; close one, or try again"),
    )
}

fn exhausted() -> Refusal {
    let message = "no file descriptor is free for a stream; try again, or raise `ulimit -n`";
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message)
}

impl Hub {
    /// Serves streams until the other half is dropped.
    pub(super) async fn run(mut self) {
        while let Some(first) = self.newcomers.recv().await {
            let events = self.journal.subscribe("events", BACKLOG);
            let streams = Streams {
                events,
                clients: Vec::new(),
                last_id: 0,
                refused: Refused::default(),
            };
            streams.serve(first, &mut self.newcomers).await;
        }
    }
}

/// The hub while it has clients.
struct Streams {
    events: Subscription,
    clients: Vec<Client>,
    last_id: u64,
    refused: Refused,
}

/// What wakes the hub.
enum Wake {
    Joined(Option<Client>),
    Ping,
    Refusals,
    Events(usize),
}

impl Streams {
    async fn serve(mut self, first: Client, newcomers: &mut mpsc::Receiver<Client>) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut ping = Instant::now() + PING;
        self.admit(first);
        while !self.clients.is_empty() {
            let wake = tokio::select! {
                biased;
                client = newcomers.recv() => Wake::Joined(client),
                () = sleep_until(ping) => Wake::Ping,
                () = self.refused.is_due() => Wake::Refusals,
                received = self.events.receive(&mut batch, BATCH) => Wake::Events(received),
            };
            match wake {
                Wake::Joined(Some(client)) => self.admit(client),
                Wake::Ping => {
                    self.ping();
                    ping = Instant::now() + PING;
                }
                Wake::Refusals => self.send_refusals(),
                Wake::Events(received) if received > 0 => {
                    batch.drain(..).for_each(|event| self.take(event));
                }
                // The server or the proxy has ended.
                Wake::Joined(None) | Wake::Events(_) => return,
            }
        }
    }

    /// The first bytes tell the client that it misses nothing from now on. Those that are gone leave here
    /// too: without an event of their kinds, many could come and go before the next ping.
    fn admit(&mut self, client: Client) {
        self.clients.retain(|it| !it.frames.is_closed());
        let _ = client.frames.try_send(Bytes::from_static(GREETING));
        self.clients.push(client);
    }

    fn take(&mut self, event: Arc<Event>) {
        if matches!(event.kind, EventKind::Refuse(_)) {
            return self.refused.note(event);
        }
        self.send(event.kind.as_str(), &event);
    }

    fn send_refusals(&mut self) {
        for (clients, event) in self.refused.take() {
            self.send(event.kind.as_str(), &Counted { clients, event });
        }
    }

    /// Sends one frame to all clients that want this kind.
    fn send(&mut self, kind: &'static str, data: &impl Serialize) {
        let Some(kinds) = Kinds::of_word(kind) else {
            return;
        };
        if !self.clients.iter().any(|it| it.kinds.has(kinds)) {
            return;
        }
        self.last_id += 1;
        // JSON in one line: a line end within a text is an escape.
        let data = serde_json::to_string(data).expect("string keys and no failing serializer");
        let frame = format!("id: {}\nevent: {kind}\ndata: {data}\n\n", self.last_id);
        let frame = Bytes::from(frame);
        let events = &self.events;
        self.clients
            .retain(|it| !it.kinds.has(kinds) || it.send(&frame, events));
    }

    /// Keeps connections open, and finds clients that are gone or do not read.
    fn ping(&mut self) {
        let events = &self.events;
        self.clients.retain_mut(|it| {
            let taken = it.progress.taken();
            // At least the last ping is still there.
            let is_stuck = it.queued() > 0 && it.taken == Some(taken);
            it.taken = Some(taken);
            if is_stuck {
                it.cut(events);
            }
            !is_stuck && it.send(&Bytes::from_static(PING_FRAME), events)
        });
    }
}

impl Client {
    /// False if the client is gone, or was cut because its queue is full.
    fn send(&self, frame: &Bytes, events: &Subscription) -> bool {
        match self.frames.try_send(frame.clone()) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.cut(events);
                false
            }
        }
    }

    /// Cuts the client, and counts what it has not read.
    fn cut(&self, events: &Subscription) {
        events.lose(self.queued() as u64 + 1);
        self.progress.cut();
    }

    fn queued(&self) -> usize {
        self.frames.max_capacity() - self.frames.capacity()
    }
}

/// The refusals of a second, by outcome: a scanner must not flood a page.
#[derive(Default)]
struct Refused {
    /// How many clients, and the first of them.
    tallies: BTreeMap<&'static str, (u64, Arc<Event>)>,
    due: Option<Instant>,
}

/// A refusal as a client of the stream sees it.
#[derive(Serialize)]
struct Counted {
    clients: u64,
    #[serde(flatten)]
    event: Arc<Event>,
}

impl Refused {
    fn note(&mut self, event: Arc<Event>) {
        let EventKind::Refuse(end) = &event.kind else {
            return;
        };
        let outcome = end.outcome.as_str();
        let tally = self.tallies.entry(outcome).or_insert((0, event));
        tally.0 += 1;
        self.due.get_or_insert_with(|| Instant::now() + INTERVAL);
    }

    /// Waits until a second after the first of them.
    async fn is_due(&self) {
        match self.due {
            Some(time) => sleep_until(time).await,
            None => std::future::pending().await,
        }
    }

    fn take(&mut self) -> impl Iterator<Item = (u64, Arc<Event>)> + use<> {
        self.due = None;
        std::mem::take(&mut self.tallies).into_values()
    }
}

/// The kinds of events that a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kinds(u8);

impl Kinds {
    fn of_query(query: Option<&str>) -> Result<Self, Refusal> {
        let mut parameters = query::parameters(query)?;
        let words = query::take(&mut parameters, "kinds");
        query::none_left(&parameters)?;
        let Some(words) = words else {
            return Ok(Self(u8::MAX));
        };
        let one = |word: &str| Self::of_word(word).ok_or_else(|| unknown(word));
        let mut all = words.split(',').map(one);
        all.try_fold(Self(0), |all, one| Ok(Self(all.0 | one?.0)))
    }

    fn of_word(word: &str) -> Option<Self> {
        let at = KINDS.iter().position(|it| *it == word)?;
        Some(Self(1 << at))
    }

    fn has(self, kinds: Self) -> bool {
        self.0 & kinds.0 != 0
    }
}

fn unknown(word: &str) -> Refusal {
    let known = KINDS.join(", ");
    Refusal::bad(format!(
        "`kinds`: expected some of {known}, separated by commas, found {word:?}"
    ))
}

/// The kinds of events that streams have, as the journal calls them.
const KINDS: [&str; 6] = ["open", "close", "refuse", "backend", "reload", "limit"];

/// Pages in the tabs of a few operators, and scripts.
const MOST_STREAMS: usize = 16;

/// How many frames may wait for one client: some seconds of a busy proxy. The frames are shared by all
/// clients. When it is full, the client is cut.
const QUEUE: usize = 1024;

/// How many events may wait for the hub. When it is full, events are dropped and counted.
const BACKLOG: usize = 8 * 1024;

/// The events that the hub takes at a time.
const BATCH: usize = 256;

/// Connections without a byte for longer are closed by some middleboxes. A client that has taken nothing
/// between two pings is cut.
const PING: Duration = Duration::from_secs(15);
const PING_FRAME: &[u8] = b": ping\n\n";

/// A browser connects again after two seconds.
const GREETING: &[u8] = b"retry: 2000\n\n";

#[cfg(test)]
mod tests;
