//! One attempt to connect to one address, step by step.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, SockAddr, SockRef, Type};
use tokio::net::{self, TcpStream, lookup_host};

use super::Upstream;
use super::dial_error::DialError;
use super::greeting::greet;
use super::secure::Tls;
use crate::address::Address;
use crate::identity::Identity;
use crate::sys::descriptors::is_exhausted;
use crate::sys::socket::Socket;
use crate::sys::tcp;
use crate::sys::unix_stream::UnixStream;

/// A connection to an address, ready for the client's bytes.
#[derive(Debug)]
pub(crate) struct Reached {
    pub stream: Upstream,
    /// The identity of the backend, if it has TLS.
    pub identity: Option<Box<Identity>>,
}

/// The socket address of one attempt.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

impl Place {
    /// `None` for a host name, which must be looked up first.
    pub(crate) fn of(address: &Address) -> Option<Self> {
        match address {
            Address::Unix(path) => Some(Self::Unix(path.clone())),
            Address::Tcp { host, port } => {
                let ip: IpAddr = host.parse().ok()?;
                Some(Self::Tcp((ip, *port).into()))
            }
        }
    }
}

/// Looks up the socket addresses of a host name.
pub(crate) async fn look_up(address: &Address) -> io::Result<Vec<Place>> {
    let Address::Tcp { host, port } = address else {
        return Ok(Vec::new());
    };
    let found = lookup_host((host.as_str(), *port)).await?;
    Ok(found.map(Place::Tcp).collect())
}

/// Sends the PROXY protocol header and performs the TLS handshake, if they are configured. An
/// address counts as answering only after both.
pub(crate) async fn introduce(
    mut socket: Socket,
    address: &Address,
    tls: Option<&Arc<Tls>>,
    greeting: Option<&[u8]>,
) -> Result<Reached, DialError> {
    if let Some(greeting) = greeting {
        socket = greet(socket, greeting).await?;
    }
    let Some(tls) = tls else {
        return Ok(Reached {
            stream: socket.into(),
            identity: None,
        });
    };
    // Boxed: this future is large, and most backends have no TLS.
    let (secured, server) = Box::pin(tls.secure(address, socket)).await?;
    Ok(Reached {
        stream: secured.into(),
        identity: Some(server.identity),
    })
}

/// Opens a TCP connection and sends nothing.
pub(crate) async fn connect_tcp(
    address: SocketAddr,
    unacknowledged: Option<Duration>,
) -> Result<Socket, DialError> {
    let stream = TcpStream::connect(address).await.map_err(classify)?;
    tcp::tune(&SockRef::from(&stream), unacknowledged);
    Ok(Socket::Tcp(stream))
}

/// Like [`connect_tcp`], for a Unix socket. Its connect succeeds or fails at once (connect(2)), so
/// this does not wait and sets no timer.
pub(crate) fn connect_unix(path: &Path) -> Result<Socket, DialError> {
    let open = || {
        let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
        socket.connect(&SockAddr::unix(path)?)?;
        net::UnixStream::from_std(socket.into()).map(UnixStream::fresh)
    };
    open().map(Socket::Unix).map_err(classify)
}

fn classify(error: io::Error) -> DialError {
    // A Unix connect does not wait for room in the listener's queue; it fails with EAGAIN
    // (connect(2)).
    match error.kind() {
        io::ErrorKind::WouldBlock => DialError::Busy,
        _ if is_exhausted(&error) => DialError::Exhausted,
        _ => DialError::Down(error),
    }
}
