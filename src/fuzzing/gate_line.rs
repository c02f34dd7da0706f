//! The line of a gate client, in any pieces: what is read, what stays in the socket, and what is
//! parsed.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;

use super::pieces;
use crate::gate::line;
use crate::rendezvous::wire::Request;

/// Sends the input, split by [`pieces`], to the gate's reader.
///
/// # Panics
///
/// The reader does not keep a promise.
pub fn gate_line(data: &[u8]) {
    let pieces = pieces(data);
    let sent = pieces.concat();
    let (line, rest) = RUNTIME
        .with(|runtime| runtime.block_on(read(&pieces)))
        .expect("a pair of sockets works");

    let head = &sent[..sent.len().min(LONGEST)];
    match (head.iter().position(|byte| *byte == b'\n'), line) {
        (Some(end), Ok(Some(line))) => {
            assert_eq!(line, sent[..end]);
            assert_eq!(
                rest,
                sent[end + 1..],
                "what follows the line is stream data"
            );
            parse(&line);
        }
        (None, Ok(None)) => {
            assert!(sent.len() >= LONGEST, "given up too early");
            assert_eq!(rest, sent[LONGEST..], "more was taken than a line may have");
        }
        (None, Err(error)) => {
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
            assert!(sent.len() < LONGEST, "no end of the line was needed");
        }
        (end, line) => panic!("the line ends at {end:?} and was read as {line:?}"),
    }
}

/// The result of the reader, and the bytes that it left in the socket.
async fn read(pieces: &[&[u8]]) -> io::Result<(io::Result<Option<Vec<u8>>>, Vec<u8>)> {
    let (mut ours, mut theirs) = UnixStream::pair()?;
    let reader = async {
        let line = line::read(&ours).await;
        let mut rest = Vec::new();
        ours.read_to_end(&mut rest).await?;
        Ok((line, rest))
    };
    let writer = async {
        for piece in pieces {
            theirs.write_all(piece).await?;
            yield_now().await;
        }
        theirs.shutdown().await
    };
    tokio::try_join!(reader, writer).map(|(read, ())| read)
}

/// A request that is written out again parses to the same request.
fn parse(line: &[u8]) {
    let Ok(request) = Request::parse(line) else {
        return;
    };
    let written = match &request {
        Request::Claim(id) => format!("CLAIM {id}"),
        Request::Accept(backend) => format!("ACCEPT {backend}"),
        Request::Watch(backend) => format!("WATCH {backend}"),
        Request::Register(backend, address) => format!("REGISTER {backend} {address}"),
    };
    assert_eq!(Request::parse(written.as_bytes()), Ok(request), "{written}");
}

/// The documented value, independent of the code.
const LONGEST: usize = 256;

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread()
        .enable_io()
        .build()
        .expect("a runtime needs a few descriptors");
}
