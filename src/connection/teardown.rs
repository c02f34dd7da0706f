//! How client and backend are parted: each is told what happened to the other.

use std::time::Duration;

use super::termination::Termination;
use crate::backend::{Unserved, Upstream};
use crate::client::{self, Client, Transport};
use crate::ledger::LedgerRecord;
use crate::relay::{Answer, End};

/// What there is of a connection that ends before its relay.
#[derive(Debug)]
pub(super) enum Remains {
    /// It is closed with what it owned; nothing can be told to the client.
    Nothing,
    /// No TLS was agreed on.
    Transport(Transport),
    Client(Client),
}

/// A backend in the middle of a connection. Dropped, its stream is reset: what the backend was sent may be
/// half of something. That is also what becomes of it when the connection's task panics or is dropped.
#[derive(Debug)]
pub(super) struct Unfinished(Option<Upstream>);

impl Unfinished {
    pub(super) fn new(stream: Upstream) -> Self {
        Self(Some(stream))
    }

    pub(super) fn stream(&mut self) -> &mut Upstream {
        self.0.as_mut().expect("it is taken with the whole alone")
    }

    /// It was told the end, or there is nothing to be told.
    fn finish(mut self) -> Upstream {
        self.0.take().expect("it is taken with the whole alone")
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(stream) = self.0.take() {
            stream.reset();
        }
    }
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
pub(super) async fn part(client: Client, backend: Unfinished, end: End) {
    match end {
        End::Done => drop(backend.finish()),
        // If it was us who gave up on it, the alert that says why is given time to arrive.
        End::ClientReset | End::Stopped => {
            drop(backend);
            client.close().await;
        }
        End::ClientTruncated => drop(backend),
        End::BackendReset(Answer::Broken) => {
            client.reset();
            drop(backend.finish());
        }
        // The client has its whole answer and was told that it is whole: a reset could still
        // destroy it on the way.
        End::BackendReset(Answer::Whole) | End::Idle | End::HalfClosed => {
            cut(client, backend).await;
        }
        End::KeysSpent => {
            client.reset();
            drop(backend);
        }
    }
}

/// Ends a connection in the middle of what it may be saying, when that has been delivered or after
/// `patience`. Once it is ended from outside, which may be meanwhile, it has [`HURRY`].
pub(super) async fn interrupt(
    mut client: Client,
    mut backend: Unfinished,
    record: &LedgerRecord,
    patience: Option<Duration>,
) {
    let traffic = record.traffic();
    let is_hurried = tokio::select! {
        biased;
        () = client.stop(backend.stream(), traffic, patience) => false,
        _ = record.ended() => true,
    };
    if is_hurried {
        client.stop(backend.stream(), traffic, Some(HURRY)).await;
    }
    cut(client, backend).await;
}

/// Ends a connection on which nothing moves. To the backend half a request must not look like a whole
/// one.
async fn cut(client: Client, backend: Unfinished) {
    match client.has_ended() {
        true => backend.finish().close().await,
        false => drop(backend),
    }
    client.close().await;
}

/// How long bytes may take to arrive on a connection that may not go on.
const HURRY: Duration = Duration::from_secs(1);
