//! Reads the beginning of a client's connection, up to the end of its ClientHello.
//!
//! rustls sees the bytes only when the message is complete or cannot be a ClientHello. It copies
//! what it is given, so a client that stops in the middle of 64 KiB would cost twice as much
//! memory.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::rustls::server::{Accepted, AcceptedAlert, Acceptor};
use tokio_rustls::rustls::{self, AlertDescription};

use super::{HandshakeError, is_not_tls};

/// What failed: the stream, or TLS. For a TLS failure the client has been sent an alert.
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
    /// Converts a failure before the ClientHello was complete.
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
    /// Nothing after the last record of the ClientHello: rustls would not process that until more
    /// bytes arrive.
    ByRecord,
    /// As much as the socket has.
    Ahead,
}

/// Reads until `received` contains the complete ClientHello. It may contain the beginning already.
///
/// # Errors
///
/// See [`Failure`]. A client that sent something else has been sent an alert.
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
    let mut most = READ;
    loop {
        match outline.look(received) {
            Look::Missing(_) if received.len() >= MOST_RECEIVED => return Err(too_long()),
            Look::Missing(count) => {
                // Reserved in one step: growing in steps would leave copies of the bytes in freed
                // memory. The kernel provides memory only for the part that is written.
                received.reserve_exact(outline.expected().saturating_sub(received.len()));
                if reading == Reading::ByRecord {
                    most = count.min(READ);
                }
            }
            Look::Settled => {
                most = READ;
                if let Some(accepted) = show(&mut acceptor, io, &received[shown..]).await? {
                    return Ok(accepted);
                }
                shown = received.len();
            }
        }
        read(io, received, most).await?;
    }
}

/// Shows rustls more bytes. A client that sent something else than a ClientHello is sent an alert.
async fn show<IO>(
    acceptor: &mut Acceptor,
    io: &mut IO,
    mut bytes: &[u8],
) -> Result<Option<Accepted>, Failure>
where
    IO: AsyncWrite + Unpin,
{
    while !bytes.is_empty() {
        if let Err(error) = acceptor.read_tls(&mut bytes) {
            return Err(Failure::Tls(rustls::Error::General(error.to_string())));
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => return Ok(Some(accepted)),
            Ok(None) => {}
            Err((cause, alert)) => {
                // If the alert cannot be sent, the client is gone, and the error remains the same.
                let _ = io.write_all(&alert_bytes(&cause, alert)).await;
                return Err(Failure::Tls(cause));
            }
        }
    }
    Ok(None)
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

/// A fatal alert as one unencrypted record (RFC 8446 §6.2).
pub(super) fn fatal(alert: AlertDescription) -> [u8; 7] {
    [ALERT, 3, 3, 0, 2, 2, alert.into()]
}

/// The limit of rustls's own buffer. As there, no alert is sent.
pub(super) fn too_long() -> Failure {
    Failure::Tls(rustls::Error::General("message buffer full".into()))
}

/// Reads once, at most `most` bytes, and appends them to `received`.
pub(super) async fn read<IO>(
    io: &mut IO,
    received: &mut Vec<u8>,
    most: usize,
) -> Result<(), Failure>
where
    IO: AsyncRead + Unpin,
{
    if received.capacity() - received.len() < most {
        // The exact amount: doubling would waste the size of a long message.
        received.reserve_exact(READ.max(received.len() / 8));
    }
    // Not more, even if an earlier message has left room: what follows the handshake belongs to the
    // relay, which has room for [`MOST_RECEIVED`] bytes.
    match io.take(most as u64).read_buf(received).await? {
        0 => Err(Failure::Io(io::ErrorKind::UnexpectedEof.into())),
        _ => Ok(()),
    }
}

/// The progress through the records of a ClientHello.
#[derive(Default)]
struct Outline {
    /// The start of the first incomplete record.
    at: usize,
    /// The bytes of the message in the records before that.
    held: usize,
    /// The first bytes of the message, with its type and length (RFC 8446 §4).
    head: [u8; 4],
}

#[derive(Debug, PartialEq, Eq)]
enum Look {
    /// The number of bytes that a record or its header still needs.
    Missing(usize),
    /// The ClientHello is complete, or the bytes are not a ClientHello.
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

    /// The expected size of the message with its record headers, in bytes, plus some room for the
    /// next read.
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

/// Bytes to read at once: a ClientHello with a hybrid key share fits.
pub(super) const READ: usize = 2048;

/// The limit of rustls's own buffer: the longest handshake message in full records.
pub(super) const MOST_KEPT: usize = 0xffff;

/// The most bytes that may have been read beyond the handshake.
pub(crate) const MOST_RECEIVED: usize = MOST_KEPT + READ;

pub(super) const RECORD_HEADER: usize = 5;

/// The maximum length of a plaintext record (RFC 8446 §5.1). rustls rejects longer ones.
const LONGEST: usize = 1 << 14;

/// The content type of alerts (RFC 8446 §5.1). An encrypted alert has the type of application data.
pub(super) const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
pub(super) const APPLICATION_DATA: u8 = 23;

/// The handshake type (RFC 8446 §4).
const CLIENT_HELLO: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_grown_buffer_does_not_make_reads_larger() {
        let mut received = Vec::with_capacity(10 * READ);
        let read = read(&mut &[0; 5 * READ][..], &mut received, READ).await;
        assert!(read.is_ok());
        assert_eq!(received.len(), READ);
    }

    /// The message in records of `size` bytes.
    fn records(message: &[u8], size: usize) -> Vec<u8> {
        let record = |part: &[u8]| {
            let [high, low] = (part.len() as u16).to_be_bytes();
            [&[HANDSHAKE, 3, 1, high, low], part].concat()
        };
        message.chunks(size).flat_map(record).collect()
    }

    #[test]
    fn a_hello_is_complete_with_its_last_byte_however_it_is_split() {
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
    fn bytes_that_are_no_hello_are_detected_at_the_first_wrong_byte() {
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
