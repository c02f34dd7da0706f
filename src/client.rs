//! The client's side of a connection, with TLS or without, and the ways to end it.

mod stream;
mod transport;

use std::pin::Pin;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::rustls::AlertDescription;

pub(crate) use self::stream::Stream;
pub(crate) use self::transport::Transport;
use crate::backend::Upstream;
use crate::deadline::{Deadline, Elapsed};
use crate::record::MOST_HELD;
use crate::relay::{End, Endpoint, Heard, InactivityTimeouts, Joint, Records, Relay};
use crate::tls::{Keyed, MOST_RECEIVED, Session};
use crate::traffic::Traffic;

/// A relay under way. It is what most connections are made of, hence boxed each in its own size.
pub(crate) type Relaying<'a> = Pin<Box<dyn Future<Output = Result<End, Elapsed>> + Send + 'a>>;

/// A client that was let in.
#[derive(Debug)]
pub(crate) enum Client {
    /// TLS with the records in our hands.
    Record(Box<Joint<Records<Transport>>>),
    /// TLS in rustls's, or none.
    Stream(Box<Joint<Stream>>),
}

impl Client {
    pub(crate) fn plain(transport: Transport) -> Self {
        Self::Stream(Box::new(Joint::new(Stream::plain(transport))))
    }

    /// # Errors
    ///
    /// The keys are of no suite that the record layer knows.
    // So that what it leaves on the stack can be wiped.
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
            Self::Stream(joint) => match joint.client().is_plain() {
                true => "plain",
                false => "stream",
            },
        }
    }

    /// Reads until the client has left without a word; what it says meanwhile is kept, [`EARLY`] bytes
    /// at most.
    ///
    /// A client that has said something has not left, even if its connection ends or fails after that:
    /// its words are for the backend, and the relay passes on how they ended.
    ///
    /// # Cancel safety
    ///
    /// No byte is lost.
    pub(crate) async fn left(&mut self) {
        let heard = match self {
            Self::Record(joint) => joint.hear(EARLY).await,
            Self::Stream(joint) => joint.hear(EARLY).await,
        };
        if heard == Heard::Words {
            std::future::pending::<()>().await;
        }
    }

    /// Joins the client and its backend until both have ended, one has failed, or nothing moves
    /// any more.
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

    /// Reads neither side any more, and waits until each has acknowledged what was read for it, for
    /// `patience` at most.
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
        // What has not arrived by then is lost with the connection.
        let _ = Deadline::after(patience).bound(relay).await;
    }

    /// Whether the client has ended its stream in order, and the backend was told.
    pub(crate) fn has_ended(&self) -> bool {
        match self {
            Self::Record(joint) => joint.has_heard_the_end(),
            Self::Stream(joint) => joint.has_heard_the_end(),
        }
    }

    /// Ends the connection in order: `close_notify` where TLS is spoken, then as [`close`]. Without TLS
    /// a client that was not told the end is reset: it would take a close for the end.
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
        // It waits for room in a socket that the client may never read from.
        if matches!(Deadline::after(LINGER).bound(said).await, Ok(Ok(()))) {
            close(self.into_transport()).await;
        }
    }

    /// Ends the connection with a fatal alert, and where no TLS is spoken with a reset.
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

    /// Ends the connection so that the client can tell it from an end.
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

/// Closes a stream so that what was sent last arrives.
///
/// A close with unread bytes makes the kernel send a reset, which may overtake the alert or the
/// answer; so the sending side is closed first, and what still comes is read, for a bounded time.
pub(crate) async fn close(mut transport: Transport) {
    let linger = async {
        transport.shutdown().await?;
        tokio::io::copy(
            &mut (&mut transport).take(LINGER_BYTES),
            &mut tokio::io::sink(),
        )
        .await
    };
    // Whatever it says, the stream is closed next.
    let _ = Deadline::after(LINGER).bound(linger).await;
}

/// How long an ended connection is kept for its last bytes: a round trip to anywhere, a
/// retransmission included.
const LINGER: Duration = Duration::from_secs(1);

/// How much is read meanwhile; a client that sends more than this has not understood the end.
const LINGER_BYTES: u64 = 256 * 1024;

/// What a client may say before a backend listens: enough for a request and its headers. A record
/// layer keeps up to a record more, opened, and another one sealed: with `limits.pending` at its
/// default no more than 51 MiB for all.
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

    /// Every idle connection has one. Above the bounds something is held across an await that need
    /// not be; below them a part of the relay is gone, and the bounds are to follow.
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
