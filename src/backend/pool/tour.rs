//! One round over the addresses of a backend: which is tried next, and the result.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Pool;
use super::race::{Connected, Race};
use super::target::{Lease, Target};
use crate::backend::dial::{Place, connect_tcp, connect_unix};
use crate::backend::dial_error::DialError;
use crate::deadline::Deadline;
use crate::sys::socket::Socket;

/// One round over the addresses.
pub(super) struct Tour<'a> {
    pub pool: &'a Pool,
    pub source: Option<IpAddr>,
    pub targets: &'a [Arc<Target>],
    pub tried: Vec<usize>,
    pub race: Race,
    pub busy: bool,
    pub untrusted: usize,
}

impl Tour<'_> {
    /// The next connection to one of the addresses; `None` after all have been tried.
    pub(super) async fn connected(&mut self, deadline: Deadline) -> Option<(Lease, Socket)> {
        loop {
            let (lease, connected) = match self.begin() {
                Begun::Ended(lease, connected) => (lease, connected),
                Begun::Running => match self.race.next().await {
                    Some(ended) => ended,
                    None => continue,
                },
                Begun::Nothing if self.race.len() == 0 => return None,
                Begun::Nothing => match self.patience(deadline).bound(self.race.ended()).await {
                    Ok(ended) => ended,
                    Err(_) => {
                        for lease in self.race.give_up() {
                            lease.target.failed(&self.pool.judge, NO_ANSWER);
                        }
                        return None;
                    }
                },
            };
            match connected {
                Ok(socket) => {
                    for late in self.race.late() {
                        late.target.failed(&self.pool.judge, LATE);
                    }
                    return Some((lease, socket));
                }
                Err(error) => self.failed(&lease, error),
            }
        }
    }

    /// Starts to connect to the next address.
    fn begin(&mut self) -> Begun {
        let picked = self.pool.pick(self.source, self.targets, &mut self.tried);
        let Some(lease) = picked else {
            return Begun::Nothing;
        };
        match &lease.target.place {
            Some(Place::Unix(path)) => {
                let connected = connect_unix(path);
                Begun::Ended(lease, connected)
            }
            Some(Place::Tcp(address)) => {
                let connect = connect_tcp(*address, self.pool.unacknowledged);
                self.race.begin(lease, Box::pin(connect));
                Begun::Running
            }
            // A host name itself is never picked, only its addresses.
            None => Begun::Nothing,
        }
    }

    /// How long to wait for connects when no other address is left to start with. An address that
    /// has failed may be back before the others answer, and is tried again in the next round.
    fn patience(&self, deadline: Deadline) -> Deadline {
        match self.race.has_failed {
            true => deadline.earlier(Deadline::after(SILENCE)),
            false => deadline,
        }
    }

    pub(super) fn failed(&mut self, lease: &Lease, error: DialError) {
        let judge = &self.pool.judge;
        self.race.has_failed = true;
        match error {
            DialError::Busy | DialError::Exhausted => self.busy = true,
            DialError::Down(error) => lease.target.failed(judge, &error.to_string()),
            DialError::Untrusted(error) => {
                self.untrusted += 1;
                lease.target.failed(judge, &error);
            }
            DialError::Foreign(owner) => self.pool.registry.disown(&lease.target, owner),
            DialError::Ours => {
                self.untrusted += 1;
                lease.target.failed(judge, LEADS_BACK);
            }
            // The end of the round handles this.
            DialError::Reset => {}
        }
    }

    /// The number of parts to divide the remaining time into.
    pub(super) fn rest(&self) -> u32 {
        let untried = self.targets.len() - self.tried.len() + self.race.len();
        untried as u32 + 1
    }
}

/// The result of starting with an address.
enum Begun {
    Running,
    /// It has ended at once: a Unix socket connects or fails immediately.
    Ended(Lease, Connected),
    /// No address is left.
    Nothing,
}

/// How long to wait for silent addresses after another one has failed. A lost SYN is sent again
/// after a second (RFC 6298 §2).
const SILENCE: Duration = Duration::from_secs(1);

pub(super) const NO_ANSWER: &str = "no answer in time";
const LATE: &str = "no answer within 250 ms; another address answered first";
pub(super) const LEADS_BACK: &str = "the address is a listener or the gate of this Vestibule";
