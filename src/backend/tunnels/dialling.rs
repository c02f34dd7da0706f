//! A tunnel is dialled by a task of its own, for all connections that wait for it: none of them can end it by leaving.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{Instrument, debug, debug_span, warn};

use super::census::Counted;
use super::drive::drive;
use super::shelf::{Berth, Entrance, Outcome, Pending, Shelf, Tunnel};
use super::{Shared, Site};
use crate::backend::carrier::Carrier;
use crate::backend::dial::{Place, connect_tcp, connect_unix};
use crate::backend::dial_error::DialError;
use crate::backend::secure::Tls;
use crate::backend::whose::Expected;
use crate::deadline::Deadline;
use crate::identity::Identity;
use crate::tls::connect_error::refusal_words;
use crate::tunnel::{Driver, Originated};

/// How a dial ends, for one of those who wait.
pub(super) type Told = watch::Receiver<Option<Outcome>>;

/// A dial of a tunnel to put on a shelf.
#[derive(Clone)]
pub(super) struct Dialling {
    pub shared: Arc<Shared>,
    pub shelf: Arc<Shelf>,
    pub site: Arc<dyn Site>,
}

/// A connection that waits for a place in a tunnel that is being dialled.
pub(crate) struct Waiting {
    pub(super) dialling: Dialling,
    pub(super) deadline: Deadline,
    /// A tunnel that has refused the connection.
    pub(super) avoided: Option<Arc<Tunnel>>,
    pub(super) told: Told,
}

impl Waiting {
    /// Starts the task that dials.
    pub(super) fn dial(&self, pending: Pending) {
        let budget = self.deadline.remaining().unwrap_or(LONGEST);
        let budget = budget.clamp(SHORTEST, LONGEST);
        self.dialling.clone().spawn(pending, budget);
    }

    /// Waits for a place.
    ///
    /// # Errors
    ///
    /// No tunnel can be opened, or those that were opened are full.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the dial to the others who wait.
    pub(crate) async fn wait(mut self) -> Result<Berth, DialError> {
        let mut attempts = 0;
        let mut listens = true;
        loop {
            let is_told = tokio::select! {
                biased;
                ended = ended(&mut self.told) => {
                    ended?;
                    true
                }
                () = self.dialling.shelf.freed(), if listens => false,
            };
            let most = self.dialling.shared.settings.connections;
            match self.dialling.shelf.enter(most, self.avoided.as_ref()) {
                Entrance::Berth(berth) => return Ok(berth),
                Entrance::Full => return Err(DialError::Busy),
                Entrance::Dialled(told) => self.told = told,
                Entrance::Begun(_) if attempts >= MOST_ATTEMPTS => return Err(DialError::Busy),
                Entrance::Begun(pending) => {
                    attempts += 1;
                    self.told = pending.told();
                    self.dial(pending);
                }
            }
            if !is_told {
                // The place is at another address, or somebody was faster.
                listens = false;
                self.dialling.shelf.say_one_is_free();
            }
        }
    }
}

async fn ended(told: &mut Told) -> Result<(), DialError> {
    match told.wait_for(Option::is_some).await {
        Ok(outcome) => match &*outcome {
            Some(Err(error)) => Err(error.shared()),
            Some(Ok(())) | None => Ok(()),
        },
        // The task was dropped with its runtime.
        Err(_) => Err(DialError::Down(io::ErrorKind::Interrupted.into())),
    }
}

impl Dialling {
    fn spawn(self, mut pending: Pending, budget: Duration) {
        pending.forget_own_receiver();
        // It outlives the connection that has begun it.
        let span = debug_span!(
            parent: None,
            "tunnel",
            backend = self.shared.backend,
            address = %self.site.address()
        );
        let census = Arc::clone(&self.shared.census);
        census
            .tasks
            .spawn(self.run(pending, budget).instrument(span));
    }

    async fn run(self, pending: Pending, budget: Duration) {
        let abandoned = async {
            self.shared.drain.started().await;
            pending.abandoned().await;
        };
        let reached = tokio::select! {
            biased;
            reached = Deadline::after(budget).bound(Box::pin(self.reach())) => reached,
            () = abandoned => return,
        };
        let silent = || DialError::Down(io::Error::other("no tunnel within the time for it"));
        match reached.unwrap_or_else(|_| Err(silent())) {
            Ok((tunnel, driver)) => {
                debug!("a tunnel is open");
                pending.opened(&tunnel);
                drive(&self.shared, &self.shelf, &*self.site, tunnel, driver).await;
            }
            Err(error) => {
                self.complain(&error);
                if pending.is_abandoned() {
                    self.report(&error);
                }
                pending.failed(error);
            }
        }
    }

    async fn reach(&self) -> Result<(Arc<Tunnel>, Driver<Carrier>), DialError> {
        let (originated, driver, identity) =
            begin(&self.shared, &*self.site, &self.shared.tls).await?;
        let count = self.shared.census.add(Counted::Tunnel);
        let most = self.shared.settings.streams;
        let tunnel = Tunnel::new(originated, identity, most, count);
        Ok((Arc::new(tunnel), driver))
    }

    /// Those who wait judge the error themselves.
    fn report(&self, error: &DialError) {
        match error {
            DialError::Down(error) => self.site.fails_unseen(error.to_string()),
            DialError::Untrusted(error) | DialError::Refused(error) | DialError::Lost(error) => {
                self.site.fails_unseen(error.clone());
            }
            DialError::Busy
            | DialError::Exhausted
            | DialError::Foreign(_)
            | DialError::Ours
            | DialError::Reset => {}
        }
    }

    /// At most once a second: every connection meets the same error.
    fn complain(&self, error: &DialError) {
        let error: &dyn std::fmt::Display = match error {
            DialError::Down(error) => error,
            DialError::Untrusted(error) => error,
            _ => return,
        };
        let (backend, address) = (&*self.shared.backend, self.site.address());
        match self.shared.complaint.is_due() {
            true => warn!(backend, %address, %error, "cannot open a tunnel to a backend"),
            // The span has the names.
            false => debug!(%error, "cannot open a tunnel to a backend"),
        }
    }
}

/// Connects to an address, and waits until the peer has said how many streams it takes.
pub(super) async fn begin(
    shared: &Shared,
    site: &dyn Site,
    tls: &Arc<Tls>,
) -> Result<(Originated, Driver<Carrier>, Box<Identity>), DialError> {
    let socket = match site.place() {
        Some(Place::Tcp(address)) => connect_tcp(*address, shared.patience.unacknowledged).await?,
        Some(Place::Unix(path)) => connect_unix(path)?,
        None => return Err(DialError::Exhausted),
    };
    let expected = Expected {
        registrant: None,
        own: &shared.own,
    };
    expected.verify(&socket)?;
    let (carrier, refusal, server) = tls.carry(site.address(), socket).await?;
    if !server.has_agreed {
        return Err(DialError::Untrusted(NO_PROTOCOL.into()));
    }
    match Originated::begin(carrier, shared.settings.streams).await {
        Ok((originated, mut driver)) => {
            driver.grow_within(&shared.census.windows);
            Ok((originated, driver, server.identity))
        }
        Err(error) => Err(match refusal.get() {
            Some(alert) => DialError::Untrusted(refusal_words(*alert)),
            None => DialError::Down(io::Error::other(error)),
        }),
    }
}

const NO_PROTOCOL: &str = "the server agrees on no protocol (ALPN) for tunnels; check \
 `backend.tls.alpn`, and `alpn` of the server's listener";

/// A connection that comes shortly before its deadline leaves the dial to those behind it.
const SHORTEST: Duration = Duration::from_secs(1);
/// Longer than handshakes take under load.
const LONGEST: Duration = Duration::from_secs(10);
/// How often one connection begins a dial, if others take the places in each tunnel.
const MOST_ATTEMPTS: usize = 3;
