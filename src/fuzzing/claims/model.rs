//! What clients and workers have to see, from lists that are searched from the front.

mod decode;
mod matching;

use super::step::{Act, BACKENDS, PLACES, Step, TUNNELS, Wanted, said};

#[derive(Default)]
pub(super) struct Model {
    /// In the order of their places.
    pub clients: Vec<Client>,
    pub workers: Vec<Worker>,
    pub tunnels: [Tunnel; TUNNELS],
    /// The workers that wait for any client, also local ones that are gone.
    queues: [Vec<usize>; BACKENDS.len()],
    is_draining: bool,
    /// Clients whose workers have failed at the same time, and the workers that get some of them.
    undecided: Vec<(Vec<usize>, Vec<usize>, u64)>,
    /// The clients that were promised to workers since the last comparison.
    promised: Vec<usize>,
}

pub(super) struct Client {
    pub backend: usize,
    due: u64,
    is_postponed: bool,
    /// Its time has passed while a worker was to confirm.
    is_late: bool,
    pub fate: Fate,
    /// What the worker has sent, and whether it has ended in order.
    pub reply: Vec<u8>,
    pub ended: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Waiting,
    Promised { worker: usize, due: u64 },
    Served { worker: usize },
    Undecided,
    Expired,
    Drained,
    Left,
}

pub(super) struct Worker {
    pub tunnel: Option<usize>,
    pub state: State,
    /// The client that it was told.
    pub told: Option<usize>,
    /// It has confirmed that.
    pub has_taken: bool,
    has_ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Queued,
    Undecided,
    Told(usize),
    Has(usize),
    Refused(&'static str),
    Gone,
}

#[derive(Clone, Copy, Default)]
pub(super) struct Tunnel {
    pub is_open: bool,
    pub frozen_at: Option<u64>,
    /// A worker has come, so our side listens for its pulse.
    pub has_pulse: bool,
}

/// What happens by itself, in the order in which it does at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// The client's worker does not confirm.
    Hang(usize),
    /// The client's time is over, which counts only while no worker is to confirm.
    Expire(usize),
}

impl Model {
    pub(super) fn frozen(&self) -> Option<usize> {
        let mut tunnels = self.tunnels.iter();
        tunnels.position(|tunnel| tunnel.is_open && tunnel.frozen_at.is_some())
    }

    /// The end of a tunnel that is frozen, before it is noticed by its pulse.
    pub(super) fn burial(&self, now: u64) -> Option<Step> {
        let tunnel = self.frozen()?;
        let since = self.tunnels[tunnel].frozen_at?;
        (now > since + 2_500).then_some(Step::Die { tunnel })
    }

    pub(super) fn next_due(&self) -> Option<(u64, Due)> {
        let clients = self.clients.iter().enumerate();
        let due = clients.flat_map(|(client, it)| {
            let (hang, expire) = match it.fate {
                Fate::Waiting => (None, Some(it.due)),
                Fate::Promised { due, .. } => (Some(due), Some(it.due).filter(|_| !it.is_late)),
                _ => (None, None),
            };
            let hang = hang.map(|at| (at, Due::Hang(client)));
            hang.into_iter()
                .chain(expire.map(|at| (at, Due::Expire(client))))
        });
        due.min()
    }

    /// The workers that wait take places among the gate's clients.
    pub(super) fn places(&self) -> usize {
        self.queues.iter().map(Vec::len).sum()
    }

    pub(super) fn waiting(&self) -> usize {
        let is_there = |it: &&Client| it.fate == Fate::Waiting;
        self.clients.iter().filter(is_there).count()
    }

    pub(super) fn perform(&mut self, step: Step, now: u64) {
        match step {
            Step::Announce { backend, budget } => {
                self.clients.push(Client {
                    backend,
                    due: now + budget,
                    is_postponed: false,
                    is_late: false,
                    fate: Fate::Undecided,
                    reply: Vec::new(),
                    ended: None,
                });
                self.offer(self.clients.len() - 1, now);
            }
            Step::Leave { client } => {
                let fate = std::mem::replace(&mut self.clients[client].fate, Fate::Left);
                if let Fate::Promised { worker, .. } | Fate::Served { worker } = fate {
                    self.workers[worker].state = State::Gone;
                }
            }
            Step::Ask {
                tunnel,
                backend,
                wanted,
            } => self.ask(tunnel, backend, wanted, now),
            Step::Act { worker, act } => self.act(worker, act, now),
            Step::Die { tunnel } => self.die(tunnel, now),
            Step::Open { tunnel } => self.tunnels[tunnel].is_open = true,
            Step::Freeze { tunnel } => self.tunnels[tunnel].frozen_at = Some(now),
            Step::TidyUp => {
                let workers = &self.workers;
                for queue in &mut self.queues {
                    queue.retain(|worker| workers[*worker].state == State::Queued);
                }
            }
            Step::Pass { .. } => {}
            Step::Drain => self.drain(),
        }
    }

    fn drain(&mut self) {
        self.is_draining = true;
        for worker in std::mem::take(&mut self.queues).into_iter().flatten() {
            let Worker { tunnel, state, .. } = &mut self.workers[worker];
            if *state == State::Queued {
                // A worker in a frozen tunnel does not hear it.
                let hears = tunnel.is_some_and(|it| self.tunnels[it].frozen_at.is_none());
                *state = match hears {
                    true => State::Refused("draining"),
                    false => State::Gone,
                };
            }
        }
        for client in &mut self.clients {
            if client.fate == Fate::Waiting {
                client.fate = Fate::Drained;
            }
        }
    }

    pub(super) fn pass(&mut self, due: Due, now: u64) {
        let (Due::Hang(client) | Due::Expire(client)) = due;
        let it = &mut self.clients[client];
        let worker = match (due, it.fate) {
            (Due::Hang(_), Fate::Promised { worker, .. }) => worker,
            (Due::Expire(_), Fate::Promised { .. }) => {
                it.is_late = true;
                return;
            }
            _ => {
                it.fate = Fate::Expired;
                return;
            }
        };
        if !std::mem::replace(&mut it.is_postponed, true) {
            it.due += BUDGET;
            it.is_late = false;
        }
        self.workers[worker].state = State::Gone;
        // What else waits of the same tunnel, or of this process, would hang as well.
        let culprit = self.workers[worker].tunnel;
        self.prune(culprit);
        self.offer_again(client, now);
    }

    fn prune(&mut self, culprit: Option<usize>) {
        let workers = &mut self.workers;
        for queue in &mut self.queues {
            queue.retain(|worker| {
                let is_innocent = workers[*worker].tunnel != culprit;
                if !is_innocent {
                    workers[*worker].state = State::Gone;
                }
                is_innocent
            });
        }
    }

    fn ask(&mut self, tunnel: Option<usize>, backend: usize, wanted: Wanted, now: u64) {
        let worker = self.workers.len();
        if let Some(tunnel) = tunnel {
            self.tunnels[tunnel].has_pulse = true;
        }
        self.workers.push(Worker {
            tunnel,
            state: State::Gone,
            told: None,
            has_taken: false,
            has_ended: false,
        });
        let is_wanted = |nth: usize, it: &Client| match wanted {
            Wanted::Any => it.backend == backend,
            // Through a tunnel, only of the backend that it names.
            Wanted::Client(client) => nth == client && (it.backend == backend || tunnel.is_none()),
            Wanted::Unknown | Wanted::Malformed => false,
        };
        let mut clients = self.clients.iter().enumerate();
        let found = clients.position(|(nth, it)| it.fate == Fate::Waiting && is_wanted(nth, it));
        let refusal = match found {
            // Without an answer, or with `draining`.
            _ if self.is_draining => None,
            _ if tunnel == Some(TUNNELS - 1) && backend == 1 => Some("forbidden"),
            _ if wanted == Wanted::Malformed => Some("malformed"),
            _ if self.places() == PLACES => Some("busy"),
            Some(client) => return self.tell(worker, client, now),
            None if wanted == Wanted::Any => {
                self.workers[worker].state = State::Queued;
                self.queues[backend].push(worker);
                return;
            }
            None => Some("unknown"),
        };
        if let (Some(refusal), Some(_)) = (refusal, tunnel) {
            self.workers[worker].state = State::Refused(refusal);
        }
    }

    fn act(&mut self, worker: usize, act: Act, now: u64) {
        let is_local = self.workers[worker].tunnel.is_none();
        match (self.workers[worker].state, act) {
            (_, Act::EmptyFrame) => {}
            (_, Act::WrongByte) | (State::Queued, Act::Confirm | Act::ConfirmWith(_))
                if is_local => {}
            (State::Queued, _) => {
                self.workers[worker].state = State::Gone;
                if !is_local {
                    let queues = self.queues.iter_mut();
                    queues.for_each(|queue| queue.retain(|it| *it != worker));
                }
            }
            (State::Told(client), Act::Confirm | Act::ConfirmWith(_)) => {
                self.workers[worker].state = State::Has(client);
                self.workers[worker].has_taken = true;
                self.clients[client].fate = Fate::Served { worker };
                if let Act::ConfirmWith(count) = act {
                    self.clients[client].reply = said(worker, count);
                }
            }
            (State::Told(client), _) => {
                self.workers[worker].state = State::Gone;
                self.offer_again(client, now);
            }
            (State::Has(client), act) => self.reply(worker, client, act),
            (State::Undecided | State::Refused(_) | State::Gone, _) => {}
        }
    }

    /// What a worker does that has a connection.
    fn reply(&mut self, worker: usize, client: usize, act: Act) {
        let Worker {
            tunnel,
            state,
            has_ended,
            ..
        } = &mut self.workers[worker];
        let Client { reply, ended, .. } = &mut self.clients[client];
        let is_local = tunnel.is_none();
        match act {
            Act::Reset | Act::End if is_local || act == Act::Reset => {
                *state = State::Gone;
                ended.get_or_insert(false);
            }
            Act::End | Act::Reset => {
                *has_ended = true;
                ended.get_or_insert(true);
            }
            _ if *has_ended => {}
            Act::ConfirmWith(count) => {
                reply.extend((!is_local).then_some(0));
                reply.extend(said(worker, count));
            }
            Act::Confirm => reply.extend((!is_local).then_some(0)),
            Act::WrongByte => reply.push(1),
            Act::EmptyFrame => {}
        }
    }

    fn die(&mut self, tunnel: usize, now: u64) {
        self.tunnels[tunnel] = Tunnel::default();
        let mut failed = Vec::new();
        for worker in self.workers.iter_mut() {
            if worker.tunnel != Some(tunnel) || matches!(worker.state, State::Refused(_)) {
                continue;
            }
            match std::mem::replace(&mut worker.state, State::Gone) {
                State::Told(client) => failed.push(client),
                State::Has(client) => {
                    self.clients[client].ended.get_or_insert(false);
                }
                _ => {}
            }
        }
        let workers = &self.workers;
        for queue in &mut self.queues {
            queue.retain(|worker| workers[*worker].tunnel != Some(tunnel));
        }
        for backend in 0..BACKENDS.len() {
            let of_it = |client: &&usize| self.clients[**client].backend == backend;
            self.fail(failed.iter().filter(of_it).copied().collect(), now);
        }
    }
}

/// How long a worker may take to confirm, in milliseconds.
const BUDGET: u64 = 2_000;
