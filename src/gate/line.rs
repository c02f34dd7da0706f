//! Reads one line from a client, and no byte after it.

use std::io;
use std::os::fd::AsFd;

use rustix::net::{RecvFlags, recv};
use tokio::io::Interest;
use tokio::net::UnixStream;

use crate::rendezvous::wire::LONGEST_LINE;

/// Reads up to the first `\n` and returns the line without it. `None` if there is no `\n`
/// within [`LONGEST_LINE`] bytes.
///
/// It peeks before it takes, so that the bytes after the line stay in the socket: they are stream data
/// of the connection, and the socket goes to the relay.
///
/// # Errors
///
/// The client closed or failed before the end of its line.
pub(crate) async fn read(client: &UnixStream) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    loop {
        client.readable().await?;
        let mut chunk = [0; LONGEST_LINE];
        let room = &mut chunk[..LONGEST_LINE - line.len()];
        let seen = match receive(client, room, RecvFlags::PEEK) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(seen) => seen,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        let end = room[..seen].iter().position(|byte| *byte == b'\n');
        let wanted = end.map_or(seen, |end| end + 1);
        // The bytes that were seen are there: this receive does not block and is not short.
        receive(client, &mut room[..wanted], RecvFlags::empty())?;
        match end {
            Some(end) => {
                line.extend_from_slice(&chunk[..end]);
                return Ok(Some(line));
            }
            None => line.extend_from_slice(&chunk[..wanted]),
        }
        if line.len() == LONGEST_LINE {
            return Ok(None);
        }
    }
}

fn receive(client: &UnixStream, buffer: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
    client.try_io(Interest::READABLE, || {
        let (_, received) = recv(client.as_fd(), buffer, flags)?;
        Ok(received)
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn after(sent: &[u8]) -> (io::Result<Option<Vec<u8>>>, Vec<u8>) {
        let (mut ours, mut theirs) = UnixStream::pair().expect("a pair");
        theirs.write_all(sent).await.expect("room");
        drop(theirs);
        let line = read(&ours).await;
        let mut rest = Vec::new();
        ours.read_to_end(&mut rest).await.expect("the rest");
        (line, rest)
    }

    #[tokio::test]
    async fn bytes_after_the_line_stay_in_the_socket() {
        let (line, rest) = after(b"CLAIM x\nGET / HTTP/1.1\n\n").await;
        assert_eq!(line.expect("a line"), Some(b"CLAIM x".to_vec()));
        assert_eq!(rest, b"GET / HTTP/1.1\n\n");
    }

    #[tokio::test]
    async fn the_longest_line_fits_and_one_byte_more_does_not() {
        let mut longest = vec![b'a'; LONGEST_LINE - 1];
        longest.push(b'\n');
        assert_eq!(
            after(&longest)
                .await
                .0
                .expect("a line")
                .map(|line| line.len()),
            Some(255)
        );
        longest.insert(0, b'a');
        assert_eq!(after(&longest).await.0.expect("too long"), None);
    }

    #[tokio::test]
    async fn a_line_may_come_in_any_pieces() {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        let write = async {
            for byte in b"WATCH app\nx" {
                theirs.write_all(&[*byte]).await.expect("room");
                tokio::task::yield_now().await;
            }
        };
        let (line, ()) = tokio::join!(read(&ours), write);
        assert_eq!(line.expect("a line"), Some(b"WATCH app".to_vec()));
    }

    #[tokio::test]
    async fn an_end_before_the_line_is_an_error() {
        for sent in [&b""[..], b"CLAIM"] {
            let kind = after(sent).await.0.err().map(|error| error.kind());
            assert_eq!(kind, Some(io::ErrorKind::UnexpectedEof));
        }
    }
}
