//! One client connection: a socket, with or without TLS.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustls::{ClientConfig, HandshakeKind, NamedGroup};

use crate::buffer::Buffer;
use crate::poll::{Interest, Poll};
use crate::session::Session;
use crate::task::Tls;

/// A client. Dropping it closes the socket at once.
pub(crate) struct Client {
    token: u64,
    socket: TcpStream,
    session: Option<Session>,
    incoming: Buffer,
    outgoing: Buffer,
    /// Bytes per read.
    read: usize,
    interest: Interest,
    room: Room,
    end: End,
}

/// When to get an event for room in the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// After a write that was too short.
    WhenShort,
    /// Whenever there is room.
    Always,
}

/// The progress of the close of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    /// Our end was sent.
    Closing,
    /// The peer's end was received too.
    Closed,
}

impl Client {
    /// Connects, and starts the handshake if TLS is used.
    pub(crate) fn connect(
        poll: &Poll,
        token: u64,
        target: SocketAddr,
        tls: Option<&Arc<ClientConfig>>,
        read: usize,
    ) -> Result<Self> {
        Self::connect_to("localhost", poll, token, target, tls, read)
    }

    /// The same, and asks for a host.
    pub(crate) fn connect_to(
        host: &str,
        poll: &Poll,
        token: u64,
        target: SocketAddr,
        tls: Option<&Arc<ClientConfig>>,
        read: usize,
    ) -> Result<Self> {
        let socket = TcpStream::connect(target)
            .with_context(|| format!("cannot connect to the proxy at {target}"))?;
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        poll.add(&socket, token, Interest::Read)?;
        let session = tls.map(|tls| Session::with(host, tls)).transpose()?;
        let mut client = Self {
            token,
            socket,
            session,
            incoming: Buffer::default(),
            outgoing: Buffer::default(),
            read,
            interest: Interest::Read,
            room: Room::WhenShort,
            end: End::Open,
        };
        if let Some(session) = &mut client.session {
            session.process(&mut client.incoming, &mut client.outgoing, |_| Ok(()))?;
        }
        client.flush(poll)?;
        Ok(client)
    }

    /// Whether data can be sent.
    pub(crate) fn is_established(&self) -> bool {
        self.session.as_ref().is_none_or(Session::is_established)
    }

    /// Whether both sides have closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.end == End::Closed
    }

    /// The kind of the handshake; None without TLS.
    pub(crate) fn handshake(&self, tls: Tls) -> Result<Option<HandshakeKind>> {
        self.session
            .as_ref()
            .map(|session| session.handshake(tls))
            .transpose()
    }

    /// Whether the key exchange was X25519MLKEM768.
    pub(crate) fn is_hybrid(&self) -> bool {
        let group = self.session.as_ref().and_then(Session::group);
        group == Some(NamedGroup::X25519MLKEM768)
    }

    /// Reads once and passes the payload to `sink`. An end before our own is an error.
    pub(crate) fn receive(
        &mut self,
        poll: &Poll,
        mut sink: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let count = match self.socket.read(self.incoming.room(self.read)) {
            Ok(0) => return self.ended(),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error).context("reading from the proxy"),
        };
        self.incoming.add(count);
        match &mut self.session {
            Some(session) => session.process(&mut self.incoming, &mut self.outgoing, sink)?,
            None => {
                sink(self.incoming.filled())?;
                self.incoming.consume(count);
            }
        }
        self.flush(poll)
    }

    /// Sends `bytes`. What the socket does not accept is kept: see [`Self::backlog`].
    pub(crate) fn send(&mut self, poll: &Poll, bytes: &[u8]) -> Result<()> {
        ensure!(self.end == End::Open, "sending on a closed connection");
        match &mut self.session {
            Some(session) => session.seal(bytes, &mut self.incoming, &mut self.outgoing)?,
            None => self.outgoing.append(bytes),
        }
        self.flush(poll)
    }

    /// Bytes that were read, and are a part of a record.
    pub(crate) fn unopened(&self) -> usize {
        self.incoming.len()
    }

    /// Discards received bytes, at most as many as `scratch` holds, without opening or copying them.
    /// After that nothing can be received.
    pub(crate) fn discard(&mut self, scratch: &mut [u8]) -> Result<usize> {
        match rustix::net::recv(&self.socket, scratch, RecvFlags::TRUNC) {
            Ok((_, 0)) => self.ended().map(|()| 0),
            Ok((_, count)) => Ok(count),
            Err(Errno::AGAIN) => Ok(0),
            Err(error) => Err(error).context("reading from the proxy"),
        }
    }

    /// Appends `bytes` as they must be sent: see [`Self::write`].
    pub(crate) fn seal(&mut self, bytes: &[u8], sealed: &mut Buffer) -> Result<()> {
        match &mut self.session {
            Some(session) => session.seal(bytes, &mut self.incoming, sealed),
            None => {
                sealed.append(bytes);
                Ok(())
            }
        }
    }

    /// Sends sealed bytes, after those of [`Self::send`]. Returns how many the socket has accepted.
    pub(crate) fn write(&mut self, sealed: &[u8]) -> Result<usize> {
        if self.backlog() > 0 {
            return Ok(0);
        }
        match self.socket.write(sealed) {
            Ok(count) => Ok(count),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(error).context("writing to the proxy"),
        }
    }

    /// Bytes that the socket has not accepted yet.
    pub(crate) fn backlog(&self) -> usize {
        self.outgoing.len()
    }

    /// Sets whether there is an event whenever the socket has room, for clients with more to send.
    pub(crate) fn ask_for_room(&mut self, poll: &Poll, room: Room) -> Result<()> {
        self.room = room;
        self.update_interest(poll)
    }

    /// Writes waiting bytes until the socket is full.
    pub(crate) fn flush(&mut self, poll: &Poll) -> Result<()> {
        if self.outgoing.len() > 0 {
            match self.socket.write(self.outgoing.filled()) {
                Ok(count) => self.outgoing.consume(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("writing to the proxy"),
            }
        }
        self.update_interest(poll)
    }

    fn update_interest(&mut self, poll: &Poll) -> Result<()> {
        let interest = if self.room == Room::Always || self.outgoing.len() > 0 {
            Interest::Both
        } else {
            Interest::Read
        };
        if interest != self.interest {
            poll.change(&self.socket, self.token, interest)?;
            self.interest = interest;
        }
        Ok(())
    }

    /// Ends our stream in order: close_notify, then FIN.
    pub(crate) fn close(&mut self, poll: &Poll) -> Result<()> {
        if let Some(session) = &mut self.session {
            session.close(&mut self.incoming, &mut self.outgoing)?;
        }
        self.flush(poll)?;
        ensure!(self.backlog() == 0, "no room for a close_notify");
        self.socket.shutdown(Shutdown::Write)?;
        self.end = End::Closing;
        Ok(())
    }

    /// Removes a closed connection from the poll, which would report its end again and again.
    pub(crate) fn forget(&self, poll: &Poll) -> Result<()> {
        poll.remove(&self.socket)
    }

    fn ended(&mut self) -> Result<()> {
        if self.end == End::Open {
            let how = match &self.session {
                Some(session) if !session.is_established() => "during the handshake",
                Some(session) if session.is_closed_by_peer() => "with close_notify",
                _ => "without a word",
            };
            bail!("the proxy has closed a connection in use, {how}");
        }
        self.end = End::Closed;
        Ok(())
    }
}
