//! Which worker gets which client.

use super::{BUDGET, Fate, Model, State, Worker};
use crate::fuzzing::claims::step::{Act, Step};

impl Model {
    /// A client waits, at its old place if it had one, unless a worker waits.
    pub(super) fn offer(&mut self, client: usize, now: u64) {
        if self.is_draining {
            self.clients[client].fate = Fate::Drained;
            return;
        }
        match self.next_worker(self.clients[client].backend) {
            Some(worker) => self.tell(worker, client, now),
            None => self.clients[client].fate = Fate::Waiting,
        }
    }

    /// A client comes back from a worker that has not taken it.
    pub(super) fn offer_again(&mut self, client: usize, now: u64) {
        match self.clients[client].due <= now {
            true => self.clients[client].fate = Fate::Expired,
            false => self.offer(client, now),
        }
    }

    /// The first worker that waits. Those before it are gone.
    fn next_worker(&mut self, backend: usize) -> Option<usize> {
        while !self.queues[backend].is_empty() {
            let worker = self.queues[backend].remove(0);
            if self.workers[worker].state == State::Queued {
                return Some(worker);
            }
        }
        None
    }

    pub(super) fn tell(&mut self, worker: usize, client: usize, now: u64) {
        let Worker { state, told, .. } = &mut self.workers[worker];
        assert!(told.replace(client).is_none(), "it was told before");
        *state = State::Told(client);
        self.clients[client].fate = Fate::Promised {
            worker,
            due: now + BUDGET,
        };
        self.promised.push(client);
    }

    /// The workers of these clients of one backend have failed at the same time. Which of the clients comes first is
    /// not specified.
    pub(super) fn fail(&mut self, mut clients: Vec<usize>, now: u64) {
        clients.retain(|client| {
            let is_late = self.clients[*client].due <= now;
            if is_late {
                self.clients[*client].fate = Fate::Expired;
            }
            !is_late
        });
        if clients.len() < 2 || self.is_draining {
            clients
                .into_iter()
                .for_each(|client| self.offer(client, now));
            return;
        }
        let mut workers = Vec::new();
        for &client in &clients {
            self.clients[client].fate = Fate::Undecided;
            workers.extend(self.next_worker(self.clients[client].backend));
        }
        for &worker in &workers {
            self.workers[worker].state = State::Undecided;
        }
        self.undecided.push((clients, workers, now));
    }

    /// Decides as it was found: each of the workers was told one of the clients.
    pub(in crate::fuzzing::claims) fn adopt(&mut self, told: impl Fn(usize) -> Option<usize>) {
        for (mut clients, workers, since) in std::mem::take(&mut self.undecided) {
            for worker in workers {
                let told = told(worker);
                let found = clients.iter().position(|client| Some(*client) == told);
                let found = found.unwrap_or_else(|| panic!("{worker}: {told:?} of {clients:?}"));
                self.tell(worker, clients.remove(found), since);
            }
            for client in clients {
                self.clients[client].fate = Fate::Waiting;
            }
        }
    }

    /// Steps after which at most one of the workers that were told just now may hang.
    pub(in crate::fuzzing::claims) fn settling(&mut self) -> Vec<Step> {
        let promised = std::mem::take(&mut self.promised).into_iter();
        let open = promised.filter_map(|client| match self.clients[client].fate {
            Fate::Promised { worker, .. } => Some((worker, client)),
            _ => None,
        });
        let settled = open.skip(1).map(|(worker, client)| {
            let act = Act::Confirm;
            match self.permits(&Step::Act { worker, act }) {
                true => Step::Act { worker, act },
                false => Step::Leave { client },
            }
        });
        settled.collect()
    }
}
