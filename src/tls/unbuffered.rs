//! A handshake in either role through rustls's unbuffered API, after which rustls is not needed any
//! more.
//!
//! rustls gets one record at a time, so that it never sees a record after the handshake. It does
//! see an incomplete record.

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

/// The common part of rustls's two unbuffered connections.
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

/// The result of a handshake.
pub(super) struct Done<C> {
    pub connection: C,
    /// Only in TLS 1.3.
    pub traffic: Option<TrafficSecrets>,
    /// The encrypted bytes that the peer sent after its handshake.
    pub received: Vec<u8>,
}

/// Performs the handshake. `received` is what the peer has sent already.
///
/// # Errors
///
/// See [`Failure`]. After a TLS failure the peer has been sent the alert.
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
        // A copy of the exact length: the buffer of the handshake may be large, and this one is
        // kept until the peer sends something.
        received: done.received.as_slice().into(),
    })
}

struct Handshake<C> {
    connection: C,
    received: Vec<u8>,
    /// The number of bytes of `received` that rustls has seen.
    given: usize,
    /// The number of those that are complete records.
    whole: usize,
    to_send: Vec<u8>,
    traffic: Option<TrafficSecrets>,
}

/// What the handshake needs next.
enum Next {
    /// The next record.
    Record,
    /// That its output is sent.
    Send,
    /// To be processed again.
    Again,
    /// Nothing: it is complete.
    Done,
    /// Nothing: it has failed.
    Failed(rustls::Error),
}

impl<C: Unbuffered> Handshake<C> {
    async fn run(mut self, io: &mut impl Wire) -> Result<Self, Failure> {
        // The ClientHello may have taken this turn's budget.
        rest().await;
        loop {
            match self.step() {
                Next::Again => {}
                Next::Send => {
                    match self.send(io).await {
                        // Only tickets could not be sent. The client may have left, and what it
                        // sent before must still be read.
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
                    rest().await;
                }
                Next::Done => return Ok(self),
                Next::Failed(cause) => {
                    self.encode_alert();
                    // If the alert cannot be sent, the peer is gone, and the error remains the
                    // same.
                    let _ = io.write_all(&self.to_send).await;
                    return Err(Failure::Tls(cause));
                }
            }
        }
    }

    /// Whether the remaining output is not part of the handshake: the tickets of a server.
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
        // Tickets: nobody waits for them, so they go into one segment with the first answer.
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

    /// rustls keeps the records of an incomplete message here, and they may be mostly padding. As
    /// with rustls's own buffer, no alert is sent.
    fn ensure_room(&self) -> Result<(), Failure> {
        match self.received.len() {
            ..MOST_KEPT => Ok(()),
            _ => Err(too_long()),
        }
    }

    /// Shows rustls the available part of the next record, so that it can refuse a record by its
    /// header. Returns whether it sees more than before.
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
            // In TLS 1.3 a server may write before it has received the client's Finished.
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

    /// Encodes the alert for a failure. It is the next message that rustls sends, or one of the
    /// next: the failure may come right after a ServerHello.
    ///
    /// rustls panics unless it sees all bytes that it has not discarded. But when it has nothing
    /// more to send, it processes them again, and a second alert causes a panic too, in a debug
    /// build. So this stops after the first alert.
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
            // Returns the memory of a long hello: the client may never send the next message.
            self.received.shrink_to(READ);
        }
        self.given -= count;
        // rustls may discard a part of a record that it has refused.
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
