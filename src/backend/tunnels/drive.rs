//! The life of an open tunnel: it moves while it is driven, and ends without streams.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::shelf::{Shelf, Tunnel};
use super::{Shared, Site};
use crate::backend::carrier::Carrier;
use crate::deadline::hurried;
use crate::tunnel::{CarrierError, Driver, Notice};

/// Drives a tunnel to its end.
pub(super) async fn drive(
    shared: &Shared,
    shelf: &Arc<Shelf>,
    site: &dyn Site,
    tunnel: Arc<Tunnel>,
    driver: Driver<Carrier>,
) {
    let mut moving = Moving {
        driver,
        allowed: tunnel.originated.allowed(),
    };
    let mut quiet_since = Instant::now();
    let mut is_new = true;
    let ended = loop {
        let is_leaving = shared.is_leaving();
        let patience = match (is_leaving || !site.is_in_service(), is_new) {
            (false, _) => shared.settings.idle,
            // Those for whom it was dialled had no time to take their places.
            (true, true) => Some(GRACE),
            (true, false) => Some(Duration::ZERO),
        };
        let due = patience.filter(|_| tunnel.is_quiet());
        let due = due.and_then(|patience| quiet_since.checked_add(patience));
        tokio::select! {
            biased;
            ended = poll_fn(|cx| moving.poll(cx, shelf, &tunnel)) => break Some(ended),
            () = tunnel.changed.notified() => {
                is_new = false;
                quiet_since = Instant::now();
            }
            () = shared.leaving(), if !is_leaving => {}
            () = until(due), if due.is_some() => {
                if shelf.close(&tunnel) {
                    break None;
                }
            }
        }
    };
    if let Some(ended) = &ended {
        shelf.remove(&tunnel);
        match ended {
            Ok(()) => debug!("the tunnel has ended"),
            Err(error) => debug!(%error, "the tunnel has failed"),
        }
    } else {
        debug!("the tunnel is closed: it has no stream");
    }
    // Without a handle to it, HTTP/2 ends.
    drop(tunnel);
    let closed = async {
        match ended {
            None => drop(moving.driver.run(&shared.patience).await),
            Some(Ok(())) => moving.driver.close(&shared.patience).await,
            Some(Err(_)) => {}
        }
    };
    hurried(closed, shared.drain.time_is_up()).await;
}

/// A tunnel, and what was last known of it.
struct Moving {
    driver: Driver<Carrier>,
    allowed: usize,
}

impl Moving {
    /// Moves the tunnel, and notices when the peer takes more streams, or no more.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        shelf: &Shelf,
        tunnel: &Arc<Tunnel>,
    ) -> Poll<Result<(), CarrierError>> {
        let ended = loop {
            let is_open = || tunnel.originated.is_open();
            match self.driver.poll_notice(cx, is_open) {
                Poll::Ready(Notice::Closed) => {
                    debug!("the tunnel takes no more streams");
                    shelf.remove(tunnel);
                }
                Poll::Ready(Notice::Ended(ended)) => break Poll::Ready(ended),
                Poll::Pending => break Poll::Pending,
            }
        };
        let allowed = tunnel.originated.allowed();
        if allowed > self.allowed {
            shelf.say_free();
        }
        self.allowed = allowed;
        ended
    }
}

impl Shared {
    /// Whether tunnels have to end when they have no stream.
    fn is_leaving(&self) -> bool {
        self.retired.is_cancelled() || self.drain.is_started()
    }

    async fn leaving(&self) {
        tokio::select! {
            () = self.retired.cancelled() => {}
            () = self.drain.started() => {}
        }
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

const GRACE: Duration = Duration::from_secs(1);
