//! One round over the addresses of a backend: which is tried next, and the result.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Pool;
use super::race::{Connected, Link, Race};
use super::target::{Lease, Target};
use crate::backend::dial::{Place, Reached, connect_tcp, connect_unix, introduce};
use crate::backend::dial_error::DialError;
use crate::backend::tunnels::{Tunnels, Way};
use crate::backend::whose::Expected;
use crate::deadline::{Deadline, Elapsed};

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
    pub(super) async fn connected(&mut self, deadline: Deadline) -> Option<(Lease, Link)> {
        loop {
            let (lease, connected) = match self.begin(deadline) {
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
                Ok(link) => {
                    // A handshake may take longer. The dial of a tunnel goes on, and says itself how it ends.
                    if self.pool.tunnels.is_none() {
                        for late in self.race.late() {
                            late.target.failed(&self.pool.judge, LATE);
                        }
                    }
                    return Some((lease, link));
                }
                Err(error) => self.failed(&lease, error),
            }
        }
    }

    /// Starts to connect to the next address.
    fn begin(&mut self, deadline: Deadline) -> Begun {
        let picked = self.pool.pick(self.source, self.targets, &mut self.tried);
        let Some(lease) = picked else {
            return Begun::Nothing;
        };
        if let Some(tunnels) = &self.pool.tunnels {
            return self.enter(tunnels, lease, deadline);
        }
        match &lease.target.place {
            Some(Place::Unix(path)) => {
                let connected = connect_unix(path);
                Begun::Ended(lease, connected.map(Link::Socket))
            }
            Some(Place::Tcp(address)) => {
                let connect = connect_tcp(*address, self.pool.unacknowledged);
                let connect = async { connect.await.map(Link::Socket) };
                self.race.begin(lease, Box::pin(connect));
                Begun::Running
            }
            // A host name itself is never picked, only its addresses.
            None => Begun::Nothing,
        }
    }

    /// Looks for a place in a tunnel to the address.
    fn enter(&mut self, tunnels: &Tunnels, lease: Lease, deadline: Deadline) -> Begun {
        match tunnels.enter(&lease.target, deadline) {
            Way::Open(berth) => Begun::Ended(lease, Ok(Link::Tunnel(berth))),
            Way::Full => Begun::Ended(lease, Err(DialError::Busy)),
            Way::Wait(waiting) => {
                let wait = async { waiting.wait().await.map(Link::Tunnel) };
                self.race.begin(lease, Box::pin(wait));
                Begun::Running
            }
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
            DialError::Untrusted(error) | DialError::Refused(error) => {
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
            DialError::Lost(error) => lease.target.failed(judge, &error),
        }
    }

    /// The number of parts to divide the remaining time into.
    pub(super) fn rest(&self) -> u32 {
        let untried = self.targets.len() - self.tried.len() + self.race.len();
        untried as u32 + 1
    }
}

impl Pool {
    /// Makes the way to an address ready for the client's bytes. `share` is the part of the time for this address.
    pub(super) async fn introduce(
        &self,
        lease: &Lease,
        link: Link,
        greeting: Option<&[u8]>,
        deadline: Deadline,
        share: Deadline,
    ) -> Result<Result<Reached, DialError>, Elapsed> {
        let target = &lease.target;
        let socket = match (link, &self.tunnels) {
            (Link::Socket(socket), _) => socket,
            (Link::Tunnel(berth), Some(tunnels)) => {
                // All of the time: another address may not be asked after this one.
                let opened = tunnels.open(berth, target, greeting, deadline);
                return deadline.bound(Box::pin(opened)).await;
            }
            (Link::Tunnel(_), None) => return Ok(Err(DialError::Busy)),
        };
        let expected = Expected {
            registrant: target.registrant,
            own: &self.own,
        };
        let introduction = async {
            expected.verify(&socket)?;
            introduce(socket, &target.address, self.tls.as_ref(), greeting).await
        };
        share.bound(introduction).await
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
