//! The client's side of a connection, with or without TLS, and the ways to end it.

#[cfg(test)]
mod ends;
mod stream;
mod transport;

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::rustls::AlertDescription;

pub(crate) use self::stream::Stream;
pub(crate) use self::transport::Transport;
use crate::backend::Upstream;
use crate::deadline::{Deadline, Elapsed};
use crate::record::MOST_HELD;
use crate::relay::{End, Endpoint, Heard, InactivityTimeouts, Joint, RecordStream, Records, Relay};
use crate::sys::either::one_of_streams;
use crate::tls::{Keyed, MOST_RECEIVED, Session};
use crate::traffic::Traffic;
use crate::tunnel::StatusCode;
use crate::wire::{Peer, Transmission};

/// A relay in progress. Most connections are relays, so each kind is boxed in its own size.
pub(crate) type Relaying<'a> = Pin<Box<dyn Future<Output = Result<End, Elapsed>> + Send + 'a>>;

/// A client that was admitted.
#[derive(Debug)]
pub(crate) enum Client {
    /// TLS, with Vestibule's record layer.
    Record(Box<Joint<Records<Transport>>>),
    /// TLS with rustls's record layer, or no TLS.
    Stream(Box<Joint<Stream>>),
}

/// A TLS connection that carries a tunnel.
#[derive(Debug)]
pub(crate) enum Carrier {
    Record(Box<RecordStream<Transport>>),
    Stream(Box<Stream>),
}

one_of_streams!(Carrier { Record, Stream });

impl Peer for Carrier {
    fn transmission(&mut self) -> Option<Transmission> {
        match self {
            Self::Record(stream) => Peer::transmission(&mut **stream),
            Self::Stream(stream) => Peer::transmission(&mut **stream),
        }
    }
}

impl Client {
    pub(crate) fn plain(transport: Transport) -> Self {
        Self::Stream(Box::new(Joint::new(Stream::plain(transport))))
    }

    /// # Errors
    ///
    /// The record layer does not know the cipher suite of the keys.
    // Not inlined, so that the caller can wipe what it leaves on the stack.
    #[inline(never)]
    pub(crate) fn secured(session: Session<Transport>) -> Result<Self, Transport> {
        match session {
            Session::Stream(stream) => Ok(Self::Stream(Box::new(Joint::new(Stream::Tls(stream))))),
            Session::Record(keyed) => {
                let Keyed { io, start } = *keyed;
                const { assert!(MOST_RECEIVED <= MOST_HELD) };
                let records = Records::new(io, start)?;
                Ok(Self::Record(Box::new(Joint::new(records))))
            }
        }
    }

    /// The kind of this side of the relay, as the log names it.
    pub(crate) fn side_name(&mut self) -> &'static str {
        match self {
            Self::Record(_) => "record",
            Self::Stream(joint) => match joint.client() {
                Stream::Plain(Transport::Tunnel(_)) => "tunnel",
                Stream::Plain(_) => "plain",
                Stream::Tls(_) => "stream",
            },
        }
    }

    /// A backend has the connection. The client of a stream in a tunnel is told so.
    pub(crate) fn welcome(&mut self) {
        if let Self::Stream(joint) = self
            && let Some(stream) = joint.client().tunnelled()
        {
            stream.welcome();
        }
    }

    /// Whether the client can be told with a status why nobody serves it.
    pub(crate) fn takes_a_status(&self) -> bool {
        match self {
            Self::Record(_) => false,
            Self::Stream(joint) => match joint.peer() {
                Stream::Plain(Transport::Tunnel(stream)) => stream.is_unanswered(),
                Stream::Plain(_) | Stream::Tls(_) => false,
            },
        }
    }

    /// Tells the client of a stream in a tunnel why nobody serves it.
    pub(crate) fn turn_away(self, status: StatusCode) {
        self.into_transport().turn_away(status);
    }

    /// Whether it is a connection that a front offers, and that was not taken yet.
    pub(crate) fn is_offered(&self) -> bool {
        match self {
            Self::Record(_) => false,
            Self::Stream(joint) => match joint.peer() {
                Stream::Plain(transport) => transport.is_offered(),
                Stream::Tls(_) => false,
            },
        }
    }

    /// Ends a connection that a front offers, so that it does not come back.
    pub(crate) async fn take_and_reset(self) {
        self.into_transport().take_and_reset().await;
    }

    /// The stream of bytes that carries a tunnel. Nothing was read of it yet.
    pub(crate) fn into_carrier(self) -> Carrier {
        match self {
            Self::Record(joint) => {
                Carrier::Record(Box::new(RecordStream::new(joint.into_client())))
            }
            Self::Stream(joint) => Carrier::Stream(Box::new(joint.into_client())),
        }
    }

    /// Waits until the client has left without sending a byte. Meanwhile it reads up to [`EARLY`] bytes
    /// and keeps them for the backend.
    ///
    /// A client that has sent something has not left, even if its connection ends or fails after that:
    /// the backend gets the bytes, and the relay passes on how the connection ended.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: no byte is lost.
    pub(crate) async fn left(&mut self) {
        let heard = match self {
            Self::Record(joint) => joint.hear(EARLY).await,
            Self::Stream(joint) => joint.hear(EARLY).await,
        };
        if heard == Heard::Words {
            poll_fn(|cx| {
                if let Self::Stream(joint) = self {
                    Peer::poll_absorb(joint.client(), cx);
                }
                Poll::Pending
            })
            .await
        }
    }

    /// Relays between the client and its backend until both have ended, one has failed, or a timeout
    /// passes.
    pub(crate) fn relay<'a>(
        &'a mut self,
        backend: &'a mut Upstream,
        relay: Relay<'a>,
    ) -> Relaying<'a> {
        match (self, backend) {
            (Self::Record(joint), Upstream::Records(secure)) => {
                join(joint, secure.records(), relay)
            }
            (Self::Record(joint), Upstream::Clear(backend)) => join(joint, backend, relay),
            (Self::Stream(joint), Upstream::Records(secure)) => {
                join(joint, secure.records(), relay)
            }
            (Self::Stream(joint), Upstream::Clear(backend)) => join(joint, backend, relay),
        }
    }

    /// Stops reading from both sides. Waits until each side has acknowledged the bytes that were read
    /// for it, for `patience` at most.
    pub(crate) async fn stop(
        &mut self,
        backend: &mut Upstream,
        traffic: &Traffic,
        patience: Option<Duration>,
    ) {
        match self {
            Self::Record(joint) => joint.stop(),
            Self::Stream(joint) => joint.stop(),
        }
        let settings = InactivityTimeouts {
            idle: None,
            half_close: None,
            unacknowledged: None,
        };
        let settings = &settings;
        let relay = self.relay(backend, Relay { settings, traffic });
        // Bytes that have not arrived by then are lost with the connection.
        let _ = Deadline::after(patience).bound(relay).await;
    }

    /// Whether the client has ended its stream cleanly and the backend was told.
    pub(crate) fn has_ended(&self) -> bool {
        match self {
            Self::Record(joint) => joint.has_heard_the_end(),
            Self::Stream(joint) => joint.has_heard_the_end(),
        }
    }

    /// Ends the connection cleanly: sends `close_notify` if the client speaks TLS, and then does what
    /// [`close`] does. A client without TLS that was not told the end yet is reset, because it would
    /// take a close for a clean end.
    pub(crate) async fn close(mut self) {
        if let Self::Stream(joint) = &mut self
            && joint.client().is_plain()
            && !joint.has_told_the_end()
        {
            return self.reset();
        }
        let said = async {
            match &mut self {
                Self::Record(joint) => joint.client().close().await,
                Self::Stream(joint) => joint.client().shutdown().await,
            }
        };
        // Bounded: it waits for room in a socket that the client may never read from.
        if matches!(Deadline::after(LINGER).bound(said).await, Ok(Ok(()))) {
            close(self.into_transport()).await;
        }
    }

    /// Ends the connection with a fatal alert, or with a reset if the client does not speak TLS.
    pub(crate) async fn refuse(self, alert: AlertDescription) {
        let mut joint = match self {
            Self::Record(joint) => joint,
            Self::Stream(joint) => match joint.into_client().into_records() {
                Ok(records) => Box::new(Joint::new(records)),
                Err(transport) => return transport.reset(),
            },
        };
        joint.client().alert(alert);
        Self::Record(joint).close().await;
    }

    /// Ends the connection with a reset, so that the client does not take it for a clean end.
    pub(crate) fn reset(self) {
        self.into_transport().reset();
    }

    fn into_transport(self) -> Transport {
        match self {
            Self::Record(joint) => joint.into_client().into_io(),
            Self::Stream(joint) => joint.into_client().into_transport(),
        }
    }
}

fn join<'a, C, B>(joint: &'a mut Joint<C>, backend: &'a mut B, relay: Relay<'a>) -> Relaying<'a>
where
    C: Endpoint + Send,
    B: Endpoint + Send,
{
    Box::pin(async move { Ok(joint.join(backend, relay).await) })
}

/// Closes a stream so that the last bytes arrive.
///
/// If a socket is closed with unread bytes, the kernel sends a reset, which may overtake the alert or
/// the answer. So this closes the sending side first, and then reads for a bounded time.
pub(crate) async fn close(mut transport: Transport) {
    let linger = async {
        transport.shutdown().await?;
        tokio::io::copy(
            &mut (&mut transport).take(LINGER_BYTES),
            &mut tokio::io::sink(),
        )
        .await
    };
    // The stream is closed next, whatever the result.
    let _ = Deadline::after(LINGER).bound(linger).await;
}

/// How long an ended connection is kept for its last bytes: enough for a round trip to anywhere and a
/// retransmission.
const LINGER: Duration = Duration::from_secs(1);

/// How much is read meanwhile. A client that sends more has not noticed the end.
const LINGER_BYTES: u64 = 256 * 1024;

/// How much a client may send before it has a backend: enough for a request and its headers. A record
/// layer keeps up to one more record opened, and another one sealed. With the default of
/// `limits.pending` that is 51 MiB at most for all clients.
const EARLY: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use tokio::net::UnixStream;
    use tokio_rustls::rustls::crypto::cipher::{AeadKey, Iv};
    use tokio_rustls::rustls::{ConnectionTrafficSecrets, ExtractedSecrets};

    use super::*;
    use crate::record::Start;
    use crate::relay::InactivityTimeouts;
    use crate::sys::socket::Socket;
    use crate::traffic::Traffic;

    /// Every idle connection has one of these futures. Above the bounds, something is held across an
    /// await without need. Below them, a part of the relay was removed, and the bounds have to be
    /// lowered.
    #[tokio::test]
    async fn a_relay_is_a_small_future() {
        let secrets = || ConnectionTrafficSecrets::Chacha20Poly1305 {
            key: AeadKey::from([0; 32]),
            iv: Iv::new([0; 12]),
        };
        let secrets = ExtractedSecrets {
            tx: (0, secrets()),
            rx: (0, secrets()),
        };
        let start = Start::of_server(secrets, None, Vec::new());
        let records = Records::new(transport(), start).expect("a known suite");
        let record = Client::Record(Box::new(Joint::new(records)));
        let stream = Client::plain(transport());
        for mut client in [record, stream] {
            let (mut backend, traffic) = (Upstream::from(socket()), Traffic::default());
            let settings = InactivityTimeouts {
                idle: None,
                half_close: None,
                unacknowledged: None,
            };
            let relay = Relay {
                settings: &settings,
                traffic: &traffic,
            };
            let size = size_of_val(&*client.relay(&mut backend, relay));
            assert!((208..=272).contains(&size), "{size} bytes");
        }
    }

    fn transport() -> Transport {
        Transport::Socket(socket())
    }

    fn socket() -> Socket {
        Socket::Unix(UnixStream::pair().expect("a pair").0.into())
    }
}
