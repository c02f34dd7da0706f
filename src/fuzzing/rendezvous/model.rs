//! A simple, slow model of the rendezvous: lists that are searched from the front.

use std::collections::VecDeque;

use super::operation::{Answer, BACKENDS, Life, Operation, WatcherEvent};
use crate::rendezvous::{Resolution, Unredeemed};

/// The reasons for which tickets are withdrawn.
const REASONS: [Resolution; 3] = [
    Resolution::Expired,
    Resolution::Dialled,
    Resolution::Refused,
];

#[derive(Default)]
pub(super) struct Model {
    ids: usize,
    /// In the order of announcement.
    tickets: Vec<Ticket>,
    claimers: Vec<Life>,
    /// The waiting claimers and their backends, in the order of arrival.
    queue: Vec<(usize, usize)>,
    watchers: Vec<Watcher>,
    drained: bool,
    /// Every claimer that was told, with the id.
    pub told: Vec<(usize, usize)>,
    /// How often each of the two tasks of each ticket was woken.
    pub woken: Vec<usize>,
}

struct Ticket {
    id: usize,
    backend: usize,
    state: State,
    /// The task that polled it last.
    task: Option<usize>,
    held: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Claimed(usize),
    Over(Unredeemed),
}

struct Watcher {
    backend: usize,
    capacity: usize,
    unread: VecDeque<WatcherEvent>,
    /// Whether it gets further events.
    open: bool,
    held: bool,
}

impl Model {
    /// Decodes two bytes. `None` if the operation would have no subject.
    pub(super) fn decode(&self, kind: u8, detail: u8) -> Option<Operation> {
        let detail = usize::from(detail);
        let (low, high) = (detail % 2, detail / 2);
        let life = [Life::Alive, Life::Dead][low];
        let ticket = |nth: usize| nth_held(self.tickets.iter().map(|ticket| ticket.held), nth);
        let watcher = |nth: usize| nth_held(self.watchers.iter().map(|watcher| watcher.held), nth);
        Some(match kind % 16 {
            0..=1 => Operation::Announce {
                backend: low,
                id: self.ids,
            },
            2 => Operation::Announce {
                backend: low,
                id: high % (self.ids + 1),
            },
            3..=4 => Operation::Claim {
                id: high % (self.ids + 1),
                life,
            },
            5..=6 => Operation::Accept {
                backend: high % 2,
                life,
            },
            7 => Operation::Die {
                claimer: detail.checked_rem(self.claimers.len())?,
            },
            8 => Operation::Prune,
            9..=10 => Operation::Poll {
                ticket: ticket(high)?,
                task: low,
            },
            11 => Operation::Withdraw {
                ticket: ticket(high)?,
                why: REASONS[detail % REASONS.len()],
            },
            12 => Operation::Drop {
                ticket: ticket(detail)?,
            },
            13 => Operation::Watch {
                backend: low,
                capacity: 1 + high % 4,
            },
            14 => Operation::Read {
                watcher: watcher(high)?,
                most: 1 + low,
            },
            // After a drain little can happen, so it is rare.
            _ if detail == 255 => Operation::Drain,
            _ => Operation::Leave {
                watcher: watcher(detail)?,
            },
        })
    }

    /// The operations that end everything.
    pub(super) fn closing(&self) -> Vec<Operation> {
        let tickets = (0..self.tickets.len()).filter(|ticket| self.tickets[*ticket].held);
        let watchers = (0..self.watchers.len()).filter(|watcher| self.watchers[*watcher].held);
        let mut closing: Vec<_> = tickets.map(|ticket| Operation::Drop { ticket }).collect();
        closing.push(Operation::Drain);
        closing.extend(watchers.map(|watcher| Operation::Read {
            watcher,
            most: usize::MAX,
        }));
        closing
    }

    pub(super) fn perform(&mut self, operation: &Operation) -> Answer {
        match *operation {
            Operation::Announce { backend, id } => self.announce(backend, id),
            Operation::Claim { id, life } => {
                let claimer = self.arrive(life);
                let is_it = |ticket: &Ticket| ticket.id == id && ticket.state == State::Waiting;
                match self.tickets.iter().position(is_it) {
                    Some(ticket) if life == Life::Alive => self.tell(ticket, claimer),
                    _ => Answer::GivenBack(claimer),
                }
            }
            Operation::Accept { backend, life } => {
                let claimer = self.arrive(life);
                match self.waiting(backend).first() {
                    _ if self.drained => Answer::Draining(claimer),
                    Some(&oldest) if life == Life::Alive => self.tell(oldest, claimer),
                    Some(_) => Answer::GivenBack(claimer),
                    None => {
                        self.queue.push((backend, claimer));
                        Answer::Queued
                    }
                }
            }
            Operation::Die { claimer } => {
                self.claimers[claimer] = Life::Dead;
                Answer::Done
            }
            Operation::Prune => {
                let claimers = &self.claimers;
                self.queue
                    .retain(|(_, claimer)| claimers[*claimer] == Life::Alive);
                Answer::Done
            }
            Operation::Poll { ticket, task } => self.poll(ticket, task),
            Operation::Withdraw { ticket, why } => Answer::Withdrawn(self.withdraw(ticket, why)),
            Operation::Drop { ticket } => {
                self.withdraw(ticket, Resolution::ClientGone);
                Answer::Done
            }
            Operation::Watch { backend, capacity } => {
                self.watchers.push(Watcher {
                    backend,
                    capacity,
                    unread: VecDeque::new(),
                    open: !self.drained,
                    held: true,
                });
                let waiting = self.waiting(backend).into_iter();
                Answer::Waiting(waiting.map(|ticket| self.tickets[ticket].id).collect())
            }
            Operation::Read { watcher, most } => Answer::Events(self.watchers[watcher].read(most)),
            Operation::Leave { watcher } => {
                self.watchers[watcher].open = false;
                self.watchers[watcher].held = false;
                Answer::Done
            }
            Operation::Drain => self.drain(),
        }
    }

    /// The number of offers that wait, or that were claimed and not redeemed yet.
    pub(super) fn len(&self) -> usize {
        let is_there = |ticket: &&Ticket| !matches!(ticket.state, State::Over(_));
        self.tickets.iter().filter(is_there).count()
    }

    /// The claimers that the rendezvous no longer holds.
    pub(super) fn ended(&self) -> Vec<usize> {
        let is_held = |claimer: usize| {
            let claimed = State::Claimed(claimer);
            self.queue.iter().any(|(_, queued)| *queued == claimer)
                || self.tickets.iter().any(|ticket| ticket.state == claimed)
        };
        let claimers = 0..self.claimers.len();
        claimers.filter(|claimer| !is_held(*claimer)).collect()
    }

    fn announce(&mut self, backend: usize, id: usize) -> Answer {
        let is_there = |ticket: &Ticket| ticket.id == id && !matches!(ticket.state, State::Over(_));
        let state = if self.drained {
            State::Over(Unredeemed::Drained)
        } else if self.tickets.iter().any(is_there) {
            State::Over(Unredeemed::Duplicate)
        } else {
            State::Waiting
        };
        self.ids = self.ids.max(id + 1);
        self.woken.extend([0, 0]);
        self.tickets.push(Ticket {
            id,
            backend,
            state,
            task: None,
            held: true,
        });
        if state == State::Waiting {
            self.happen(backend, WatcherEvent::Offer(id));
            self.offer(self.tickets.len() - 1);
        }
        Answer::Done
    }

    /// The first living claimer of the queue gets the offer. Dead ones before it are dropped.
    fn offer(&mut self, ticket: usize) {
        let backend = self.tickets[ticket].backend;
        while let Some(first) = self.queue.iter().position(|(for_, _)| *for_ == backend) {
            let (_, claimer) = self.queue.remove(first);
            if self.claimers[claimer] == Life::Alive {
                self.tell(ticket, claimer);
                return;
            }
        }
    }

    fn tell(&mut self, ticket: usize, claimer: usize) -> Answer {
        let Ticket { id, backend, .. } = self.tickets[ticket];
        self.tickets[ticket].state = State::Claimed(claimer);
        self.told.push((claimer, id));
        self.happen(backend, WatcherEvent::Gone(id, Resolution::Claimed));
        self.wake(ticket);
        Answer::Told
    }

    fn poll(&mut self, ticket: usize, task: usize) -> Answer {
        let polled = &mut self.tickets[ticket];
        match polled.state {
            State::Waiting => {
                polled.task = Some(task);
                Answer::Pending
            }
            State::Claimed(claimer) => {
                polled.state = State::Over(Unredeemed::Drained);
                Answer::Redeemed(claimer)
            }
            State::Over(why) => Answer::Unredeemed(why),
        }
    }

    fn withdraw(&mut self, ticket: usize, why: Resolution) -> Option<usize> {
        let Ticket {
            id, backend, state, ..
        } = self.tickets[ticket];
        self.tickets[ticket].held = false;
        if let State::Over(_) = state {
            return None;
        }
        self.tickets[ticket].state = State::Over(Unredeemed::Expired);
        match state {
            State::Claimed(claimer) => Some(claimer),
            _ => {
                self.happen(backend, WatcherEvent::Gone(id, why));
                None
            }
        }
    }

    fn drain(&mut self) -> Answer {
        self.drained = true;
        for backend in 0..BACKENDS.len() {
            for ticket in self.waiting(backend) {
                let id = self.tickets[ticket].id;
                self.tickets[ticket].state = State::Over(Unredeemed::Drained);
                self.happen(backend, WatcherEvent::Gone(id, Resolution::Drained));
                self.wake(ticket);
            }
        }
        self.watchers
            .iter_mut()
            .for_each(|watcher| watcher.open = false);
        let mut queue = std::mem::take(&mut self.queue);
        queue.sort_by_key(|(backend, _)| *backend);
        Answer::Drained(queue.into_iter().map(|(_, claimer)| claimer).collect())
    }

    fn arrive(&mut self, life: Life) -> usize {
        self.claimers.push(life);
        self.claimers.len() - 1
    }

    /// The waiting tickets of a backend, oldest first.
    fn waiting(&self, backend: usize) -> Vec<usize> {
        let waits = |ticket: &Ticket| ticket.backend == backend && ticket.state == State::Waiting;
        let tickets = 0..self.tickets.len();
        tickets.filter(|nth| waits(&self.tickets[*nth])).collect()
    }

    fn happen(&mut self, backend: usize, event: WatcherEvent) {
        for watcher in &mut self.watchers {
            if watcher.open && watcher.backend == backend {
                if watcher.unread.len() < watcher.capacity {
                    watcher.unread.push_back(event);
                } else {
                    watcher.open = false;
                }
            }
        }
    }

    fn wake(&mut self, ticket: usize) {
        if let Some(task) = self.tickets[ticket].task.take() {
            self.woken[2 * ticket + task] += 1;
        }
    }
}

impl Watcher {
    fn read(&mut self, most: usize) -> Vec<WatcherEvent> {
        let mut heard = Vec::new();
        while heard.len() < most {
            match (self.unread.pop_front(), self.open) {
                (Some(event), _) => heard.push(event),
                (None, true) => return [heard, vec![WatcherEvent::Nothing]].concat(),
                (None, false) => return [heard, vec![WatcherEvent::End]].concat(),
            }
        }
        heard
    }
}

fn nth_held(held: impl Iterator<Item = bool>, nth: usize) -> Option<usize> {
    let held: Vec<usize> = held
        .enumerate()
        .filter_map(|(number, held)| held.then_some(number))
        .collect();
    Some(held[nth.checked_rem(held.len())?])
}
