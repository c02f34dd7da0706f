//! Whose listener has answered a dial: that of the user who registered the address, and never our own.
//!
//! Vestibule connects with its own rights. Whoever may register could otherwise have it speak to a
//! socket that they may not open themselves.

use std::io;
use std::net::{IpAddr, SocketAddr};

use super::dial_error::DialError;
use super::own_sockets::OwnSockets;
use crate::sys::listeners;
use crate::sys::socket::Socket;

/// What a dialled socket is held against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected<'a> {
    /// Who registered the address; `None` if it is configured.
    pub registrant: Option<u32>,
    pub own: &'a OwnSockets,
}

impl Expected<'_> {
    /// Right after the connect, before a byte is sent.
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
            // It is gone since, connection and all: there is nobody to be wrong about.
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
            // What is configured was looked at when it was; what is registered may be another file
            // by now, but not one with another name for its listener.
            Socket::Unix(stream) if self.registrant.is_some() => {
                let name = stream.peer_addr().ok();
                let path = name.as_ref().and_then(|name| name.as_pathname());
                path.is_some_and(|path| self.own.is_path(path))
            }
            Socket::Unix(_) => false,
        }
    }
}

/// The user whose listener is at the other end; `None` if that cannot be told.
fn owner(socket: &Socket) -> io::Result<Option<u32>> {
    match socket {
        // That of the process at the time of its listen(2) (SO_PEERCRED, unix(7)).
        Socket::Unix(stream) => Ok(Some(stream.peer_cred()?.uid())),
        Socket::Tcp(stream) => {
            let (local, peer) = (stream.local_addr()?, stream.peer_addr()?);
            match listeners::owner(canonical(peer))? {
                Some(uid) => Ok(Some(uid)),
                // It took this connection and has stopped to listen.
                None => listeners::owner_of_accepted(canonical(peer), canonical(local)),
            }
        }
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    let ip: IpAddr = address.ip().to_canonical();
    SocketAddr::new(ip, address.port())
}
