//! Each relay with a client: in plaintext, or with TLS in rustls or in our record layer.

use std::io::{self, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio_rustls::{TlsConnector, client, server};

use super::lending::Lending;
use super::*;
use crate::relay::{Joint, Records, poll_discard};
use crate::sys::either::one_of_streams;
use crate::tls::certs::Certificate;
use crate::tls::tickets::TicketSecret;
use crate::tls::{AcceptorSettings, Engine, Session, TlsAcceptor};
use crate::wire::{Peer, Places, Wire, scatter};

/// What is between the client's bytes and the backend's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// Plaintext, as at a plaintext listener.
    Clear,
    /// Plaintext that is lent, as from a tunnel.
    Lent,
    /// TLS in rustls.
    Rustls(Version),
    /// TLS in our record layer.
    Record(Version),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::relay) enum Version {
    Tls12,
    Tls13,
}

pub(super) const ALL: [Over; 6] = [
    Over::Clear,
    Over::Lent,
    Over::Rustls(Version::Tls12),
    Over::Rustls(Version::Tls13),
    Over::Record(Version::Tls12),
    Over::Record(Version::Tls13),
];

/// At least as long as a session ticket in its record.
const TICKET: usize = 512;

impl Over {
    pub(super) fn is_plain(self) -> bool {
        matches!(self, Self::Clear | Self::Lent)
    }

    /// Both ends of a client after its handshake, with a pipe of this size between them. A pipe
    /// smaller than a ticket would block the server: it sends the ticket when the client has
    /// finished the handshake and does not read.
    pub(super) async fn client(self, room: usize) -> (Near, Far) {
        let (far, near) = duplex(room.max(TICKET));
        let socket = Socket {
            stream: Box::new(near),
            has_failed: Arc::default(),
        };
        let (version, engine) = match self {
            Self::Clear => return (Near::Clear(Joint::new(socket)), Far::Clear(far)),
            Self::Lent => {
                let lending = Box::new(Joint::new(Lending::new(socket)));
                return (Near::Lent(lending), Far::Clear(far));
            }
            Self::Rustls(version) => (version, Engine::Stream),
            Self::Record(version) => (version, Engine::Record),
        };
        let acceptor = acceptor(engine);
        let accept = acceptor.accept(socket, Deadline::after(None), |_| Ok::<_, ()>(None));
        let connector = TlsConnector::from(config(version));
        let name = ServerName::try_from("localhost").expect("a name");
        let (accepted, far) = tokio::join!(accept, connector.connect(name, far));
        let near = match accepted.ok().expect("a handshake").session {
            Session::Stream(stream) => Near::Rustls(Box::new(Joint::new(*stream))),
            Session::Record(keyed) => {
                let records = Records::new(keyed.io, keyed.start);
                let records = records.ok().expect("a suite that is known");
                Near::Record(Box::new(Joint::new(records)))
            }
        };
        let far = far.expect("a handshake");
        (near, Far::Tls(Box::new(far)))
    }

    /// The most bytes that a relay and its TLS accept from one side while the other side accepts
    /// nothing.
    pub(super) fn most_held(self) -> usize {
        match self {
            Self::Clear | Self::Lent => 64 * 1024,
            // What rustls has read and what it has sealed, 64 KiB each.
            Self::Rustls(_) => 3 * 64 * 1024,
            // Eight full records, and the beginning of another.
            Self::Record(_) => 9 * 16 * 1024 + 2048,
        }
    }
}

/// The relay's end of a client.
pub(super) enum Near {
    Clear(Joint<Socket>),
    Lent(Box<Joint<Lending>>),
    Rustls(Box<Joint<server::TlsStream<Socket>>>),
    Record(Box<Joint<Records<Socket>>>),
}

impl Near {
    /// Gives the socket a habit that it did not have during the handshake.
    pub(super) fn with<S: Stream + 'static>(
        mut self,
        habit: impl FnOnce(Box<dyn Stream>) -> S,
    ) -> Self {
        let stream = &mut self.socket().stream;
        let calm = std::mem::replace(stream, Box::new(tokio::io::empty()));
        *stream = Box::new(habit(calm));
        self
    }

    /// Set this when the socket is known to have failed.
    pub(super) fn failure(&mut self) -> Arc<AtomicBool> {
        Arc::clone(&self.socket().has_failed)
    }

    fn socket(&mut self) -> &mut Socket {
        match self {
            Self::Clear(joint) => joint.client(),
            Self::Lent(joint) => &mut joint.client().socket,
            Self::Rustls(joint) => joint.client().get_mut().0,
            Self::Record(joint) => joint.client().io_mut(),
        }
    }

    /// Reads this many bytes, or one more record, before there is a backend.
    pub(super) async fn hear(&mut self, enough: usize) {
        let heard = match self {
            Self::Clear(joint) => joint.hear(enough).await,
            Self::Lent(joint) => joint.hear(enough).await,
            Self::Rustls(joint) => joint.hear(enough).await,
            Self::Record(joint) => joint.hear(enough).await,
        };
        assert_eq!(heard, Heard::Words);
    }

    pub(super) async fn join<B: Stream>(&mut self, backend: &mut B, relay: Relay<'_>) -> End {
        let mut backend = Vectored(backend);
        match self {
            Self::Clear(joint) => joint.join(&mut backend, relay).await,
            Self::Lent(joint) => joint.join(&mut backend, relay).await,
            Self::Rustls(joint) => joint.join(&mut backend, relay).await,
            Self::Record(joint) => joint.join(&mut backend, relay).await,
        }
    }
}

/// A backend with vectored reads, like sockets.
struct Vectored<'a, B>(&'a mut B);

impl<B: Stream> Peer for Vectored<'_, B> {
    fn poll_read_vectored(
        &mut self,
        cx: &mut Context<'_>,
        places: Places<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut bytes = vec![0; places.room()];
        let mut buffer = ReadBuf::new(&mut bytes);
        ready!(Pin::new(self).poll_read(cx, &mut buffer))?;
        scatter(buffer.filled(), places);
        Poll::Ready(Ok(buffer.filled().len()))
    }
}

impl<B: Stream> AsyncRead for Vectored<'_, B> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_read(cx, buf)
    }
}

impl<B: Stream> AsyncWrite for Vectored<'_, B> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_shutdown(cx)
    }
}

/// The transport below TLS.
pub(super) struct Socket {
    stream: Box<dyn Stream>,
    has_failed: Arc<AtomicBool>,
}

impl Peer for Socket {
    fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }
}

impl Peer for server::TlsStream<Socket> {
    fn has_failed(&self) -> bool {
        Peer::has_failed(self.get_ref().0)
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        poll_discard(self.get_mut().0, cx)
    }
}

impl Wire for Socket {
    fn was_read_out(&self) -> bool {
        false
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The client itself.
pub(super) enum Far {
    Clear(DuplexStream),
    Tls(Box<client::TlsStream<DuplexStream>>),
}

one_of_streams!(Far { Clear, Tls });

impl Far {
    /// Updates the client's keys and asks for new ones, if the version supports that.
    pub(super) fn change_keys(&mut self) {
        if let Self::Tls(stream) = self {
            // In TLS 1.2 this is an error that changes nothing.
            let _ = stream.get_mut().1.refresh_traffic_keys();
        }
    }

    /// An endless stream from a client, as fast as it is read.
    pub(super) fn flood(self) -> Flood {
        let (pipe, session) = match self {
            Self::Clear(pipe) => (pipe, None),
            Self::Tls(stream) => {
                let (pipe, session) = stream.into_inner();
                (pipe, Some(session))
            }
        };
        Flood {
            session,
            records: Vec::new(),
            _pipe: pipe,
        }
    }
}

pub(super) struct Flood {
    session: Option<ClientConnection>,
    records: Vec<u8>,
    _pipe: DuplexStream,
}

impl AsyncRead for Flood {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self {
            session, records, ..
        } = &mut *self;
        let Some(session) = session else {
            return Pin::new(&mut tokio::io::repeat(0)).poll_read(cx, buf);
        };
        // As a socket does.
        ready!(tokio::task::coop::poll_proceed(cx)).made_progress();
        while records.len() < buf.remaining() {
            session.writer().write_all(&[0; 16 * 1024])?;
            session.write_tls(records)?;
        }
        let length = buf.remaining();
        buf.put_slice(&records[..length]);
        records.drain(..length);
        Poll::Ready(Ok(()))
    }
}

pub(in crate::relay) fn acceptor(engine: Engine) -> TlsAcceptor {
    let certificate = Certificate::for_development().expect("it is tested");
    let settings = AcceptorSettings {
        engine,
        ..AcceptorSettings::with(certificate)
    };
    let secret = TicketSecret::new(&[7; 32]).expect("it is long enough");
    TlsAcceptor::new(&settings, &secret).expect("the development certificate and its key")
}

pub(in crate::relay) fn config(version: Version) -> Arc<ClientConfig> {
    let version = match version {
        Version::Tls12 => &TLS12,
        Version::Tls13 => &TLS13,
    };
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_slice(include_bytes!("../../../certs/ca.pem"));
    roots
        .add(authority.expect("a certificate"))
        .expect("a root");
    let config = ClientConfig::builder_with_protocol_versions(&[version])
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}
