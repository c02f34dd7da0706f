//! A handshake after which rustls leaves: the connection is its keys.
//!
//! ```text
//! ClientHello ─► Acceptor (a copy) ─► admit ─► UnbufferedServerConnection ─► Keyed
//! ```
//!
//! rustls is given one record at a time, so that it never sees one that comes after the handshake,
//! but that one as it comes.
//!
//! It gives away the keys, and a `KernelConnection` that can derive the next ones. That one is
//! opaque and cannot leave the process, so it is dropped: the traffic secrets, from which the next
//! keys follow as well, are taken from the key log.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::task::{Poll, ready};

use tokio::io::AsyncWriteExt;
use tokio_rustls::rustls::server::UnbufferedServerConnection;
use tokio_rustls::rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus,
};
use tokio_rustls::rustls::{self, ExtractedSecrets, KeyLog, ProtocolVersion};

use super::first::{
    ALERT, APPLICATION_DATA, Failure, MOST_KEPT, READ, RECORD_HEADER, Reading, hello, read,
    too_long,
};
use super::turns::rest;
use super::{HandshakeError, Hello, Protocol, Secured, Session, TlsAcceptor, facts, peer};
use crate::record::{Secret, TrafficSecrets};
use crate::wire::Wire;

/// A connection past its handshake, and past rustls.
pub(crate) struct Keyed<IO> {
    pub io: IO,
    /// In a place of their own, where they are wiped: moving them would leave copies.
    pub secrets: Box<ExtractedSecrets>,
    /// In TLS 1.3.
    pub traffic: Option<TrafficSecrets>,
    /// What the client has sent after its handshake, as it came.
    pub received: Vec<u8>,
}

pub(super) async fn accept<IO, R>(
    acceptor: &TlsAcceptor,
    mut io: IO,
    admit: impl FnOnce(&Hello<'_>) -> Result<Option<Protocol>, R>,
) -> Result<Secured<IO>, HandshakeError<IO, R>>
where
    IO: Wire,
{
    let mut received = Vec::new();
    let accepted = match hello(&mut io, &mut received, Reading::Ahead).await {
        Ok(accepted) => accepted,
        Err(failure) => return Err(failure.of_hello(io)),
    };
    let hello = accepted.client_hello();
    let sni = hello.server_name().map(str::to_owned);
    let config = match acceptor.decide(hello, admit) {
        Ok(config) => config,
        Err(rejection) => {
            // If the alert cannot be sent the client is gone, and the refusal stands.
            let _ = io.write_all(&rejection.alert()).await;
            return Err(rejection.with(io));
        }
    };
    drop(accepted);
    let connection = match UnbufferedServerConnection::new(config) {
        Ok(connection) => connection,
        Err(cause) => return Err(HandshakeError::Failed(cause, io)),
    };
    let handshake = Handshake {
        connection,
        received,
        given: 0,
        whole: 0,
        to_send: Vec::new(),
        traffic: None,
    };
    match handshake.run(&mut io).await {
        Ok(done) => {
            let facts = facts(&done.connection, sni.as_deref());
            let peer = peer(&done.connection);
            let secrets = match done.connection.dangerous_into_kernel_connection() {
                Ok((secrets, _kernel)) => Box::new(secrets),
                Err(cause) => return Err(HandshakeError::Failed(cause, io)),
            };
            let keyed = Keyed {
                io,
                secrets,
                traffic: done.traffic,
                // A copy, as long as it is: the handshake's own buffer may have grown long, and this one
                // lasts until the client speaks.
                received: done.received.as_slice().into(),
            };
            Ok(Secured {
                facts,
                peer,
                session: Session::Record(Box::new(keyed)),
            })
        }
        Err(Failure::Io) => Err(HandshakeError::Gone),
        Err(Failure::Tls(cause)) => Err(HandshakeError::Failed(cause, io)),
    }
}

struct Handshake {
    connection: UnbufferedServerConnection,
    received: Vec<u8>,
    /// How many bytes of `received` rustls has been shown.
    given: usize,
    /// How many of these are whole records.
    whole: usize,
    to_send: Vec<u8>,
    traffic: Option<TrafficSecrets>,
}

/// What a handshake needs to go on.
enum Next {
    /// The next record.
    Record,
    /// What is to be sent to be sent.
    Send,
    /// Another look.
    Again,
    /// Nothing: it is done.
    Done,
    /// Nothing: it has failed.
    Failed(rustls::Error),
}

impl Handshake {
    async fn run<IO>(mut self, io: &mut IO) -> Result<Self, Failure>
    where
        IO: Wire,
    {
        loop {
            rest().await;
            match self.step() {
                Next::Again => {}
                Next::Send => {
                    match self.send(io).await {
                        // Tickets that nobody takes: the client may have left by now, and what it
                        // said before is still to be read.
                        Err(_) if self.is_over() => {}
                        sent => sent?,
                    }
                    self.to_send.clear();
                }
                Next::Record => {
                    while !self.give_record() {
                        self.ensure_room()?;
                        read(io, &mut self.received, READ).await?;
                    }
                }
                Next::Done => return Ok(self),
                Next::Failed(cause) => {
                    self.encode_alert();
                    // If it cannot be sent the client is gone, and the failure stands.
                    let _ = io.write_all(&self.to_send).await;
                    return Err(Failure::Tls(cause));
                }
            }
        }
    }

    /// Whether what is still sent is not part of the handshake any more.
    fn is_over(&self) -> bool {
        let is_tls13 = self.connection.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        is_tls13 && !self.connection.is_handshaking()
    }

    async fn send(&self, io: &mut impl Wire) -> io::Result<()> {
        if !self.is_over() {
            io.write_all(&self.to_send).await?;
            return io.flush().await;
        }
        // Tickets: nobody waits for them, and they go in one segment with the first answer.
        let mut sent = 0;
        poll_fn(|cx| {
            while sent < self.to_send.len() {
                match ready!(io.poll_write_more(cx, &self.to_send[sent..]))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    count => sent += count,
                }
            }
            Poll::Ready(io::Result::Ok(()))
        })
        .await?;
        io.flush().await
    }

    /// rustls keeps the records of a message here until it is whole, and they may be padding for the
    /// most part. As with rustls's own buffer there is no alert for it.
    fn ensure_room(&self) -> Result<(), Failure> {
        match self.received.len() {
            ..MOST_KEPT => Ok(()),
            _ => Err(too_long()),
        }
    }

    /// Shows rustls what there is of the next record, so that it can refuse one by its header;
    /// whether that is more than before.
    fn give_record(&mut self) -> bool {
        let unseen = &self.received[self.whole..];
        let length = match unseen.first_chunk() {
            Some(&[_, _, _, high, low]) => {
                RECORD_HEADER + usize::from(u16::from_be_bytes([high, low]))
            }
            None => RECORD_HEADER,
        };
        let given = self.whole + unseen.len().min(length);
        let is_more = given > self.given;
        self.given = given;
        if unseen.len() >= length {
            self.whole = given;
        }
        is_more
    }

    fn step(&mut self) -> Next {
        let watch = Watch::begin();
        let UnbufferedStatus { discard, state, .. } = self
            .connection
            .process_tls_records(&mut self.received[..self.given]);
        let next = match state {
            Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, &mut self.to_send),
            Ok(ConnectionState::TransmitTlsData(sent)) => {
                sent.done();
                Next::Send
            }
            Ok(ConnectionState::BlockedHandshake) => Next::Record,
            // In TLS 1.3 a server may write before it has heard the client's Finished.
            Ok(ConnectionState::WriteTraffic(_)) => Next::Done,
            Ok(_) => Next::Failed(rustls::Error::HandshakeNotComplete),
            Err(cause) => Next::Failed(cause),
        };
        if let Some(secrets) = watch.end() {
            self.traffic = Some(secrets);
        }
        self.discard(discard);
        match next {
            Next::Done if self.connection.is_handshaking() => Next::Record,
            Next::Done if self.lacks_secrets() => {
                Next::Failed(rustls::Error::General("no traffic secrets".into()))
            }
            next => next,
        }
    }

    fn lacks_secrets(&self) -> bool {
        let is_tls13 = self.connection.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        let is_whole = self
            .traffic
            .as_ref()
            .is_some_and(|secrets| !secrets.client.is_empty() && !secrets.server.is_empty());
        is_tls13 && !is_whole
    }

    /// The alert that goes with a failure is the next that rustls has to send, or one of the next:
    /// a failure may come right after a ServerHello.
    ///
    /// rustls must see again what it has not discarded, or it panics. But when it has no more to send
    /// it looks at it once more, and a second alert makes it panic as well, in a debug build.
    fn encode_alert(&mut self) {
        loop {
            let start = self.to_send.len();
            let UnbufferedStatus { discard, state, .. } = self
                .connection
                .process_tls_records(&mut self.received[..self.given]);
            let Ok(ConnectionState::EncodeTlsData(mut data)) = state else {
                return;
            };
            encode(&mut data, &mut self.to_send);
            self.discard(discard);
            if matches!(self.to_send.get(start), Some(&(ALERT | APPLICATION_DATA))) {
                return;
            }
        }
    }

    fn discard(&mut self, count: usize) {
        self.received.drain(..count);
        if self.received.capacity() > 4 * READ && self.received.len() <= READ {
            // A long hello's room is given back: the client may never send the next message.
            self.received.shrink_to(READ);
        }
        self.given -= count;
        // What it has refused it may discard in part.
        self.whole = self.whole.saturating_sub(count);
    }
}

fn encode<D>(data: &mut EncodeTlsData<'_, D>, to_send: &mut Vec<u8>) -> Next {
    let start = to_send.len();
    loop {
        match data.encode(&mut to_send[start..]) {
            Ok(_) => return Next::Again,
            Err(EncodeError::InsufficientSize(size)) => {
                to_send.resize(start + size.required_size, 0);
            }
            Err(EncodeError::AlreadyEncoded) => {
                return Next::Failed(rustls::Error::General("a message was lost".into()));
            }
        }
    }
}

/// Takes the traffic secrets of the connection that is being looked after.
///
/// A key log belongs to a configuration and not to a connection. But rustls calls it while it
/// processes a record, and nothing else happens on the thread meanwhile.
#[derive(Debug)]
pub(super) struct Handover;

impl KeyLog for Handover {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        // In TLS 1.2 rustls logs its one secret unasked.
        if !self.will_log(label) {
            return;
        }
        WATCHED.with_borrow_mut(|watched| {
            let secrets = watched.get_or_insert_default();
            let kept = match label {
                CLIENT => &mut secrets.client,
                _ => &mut secrets.server,
            };
            *kept = Secret::new(secret.into());
        });
    }

    fn will_log(&self, label: &str) -> bool {
        matches!(label, CLIENT | SERVER)
    }
}

/// The time in which secrets are those of one connection.
struct Watch(());

impl Watch {
    fn begin() -> Self {
        WATCHED.set(None);
        Self(())
    }

    fn end(self) -> Option<TrafficSecrets> {
        WATCHED.take()
    }
}

thread_local! {
    static WATCHED: RefCell<Option<TrafficSecrets>> = const { RefCell::new(None) };
}

const CLIENT: &str = "CLIENT_TRAFFIC_SECRET_0";
const SERVER: &str = "SERVER_TRAFFIC_SECRET_0";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::duplex;
    use tokio_rustls::rustls::{InvalidMessage, PeerMisbehaved};

    use super::super::Settings;
    use super::super::certs::Certificate;
    use super::super::tickets;
    use super::*;
    use crate::deadline::Deadline;

    /// What becomes of a client that says this, and then nothing.
    async fn refusal(said: &[u8]) -> rustls::Error {
        let certificate = Certificate::for_development().expect("it is tested");
        let secret = tickets::Secret::new(&[7; 32]).expect("it is long enough");
        let acceptor = TlsAcceptor::new(&Settings::with(certificate), &secret);
        let acceptor = acceptor.expect("a certificate and its key");
        let (ours, mut client) = duplex(1 << 20);
        client.write_all(said).await.expect("a pipe");
        let deadline = Deadline::after(Duration::from_secs(10));
        let admit = |_: &Hello<'_>| Ok::<_, ()>(None);
        match acceptor.accept(ours, deadline, admit).await {
            Err(HandshakeError::Failed(cause, _)) => cause,
            Err(other) => panic!("{other:?}"),
            Ok(_) => panic!("a handshake"),
        }
    }

    /// A ClientHello, and two bytes for the fuzz target before it.
    const HELLO: &[u8] = include_bytes!("../../fuzz/seeds/front/hello_tls12");

    async fn refusal_after_hello(said: &[u8]) -> rustls::Error {
        refusal(&[&HELLO[2..], said].concat()).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_says_it_is_too_long_fails_the_handshake() {
        let cause = refusal_after_hello(&[22, 3, 3, 0, 4, 16, 31, 0, 0]).await;
        assert_eq!(cause, InvalidMessage::HandshakePayloadTooLarge.into());
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_another_record_cuts_short_fails_the_handshake() {
        let half = [22, 3, 3, 0, 4, 16, 0, 0, 66];
        let cause = refusal_after_hello(&[&half[..], &[20, 3, 3, 0, 1, 1]].concat()).await;
        let expected = PeerMisbehaved::MessageInterleavedWithHandshakeMessage;
        assert_eq!(cause, expected.into());
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_in_more_records_than_it_needs_fails_the_handshake_in_time() {
        // Of the 65,535 bytes that it says it has, one a record.
        let message = [16, 0, 255, 255].into_iter().chain(std::iter::repeat(0));
        let records = message
            .take(1 << 14)
            .flat_map(|byte| [22, 3, 3, 0, 1, byte]);
        let cause = refusal_after_hello(&Vec::from_iter(records)).await;
        assert_eq!(cause, rustls::Error::General("message buffer full".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_is_refused_by_its_header_before_it_is_there() {
        let cause = refusal_after_hello(&[99, 3, 3, 0, 4]).await;
        assert_eq!(cause, InvalidMessage::InvalidContentType.into());
    }
}
