//! The first bytes to a backend that was dialled: a PROXY protocol header, where it is to have one.

use std::io;

use tokio::io::AsyncWriteExt;

use super::Unserved;
use crate::deadline::Deadline;
use crate::facts::Facts;
use crate::proxy_protocol::{ProxyProtocol, header};
use crate::sys::socket::Socket;

/// Writes the header before anybody else can write.
///
/// It is a write of its own: behind one that waits for the client's first bytes, a backend that is to
/// speak first would wait for its header.
pub(super) async fn greet(
    mut socket: Socket,
    proxy_protocol: Option<ProxyProtocol>,
    facts: &Facts,
    deadline: Deadline,
) -> Result<Socket, Unserved> {
    let Some(version) = proxy_protocol else {
        return Ok(socket);
    };
    let header = header(version, facts);
    match deadline.bound(socket.write_all(&header)).await {
        Ok(Ok(())) => Ok(socket),
        // It has closed in order without a word, which the relay will read; nothing can be written
        // any more, so that no byte of the client goes without a header.
        Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(socket),
        // A reset is reported once: the relay would take what follows it for an end.
        Ok(Err(_)) => Err(Unserved::Reset),
        Err(_) => Err(Unserved::TimedOut),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream, UnixStream};

    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    async fn greet_v1(socket: Socket) -> Result<Socket, Unserved> {
        let facts = Facts::new("app");
        greet(
            socket,
            Some(ProxyProtocol::V1),
            &facts,
            Deadline::after(SOON),
        )
        .await
    }

    #[tokio::test]
    async fn a_backend_that_wants_no_header_gets_none() {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        let facts = Facts::new("app");
        drop(greet(Socket::Unix(ours), None, &facts, Deadline::NEVER).await);
        assert_eq!(
            theirs.read_to_end(&mut Vec::new()).await.expect("an end"),
            0
        );
    }

    #[tokio::test]
    async fn a_reset_before_the_header_is_no_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (ours, (theirs, _)) = (ours.expect("connected"), theirs.expect("connected"));
        Socket::Tcp(theirs).reset();
        let greeted = greet_v1(Socket::Tcp(ours)).await;
        assert_eq!(greeted.expect_err("a reset"), Unserved::Reset);
    }

    #[tokio::test]
    async fn a_backend_that_has_closed_already_is_left_to_the_relay() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        drop(theirs);
        assert!(greet_v1(Socket::Unix(ours)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_backend_without_room_for_a_header_has_its_budget() {
        let (ours, _theirs) = UnixStream::pair().expect("a pair");
        ours.writable().await.expect("open");
        while ours.try_write(&[0; 4096]).is_ok() {}
        let greeted = greet_v1(Socket::Unix(ours)).await;
        assert_eq!(greeted.expect_err("no room"), Unserved::TimedOut);
    }
}
