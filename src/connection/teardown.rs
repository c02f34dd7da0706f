//! How a connection is closed towards the client and the backend: each is told what happened to the
//! other.

use std::time::Duration;

use super::termination::Termination;
use crate::backend::{Unserved, Upstream};
use crate::client::{self, Client, Transport};
use crate::deadline::HURRY;
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

/// One side of a connection that has not ended yet. When it is dropped, the side is told that the connection
/// failed: it may have only half of a request or of an answer. That is also what happens when the task of the
/// connection panics or is dropped.
#[derive(Debug)]
pub(super) struct Unfinished<S: Abort>(Option<S>);

/// A side that can be told that the connection failed.
pub(super) trait Abort {
    fn abort(self);
}

impl Abort for Upstream {
    fn abort(self) {
        self.reset();
    }
}

impl Abort for Client {
    fn abort(self) {
        self.reset();
    }
}

impl<S: Abort> Unfinished<S> {
    pub(super) fn new(side: S) -> Self {
        Self(Some(side))
    }

    pub(super) fn side(&mut self) -> &mut S {
        self.0.as_mut().expect("only `finish` and `drop` take it")
    }

    /// The side was told the end, or there is nothing to tell it, or the caller does so.
    pub(super) fn finish(mut self) -> S {
        self.0.take().expect("only `finish` and `drop` take it")
    }
}

impl<S: Abort> Drop for Unfinished<S> {
    fn drop(&mut self) {
        if let Some(side) = self.0.take() {
            side.abort();
        }
    }
}

/// Ends a connection that has no backend, and gives the last message to the client time to arrive.
pub(super) async fn dismiss(remains: Remains, termination: &Termination) {
    match (remains, termination) {
        (Remains::Nothing, _) => {}
        // The front would offer it again, before all others.
        (Remains::Client(client), termination)
            if client.is_offered() && termination.is_about_the_client() =>
        {
            client.take_and_reset().await;
        }
        (Remains::Client(client), _) if client.takes_a_status() => {
            client.turn_away(termination.status());
        }
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
pub(super) async fn part(client: Client, backend: Unfinished<Upstream>, end: End) {
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
    mut backend: Unfinished<Upstream>,
    record: &LedgerRecord,
    patience: Option<Duration>,
) {
    let traffic = record.traffic();
    let is_hurried = tokio::select! {
        biased;
        () = client.stop(backend.side(), traffic, patience) => false,
        _ = record.ended() => true,
    };
    if is_hurried {
        client.stop(backend.side(), traffic, Some(HURRY)).await;
    }
    cut(client, backend).await;
}

/// Ends a connection on which nothing moves. The backend must not take half a request for a
/// complete one.
async fn cut(client: Client, backend: Unfinished<Upstream>) {
    match client.has_ended() {
        true => backend.finish().close().await,
        false => drop(backend),
    }
    client.close().await;
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::sys::socket::Socket;

    async fn client_and_far_end() -> (Client, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (far, near) = tokio::join!(TcpStream::connect(address), listener.accept());
        let near = Socket::Tcp(near.expect("a connection").0);
        (
            Client::plain(Transport::Socket(near)),
            far.expect("a connection"),
        )
    }

    #[tokio::test]
    async fn a_client_of_a_connection_that_is_dropped_reads_a_reset() {
        let (client, mut far) = client_and_far_end().await;
        drop(Unfinished::new(client));
        let read = far.read(&mut [0]).await;
        assert_eq!(
            read.map_err(|error| error.kind()),
            Err(ErrorKind::ConnectionReset)
        );
    }

    #[tokio::test]
    async fn a_client_that_is_finished_is_not_reset() {
        let (client, mut far) = client_and_far_end().await;
        drop(Unfinished::new(client).finish());
        assert_eq!(far.read(&mut [0]).await.expect("an end"), 0);
    }
}
