//! The backend: the same server for every proxy and every work.

mod tireless;

use std::collections::HashMap;
use std::fs;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use rustix::io::Errno;
use rustls::ServerConfig;
use rustls::server::UnbufferedServerConnection;

use crate::buffer::Buffer;
use crate::pattern::Pattern;
use crate::poll::{Interest, Poll, Ready};
use crate::session::{self, Session};
use crate::task::Certificate;
use tireless::{Drain, Fate, Pages};

/// The first byte of a connection selects the behaviour of its backend.
pub(crate) const ECHO: u8 = b'E';
/// Read, compare with the pattern, send nothing.
pub(crate) const SINK: u8 = b'K';
/// Send the pattern without end.
pub(crate) const SOURCE: u8 = b'S';
/// Read nothing after this byte.
pub(crate) const DEAF: u8 = b'D';
/// Send the pattern without end, from a file.
pub(crate) const PAGES: u8 = b'P';
/// Read, compare a part with the pattern and discard the rest, send nothing.
pub(crate) const DRAIN: u8 = b'V';
/// Both of them.
pub(crate) const SINK_AND_SOURCE: u8 = b'B';

/// Tokens from here on belong to the backend.
const FIRST_TOKEN: u64 = 1 << 32;
/// For both directions at once: how many bytes one direction may be ahead of the other. Otherwise
/// the mix of both directions would depend on how a proxy shares its time between them.
pub(crate) const AHEAD: u64 = 2 * 1024 * 1024;
/// Bytes that are read or written at a time.
const CHUNK: usize = 128 * 1024;

/// The listener and its connections.
pub(crate) struct Backend {
    listener: Listener,
    peers: HashMap<u64, Peer>,
    next_token: u64,
    scratch: Vec<u8>,
    pattern: Pattern,
    sunk: u64,
    pages: Pages,
    paged: u64,
    is_paging: bool,
    drain: Drain,
    tls: Option<Arc<ServerConfig>>,
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
    /// For an echo: bytes that the proxy has not accepted yet.
    waiting: Buffer,
    tls: Option<Box<Tls>>,
}

/// The records of a connection.
struct Tls {
    session: Session<UnbufferedServerConnection>,
    incoming: Buffer,
    outgoing: Buffer,
}

/// Whether a connection continues.
enum Flow {
    On,
    Ended,
}

impl Backend {
    /// Listens at `address`, with TLS if there is a certificate. A socket from an earlier run is
    /// removed.
    pub(crate) fn bind(poll: &Poll, address: &str, tls: Option<&Certificate>) -> Result<Self> {
        let listener = match address.strip_prefix("unix:") {
            Some(path) => {
                let _absent = fs::remove_file(path);
                let listener = UnixListener::bind(path).context(path.to_owned())?;
                // hitch does not run as root.
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
        let pattern = Pattern::new();
        Ok(Self {
            peers: HashMap::new(),
            next_token: FIRST_TOKEN + 1,
            scratch: vec![0; CHUNK],
            pages: Pages::new(&pattern)?,
            paged: 0,
            is_paging: true,
            drain: match &listener {
                Listener::Unix(_) => Drain::for_unix()?,
                Listener::Tcp(_) => Drain::for_tcp(),
            },
            listener,
            pattern,
            sunk: 0,
            tls: tls.map(session::serve).transpose()?,
        })
    }

    /// Whether an event is for the backend.
    pub(crate) fn owns(token: u64) -> bool {
        token >= FIRST_TOKEN
    }

    /// Bytes that have arrived here and were correct, or not compared.
    pub(crate) fn sunk(&self) -> u64 {
        self.sunk
    }

    /// Bytes that were sent from the file.
    pub(crate) fn paged(&self) -> u64 {
        self.paged
    }

    /// Whether more is sent from the file. Connections that were stopped send nothing any more.
    pub(crate) fn set_paging(&mut self, is_paging: bool) {
        self.is_paging = is_paging;
    }

    /// Handles an event of one descriptor.
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
        let tls = self.tls.as_ref().map(Tls::accept).transpose()?;
        self.peers.insert(token, Peer::new(fd, tls));
        Ok(())
    }

    fn read(&mut self, peer: &mut Peer) -> Result<Flow> {
        let fate = match peer.role {
            Some(DRAIN) if peer.tls.is_none() => tireless::fate(peer.received),
            _ => Fate::Compared(CHUNK),
        };
        let read = match fate {
            Fate::Compared(most) => {
                rustix::io::read(&peer.fd, &mut self.scratch[..most.min(CHUNK)])
            }
            Fate::Discarded(most) => self.drain.discard(&peer.fd, most),
        };
        let count = match read {
            Ok(0) => return Ok(Flow::Ended),
            Ok(count) => count,
            Err(Errno::AGAIN) => return Ok(Flow::On),
            // If the connection was in use, its client reports this.
            Err(Errno::CONNRESET) => return Ok(Flow::Ended),
            Err(error) => return Err(error).context("reading at the backend"),
        };
        if let Fate::Discarded(_) = fate {
            peer.received += count as u64;
            self.sunk += count as u64;
            return Ok(Flow::On);
        }
        let bytes = &self.scratch[..count];
        let Some(mut tls) = peer.tls.take() else {
            peer.hear(bytes, &self.pattern, &mut self.sunk)?;
            return Ok(Flow::On);
        };
        tls.incoming.append(bytes);
        let Tls {
            session,
            incoming,
            outgoing,
        } = &mut *tls;
        session.process(incoming, outgoing, |payload| {
            peer.hear(payload, &self.pattern, &mut self.sunk)
        })?;
        let is_closed = session.is_closed_by_peer();
        if is_closed {
            session.close(incoming, outgoing)?;
        }
        peer.tls = Some(tls);
        match is_closed {
            // If the socket does not accept the end completely, the client reports an error of the
            // run.
            true => peer.flush().map(|_| Flow::Ended),
            false => Ok(Flow::On),
        }
    }

    fn write(&mut self, peer: &mut Peer) -> Result<Flow> {
        if let Flow::Ended = peer.flush()? {
            return Ok(Flow::Ended);
        }
        if peer.backlog() > 0 {
            return Ok(Flow::On);
        }
        if peer.role == Some(PAGES) && !self.is_paging {
            peer.role = Some(DEAF);
        }
        let bytes = match peer.role {
            Some(ECHO) if peer.waiting.len() > 0 => peer.waiting.filled(),
            // Records, if any, are sealed from this.
            Some(SOURCE | PAGES) => self.pattern.piece(peer.sent, CHUNK),
            Some(SINK_AND_SOURCE) if !peer.is_ahead() => self.pattern.piece(peer.sent, CHUNK),
            _ => return Ok(Flow::On),
        };
        if let Some(tls) = &mut peer.tls {
            let count = bytes.len();
            tls.session
                .seal(bytes, &mut tls.incoming, &mut tls.outgoing)?;
            peer.sent += count as u64;
            if peer.role == Some(ECHO) {
                peer.waiting.consume(count);
            }
            return peer.flush();
        }
        let written = match peer.role {
            Some(PAGES) => self.pages.send(&peer.fd, peer.sent),
            _ => rustix::io::write(&peer.fd, bytes),
        };
        match written {
            Ok(count) => {
                peer.sent += count as u64;
                match peer.role {
                    Some(ECHO) => peer.waiting.consume(count),
                    Some(PAGES) => self.paged += count as u64,
                    _ => {}
                }
                Ok(Flow::On)
            }
            Err(Errno::AGAIN) => Ok(Flow::On),
            Err(Errno::PIPE | Errno::CONNRESET) => Ok(Flow::Ended),
            Err(error) => Err(error).context("writing at the backend"),
        }
    }
}

impl Tls {
    fn accept(config: &Arc<ServerConfig>) -> Result<Box<Self>> {
        Ok(Box::new(Self {
            session: Session::accept(config)?,
            incoming: Buffer::default(),
            outgoing: Buffer::default(),
        }))
    }
}

impl Peer {
    fn new(fd: OwnedFd, tls: Option<Box<Tls>>) -> Self {
        Self {
            fd,
            role: None,
            interest: Interest::Read,
            received: 0,
            sent: 0,
            waiting: Buffer::default(),
            tls,
        }
    }

    /// Handles payload: the byte that selects the behaviour, and then the data for it.
    fn hear(&mut self, mut bytes: &[u8], pattern: &Pattern, sunk: &mut u64) -> Result<()> {
        if self.role.is_none() {
            self.role = Some(bytes[0]);
            bytes = &bytes[1..];
        }
        match self.role {
            Some(ECHO) => self.waiting.append(bytes),
            Some(SINK | DRAIN | SINK_AND_SOURCE) => {
                ensure!(
                    pattern.matches(self.received, bytes),
                    "wrong bytes at the backend, after {} of them",
                    self.received
                );
                *sunk += bytes.len() as u64;
            }
            Some(DEAF) => {}
            Some(SOURCE | PAGES) => ensure!(bytes.is_empty(), "nothing was to be sent here"),
            role => bail!("no such role: {role:?}"),
        }
        self.received += bytes.len() as u64;
        Ok(())
    }

    /// Bytes of records that the socket has not accepted yet.
    fn backlog(&self) -> usize {
        self.tls.as_ref().map_or(0, |tls| tls.outgoing.len())
    }

    /// Writes waiting records until the socket is full.
    fn flush(&mut self) -> Result<Flow> {
        let Some(tls) = &mut self.tls else {
            return Ok(Flow::On);
        };
        if tls.outgoing.len() == 0 {
            return Ok(Flow::On);
        }
        match rustix::io::write(&self.fd, tls.outgoing.filled()) {
            Ok(count) => tls.outgoing.consume(count),
            Err(Errno::AGAIN) => {}
            Err(Errno::PIPE | Errno::CONNRESET) => return Ok(Flow::Ended),
            Err(error) => return Err(error).context("writing at the backend"),
        }
        Ok(Flow::On)
    }

    fn wants(&self) -> Interest {
        if self.backlog() > 0 {
            return Interest::Both;
        }
        match self.role {
            Some(DEAF) => Interest::Nothing,
            // Back-pressure: while an echo is not accepted, nothing is read.
            Some(ECHO) if self.waiting.len() > 0 => Interest::Write,
            Some(SOURCE | PAGES) => Interest::Both,
            Some(SINK_AND_SOURCE) if !self.is_ahead() => Interest::Both,
            _ => Interest::Read,
        }
    }

    fn is_ahead(&self) -> bool {
        self.sent > self.received + AHEAD
    }
}
