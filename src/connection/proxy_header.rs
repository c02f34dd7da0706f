//! Reads the PROXY protocol header, which names the client that a load balancer forwards.

use std::io;

use crate::client::Transport;
use crate::proxy_protocol::{HeaderError, LONGEST, Origin, USUAL, extent, parse};

/// Why no header was read. The peer is at fault in every case.
pub(super) enum ReadError {
    Refused(HeaderError),
    /// The peer closed before its header was complete.
    Gone,
}

/// Reads the header, and no byte after it.
///
/// It peeks first and then takes only the header, so that what follows stays in the socket. The TLS
/// handshake reads it from there.
pub(super) async fn read(transport: &mut Transport) -> Result<Origin, ReadError> {
    let mut header = vec![0; USUAL];
    let mut taken = 0;
    loop {
        if taken == header.len() {
            header.resize(LONGEST, 0);
        }
        let seen = match transport.peek(&mut header[taken..]).await {
            Ok(0) | Err(_) => return Err(ReadError::Gone),
            Ok(seen) => taken + seen,
        };
        let end = extent(&header[..seen]).map_err(ReadError::Refused)?;
        // An incomplete header is taken as well: if its bytes stayed in the socket, the next peek
        // would return at once, in a busy loop.
        let wanted = end.unwrap_or(seen);
        take(transport, &mut header[taken..wanted]).map_err(|_| ReadError::Gone)?;
        taken = wanted;
        if end.is_some() {
            return parse(&header[..taken]).map_err(ReadError::Refused);
        }
    }
}

/// Takes bytes that a peek has seen. They are in the socket, so this neither waits nor reads less.
fn take(transport: &mut Transport, bytes: &mut [u8]) -> io::Result<()> {
    match transport.take_seen(bytes)? {
        taken if taken == bytes.len() => Ok(()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::task::{Context, Poll, Waker};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream, UnixStream};

    use super::*;
    use crate::sys::socket::Socket;

    const LINE: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\r\n";
    const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\x03\x04\0\0";

    /// Both ends: over TCP, over a Unix socket, and in memory.
    async fn pairs() -> [(Transport, Transport); 3] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (theirs, ours) = tokio::join!(TcpStream::connect(address), listener.accept());
        let tcp = (ours.expect("a connection").0, theirs.expect("a connection"));
        let unix = UnixStream::pair().expect("a pair");
        let memory = tokio::io::duplex(2 * LONGEST);
        let socket = Transport::Socket;
        [
            (socket(Socket::Tcp(tcp.0)), socket(Socket::Tcp(tcp.1))),
            (
                socket(Socket::Unix(unix.0.into())),
                socket(Socket::Unix(unix.1.into())),
            ),
            (Transport::stream(memory.0), Transport::stream(memory.1)),
        ]
    }

    #[tokio::test]
    async fn no_byte_after_the_header_is_taken() {
        for header in [LINE, LOCAL] {
            for (mut ours, mut theirs) in pairs().await {
                let sent = [header, b"\x16\x03\x01 and so on"].concat();
                theirs.write_all(&sent).await.expect("room");
                drop(theirs);
                assert!(read(&mut ours).await.is_ok());
                let mut rest = Vec::new();
                ours.read_to_end(&mut rest).await.expect("the rest");
                assert_eq!(rest, b"\x16\x03\x01 and so on");
            }
        }
    }

    #[tokio::test]
    async fn a_header_of_8_kib_is_read_and_not_one_byte_more() {
        for length in [USUAL, USUAL + 1, LONGEST - 1, LONGEST] {
            for (mut ours, mut theirs) in pairs().await {
                let [high, low] = ((length - 16) as u16).to_be_bytes();
                let mut header = [&LOCAL[..14], &[high, low]].concat();
                header.resize(length, 0);
                theirs.write_all(&header).await.expect("room");
                theirs.write_all(b"and so on").await.expect("room");
                drop(theirs);
                assert!(read(&mut ours).await.is_ok(), "{length}");
                let mut rest = Vec::new();
                ours.read_to_end(&mut rest).await.expect("the rest");
                assert_eq!(rest, b"and so on");
            }
        }
    }

    #[tokio::test]
    async fn a_header_may_come_byte_by_byte() {
        for header in [LINE, LOCAL] {
            for (mut ours, mut theirs) in pairs().await {
                let mut reading = Box::pin(read(&mut ours));
                for byte in header {
                    let mut cx = Context::from_waker(Waker::noop());
                    assert!(matches!(reading.as_mut().poll(&mut cx), Poll::Pending));
                    theirs.write_all(&[*byte]).await.expect("room");
                    tokio::task::yield_now().await;
                }
                assert!(reading.await.is_ok());
            }
        }
    }

    #[tokio::test]
    async fn a_peer_that_leaves_during_the_header_is_gone() {
        for header in [LINE, LOCAL] {
            for length in 0..header.len() {
                for (mut ours, mut theirs) in pairs().await {
                    theirs.write_all(&header[..length]).await.expect("room");
                    drop(theirs);
                    assert!(matches!(read(&mut ours).await, Err(ReadError::Gone)));
                }
            }
        }
    }
}
