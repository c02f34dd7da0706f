//! How client and backend are parted: each is told what happened to the other.

use std::time::Duration;

use crate::backend::Plain;
use crate::client::Client;
use crate::outcome::Outcome;
use crate::relay::{Answer, End};
use crate::traffic::Traffic;

/// Ends both sides in the way that tells each what happened to the other. What was read from one side
/// has been delivered to the other by now.
pub(super) async fn part(client: Client, backend: Plain, end: End) -> Outcome {
    match end {
        End::Done => Outcome::Done,
        // If it was us who gave up on it, the alert that says why is given time to arrive.
        End::ClientReset | End::Stopped => {
            backend.reset();
            client.close().await;
            Outcome::ClientReset
        }
        End::ClientTruncated => {
            backend.reset();
            Outcome::ClientTruncated
        }
        End::BackendReset(Answer::Broken) => {
            client.reset();
            backend.failure()
        }
        // The client has its whole answer and was told that it is whole: a reset could still
        // destroy it on the way.
        End::BackendReset(Answer::Whole) => cut(client, backend, Outcome::BackendReset).await,
        End::Idle => cut(client, backend, Outcome::Idle).await,
        End::HalfClosed => cut(client, backend, Outcome::HalfClosed).await,
        End::KeysSpent => {
            client.reset();
            backend.reset();
            Outcome::Lifetime
        }
    }
}

/// Ends a connection in the middle of what it may be saying, when that has been delivered or after
/// `patience`.
pub(super) async fn interrupt(
    mut client: Client,
    mut backend: Plain,
    traffic: &Traffic,
    patience: Option<Duration>,
    outcome: Outcome,
) -> Outcome {
    client.stop(&mut backend, traffic, patience).await;
    cut(client, backend, outcome).await
}

/// Ends a connection on which nothing moves. To the backend half a request must not look like a whole
/// one.
async fn cut(mut client: Client, backend: Plain, outcome: Outcome) -> Outcome {
    match client.has_ended() {
        true => backend.close().await,
        false => backend.reset(),
    }
    client.close().await;
    outcome
}

/// How long bytes may take to arrive on a connection that may not go on.
pub(super) const HURRY: Duration = Duration::from_secs(1);
