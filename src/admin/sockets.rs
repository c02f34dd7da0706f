//! The sockets of the admin API, and what a client is told that it does not serve.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use hyper::StatusCode;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::answer::Refusal;
use crate::proxy::AdminSocket;

pub(super) enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    pub(super) fn new(socket: AdminSocket) -> io::Result<Self> {
        match socket {
            AdminSocket::Unix(socket) => Ok(Self::Unix(UnixListener::from_std(socket)?)),
            AdminSocket::Tcp(socket) => Ok(Self::Tcp(TcpListener::from_std(socket)?)),
        }
    }

    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(super) async fn accept(&self) -> io::Result<Client> {
        Ok(match self {
            Self::Unix(listener) => Client::Unix(listener.accept().await?.0),
            Self::Tcp(listener) => {
                let (client, peer) = listener.accept().await?;
                Client::Tcp(client, peer)
            }
        })
    }
}

pub(super) enum Client {
    Unix(UnixStream),
    Tcp(TcpStream, SocketAddr),
}

pub(super) fn busy() -> Refusal {
    Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "busy",
        format!("{MOST_CLIENTS} clients are connected; close one, or try again"),
    )
}

pub(super) fn foreign() -> Refusal {
    Refusal::new(
        StatusCode::FORBIDDEN,
        "forbidden",
        "only root and the user of this process may use the admin socket",
    )
}

/// Sends a refusal and closes, without waiting.
pub(super) fn refuse(mut client: impl Read + Write, refusal: &Refusal) {
    let answer = refusal.text();
    // These are the first bytes on a socket with more room; if the write fails, the client is gone.
    let _ = client.write_all(answer.as_bytes());
    // A close with unread bytes would be a reset for the client.
    let _ = client.read(&mut [0; 4096]);
}

/// Operators, probes and a scraper; a page keeps a few open.
pub(super) const MOST_CLIENTS: usize = 64;
