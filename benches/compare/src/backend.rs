//! What the proxy dials: the same server for every proxy and every work.

use std::collections::HashMap;
use std::fs;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use anyhow::{Context, Result, bail, ensure};
use rustix::io::Errno;

use crate::buffer::Buffer;
use crate::pattern::Pattern;
use crate::poll::{Interest, Poll, Ready};

/// The first byte of a connection says what its backend is to do with it.
pub(crate) const ECHO: u8 = b'E';
/// Read, compare with the pattern, say nothing.
pub(crate) const SINK: u8 = b'K';
/// Send the pattern without end.
pub(crate) const SOURCE: u8 = b'S';
/// Both of them.
pub(crate) const SINK_AND_SOURCE: u8 = b'B';

/// Tokens from here on are the backend's.
const FIRST_TOKEN: u64 = 1 << 32;
/// Of both at once, how far a side may be ahead of the other: the bytes that are compared are then
/// the same mix of both directions for every proxy, however it shares its time between them.
pub(crate) const AHEAD: u64 = 2 * 1024 * 1024;
/// Read and written at a time.
const CHUNK: usize = 128 * 1024;

/// The listener and its connections.
pub(crate) struct Backend {
    listener: Listener,
    peers: HashMap<u64, Peer>,
    next_token: u64,
    scratch: Vec<u8>,
    pattern: Pattern,
    sunk: u64,
}

enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

struct Peer {
    fd: OwnedFd,
    role: Option<u8>,
    interest: Interest,
    received: u64,
    sent: u64,
    /// Of an echo: what the proxy has not taken yet.
    waiting: Buffer,
}

/// Whether a connection goes on.
enum Flow {
    On,
    Ended,
}

impl Backend {
    /// Listens at `address`; a socket that another run left there is removed.
    pub(crate) fn bind(poll: &Poll, address: &str) -> Result<Self> {
        let listener = match address.strip_prefix("unix:") {
            Some(path) => {
                let _absent = fs::remove_file(path);
                let listener = UnixListener::bind(path).context(path.to_owned())?;
                // hitch gives up being root.
                fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
                listener.set_nonblocking(true)?;
                poll.add(&listener, FIRST_TOKEN, Interest::Read)?;
                Listener::Unix(listener)
            }
            None => {
                let listener = TcpListener::bind(address).context(address.to_owned())?;
                listener.set_nonblocking(true)?;
                poll.add(&listener, FIRST_TOKEN, Interest::Read)?;
                Listener::Tcp(listener)
            }
        };
        Ok(Self {
            listener,
            peers: HashMap::new(),
            next_token: FIRST_TOKEN + 1,
            scratch: vec![0; CHUNK],
            pattern: Pattern::new(),
            sunk: 0,
        })
    }

    /// Whether an event is for the backend.
    pub(crate) fn owns(token: u64) -> bool {
        token >= FIRST_TOKEN
    }

    /// Bytes that have arrived here and were what they had to be.
    pub(crate) fn sunk(&self) -> u64 {
        self.sunk
    }

    /// Does what is due at one descriptor.
    pub(crate) fn serve(&mut self, poll: &Poll, ready: Ready) -> Result<()> {
        if ready.token == FIRST_TOKEN {
            return self.accept(poll);
        }
        let Some(mut peer) = self.peers.remove(&ready.token) else {
            bail!("an event for a backend connection that is closed");
        };
        if ready.read
            && let Flow::Ended = self.read(&mut peer)?
        {
            return Ok(());
        }
        if (ready.write || peer.interest == Interest::Read)
            && let Flow::Ended = self.write(&mut peer)?
        {
            return Ok(());
        }
        let interest = peer.wants();
        if interest != peer.interest {
            poll.change(&peer.fd, ready.token, interest)?;
            peer.interest = interest;
        }
        self.peers.insert(ready.token, peer);
        Ok(())
    }

    fn accept(&mut self, poll: &Poll) -> Result<()> {
        let fd: OwnedFd = match &self.listener {
            Listener::Unix(listener) => {
                let (socket, _) = listener.accept()?;
                socket.set_nonblocking(true)?;
                socket.into()
            }
            Listener::Tcp(listener) => {
                let (socket, _) = listener.accept()?;
                socket.set_nonblocking(true)?;
                socket.set_nodelay(true)?;
                socket.into()
            }
        };
        let token = self.next_token;
        self.next_token += 1;
        poll.add(&fd, token, Interest::Read)?;
        self.peers.insert(token, Peer::new(fd));
        Ok(())
    }

    fn read(&mut self, peer: &mut Peer) -> Result<Flow> {
        let count = match rustix::io::read(&peer.fd, &mut self.scratch[..]) {
            Ok(0) => return Ok(Flow::Ended),
            Ok(count) => count,
            Err(Errno::AGAIN) => return Ok(Flow::On),
            // If it was in use, its client says so.
            Err(Errno::CONNRESET) => return Ok(Flow::Ended),
            Err(error) => return Err(error).context("reading at the backend"),
        };
        let mut bytes = &self.scratch[..count];
        if peer.role.is_none() {
            peer.role = Some(bytes[0]);
            bytes = &bytes[1..];
        }
        match peer.role {
            Some(ECHO) => peer.waiting.append(bytes),
            Some(SINK | SINK_AND_SOURCE) => {
                ensure!(
                    self.pattern.matches(peer.received, bytes),
                    "wrong bytes at the backend, after {} of them",
                    peer.received
                );
                self.sunk += bytes.len() as u64;
            }
            Some(SOURCE) => ensure!(bytes.is_empty(), "nothing was to be sent here"),
            role => bail!("no such role: {role:?}"),
        }
        peer.received += bytes.len() as u64;
        Ok(Flow::On)
    }

    fn write(&mut self, peer: &mut Peer) -> Result<Flow> {
        let bytes = match peer.role {
            Some(ECHO) if peer.waiting.len() > 0 => peer.waiting.filled(),
            Some(SOURCE) => self.pattern.piece(peer.sent, CHUNK),
            Some(SINK_AND_SOURCE) if !peer.is_ahead() => self.pattern.piece(peer.sent, CHUNK),
            _ => return Ok(Flow::On),
        };
        match rustix::io::write(&peer.fd, bytes) {
            Ok(count) => {
                peer.sent += count as u64;
                if peer.role == Some(ECHO) {
                    peer.waiting.consume(count);
                }
                Ok(Flow::On)
            }
            Err(Errno::AGAIN) => Ok(Flow::On),
            Err(Errno::PIPE | Errno::CONNRESET) => Ok(Flow::Ended),
            Err(error) => Err(error).context("writing at the backend"),
        }
    }
}

impl Peer {
    fn new(fd: OwnedFd) -> Self {
        Self {
            fd,
            role: None,
            interest: Interest::Read,
            received: 0,
            sent: 0,
            waiting: Buffer::default(),
        }
    }

    fn wants(&self) -> Interest {
        match self.role {
            // Back-pressure: an echo that is not taken stops the reading.
            Some(ECHO) if self.waiting.len() > 0 => Interest::Write,
            Some(SOURCE) => Interest::Both,
            Some(SINK_AND_SOURCE) if !self.is_ahead() => Interest::Both,
            _ => Interest::Read,
        }
    }

    fn is_ahead(&self) -> bool {
        self.sent > self.received + AHEAD
    }
}
