//! One attempt to connect to one address.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, SockAddr, SockRef, Type};
use tokio::net::{self, TcpStream, lookup_host};

use super::Plain;
use super::greeting::greet;
use super::secure::Tls;
use crate::address::Address;
use crate::identity::Identity;
use crate::sys::descriptors::is_exhausted;
use crate::sys::socket::Socket;
use crate::sys::tcp;
use crate::sys::unix_stream::UnixStream;

/// Why an attempt failed.
#[derive(Debug)]
pub(crate) enum DialError {
    /// Nobody is at fault for long: the listener's queue is full, or we are out of descriptors.
    /// To be tried again, and no sign of bad health.
    Busy,
    /// The backend does not answer.
    Down(io::Error),
    /// The backend answers, and is not whom it should be, or does not want us.
    Untrusted(String),
    /// The backend has taken the connection and broken it before it was told whose it is.
    Reset,
}

/// A connection to an address, ready for the bytes of a client.
#[derive(Debug)]
pub(crate) struct Reached {
    pub stream: Plain,
    /// Who is there, where TLS says so.
    pub identity: Option<Box<Identity>>,
}

/// Dials, says whose the connection is, and shakes hands where TLS is spoken: an address has answered
/// when all is done.
pub(crate) async fn reach(
    address: &Address,
    unacknowledged: Option<Duration>,
    tls: Option<&Arc<Tls>>,
    greeting: Option<&[u8]>,
) -> Result<Reached, DialError> {
    let mut socket = dial(address, unacknowledged).await?;
    if let Some(greeting) = greeting {
        socket = greet(socket, greeting).await?;
    }
    let Some(tls) = tls else {
        return Ok(Reached {
            stream: Plain::Socket(socket),
            identity: None,
        });
    };
    // Boxed: it is long, and most backends have no TLS.
    let (secure, identity) = Box::pin(tls.secure(address, socket)).await?;
    Ok(Reached {
        stream: Plain::Secure(secure),
        identity: Some(identity),
    })
}

async fn dial(address: &Address, unacknowledged: Option<Duration>) -> Result<Socket, DialError> {
    match address {
        Address::Unix(path) => unix(path).map(Socket::Unix).map_err(classify),
        Address::Tcp { host, port } => {
            let mut last = io::Error::from(io::ErrorKind::NotFound);
            let addresses = lookup_host((host.as_str(), *port))
                .await
                .map_err(classify)?;
            for address in addresses {
                match tcp(address, unacknowledged).await {
                    Ok(stream) => return Ok(Socket::Tcp(stream)),
                    Err(error) => last = error,
                }
            }
            Err(classify(last))
        }
    }
}

async fn tcp(address: SocketAddr, unacknowledged: Option<Duration>) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    tcp::set_options(&SockRef::from(&stream), unacknowledged)?;
    Ok(stream)
}

/// A Unix connect is done at once or not at all (connect(2)), so there is nothing to wait for, and no
/// timer to be set.
fn unix(path: &Path) -> io::Result<UnixStream> {
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.connect(&SockAddr::unix(path)?)?;
    net::UnixStream::from_std(socket.into()).map(UnixStream::fresh)
}

fn classify(error: io::Error) -> DialError {
    // A Unix connect does not wait for room in the listener's queue; it says EAGAIN (connect(2)).
    if error.kind() == io::ErrorKind::WouldBlock || is_exhausted(&error) {
        return DialError::Busy;
    }
    DialError::Down(error)
}
