//! Verifies the owner of the listener that answered a dial: the user who registered the address,
//! and never Vestibule itself.
//!
//! Vestibule connects with its own rights. Without this check, a user who may register addresses
//! could make Vestibule connect to a socket that the user may not open.

use std::io;
use std::net::{IpAddr, SocketAddr};

use super::dial_error::DialError;
use super::own_sockets::OwnSockets;
use crate::sys::listeners;
use crate::sys::socket::Socket;

/// What a connected socket is checked against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected<'a> {
    /// The uid that registered the address; `None` for a configured address.
    pub registrant: Option<u32>,
    pub own: &'a OwnSockets,
}

impl Expected<'_> {
    /// Called right after the connect, before a byte is sent.
    pub(super) fn verify(self, socket: &Socket) -> Result<(), DialError> {
        if self.is_our_own(socket) {
            return Err(DialError::Ours);
        }
        let Some(registrant) = self.registrant else {
            return Ok(());
        };
        match owner(socket) {
            Ok(Some(uid)) if uid == registrant => Ok(()),
            Ok(Some(uid)) => Err(DialError::Foreign(uid)),
            // The listener has gone meanwhile, and so has the connection: nobody is left to check.
            Ok(None) => Err(DialError::Down(io::ErrorKind::ConnectionAborted.into())),
            Err(error) => Err(DialError::Down(error)),
        }
    }

    fn is_our_own(self, socket: &Socket) -> bool {
        match socket {
            Socket::Tcp(stream) => match stream.peer_addr() {
                Ok(peer) if self.own.has_port(peer.port()) => {
                    let local = stream.local_addr();
                    local.is_ok_and(|local| self.own.is_at_the_end(local, peer))
                }
                _ => false,
            },
            // A configured address was checked when the configuration was loaded. The file at a
            // registered address may have changed since then, but a listener's socket name never
            // changes.
            Socket::Unix(stream) if self.registrant.is_some() => {
                let name = stream.peer_addr().ok();
                let path = name.as_ref().and_then(|name| name.as_pathname());
                path.is_some_and(|path| self.own.is_path(path))
            }
            Socket::Unix(_) => false,
        }
    }
}

/// The uid of the listener at the other end; `None` if that cannot be found out.
fn owner(socket: &Socket) -> io::Result<Option<u32>> {
    match socket {
        // The uid of the process at the time of its listen(2) (SO_PEERCRED, unix(7)).
        Socket::Unix(stream) => Ok(Some(stream.peer_cred()?.uid())),
        Socket::Tcp(stream) => {
            let (local, peer) = (stream.local_addr()?, stream.peer_addr()?);
            match listeners::owner(canonical(peer))? {
                Some(uid) => Ok(Some(uid)),
                // The program accepted this connection and has closed its listener.
                None => listeners::owner_of_accepted(canonical(peer), canonical(local)),
            }
        }
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    let ip: IpAddr = address.ip().to_canonical();
    SocketAddr::new(ip, address.port())
}
