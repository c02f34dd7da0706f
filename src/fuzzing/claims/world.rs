//! The real parts, their clients and their workers.

use std::future::pending;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

use super::site;
use super::step::{Act, BACKENDS, Step, TUNNELS, Wanted, asked, said};
use super::tunnel::{Stream, Tunnel};
use crate::backend::claimer::Claimer;
use crate::backend::{ActiveBackend, Unserved, Upstream};
use crate::deadline::Deadline;
use crate::facts::Facts;
use crate::gate;
use crate::id::Id;
use crate::proxy_state::ProxyState;

pub(super) struct World {
    pub state: Arc<ProxyState>,
    began: Instant,
    tunnels: [Option<Tunnel>; TUNNELS],
    /// Our ends of the tunnels that have died.
    ended: Vec<JoinHandle<()>>,
    pub clients: Vec<Client>,
    pub workers: Vec<Worker>,
}

pub(super) struct Client {
    task: JoinHandle<()>,
    pub saw: Arc<Mutex<Saw>>,
}

/// What a client has seen.
#[derive(Debug, Default)]
pub(super) struct Saw {
    pub is_served: bool,
    pub unserved: Option<Unserved>,
    pub bytes: Vec<u8>,
    /// Whether its connection has ended, and if so, in order.
    pub ended: Option<bool>,
}

pub(super) enum Worker {
    InTunnel(Stream),
    Local(Local),
}

/// A worker at the gate.
#[derive(Default)]
pub(super) struct Local {
    stream: Option<UnixStream>,
    /// What it has read after its answer.
    bytes: Vec<u8>,
    has_read: bool,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            state: Arc::new(site::state()),
            began: Instant::now(),
            tunnels: Default::default(),
            ended: Vec::new(),
            clients: Vec::new(),
            workers: Vec::new(),
        }
    }

    /// In milliseconds.
    pub(super) fn now(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    pub(super) async fn sleep_until(&self, time: u64) {
        sleep_until(self.began + Duration::from_millis(time)).await;
    }

    /// Waits until all tasks wait. The clock moves only then, but it moves as well when a socket becomes ready.
    pub(super) async fn settle(&self) {
        for _ in 0..4 {
            sleep(Duration::from_millis(1)).await;
        }
        sleep(Duration::from_millis(16)).await;
    }

    pub(super) async fn perform(&mut self, step: Step) {
        match step {
            Step::Announce { backend, budget } => self.announce(backend, budget),
            Step::Leave { client } => self.clients[client].task.abort(),
            Step::Ask {
                tunnel: Some(tunnel),
                backend,
                wanted,
            } => {
                let line = match wanted {
                    Wanted::Any => "accept".into(),
                    Wanted::Client(client) => format!("claim {}", id_of(client)),
                    Wanted::Unknown => format!("claim {}", id_of(UNKNOWN)),
                    Wanted::Malformed => "accept ".repeat(2),
                };
                let tunnel = self.tunnels[tunnel].as_ref().expect("it is open");
                let stream = tunnel.ask(BACKENDS[backend], line.trim());
                self.workers.push(Worker::InTunnel(stream));
            }
            Step::Ask {
                tunnel: None,
                backend,
                wanted,
            } => {
                let stream = self.ask_at_the_gate(backend, wanted);
                self.workers.push(Worker::Local(Local {
                    stream: Some(stream),
                    ..Local::default()
                }));
            }
            Step::Act { worker, act } => match &mut self.workers[worker] {
                Worker::InTunnel(stream) => stream.act(worker, act),
                Worker::Local(local) => local.act(worker, act),
            },
            Step::Die { tunnel } => {
                let dead = self.tunnels[tunnel].take().expect("it is open");
                dead.die();
                self.ended.push(dead.server);
            }
            Step::Open { tunnel } => {
                let opened = Tunnel::open(tunnel, &self.state).await;
                self.tunnels[tunnel] = Some(opened);
            }
            Step::Freeze { tunnel } => self.tunnels[tunnel].as_ref().expect("open").freeze(),
            Step::TidyUp => self.state.rendezvous.prune(Claimer::is_alive),
            Step::Pass { .. } => {}
            Step::Drain => {
                self.state.drain.start();
                gate::dismiss(&self.state.rendezvous);
            }
        }
    }

    fn announce(&mut self, backend: usize, budget: u64) {
        let client = self.clients.len();
        let mut facts = Facts::new(BACKENDS[backend]);
        facts.id = id_of(client);
        let backends = self.state.config.load();
        let backend = Arc::clone(&backends.backends[BACKENDS[backend]]);
        let saw = Arc::default();
        let state = Arc::clone(&self.state);
        let task = connect(client, backend, facts, budget, state, Arc::clone(&saw));
        self.clients.push(Client {
            task: tokio::spawn(task),
            saw,
        });
    }

    /// As the gate does after it has read the line.
    fn ask_at_the_gate(&mut self, backend: usize, wanted: Wanted) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        for end in [&ours, &theirs] {
            end.set_nonblocking(true).expect("a socket");
        }
        let Some(slot) = self.state.gate_places.take() else {
            return theirs;
        };
        let claimer = Claimer::Worker(ours, slot);
        let rendezvous = &self.state.rendezvous;
        match wanted {
            Wanted::Any => drop(rendezvous.accept(BACKENDS[backend], claimer)),
            Wanted::Client(client) => drop(rendezvous.claim(id_of(client), claimer)),
            Wanted::Unknown | Wanted::Malformed => {
                drop(rendezvous.claim(id_of(UNKNOWN), claimer));
            }
        }
        theirs
    }

    /// The client that a worker was told.
    pub(super) fn told(&self, worker: usize) -> Option<usize> {
        let told = match &self.workers[worker] {
            Worker::InTunnel(stream) => stream.heard(|heard| heard.facts.clone()),
            Worker::Local(local) => local.answer(),
        };
        let told = told?;
        let (_, id) = told.split_once("\"id\":\"")?;
        let id: Uuid = id.get(..36)?.parse().expect("an id");
        Some(id.as_u128() as usize)
    }

    /// Ends everything, and finds that nothing is left.
    pub(super) async fn close(mut self, silent: Option<usize>) {
        for client in &self.clients {
            client.task.abort();
        }
        self.settle().await;
        if let Some(silent) = silent {
            sleep(PULSE).await;
            let silent = self.tunnels[silent].as_ref().expect("it is open");
            assert!(silent.server.is_finished(), "nobody has felt its pulse");
        }
        for tunnel in self.tunnels.into_iter().flatten() {
            tunnel.die();
            self.ended.push(tunnel.server);
        }
        for server in self.ended {
            let ended = tokio::time::timeout(PULSE, server).await;
            ended.expect("it ends with its tunnel").expect("no panic");
        }
        drop(self.workers);
        for client in self.clients {
            let ended = client.task.await;
            assert!(!ended.is_err_and(|error| error.is_panic()));
        }
        let state = &self.state;
        state.rendezvous.prune(Claimer::is_alive);
        assert!(state.rendezvous.is_empty());
        let slots: Vec<_> = std::iter::from_fn(|| state.gate_places.take()).collect();
        assert_eq!(slots.len(), super::step::PLACES, "places are lost");
        let counts = &state.network_workers;
        for count in [&counts.tunnels, &counts.streams] {
            assert_eq!(count.load(std::sync::atomic::Ordering::Relaxed), 0);
        }
    }
}

async fn connect(
    client: usize,
    backend: Arc<ActiveBackend>,
    facts: Facts,
    budget: u64,
    state: Arc<ProxyState>,
    saw: Arc<Mutex<Saw>>,
) {
    let deadline = Deadline::after(Duration::from_millis(budget));
    let facts = Arc::new(facts);
    let obtained = backend.obtain(&facts, deadline, &state.rendezvous, pending());
    let mut stream = match obtained.await.map(|served| served.stream) {
        Ok(Upstream::Clear(stream)) => stream,
        Ok(Upstream::Records(_)) => panic!("a worker without TLS"),
        Err(unserved) => {
            saw.lock().expect("no panic").unserved = Some(unserved);
            return;
        }
    };
    saw.lock().expect("no panic").is_served = true;
    let _ = stream.write_all(&asked(client)).await;
    let mut piece = [0; 64];
    loop {
        let read = stream.read(&mut piece).await;
        let mut saw = saw.lock().expect("no panic");
        match read {
            Ok(0) => saw.ended = Some(true),
            Ok(count) => {
                saw.bytes.extend_from_slice(&piece[..count]);
                continue;
            }
            Err(_) => saw.ended = Some(false),
        }
        break;
    }
    // Until it is told to leave.
    pending().await
}

impl Local {
    fn act(&mut self, worker: usize, act: Act) {
        let answer = self.answer();
        match act {
            Act::Confirm | Act::ConfirmWith(_) if self.has_read || answer.is_some() => {
                if let (false, Some(answer), Some(stream)) = (self.has_read, answer, &self.stream) {
                    let mut stream: &UnixStream = stream;
                    let mut read = vec![0; answer.len()];
                    stream.read_exact(&mut read).expect("its answer");
                    self.has_read = true;
                }
                if let (Act::ConfirmWith(count), Some(stream)) = (act, &self.stream) {
                    let mut stream: &UnixStream = stream;
                    // If this fails, the client has left.
                    let _ = stream.write_all(&said(worker, count));
                }
            }
            Act::End | Act::Reset => self.stream = None,
            _ => {}
        }
    }

    /// Its answer with the line end, which it has not read yet.
    fn answer(&self) -> Option<String> {
        let stream = self.stream.as_ref().filter(|_| !self.has_read)?;
        let mut line = vec![0; 4096];
        let count = rustix::net::recv(stream, &mut line[..], rustix::net::RecvFlags::PEEK).ok()?;
        let line = String::from_utf8(line[..count.0].to_vec()).expect("a line");
        line.starts_with("OK ").then_some(line)
    }

    /// What it has read of its connection.
    pub(super) fn bytes(&mut self) -> &[u8] {
        if let Some(stream) = self.stream.as_mut().filter(|_| self.has_read) {
            // If nothing more is there, it fails.
            let _ = stream.read_to_end(&mut self.bytes);
        }
        &self.bytes
    }
}

fn id_of(client: usize) -> Id {
    Id::from(Uuid::from_u128(client as u128))
}

/// No client has this number.
const UNKNOWN: usize = 1_000_000;

/// Longer than a peer may be silent.
const PULSE: Duration = Duration::from_secs(16);
