//! A tunnel of workers: our side, as a carrier drives it, and the workers' frames.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;

use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use hyper::body::Bytes;
use hyper::{HeaderMap, Method, Request};
use tokio::io::{DuplexStream, duplex};
use tokio::task::{JoinHandle, yield_now};

use super::site::{LISTENER, identity, settings};
use super::step::{Act, said};
use crate::connection::Workers;
use crate::facts::Facts;
use crate::identity::Identity;
use crate::ledger::Via;
use crate::proxy_state::ProxyState;
use crate::tunnel::{Carried, CarrierError, Opened};

/// The workers' end.
pub(super) struct Tunnel {
    requests: SendRequest<Bytes>,
    driver: JoinHandle<()>,
    is_frozen: Arc<AtomicBool>,
    pub server: JoinHandle<()>,
}

/// What a worker has heard.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// The facts of the connection that it was told.
    pub facts: Option<String>,
    pub refusal: Option<String>,
    pub bytes: Vec<u8>,
    /// How it has ended: whether in order.
    pub ended: Option<bool>,
}

/// A worker's stream.
pub(super) struct Stream {
    sending: Option<SendStream<Bytes>>,
    hearing: Option<JoinHandle<()>>,
    heard: Arc<Mutex<Heard>>,
}

impl Tunnel {
    pub(super) async fn open(number: usize, state: &Arc<ProxyState>) -> Self {
        let (ours, theirs) = duplex(PIPE);
        let server = tokio::spawn(carry(ours, number, Arc::clone(state)));
        let begun = h2::client::handshake(theirs).await;
        let (requests, mut connection) = begun.expect("a pipe in memory");
        let is_frozen = Arc::new(AtomicBool::new(false));
        let frozen = Arc::clone(&is_frozen);
        let driver = tokio::spawn(async move {
            let driven = poll_fn(|cx| match frozen.load(Ordering::Relaxed) {
                true => Poll::Pending,
                false => Pin::new(&mut connection).poll(cx),
            });
            // How it has ended is seen by our side.
            let _ = driven.await;
        });
        Self {
            requests,
            driver,
            is_frozen,
            server,
        }
    }

    pub(super) fn die(&self) {
        self.driver.abort();
    }

    pub(super) fn freeze(&self) {
        self.is_frozen.store(true, Ordering::Relaxed);
    }

    pub(super) fn ask(&self, backend: &str, line: &str) -> Stream {
        let heard = Arc::new(Mutex::new(Heard::default()));
        let mut request = Request::new(());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = backend.parse().expect("an authority");
        let line = line.parse().expect("a value");
        request.headers_mut().insert("vestibule", line);
        let Ok((response, sending)) = self.requests.clone().send_request(request, false) else {
            heard.lock().expect("no panic").ended = Some(false);
            return Stream {
                sending: None,
                hearing: None,
                heard,
            };
        };
        let hearing = tokio::spawn(hear(response, Arc::clone(&heard)));
        Stream {
            sending: Some(sending),
            hearing: Some(hearing),
            heard,
        }
    }
}

impl Stream {
    pub(super) fn act(&mut self, worker: usize, act: Act) {
        let Some(sending) = &mut self.sending else {
            return;
        };
        let bytes = match act {
            Act::Confirm => vec![0],
            Act::ConfirmWith(count) => [vec![0], said(worker, count)].concat(),
            Act::WrongByte => vec![1],
            Act::EmptyFrame | Act::End => Vec::new(),
            Act::Reset => {
                self.hearing.take().inspect(JoinHandle::abort);
                self.heard.lock().expect("no panic").ended = Some(false);
                return sending.send_reset(Reason::CANCEL);
            }
        };
        // If this fails, it has ended.
        let _ = sending.send_data(bytes.into(), act == Act::End);
    }

    pub(super) fn heard<T>(&self, look: impl FnOnce(&Heard) -> T) -> T {
        look(&self.heard.lock().expect("no panic"))
    }
}

async fn hear(response: ResponseFuture, heard: Arc<Mutex<Heard>>) {
    let hears = |it: &dyn Fn(&mut Heard)| it(&mut heard.lock().expect("no panic"));
    let Ok(response) = response.await else {
        return hears(&|heard| heard.ended = Some(false));
    };
    hears(&|heard| {
        heard.facts = value(response.headers(), "vestibule-facts");
        heard.refusal = value(response.headers(), "vestibule-refusal");
    });
    let mut body = response.into_body();
    while let Some(frame) = body.data().await {
        let Ok(frame) = frame else {
            return hears(&|heard| heard.ended = Some(false));
        };
        hears(&|heard| heard.bytes.extend_from_slice(&frame));
    }
    hears(&|heard| heard.ended = Some(true));
}

fn value(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?.to_str();
    Some(value.expect("ASCII").to_owned())
}

/// As a carrier does.
async fn carry(io: DuplexStream, number: usize, state: Arc<ProxyState>) {
    let mut facts = Facts::new("");
    facts.listener = Some(LISTENER.into());
    facts.identity = Identity::of_name(identity(number)).map(Arc::new);
    let record = state.ledger.open(facts, Via::Direct);
    let mut workers = Workers::of(&record, &state);
    let Ok(mut tunnel) = Carried::begin(io, &settings()).await else {
        return;
    };
    let (mut is_over, mut is_draining) = (false, false);
    while !(is_over && workers.is_empty()) {
        tokio::select! {
            biased;
            () = state.drain.started(), if !is_draining => {
                is_draining = true;
                tunnel.drain();
            }
            next = tunnel.next(), if !is_over => match next {
                Ok(Some(Opened::Worker(request))) => {
                    workers.open(request);
                    tunnel.listen_for_a_pulse();
                }
                Ok(Some(Opened::Client(_))) => panic!("no client comes here"),
                Err(CarrierError::Io(std::io::ErrorKind::TimedOut)) => break,
                Ok(None) | Err(_) => is_over = true,
            },
            () = workers.ended(), if !workers.is_empty() => {}
        }
    }
    drop(tunnel);
    workers.close().await;
    yield_now().await;
}

/// The capacity of the pipe in each direction.
const PIPE: usize = 16 * 1024;
