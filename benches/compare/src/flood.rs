//! A flood of handshakes from unknown clients: a constant number in progress, and none is used.
//!
//! The flood runs only while the echoes beside it have nothing to do, so that the echoes are on
//! time. A ClientHello is made once and sent again and again, as an attacker would: it costs the
//! sender almost nothing.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::thread::gettid;
use rustls::ClientConfig;

use crate::buffer::Buffer;
use crate::poll::{Interest, Poll, Ready};
use crate::session::{self, Session};
use crate::task::{Flood, Task};

/// Larger than the first flight of a server.
const READ: usize = 16 * 1024;

/// The results of the handshakes.
#[derive(Default)]
pub(crate) struct Tally {
    answered: AtomicU64,
    unanswered: AtomicU64,
}

impl Tally {
    /// The number of handshakes with the expected answer, and of all others.
    pub(crate) fn now(&self) -> (u64, u64) {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (of(&self.answered), of(&self.unanswered))
    }
}

/// Keeps this many handshakes in progress until it is `over`.
pub(crate) fn run(task: &Task, flood: &Flood, tally: &Tally, over: &AtomicBool) -> Result<()> {
    run_when_idle()?;
    let mut poll = Poll::new()?;
    let refused = flood.refused.as_ref();
    let config = session::offer_as(task, refused)?.context("a flood without TLS")?;
    let kind = match refused {
        Some(_) => Kind::Refused(config),
        None => Kind::Hello(lengthen(&hello(&config)?, flood.hello)?),
    };
    let mut strangers = Vec::new();
    for token in 0..flood.in_flight as u64 {
        strangers.push(Stranger::come(task.target, &poll, token, &kind)?);
    }
    let mut ready = Vec::new();
    while !over.load(Ordering::Relaxed) {
        poll.wait_at_most(Duration::from_millis(50), &mut ready)?;
        for &event in &ready {
            let stranger = &mut strangers[event.token as usize];
            let count = match stranger.go_on(&poll, event, &kind)? {
                Fate::UnderWay => continue,
                Fate::Answered => &tally.answered,
                Fate::Unanswered => &tally.unanswered,
            };
            count.fetch_add(1, Ordering::Relaxed);
            *stranger = Stranger::come(task.target, &poll, event.token, &kind)?;
        }
    }
    Ok(())
}

/// Lets this thread run only while the echoes have nothing to do. With a lower priority alone, the
/// echoes would wait for the end of its time slice, which takes some milliseconds.
fn run_when_idle() -> Result<()> {
    let thread = gettid().as_raw_nonzero().to_string();
    let status = Command::new("chrt")
        .args(["--idle", "--pid", "0", &thread])
        .status()
        .context("cannot run chrt")?;
    ensure!(status.success(), "chrt: {status}");
    Ok(())
}

/// The kind of flood.
enum Kind {
    /// Send these bytes, and leave when the server has answered.
    Hello(Vec<u8>),
    /// A handshake with a certificate that is refused.
    Refused(Arc<ClientConfig>),
}

enum Fate {
    UnderWay,
    /// With a ServerHello, or with the expected refusal.
    Answered,
    Unanswered,
}

struct Stranger {
    socket: TcpStream,
    session: Option<Session>,
    incoming: Buffer,
    outgoing: Buffer,
    /// The number of bytes of the hello that were sent.
    sent: usize,
    interest: Interest,
}

impl Stranger {
    fn come(target: SocketAddr, poll: &Poll, token: u64, kind: &Kind) -> Result<Self> {
        let socket = TcpStream::connect(target).context("a stranger cannot connect")?;
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        // Closes with a reset, so that the port is free at once.
        rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
        poll.add(&socket, token, Interest::Read)?;
        let mut stranger = Self {
            socket,
            session: None,
            incoming: Buffer::default(),
            outgoing: Buffer::default(),
            sent: 0,
            interest: Interest::Read,
        };
        if let Kind::Refused(config) = kind {
            stranger.session = Some(Session::new(config)?);
            stranger.talk();
        }
        stranger.send(poll, token, kind)?;
        Ok(stranger)
    }

    fn go_on(&mut self, poll: &Poll, event: Ready, kind: &Kind) -> Result<Fate> {
        if event.write {
            self.send(poll, event.token, kind)?;
        }
        if !event.read {
            return Ok(Fate::UnderWay);
        }
        let count = match self.socket.read(self.incoming.room(READ)) {
            // nginx closes without an alert.
            Ok(0) if self.is_established() => return Ok(Fate::Answered),
            Ok(0) => return Ok(Fate::Unanswered),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Fate::UnderWay),
            Err(_) => return Ok(Fate::Unanswered),
        };
        self.incoming.add(count);
        if self.session.is_none() {
            return Ok(match self.incoming.filled()[0] {
                HANDSHAKE => Fate::Answered,
                _ => Fate::Unanswered,
            });
        }
        let fate = self.talk();
        self.send(poll, event.token, kind)?;
        Ok(fate)
    }

    fn is_established(&self) -> bool {
        self.session.as_ref().is_some_and(Session::is_established)
    }

    /// Passes the received bytes to the TLS session.
    fn talk(&mut self) -> Fate {
        let Some(session) = &mut self.session else {
            return Fate::UnderWay;
        };
        let was_established = session.is_established();
        match session.process(&mut self.incoming, &mut self.outgoing, |_| Ok(())) {
            Ok(()) => Fate::UnderWay,
            // The alert: the client's handshake is complete by then.
            Err(_) if was_established => Fate::Answered,
            Err(_) => Fate::Unanswered,
        }
    }

    fn send(&mut self, poll: &Poll, token: u64, kind: &Kind) -> Result<()> {
        let bytes = match kind {
            Kind::Hello(hello) => &hello[self.sent..],
            Kind::Refused(_) => self.outgoing.filled(),
        };
        // A refused client must read the alert.
        let count = match bytes {
            [] => 0,
            bytes => self.socket.write(bytes).unwrap_or(0),
        };
        let is_all = count == bytes.len();
        match kind {
            Kind::Hello(_) => self.sent += count,
            Kind::Refused(_) => self.outgoing.consume(count),
        }
        let interest = if is_all {
            Interest::Read
        } else {
            Interest::Both
        };
        if interest != self.interest {
            poll.change(&self.socket, token, interest)?;
            self.interest = interest;
        }
        Ok(())
    }
}

/// The ClientHello for this configuration.
fn hello(config: &Arc<ClientConfig>) -> Result<Vec<u8>> {
    let mut outgoing = Buffer::default();
    Session::new(config)?.process(&mut Buffer::default(), &mut outgoing, |_| Ok(()))?;
    Ok(outgoing.filled().to_vec())
}

/// The same ClientHello with unknown extensions up to this length, in as many records as necessary
/// (RFC 8446 §4.1.2, §4.2).
fn lengthen(hello: &[u8], length: usize) -> Result<Vec<u8>> {
    let mut message = hello[RECORD_HEADER..].to_vec();
    let mut at = MESSAGE_HEADER + 2 + 32;
    at += 1 + usize::from(message[at]);
    at += 2 + usize::from(u16::from_be_bytes([message[at], message[at + 1]]));
    at += 1 + usize::from(message[at]);
    let mut kind = FIRST_UNKNOWN;
    while message.len() < length {
        message.extend(kind.to_be_bytes());
        message.extend((UNKNOWN.len() as u16).to_be_bytes());
        message.extend(UNKNOWN);
        kind += 1;
    }
    let extensions = u16::try_from(message.len() - at - 2).context("a hello of that length")?;
    message[at..at + 2].copy_from_slice(&extensions.to_be_bytes());
    let body = message.len() - MESSAGE_HEADER;
    ensure!(body < 1 << 24, "a hello of that length");
    message[1..MESSAGE_HEADER].copy_from_slice(&(body as u32).to_be_bytes()[1..]);
    let records = message.chunks(MOST_IN_A_RECORD).flat_map(|part| {
        let mut record = vec![HANDSHAKE, 3, 1];
        record.extend((part.len() as u16).to_be_bytes());
        record.extend(part);
        record
    });
    Ok(records.collect())
}

const HANDSHAKE: u8 = 22;
const RECORD_HEADER: usize = 5;
const MESSAGE_HEADER: usize = 4;
const MOST_IN_A_RECORD: usize = 16 * 1024;
/// The start of an unassigned range.
const FIRST_UNKNOWN: u16 = 0x5000;
const UNKNOWN: [u8; 500] = [0; 500];
