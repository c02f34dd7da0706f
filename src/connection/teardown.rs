//! How client and backend are parted: each is told what happened to the other.

use std::time::Duration;

use super::termination::Termination;
use crate::backend::{Unserved, Upstream};
use crate::client::{self, Client, Transport};
use crate::relay::{Answer, End};
use crate::traffic::Traffic;

/// What there is of a connection that ends before its relay.
#[derive(Debug)]
pub(super) enum Remains {
    /// It is closed with what it owned; nothing can be told to the client.
    Nothing,
    /// No TLS was agreed on.
    Transport(Transport),
    Client(Client),
}

/// Ends a connection that no backend has, with time for what the client is told to arrive.
pub(super) async fn dismiss(remains: Remains, termination: &Termination) {
    match (remains, termination) {
        (Remains::Nothing, _) => {}
        (Remains::Transport(transport), _) => client::close(transport).await,
        (Remains::Client(client), Termination::Rejected(rejection)) => {
            client.refuse(rejection.alert()).await;
        }
        (Remains::Client(client), Termination::Unserved(Unserved::Reset)) => client.reset(),
        (Remains::Client(client), Termination::ClientGone) => drop(client),
        (Remains::Client(client), _) => client.close().await,
    }
}

/// Ends both sides in the way that tells each what happened to the other. What was read from one side
/// has been delivered to the other by now.
pub(super) async fn part(client: Client, backend: Upstream, end: End) {
    match end {
        End::Done => {}
        // If it was us who gave up on it, the alert that says why is given time to arrive.
        End::ClientReset | End::Stopped => {
            backend.reset();
            client.close().await;
        }
        End::ClientTruncated => backend.reset(),
        End::BackendReset(Answer::Broken) => client.reset(),
        // The client has its whole answer and was told that it is whole: a reset could still
        // destroy it on the way.
        End::BackendReset(Answer::Whole) | End::Idle | End::HalfClosed => {
            cut(client, backend).await;
        }
        End::KeysSpent => {
            client.reset();
            backend.reset();
        }
    }
}

/// Ends a connection in the middle of what it may be saying, when that has been delivered or after
/// `patience`.
pub(super) async fn interrupt(
    mut client: Client,
    mut backend: Upstream,
    traffic: &Traffic,
    patience: Option<Duration>,
) {
    client.stop(&mut backend, traffic, patience).await;
    cut(client, backend).await;
}

/// Ends a connection on which nothing moves. To the backend half a request must not look like a whole
/// one.
async fn cut(client: Client, backend: Upstream) {
    match client.has_ended() {
        true => backend.close().await,
        false => backend.reset(),
    }
    client.close().await;
}

/// How long bytes may take to arrive on a connection that may not go on.
pub(super) const HURRY: Duration = Duration::from_secs(1);
