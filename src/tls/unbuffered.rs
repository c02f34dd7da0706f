//! A handshake by rustls's unbuffered API, in the place of either side, after which rustls leaves.
//!
//! rustls is given one record at a time, so that it never sees one that comes after the handshake,
//! but that one as it comes.

use std::future::poll_fn;
use std::io;
use std::task::{Poll, ready};

use tokio::io::AsyncWriteExt;
use tokio_rustls::rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use tokio_rustls::rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use tokio_rustls::rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus,
};
use tokio_rustls::rustls::{self, CommonState, ProtocolVersion};

use super::first::{
    ALERT, APPLICATION_DATA, Failure, MOST_KEPT, READ, RECORD_HEADER, read, too_long,
};
use super::key_log::Watch;
use super::turns::rest;
use crate::record::{Role, TrafficSecrets};
use crate::wire::Wire;

/// What the two unbuffered connections of rustls have in common.
pub(super) trait Unbuffered {
    const ROLE: Role;

    type Data;

    fn process<'c, 'i>(
        &'c mut self,
        received: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data>;

    fn common(&self) -> &CommonState;
}

impl Unbuffered for UnbufferedServerConnection {
    const ROLE: Role = Role::Server;

    type Data = ServerConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        received: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(received)
    }

    fn common(&self) -> &CommonState {
        self
    }
}

impl Unbuffered for UnbufferedClientConnection {
    const ROLE: Role = Role::Client;

    type Data = ClientConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        received: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(received)
    }

    fn common(&self) -> &CommonState {
        self
    }
}

/// What a handshake leaves.
pub(super) struct Done<C> {
    pub connection: C,
    /// In TLS 1.3.
    pub traffic: Option<TrafficSecrets>,
    /// What the peer has sent after its handshake, as it came.
    pub received: Vec<u8>,
}

/// Performs the handshake; `received` is what the peer has said already.
///
/// # Errors
///
/// See [`Failure`]. If it is about TLS the peer has its alert.
pub(super) async fn shake_hands<C: Unbuffered>(
    connection: C,
    received: Vec<u8>,
    io: &mut impl Wire,
) -> Result<Done<C>, Failure> {
    let handshake = Handshake {
        connection,
        received,
        given: 0,
        whole: 0,
        to_send: Vec::new(),
        traffic: None,
    };
    let done = handshake.run(io).await?;
    Ok(Done {
        connection: done.connection,
        traffic: done.traffic,
        // A copy, as long as it is: the handshake's own buffer may have grown long, and this one
        // lasts until the peer speaks.
        received: done.received.as_slice().into(),
    })
}

struct Handshake<C> {
    connection: C,
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

impl<C: Unbuffered> Handshake<C> {
    async fn run(mut self, io: &mut impl Wire) -> Result<Self, Failure> {
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

    /// Whether what is still sent is not part of the handshake any more: a server's tickets.
    fn is_over(&self) -> bool {
        let is_tls13 =
            self.connection.common().protocol_version() == Some(ProtocolVersion::TLSv1_3);
        C::ROLE == Role::Server && is_tls13 && !self.connection.common().is_handshaking()
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
        let UnbufferedStatus { discard, state, .. } =
            self.connection.process(&mut self.received[..self.given]);
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
            Next::Done if self.connection.common().is_handshaking() => Next::Record,
            Next::Done if self.lacks_secrets() => {
                Next::Failed(rustls::Error::General("no traffic secrets".into()))
            }
            next => next,
        }
    }

    fn lacks_secrets(&self) -> bool {
        let is_tls13 =
            self.connection.common().protocol_version() == Some(ProtocolVersion::TLSv1_3);
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
            let UnbufferedStatus { discard, state, .. } =
                self.connection.process(&mut self.received[..self.given]);
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
