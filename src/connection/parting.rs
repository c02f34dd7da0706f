//! How client and backend are parted: each is told what happened to the other.

use crate::backend::Plain;
use crate::client::Client;
use crate::outcome::Outcome;
use crate::relay::{Answer, End};

/// Ends both sides in the way that tells each what happened to the other.
pub(super) async fn part(client: Client, backend: Plain, end: End) -> Outcome {
    match end {
        End::Done => Outcome::Done,
        // If it was us who gave up on it, the alert that says why is given time to arrive.
        End::ClientReset => interrupt(client, backend, Outcome::ClientReset).await,
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

/// Ends a connection in the middle of what it may be saying: to the backend half a request must
/// not look like a whole one.
pub(super) async fn interrupt(client: Client, backend: Plain, outcome: Outcome) -> Outcome {
    backend.reset();
    client.close().await;
    outcome
}

/// Ends a connection on which nothing moves: the backend at once, the client in order.
async fn cut(client: Client, backend: Plain, outcome: Outcome) -> Outcome {
    backend.close().await;
    client.close().await;
    outcome
}
