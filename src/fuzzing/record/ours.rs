//! A record stream that is run only when it was woken, and can go to another process meanwhile.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use tokio_rustls::rustls::ExtractedSecrets;

use super::pipe::Pipe;
use super::program::Setup;
use super::session::Secrets;
use crate::relay::record::{Exported, Heard, RecordStream, Secret, TrafficSecrets};
use crate::relay::{End, Relay, Settings};
use crate::traffic::Traffic;

pub(super) struct Ours {
    step: Step,
    client: Pipe,
    backend: Pipe,
    traffic: Arc<Traffic>,
    hear: Hear,
    limit: Option<u64>,
    bell: Arc<Bell>,
    stop: Rc<Cell<bool>>,
}

enum Step {
    /// It has not begun; what comes first is handed over if it is so.
    Before(Keys, bool),
    Running(Running),
    Ended(Box<RecordStream<Pipe>>, Ended),
    Gone,
}

type Keys = (ExtractedSecrets, Option<TrafficSecrets>);
type Running = Pin<Box<dyn Future<Output = (RecordStream<Pipe>, Ended)>>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Client and backend were joined.
    Joined(End),
    /// There was nothing to join.
    Unheard,
    /// It was asked to.
    Moved,
}

/// How much is to be heard before anything else; nothing once it was.
type Hear = Rc<Cell<Option<usize>>>;

impl Ours {
    pub(super) fn new(
        setup: &Setup,
        (client, backend): (Pipe, Pipe),
        traffic: Arc<Traffic>,
        (extracted, secrets): (ExtractedSecrets, Secrets),
    ) -> Self {
        let secret = |bytes: Vec<u8>| Secret::new(bytes.into_boxed_slice());
        let secrets = (!secrets.client.is_empty()).then(|| TrafficSecrets {
            client: secret(secrets.client),
            server: secret(secrets.server),
        });
        Self {
            step: Step::Before((extracted, secrets), setup.handed_over),
            client,
            backend,
            traffic,
            hear: Rc::new(Cell::new(setup.hear)),
            limit: setup.limit,
            bell: Arc::default(),
            stop: Rc::default(),
        }
    }

    /// Begins, if it has not. What is not handed over to it is given back.
    pub(super) fn begin<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let (keys, handed_over) = match std::mem::replace(&mut self.step, Step::Gone) {
            Step::Before(keys, handed_over) => (keys, handed_over),
            step => {
                self.step = step;
                return bytes;
            }
        };
        let count = if handed_over {
            bytes.len().min(MOST_HANDED_OVER)
        } else {
            0
        };
        let (received, rest) = bytes.split_at(count);
        let (extracted, secrets) = keys;
        let stream = RecordStream::new(self.client.clone(), extracted, secrets, received.to_vec());
        let Ok(mut stream) = stream else {
            panic!("a suite that is known");
        };
        if let Some(limit) = self.limit {
            stream.set_limit(limit);
        }
        self.start(stream);
        rest
    }

    fn start(&mut self, stream: RecordStream<Pipe>) {
        self.bell.0.store(true, Ordering::Relaxed);
        self.stop.set(false);
        self.step = Step::Running(Box::pin(serve(
            stream,
            self.backend.clone(),
            Arc::clone(&self.traffic),
            Rc::clone(&self.hear),
            Rc::clone(&self.stop),
        )));
    }

    pub(super) fn run(&mut self) {
        let waker = Waker::from(Arc::clone(&self.bell));
        while let Step::Running(running) = &mut self.step
            && self.bell.0.swap(false, Ordering::Relaxed)
        {
            let mut cx = Context::from_waker(&waker);
            if let Poll::Ready((stream, ended)) = running.as_mut().poll(&mut cx) {
                self.step = Step::Ended(Box::new(stream), ended);
            }
        }
    }

    /// As a connection that outlives its process: everything goes through bytes.
    pub(super) fn go_elsewhere(&mut self) {
        self.stop();
        match std::mem::replace(&mut self.step, Step::Gone) {
            Step::Ended(stream, Ended::Moved) => {
                let (io, state) = stream.export();
                let bytes = serde_json::to_vec(&state).expect("plain data");
                let state: Exported = serde_json::from_slice(&bytes).expect("what was written");
                self.start(RecordStream::import(io, state).expect("what was exported"));
            }
            step => self.step = step,
        }
    }

    fn stop(&mut self) {
        self.stop.set(true);
        self.bell.0.store(true, Ordering::Relaxed);
        self.run();
    }

    /// Takes leave of the client.
    pub(super) fn close(&mut self) {
        self.begin(&[]);
        self.stop();
        let Step::Ended(stream, _) = &mut self.step else {
            unreachable!("it has stopped");
        };
        let mut cx = Context::from_waker(Waker::noop());
        let closed = pin!(stream.close()).poll(&mut cx);
        assert!(matches!(closed, Poll::Ready(Ok(()))), "{closed:?}");
    }

    /// How it has, if it has.
    pub(super) fn ended(&self) -> Option<Ended> {
        match &self.step {
            Step::Ended(_, ended) => Some(*ended),
            _ => None,
        }
    }

    /// How much is to be heard before there is a backend.
    pub(super) fn hears(&self) -> Option<usize> {
        self.hear.get()
    }

    pub(super) fn has_begun(&self) -> bool {
        !matches!(self.step, Step::Before(..))
    }
}

async fn serve(
    mut stream: RecordStream<Pipe>,
    mut backend: Pipe,
    traffic: Arc<Traffic>,
    hear: Hear,
    stop: Rc<Cell<bool>>,
) -> (RecordStream<Pipe>, Ended) {
    let settings = Settings {
        idle: None,
        half_close: None,
    };
    let ended = {
        let stream = &mut stream;
        let mut served = pin!(async {
            if let Some(enough) = hear.get() {
                if stream.hear(enough).await == Heard::Nothing {
                    return Ended::Unheard;
                }
                hear.set(None);
            }
            let traffic = &traffic;
            let relay = Relay { settings, traffic };
            Ended::Joined(stream.join(&mut backend, relay).await)
        });
        poll_fn(|cx| match stop.get() {
            true => Poll::Ready(Ended::Moved),
            false => served.as_mut().poll(cx),
        })
        .await
    };
    (stream, ended)
}

#[derive(Default)]
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A handshake leaves no more behind than it reads at a time, and that is less.
const MOST_HANDED_OVER: usize = 16384;
