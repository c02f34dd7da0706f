//! The first bytes to a dialled backend: a PROXY protocol header, if one is configured.

use std::io;

use tokio::io::AsyncWriteExt;

use super::dial_error::DialError;
use crate::sys::socket::Socket;

/// Writes the header before all other bytes, including those of a TLS handshake.
///
/// The header is a write of its own. If it were sent together with the client's first bytes, a
/// backend that speaks first would wait for its header forever.
pub(super) async fn greet(mut socket: Socket, header: &[u8]) -> Result<Socket, DialError> {
    match socket.write_all(header).await {
        Ok(()) => Ok(socket),
        // The backend has closed in an orderly way without a byte, and the relay will read that
        // end. The socket cannot be written any more, so no byte of the client goes out without a
        // header.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(socket),
        // A socket reports a reset only once: the relay would take what follows for an orderly end.
        Err(_) => Err(DialError::Reset),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream, UnixStream};

    use super::*;
    use crate::deadline::{Deadline, Elapsed};

    const HEADER: &[u8] = b"PROXY UNKNOWN\r\n";

    #[tokio::test]
    async fn a_reset_before_the_header_is_not_an_orderly_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (ours, (theirs, _)) = (ours.expect("connected"), theirs.expect("connected"));
        Socket::Tcp(theirs).reset();
        let greeted = greet(Socket::Tcp(ours), HEADER).await;
        assert!(matches!(greeted, Err(DialError::Reset)), "{greeted:?}");
    }

    #[tokio::test]
    async fn a_backend_that_has_closed_already_is_left_to_the_relay() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        drop(theirs);
        assert!(greet(Socket::Unix(ours.into()), HEADER).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_send_buffer_delays_the_header() {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        while ours.try_write(&[0; 1024]).is_ok() {}
        let mut greeting = Box::pin(greet(Socket::Unix(ours.into()), HEADER));
        let soon = || Deadline::after(Duration::from_secs(1));
        assert_eq!(soon().bound(&mut greeting).await.err(), Some(Elapsed));
        let (_ours, read) = tokio::join!(greeting, async {
            let mut read = Vec::new();
            while !read.ends_with(HEADER) {
                theirs.read_buf(&mut read).await.expect("bytes");
            }
            read
        });
        assert!(read.ends_with(HEADER));
    }
}
