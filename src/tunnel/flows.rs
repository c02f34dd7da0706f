//! What a tunnel knows of its streams: how many they are, and which of them hold bytes that nobody reads.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use h2::{FlowControl, RecvStream};
use tokio::time::Instant;

/// The streams of one tunnel that are connections.
#[derive(Debug, Default)]
pub(super) struct Flows {
    open: AtomicUsize,
    streams: Mutex<Streams>,
}

#[derive(Debug, Default)]
struct Streams {
    next: u64,
    of_numbers: BTreeMap<u64, Stream>,
}

#[derive(Debug)]
struct Stream {
    control: FlowControl,
    /// While it holds bytes: since when nothing of them was read.
    since: Option<Instant>,
}

/// One of the streams, as long as it is there.
#[derive(Debug)]
pub(super) struct Flow {
    flows: Arc<Flows>,
    number: u64,
    waits: bool,
}

impl Flows {
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Whether a stream holds bytes of which nothing was read for `time`.
    pub(super) fn has_stalled(&self, now: Instant, time: Duration) -> bool {
        let streams = self.streams();
        let mut since = streams.of_numbers.values().filter_map(|it| it.since);
        since.any(|since| now.duration_since(since) >= time)
    }

    /// Gives each stream the room that it lacks. HTTP/2 does this when something was read; a smaller window may lack
    /// room that no read brings back, as all was read before.
    pub(super) fn nudge(&self) {
        for stream in self.streams().of_numbers.values_mut() {
            // Fails only if more is released than was received.
            let _ = stream.control.release_capacity(0);
        }
    }

    /// The state is whole at every moment, also if a thread has panicked here.
    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flow {
    pub(super) fn new(flows: &Arc<Flows>, received: &mut RecvStream) -> Self {
        flows.open.fetch_add(1, Ordering::Relaxed);
        let mut streams = flows.streams();
        let number = streams.next;
        streams.next += 1;
        let stream = Stream {
            control: received.flow_control().clone(),
            since: None,
        };
        streams.of_numbers.insert(number, stream);
        Self {
            flows: Arc::clone(flows),
            number,
            waits: false,
        }
    }

    /// The stream holds bytes that nobody could take.
    pub(super) fn wait(&mut self) {
        if !self.waits {
            self.waits = true;
            self.set_since(Some(Instant::now()));
        }
    }

    /// Some of the bytes were read, and others may be left.
    pub(super) fn advance(&mut self, are_left: bool) {
        if self.waits {
            self.waits = are_left;
            self.set_since(are_left.then(Instant::now));
        }
    }

    fn set_since(&self, since: Option<Instant>) {
        if let Some(stream) = self.flows.streams().of_numbers.get_mut(&self.number) {
            stream.since = since;
        }
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        let stream = self.flows.streams().of_numbers.remove(&self.number);
        self.flows.open.fetch_sub(1, Ordering::Relaxed);
        // It may be the last handle of HTTP/2 to the stream: not under the lock.
        drop(stream);
    }
}
