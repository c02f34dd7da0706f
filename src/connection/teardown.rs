//! How a connection is closed towards the client and the backend: each is told what happened to the
//! other.

use std::time::Duration;

use super::termination::Termination;
use crate::backend::{Unserved, Upstream};
use crate::client::{self, Client, Transport};
use crate::ledger::LedgerRecord;
use crate::relay::{Answer, End};

/// What is left of a connection that ends before its relay.
#[derive(Debug)]
pub(super) enum Remains {
    /// The stream is closed already; the client cannot be told anything.
    Nothing,
    /// A stream without a completed TLS handshake.
    Transport(Transport),
    Client(Client),
}

/// The backend of a connection that has not ended yet. When it is dropped, its stream is reset: the backend may
/// have only half of a request. That is also what happens when the task of the connection panics or is dropped.
#[derive(Debug)]
pub(super) struct Unfinished(Option<Upstream>);

impl Unfinished {
    pub(super) fn new(stream: Upstream) -> Self {
        Self(Some(stream))
    }

    pub(super) fn stream(&mut self) -> &mut Upstream {
        self.0.as_mut().expect("only `finish` and `drop` take it")
    }

    /// The backend was told the end, or there is nothing to tell it.
    fn finish(mut self) -> Upstream {
        self.0.take().expect("only `finish` and `drop` take it")
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(stream) = self.0.take() {
            stream.reset();
        }
    }
}

/// Ends a connection that has no backend, and gives the last message to the client time to arrive.
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

/// Ends both sides, and tells each what happened to the other. All bytes that were read from one
/// side have been delivered to the other by now.
pub(super) async fn part(client: Client, backend: Unfinished, end: End) {
    match end {
        End::Done => drop(backend.finish()),
        // If Vestibule itself gave up on the client, this gives the alert with the reason time to
        // arrive.
        End::ClientReset | End::Stopped => {
            drop(backend);
            client.close().await;
        }
        End::ClientTruncated => drop(backend),
        End::BackendReset(Answer::Broken) => {
            client.reset();
            drop(backend.finish());
        }
        // The client has the complete answer and its proper end: a reset could still destroy it on
        // the way.
        End::BackendReset(Answer::Whole) | End::Idle | End::HalfClosed => {
            cut(client, backend).await;
        }
        End::KeysSpent => {
            client.reset();
            drop(backend);
        }
    }
}

/// Ends a connection while data may be in flight: after that is delivered, or after `patience`. If the
/// connection is ended from outside meanwhile, at most [`HURRY`] is left.
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

/// Ends a connection on which nothing moves. The backend must not take half a request for a
/// complete one.
async fn cut(client: Client, backend: Unfinished) {
    match client.has_ended() {
        true => backend.finish().close().await,
        false => drop(backend),
    }
    client.close().await;
}

/// How long bytes may take to arrive on a connection that must end now.
const HURRY: Duration = Duration::from_secs(1);
