//! Reads what a client says first, to the end of its ClientHello.
//!
//! rustls sees the bytes when the message is whole, or can be none: it keeps a copy of what it has been
//! shown, and a client that stops in the middle of 64 KiB would cost them twice.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::rustls::server::{Accepted, AcceptedAlert, Acceptor};
use tokio_rustls::rustls::{self, AlertDescription};

use super::{HandshakeError, is_not_tls};

/// Who failed: the stream, or TLS, and then the client has been told.
pub(super) enum Failure {
    Io(io::Error),
    Tls(rustls::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Failure {
    /// For a failure before there was a ClientHello.
    pub(super) fn of_hello<IO, R>(self, io: IO) -> HandshakeError<IO, R> {
        match self {
            Self::Io(_) => HandshakeError::Gone,
            Self::Tls(cause) if is_not_tls(&cause) => HandshakeError::NotTls(io),
            Self::Tls(cause) => HandshakeError::Failed(cause, io),
        }
    }
}

/// How much is read at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// No byte behind the ClientHello's last record: rustls would not look at it until more come.
    ByRecord,
    /// Whatever there is.
    Ahead,
}

/// Reads until `received` has the whole ClientHello.
///
/// # Errors
///
/// See [`Failure`]. A client that sent anything but a ClientHello has its alert.
pub(super) async fn hello<IO>(
    io: &mut IO,
    received: &mut Vec<u8>,
    reading: Reading,
) -> Result<Accepted, Failure>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let mut acceptor = Acceptor::default();
    let (mut outline, mut shown) = (Outline::default(), 0);
    let mut most = match reading {
        Reading::ByRecord => RECORD_HEADER,
        Reading::Ahead => READ,
    };
    loop {
        read(io, received, most).await?;
        match outline.look(received) {
            Look::Missing(_) if received.len() >= MOST_RECEIVED => return Err(too_long()),
            Look::Missing(count) => {
                // At once: to grow by steps would leave their traces. Of what is not written to the kernel
                // gives no memory.
                received.reserve_exact(outline.expected().saturating_sub(received.len()));
                if reading == Reading::ByRecord {
                    most = count.min(READ);
                }
                continue;
            }
            Look::Settled => most = READ,
        }
        while shown < received.len() {
            match acceptor.read_tls(&mut &received[shown..]) {
                Ok(count) => shown += count,
                Err(error) => return Err(Failure::Tls(rustls::Error::General(error.to_string()))),
            }
            match acceptor.accept() {
                Ok(Some(accepted)) => return Ok(accepted),
                Ok(None) => {}
                Err((cause, alert)) => {
                    // If it cannot be sent the client is gone, and the failure stands.
                    let _ = io.write_all(&alert_bytes(&cause, alert)).await;
                    return Err(Failure::Tls(cause));
                }
            }
        }
    }
}

/// rustls has no alert for a first message of another type.
fn alert_bytes(cause: &rustls::Error, mut alert: AcceptedAlert) -> Vec<u8> {
    use rustls::Error::{InappropriateHandshakeMessage, InappropriateMessage};
    let mut bytes = Vec::new();
    let written = alert.write_all(&mut bytes);
    let is_missing = written.is_err() || bytes.is_empty();
    match cause {
        InappropriateMessage { .. } | InappropriateHandshakeMessage { .. } if is_missing => {
            fatal(AlertDescription::UnexpectedMessage).to_vec()
        }
        _ => bytes,
    }
}

/// A fatal alert as a record of its own (RFC 8446 §6.2), as it is before there are keys.
pub(super) fn fatal(alert: AlertDescription) -> [u8; 7] {
    [ALERT, 3, 3, 0, 2, 2, alert.into()]
}

/// As in rustls's own buffer; as there, there is no alert for it.
pub(super) fn too_long() -> Failure {
    Failure::Tls(rustls::Error::General("message buffer full".into()))
}

/// Reads once, `most` bytes at most, to the end of `received`.
pub(super) async fn read<IO>(
    io: &mut IO,
    received: &mut Vec<u8>,
    most: usize,
) -> Result<(), Failure>
where
    IO: AsyncRead + Unpin,
{
    if received.capacity() - received.len() < most {
        // Exactly: to double would cost a long message the same again in vain.
        received.reserve_exact(READ.max(received.len() / 8));
    }
    // No more, whatever room an earlier message has left: what is behind the handshake is the relay's
    // to read, which has a place for so much.
    match io.take(most as u64).read_buf(received).await? {
        0 => Err(Failure::Io(io::ErrorKind::UnexpectedEof.into())),
        _ => Ok(()),
    }
}

/// How far the records of a ClientHello have come.
#[derive(Default)]
struct Outline {
    /// Where the record begins that is not whole.
    at: usize,
    /// What the records before it hold of the message.
    held: usize,
    /// The first bytes of the message (RFC 8446 §4).
    head: [u8; 4],
}

#[derive(Debug, PartialEq, Eq)]
enum Look {
    /// So many bytes of a record, or of its header.
    Missing(usize),
    /// The ClientHello is whole, or there will be none.
    Settled,
}

impl Outline {
    fn look(&mut self, received: &[u8]) -> Look {
        loop {
            let rest = &received[self.at..];
            let Some(&[kind, major, _, high, low]) = rest.first_chunk() else {
                return match rest.first() {
                    Some(&kind) if kind != HANDSHAKE => Look::Settled,
                    _ => Look::Missing(RECORD_HEADER - rest.len()),
                };
            };
            let length = usize::from(u16::from_be_bytes([high, low]));
            if (kind, major) != (HANDSHAKE, 3) || !(1..=LONGEST).contains(&length) {
                return Look::Settled;
            }
            let there = &rest[RECORD_HEADER..];
            let part = &there[..there.len().min(length)];
            if self.is_settled_with(part) {
                return Look::Settled;
            }
            if part.len() < length {
                return Look::Missing(length - part.len());
            }
            self.at += RECORD_HEADER + length;
            self.held += length;
        }
    }

    /// How many bytes the message takes with its records, as far as it says, and a little more to read
    /// into.
    fn expected(&self) -> usize {
        let [kind, a, b, c] = self.head;
        match (kind, u32::from_be_bytes([0, a, b, c]) as usize) {
            (CLIENT_HELLO, length @ ..=MOST_KEPT) => length + 2 * READ,
            _ => 0,
        }
    }

    fn is_settled_with(&mut self, part: &[u8]) -> bool {
        let missing = &mut self.head[self.held.min(4)..];
        for (place, byte) in missing.iter_mut().zip(part) {
            *place = *byte;
        }
        let held = self.held + part.len();
        let [kind, a, b, c] = self.head;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        match held {
            0 => false,
            1..4 => kind != CLIENT_HELLO,
            _ => kind != CLIENT_HELLO || length > MOST_KEPT || held >= 4 + length,
        }
    }
}

/// A ClientHello with a hybrid key share, and a little more.
pub(super) const READ: usize = 2048;

/// As in rustls's own buffer: the longest message, in records that are full.
pub(super) const MOST_KEPT: usize = 0xffff;

/// What the relay may find that a client has said behind its handshake.
pub(crate) const MOST_RECEIVED: usize = MOST_KEPT + READ;

pub(super) const RECORD_HEADER: usize = 5;

/// What a record that is not sealed may say it has (RFC 8446 §5.1); rustls judges what says more.
const LONGEST: usize = 1 << 14;

/// RFC 8446 §5.1; a sealed alert looks like data.
pub(super) const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
pub(super) const APPLICATION_DATA: u8 = 23;

/// RFC 8446 §4.
const CLIENT_HELLO: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_buffer_that_has_grown_takes_no_more_at_a_time() {
        let mut received = Vec::with_capacity(10 * READ);
        let read = read(&mut &[0; 5 * READ][..], &mut received, READ).await;
        assert!(read.is_ok());
        assert_eq!(received.len(), READ);
    }

    /// In records of `size` bytes.
    fn records(message: &[u8], size: usize) -> Vec<u8> {
        let record = |part: &[u8]| {
            let [high, low] = (part.len() as u16).to_be_bytes();
            [&[HANDSHAKE, 3, 1, high, low], part].concat()
        };
        message.chunks(size).flat_map(record).collect()
    }

    #[test]
    fn a_hello_is_settled_with_its_last_byte_however_it_comes() {
        let message = [&[CLIENT_HELLO, 0, 0, 200][..], &[7; 200]].concat();
        for size in [1, 2, 3, 100, 204] {
            let whole = records(&message, size);
            let mut outline = Outline::default();
            for length in 0..whole.len() {
                let look = outline.look(&whole[..length]);
                assert!(
                    matches!(look, Look::Missing(1..)),
                    "{size} {length} {look:?}"
                );
            }
            assert_eq!(outline.look(&whole), Look::Settled, "{size}");
        }
    }

    #[test]
    fn what_can_be_no_hello_is_settled_with_the_byte_that_says_so() {
        for bytes in [
            &b"G"[..],
            &[ALERT],
            &[HANDSHAKE, 9, 0, 0, 1],
            &[HANDSHAKE, 3, 1, 0, 0],
            &[HANDSHAKE, 3, 1, 0xff, 0xff],
            &[HANDSHAKE, 3, 1, 0, 9, 2],
            &[HANDSHAKE, 3, 1, 0, 9, CLIENT_HELLO, 1, 0, 0],
        ] {
            let mut outline = Outline::default();
            for length in 0..bytes.len() {
                let look = outline.look(&bytes[..length]);
                assert!(matches!(look, Look::Missing(_)), "{bytes:?} {length}");
            }
            assert_eq!(outline.look(bytes), Look::Settled, "{bytes:?}");
        }
    }
}
