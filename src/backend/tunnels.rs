//! The tunnels to the addresses of a backend: connections reach it as streams in a few TLS connections.
//!
//! ```text
//! Tour ─ enter ─┬─► Berth: a place in an open tunnel ─ open ─► Passage: a stream
//!               ├─► wait: a tunnel is being dialled, at most one at a time for a shelf
//!               └─► full: as many tunnels as allowed, and no place in any
//! Dialling ─ connect, TLS, SETTINGS ─► Tunnel on its Shelf ─ drive ─► GOAWAY, idle, drain, failure: ended
//! ```
//!
//! A shelf has the tunnels that one worker has to one address. A tunnel that the peer has told to take no more
//! streams leaves the shelf, and ends with its last stream.

mod alone;
mod census;
mod dialling;
mod drive;
pub(crate) mod passage;
mod shelf;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use hyper::HeaderMap;
use tokio::io::AsyncWriteExt;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::warn;

pub(crate) use self::census::{Census, TunnelCounts};
use self::dialling::{Dialling, Waiting};
use self::passage::Passage;
pub(crate) use self::shelf::Berth;
use self::shelf::{Entrance, Shelf, Tunnel};
use super::dial::{Place, Reached};
use super::dial_error::DialError;
use super::own_sockets::OwnSockets;
use super::secure::Tls;
use super::{BackendSettings, Surroundings};
use crate::address::Address;
use crate::authority::Authority;
use crate::deadline::Deadline;
use crate::drain::Drain;
use crate::pace::Pace;
use crate::tunnel::{OpenError, StatusCode};
use crate::wire::Patience;

/// `[backend.tunnel]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OriginateSettings {
    /// The host and port that each stream asks for.
    pub authority: Authority,
    /// The number of tunnels of a worker to an address that take new streams.
    pub connections: usize,
    /// The number of streams in a tunnel, if the peer allows as many.
    pub streams: u32,
    /// How long a tunnel stays open without a stream.
    pub idle: Option<Duration>,
}

/// The tunnels of one backend. When it is dropped, they end with their last streams.
pub(crate) struct Tunnels {
    shared: Arc<Shared>,
    workers: Mutex<HashMap<Worker, Shelves>>,
}

/// Where connections live that may use the same tunnels: a thread with a runtime of its own, or a runtime of
/// several threads.
type Worker = Option<ThreadId>;

#[derive(Default)]
struct Shelves {
    freed: Arc<Notify>,
    of_places: HashMap<Place, Arc<Shelf>>,
}

/// What all tunnels of a backend need.
struct Shared {
    backend: String,
    settings: OriginateSettings,
    tls: Arc<Tls>,
    patience: Patience,
    drain: Drain,
    own: Arc<OwnSockets>,
    census: Arc<Census>,
    /// Cancelled when the tunnels are not used any more.
    retired: CancellationToken,
    complaint: Pace,
}

/// The end of a tunnel, as its pool of addresses knows it.
pub(crate) trait Site: Send + Sync {
    fn address(&self) -> &Address;

    /// `None` for a host name, to which there are no tunnels.
    fn place(&self) -> Option<&Place>;

    /// Whether it may have new streams, by order of an operator.
    fn is_in_service(&self) -> bool;

    /// A dial has failed for which no connection waits any more.
    fn fails_unseen(&self, error: String);
}

/// How a connection gets a place in a tunnel.
pub(crate) enum Way {
    Open(Berth),
    /// A tunnel is being dialled.
    Wait(Waiting),
    /// There are as many tunnels as allowed, and no place in any.
    Full,
}

impl Tunnels {
    /// `None` if the backend is not reached through tunnels.
    pub(super) fn of(
        settings: &BackendSettings,
        tls: Option<&Arc<Tls>>,
        around: &Surroundings<'_>,
    ) -> Option<Self> {
        let shared = Shared {
            backend: settings.name.clone(),
            settings: settings.tunnel.clone()?,
            tls: Arc::clone(tls?),
            patience: Patience {
                half_close: around.half_close,
                unacknowledged: around.unacknowledged,
            },
            drain: around.drain.clone(),
            own: Arc::clone(around.own),
            census: Arc::clone(around.census),
            retired: CancellationToken::new(),
            complaint: Pace::default(),
        };
        Some(Self {
            shared: Arc::new(shared),
            workers: Mutex::default(),
        })
    }

    /// Finds a place in a tunnel to this address, or starts to dial a tunnel.
    pub(crate) fn enter(&self, site: &Arc<impl Site + 'static>, deadline: Deadline) -> Way {
        match self.shelf(&**site) {
            Some(shelf) => self.enter_at(shelf, site, deadline, None),
            None => Way::Full,
        }
    }

    fn enter_at(
        &self,
        shelf: Arc<Shelf>,
        site: &Arc<impl Site + 'static>,
        deadline: Deadline,
        avoided: Option<Arc<Tunnel>>,
    ) -> Way {
        let most = self.shared.settings.connections;
        let (told, pending) = match shelf.enter(most, avoided.as_ref()) {
            Entrance::Berth(berth) => return Way::Open(berth),
            Entrance::Full => return Way::Full,
            Entrance::Dialled(told) => (told, None),
            Entrance::Begun(pending) => (pending.told(), Some(pending)),
        };
        let waiting = Waiting {
            dialling: Dialling {
                shared: Arc::clone(&self.shared),
                shelf,
                site: Arc::clone(site) as Arc<dyn Site>,
            },
            deadline,
            avoided,
            told,
        };
        if let Some(pending) = pending {
            waiting.dial(pending);
        }
        Way::Wait(waiting)
    }

    /// Asks for a stream, and sends it `greeting`. If the peer has certainly not looked at the request, another
    /// tunnel to the same address is asked.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future resets the stream.
    pub(crate) async fn open(
        &self,
        berth: Berth,
        site: &Arc<impl Site + 'static>,
        greeting: Option<&[u8]>,
        deadline: Deadline,
    ) -> Result<Reached, DialError> {
        let mut berth = berth;
        for _ in 0..MOST_ATTEMPTS {
            let authority = self.shared.settings.authority.as_str();
            let asked = berth.tunnel.originated.open(authority, HeaderMap::new());
            let answer = match asked.await {
                Ok(answer) => answer,
                Err(OpenError::Unprocessed) => {
                    berth.is_refused = true;
                    berth = self.enter_another(berth, site, deadline).await?;
                    continue;
                }
                Err(OpenError::Refused(status, _)) => {
                    berth.is_refused = true;
                    return Err(self.refused(&**site, status));
                }
                Err(OpenError::Failed(error)) => return Err(DialError::Lost(error.to_string())),
            };
            let identity = Some(berth.tunnel.identity.clone());
            let mut passage = Passage::new(answer.into_stream(), Some(berth));
            if let Some(greeting) = greeting
                && passage.write_all(greeting).await.is_err()
            {
                return Err(DialError::Reset);
            }
            let stream = passage.into();
            return Ok(Reached { stream, identity });
        }
        Err(DialError::Busy)
    }

    async fn enter_another(
        &self,
        before: Berth,
        site: &Arc<impl Site + 'static>,
        deadline: Deadline,
    ) -> Result<Berth, DialError> {
        let shelf = Arc::clone(&before.shelf);
        let avoided = Arc::clone(&before.tunnel);
        drop(before);
        match self.enter_at(shelf, site, deadline, Some(avoided)) {
            Way::Open(berth) => Ok(berth),
            Way::Wait(waiting) => waiting.wait().await,
            Way::Full => Err(DialError::Busy),
        }
    }

    fn shelf(&self, site: &impl Site) -> Option<Arc<Shelf>> {
        let place = site.place()?;
        let mut workers = self.workers();
        let shelves = workers.entry(here()).or_default();
        if let Some(shelf) = shelves.of_places.get(place) {
            return Some(Arc::clone(shelf));
        }
        // Addresses of names come and go.
        shelves.of_places.retain(|_, shelf| !shelf.is_unused());
        let shelf = Arc::new(Shelf::new(Arc::clone(&shelves.freed)));
        shelves.of_places.insert(place.clone(), Arc::clone(&shelf));
        Some(shelf)
    }

    /// Waits until there may be a place for one connection more.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: another connection is told instead.
    pub(crate) async fn freed(&self) {
        let freed = Arc::clone(&self.workers().entry(here()).or_default().freed);
        freed.notified().await;
    }

    /// The tunnels of all workers to an address, and their streams.
    pub(crate) fn count(&self, place: &Place) -> TunnelCounts {
        let workers = self.workers();
        let shelves = workers.values().filter_map(|it| it.of_places.get(place));
        let shelves: Vec<Arc<Shelf>> = shelves.map(Arc::clone).collect();
        drop(workers);
        shelves.iter().map(|shelf| shelf.count()).sum()
    }

    /// Lets each tunnel look whether it may stay.
    pub(crate) fn look_again(&self) {
        let shelves: Vec<Arc<Shelf>> = (self.workers().values())
            .flat_map(|shelves| shelves.of_places.values().map(Arc::clone))
            .collect();
        shelves.iter().for_each(|shelf| shelf.look_again());
    }

    /// From now on tunnels end with their last stream.
    pub(crate) fn retire(&self) {
        self.shared.retired.cancel();
    }

    fn workers(&self) -> std::sync::MutexGuard<'_, HashMap<Worker, Shelves>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the answer says about the address.
    fn refused(&self, site: &dyn Site, status: StatusCode) -> DialError {
        let authority = &self.shared.settings.authority;
        let error = format!("the tunnel's server answers {status} for {authority}");
        match status {
            StatusCode::TOO_MANY_REQUESTS => DialError::Busy,
            status if status.is_server_error() => DialError::Down(std::io::Error::other(error)),
            // It will not answer otherwise before its configuration has changed, or ours.
            _ => {
                if self.shared.complaint.is_due() {
                    let (backend, address) = (&*self.shared.backend, site.address());
                    warn!(backend, %address, error, "a stream in a tunnel is refused");
                }
                DialError::Refused(error)
            }
        }
    }
}

impl Drop for Tunnels {
    fn drop(&mut self) {
        self.retire();
    }
}

impl fmt::Debug for Tunnels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnels")
            .field("settings", &self.shared.settings)
            .finish_non_exhaustive()
    }
}

fn here() -> Worker {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::CurrentThread => Some(thread::current().id()),
        _ => None,
    }
}

/// How often a connection asks one address for a stream, before it pauses.
const MOST_ATTEMPTS: usize = 3;
