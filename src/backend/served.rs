//! What a connection gets from its backend.

use std::pin::Pin;
use std::time::Duration;

use tokio::net::UnixStream;

use super::pool::{Dialled, Lease};
use super::tunnels::passage::Passage;
use super::upstream::Upstream;
use crate::identity::Identity;
use crate::rendezvous::Resolution;
use crate::sys::socket::Socket;
use crate::sys::unix_stream;
use crate::tunnel::TunnelStream;

/// A backend's side of a connection.
pub(crate) struct Served {
    pub stream: Upstream,
    /// A built-in backend, which must run beside the relay.
    pub service: Option<Service>,
    /// The connection's place at its address; dropped when the connection has ended.
    pub lease: Option<Lease>,
    /// The identity of the backend, if it has TLS.
    pub identity: Option<Box<Identity>>,
    /// How long the dial took, if there was one.
    pub dial: Option<Duration>,
}

pub(crate) type Service = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Served {
    pub(super) fn dialled(dialled: Dialled) -> Self {
        let Dialled {
            reached,
            lease,
            took,
        } = dialled;
        Self {
            stream: reached.stream,
            service: None,
            lease: Some(lease),
            identity: reached.identity,
            dial: Some(took),
        }
    }

    pub(super) fn claimed(stream: UnixStream) -> Self {
        Self {
            stream: Socket::Unix(unix_stream::UnixStream::claimed(stream)).into(),
            service: None,
            lease: None,
            identity: None,
            dial: None,
        }
    }

    pub(super) fn tunnelled(stream: TunnelStream) -> Self {
        Self {
            stream: Passage::new(stream, None).into(),
            service: None,
            lease: None,
            identity: None,
            dial: None,
        }
    }

    pub(super) fn built_in<F>(serve: impl FnOnce(tokio::io::DuplexStream) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (ours, theirs) = tokio::io::duplex(BUILT_IN_BUFFER);
        let service: Service = Box::pin(serve(theirs));
        Self {
            stream: ours.into(),
            service: Some(service),
            lease: None,
            identity: None,
            dial: None,
        }
    }

    /// How the wait for it ended. A built-in backend is reached like an address.
    pub(crate) fn resolution(&self) -> Resolution {
        match (&self.lease, &self.service) {
            (None, None) => Resolution::Claimed,
            (Some(_), _) | (_, Some(_)) => Resolution::Dialled,
        }
    }
}

/// One TLS record (RFC 8446 §5.1).
const BUILT_IN_BUFFER: usize = 16 * 1024;
