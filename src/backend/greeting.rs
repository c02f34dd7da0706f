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
