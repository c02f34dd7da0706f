//! The record stream under test. It runs only after it was woken, and can be exported and imported in
//! between.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker, ready};

use tokio_rustls::rustls::ExtractedSecrets;

use super::pipe::Pipe;
use super::program::Setup;
use super::session::Secrets;
use crate::record::{Role, Secret, Start, TrafficSecrets};
use crate::relay::{End, Exported, Heard, InactivityTimeouts, Joint, Records, Relay};
use crate::traffic::Traffic;

pub(super) struct TestedStream {
    /// The keys, until the stream begins.
    keys: Option<Keys>,
    stream: Option<Client>,
    client: Pipe,
    backend: Pipe,
    pub traffic: Traffic,
    /// How many bytes to read before there is a backend. `None` once they were read.
    pub hear: Option<usize>,
    /// How it ended, if it has ended.
    pub ended: Option<Ended>,
    limit: Option<u64>,
    role: Role,
    wake_flag: Arc<WakeFlag>,
}

type Client = Joint<Records<Pipe>>;

type Keys = (ExtractedSecrets, Option<TrafficSecrets>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Client and backend were joined, and the relay ended.
    Joined(End),
    /// The client left without sending anything.
    NothingRead,
}

impl TestedStream {
    pub(super) fn new(
        setup: &Setup,
        (client, backend): (Pipe, Pipe),
        (extracted, secrets): (ExtractedSecrets, Secrets),
    ) -> Self {
        let secret = |bytes: Vec<u8>| Secret::new(bytes.into_boxed_slice());
        let secrets = (!secrets.client.is_empty()).then(|| TrafficSecrets {
            client: secret(secrets.client),
            server: secret(secrets.server),
        });
        let mut ours = Self {
            keys: Some((extracted, secrets)),
            stream: None,
            client,
            backend,
            traffic: Traffic::default(),
            hear: setup.hear,
            ended: None,
            limit: setup.limit,
            role: setup.role,
            wake_flag: Arc::default(),
        };
        if !setup.handed_over {
            ours.begin(&[]);
        }
        ours
    }

    /// Begins, if it has not begun, with bytes that arrived together with the end of the handshake.
    /// Returns the bytes that it did not take.
    pub(super) fn begin<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let Some((extracted, secrets)) = self.keys.take() else {
            return bytes;
        };
        let (received, rest) = bytes.split_at(bytes.len().min(MOST_HANDED_OVER));
        let records = Records::new(
            self.client.clone(),
            Start {
                role: self.role,
                ..Start::of_server(extracted, secrets, received.to_vec())
            },
        );
        let Ok(mut records) = records else {
            panic!("a suite that is known");
        };
        if let Some(limit) = self.limit {
            records.set_limit(limit);
        }
        self.resume(Joint::new(records));
        rest
    }

    fn resume(&mut self, stream: Client) {
        self.stream = Some(stream);
        self.wake_flag.set();
    }

    pub(super) fn run(&mut self) {
        let waker = Waker::from(Arc::clone(&self.wake_flag));
        let mut cx = Context::from_waker(&waker);
        while self.ended.is_none() && self.wake_flag.take() {
            if let Poll::Ready(ended) = self.poll(&mut cx) {
                self.ended = Some(ended);
            }
        }
    }

    /// The futures are made anew for each poll: the whole state is in the stream.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        let Some(stream) = &mut self.stream else {
            return Poll::Pending;
        };
        if let Some(enough) = self.hear {
            match ready!(pin!(stream.hear(enough)).poll(cx)) {
                Heard::Nothing => return Poll::Ready(Ended::NothingRead),
                Heard::Words => self.hear = None,
            }
        }
        let relay = Relay {
            settings: &InactivityTimeouts {
                idle: None,
                half_close: None,
                unacknowledged: None,
            },
            traffic: &self.traffic,
        };
        let joined = pin!(stream.join(&mut self.backend, relay));
        joined.poll(cx).map(Ended::Joined)
    }

    /// Exports and imports the connection, as in a hand-over to another process: the whole state goes
    /// through bytes.
    pub(super) fn move_process(&mut self) {
        if self.ended.is_some() {
            return;
        }
        if let Some(stream) = self.stream.take() {
            let (io, state) = stream.export();
            let bytes = serde_json::to_vec(&state).expect("plain data");
            let state: Exported = serde_json::from_slice(&bytes).expect("what was written");
            self.resume(Joint::import(io, state).expect("what was exported"));
        }
    }

    /// Closes the client's side.
    pub(super) fn close(&mut self) {
        self.begin(&[]);
        let stream = self.stream.as_mut().expect("it has begun");
        let mut cx = Context::from_waker(Waker::noop());
        let closed = pin!(stream.client().close()).poll(&mut cx);
        assert!(matches!(closed, Poll::Ready(Ok(()))), "{closed:?}");
    }

    pub(super) fn has_begun(&self) -> bool {
        self.stream.is_some()
    }
}

#[derive(Default)]
struct WakeFlag(AtomicBool);

impl WakeFlag {
    fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

impl Wake for WakeFlag {
    fn wake(self: Arc<Self>) {
        self.set();
    }
}

/// A handshake reads at most this much at a time, so it leaves no more behind.
const MOST_HANDED_OVER: usize = 16384;
