//! Whether a claimer that was told takes its connection.

use std::time::Duration;

use super::Served;
use super::claimer::{Claimer, Culprit};
use crate::deadline::Deadline;

/// What happened to a claimer after it was told.
pub(super) enum Taken {
    Served(Served),
    /// It died before it had the connection.
    Gone,
    /// It did not take the connection in time, and cannot any more.
    Hung(Option<Culprit>),
}

/// A claimer has its own time to take the connection: a claim just before the deadline is valid.
pub(super) async fn taken(claimer: Claimer) -> Taken {
    let deadline = Deadline::after(READ_BUDGET);
    match claimer {
        Claimer::Answered(told) => {
            let process = told.process();
            match deadline.bound(told.until_read()).await {
                Ok(Ok(stream)) => Taken::Served(Served::claimed(stream)),
                Ok(Err(_)) => Taken::Gone,
                Err(_) => Taken::Hung(process.map(Culprit::Process)),
            }
        }
        Claimer::Promised(promise) => {
            let tunnel = promise.tunnel();
            match deadline.bound(promise.until_taken()).await {
                Ok(Some(stream)) => Taken::Served(Served::tunnelled(*stream)),
                Ok(None) => Taken::Gone,
                Err(_) => Taken::Hung(Some(Culprit::Tunnel(tunnel))),
            }
        }
        Claimer::Worker(..) | Claimer::Network(_) | Claimer::Handler(_) => Taken::Gone,
    }
}

/// How long a worker may take to read its `OK`, or to confirm it, before it counts as hung. It is less than
/// `timeouts.backend`, so that another worker can still take the connection.
pub(super) const READ_BUDGET: Duration = Duration::from_secs(2);
