//! The client of a tunnel: HTTP/2 with streams that are opened by CONNECT (RFC 9113 §8.5).
//!
//! It knows as much of HTTP/2 as a tunnel needs, and costs less CPU than a proxy.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use rustls::ClientConfig;

use crate::buffer::Buffer;
use crate::client::{Client, Room};
use crate::poll::{Poll, Ready};
use crate::task::Tls;

/// The peer may send as many bytes on a stream before the client has reported that it has read them.
pub(crate) const WINDOW: u32 = 4 * 1024 * 1024;
/// The same for all streams together.
const CONNECTION_WINDOW: u32 = 1 << 30;
/// Bytes per read: more than the proxy reads, so that the clients are lighter.
const READ: usize = 256 * 1024;
/// Bytes that wait for the socket, after which streams get no room.
const ENOUGH: usize = 256 * 1024;
/// The length of the header of a frame.
const HEAD: usize = 9;
/// RFC 9113 §6.5.2: both the window and the frame size before the peer's SETTINGS.
const DEFAULT_WINDOW: i64 = 65_535;
const DEFAULT_FRAME: usize = 16_384;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// `:method: CONNECT` and `:authority: load:1`, as literals (RFC 7541 §6.2.2).
const CONNECT: &[u8] = b"\x02\x07CONNECT\x01\x06load:1";
/// `:status: 200` of the static table (RFC 7541 §6.1).
const STATUS_200: u8 = 0x88;

/// One tunnel.
pub(crate) struct Mux {
    client: Client,
    begun: bool,
    /// Whether the peer has sent its SETTINGS.
    is_adopted: bool,
    incoming: Buffer,
    outgoing: Buffer,
    streams: HashMap<u32, Stream>,
    next: u32,
    room: i64,
    first_room: i64,
    frame: usize,
    unreported: u32,
    /// Whether a stream has more to send as soon as the socket has room.
    has_more: bool,
}

struct Stream {
    answered: bool,
    /// Our direction has ended.
    closed: bool,
    /// Whether the peer gets room for what has arrived.
    read: bool,
    room: i64,
    unreported: u32,
}

/// What has happened to a stream.
#[derive(Debug)]
pub(crate) enum Event<'a> {
    /// It was accepted.
    Answered,
    Bytes(&'a [u8]),
    /// Its peer has ended its direction, in order.
    Ended,
}

impl Mux {
    /// Connects, and starts the handshake.
    pub(crate) fn connect(
        poll: &Poll,
        token: u64,
        target: SocketAddr,
        tls: Option<&Arc<ClientConfig>>,
    ) -> Result<Self> {
        Ok(Self {
            client: Client::connect(poll, token, target, tls, READ)?,
            begun: false,
            is_adopted: false,
            incoming: Buffer::default(),
            outgoing: Buffer::default(),
            streams: HashMap::new(),
            next: 1,
            room: DEFAULT_WINDOW,
            first_room: DEFAULT_WINDOW,
            frame: DEFAULT_FRAME,
            unreported: 0,
            has_more: false,
        })
    }

    /// Whether streams can be opened: the peer has sent its SETTINGS.
    pub(crate) fn is_ready(&self) -> bool {
        self.begun && self.is_adopted
    }

    /// Opens a stream.
    pub(crate) fn open(&mut self) -> u32 {
        let id = self.next;
        self.next += 2;
        self.frame(HEADERS, END_HEADERS, id, CONNECT);
        self.streams.insert(
            id,
            Stream {
                answered: false,
                closed: false,
                read: true,
                room: self.first_room,
                unreported: 0,
            },
        );
        id
    }

    /// From now on, nothing of this stream is read.
    pub(crate) fn stall(&mut self, id: u32) -> Result<()> {
        self.streams.get_mut(&id).context("no such stream")?.read = false;
        Ok(())
    }

    /// Sends as many of the bytes as there is room for, and asks for an event when there is room for more.
    pub(crate) fn send_some(&mut self, id: u32, bytes: &[u8]) -> Result<usize> {
        let waiting = self.outgoing.len() + self.client.backlog();
        let sent = match waiting < ENOUGH {
            true => self.send(id, bytes)?,
            false => 0,
        };
        let room = self.streams.get(&id).map_or(0, |stream| stream.room);
        self.has_more |= self.room.min(room) > 0;
        Ok(sent)
    }

    /// Sends as many of the bytes as there is room for. Returns their number.
    fn send(&mut self, id: u32, bytes: &[u8]) -> Result<usize> {
        let stream = self.streams.get_mut(&id).context("no such stream")?;
        let room = usize::try_from(stream.room.min(self.room)).unwrap_or(0);
        let bytes = &bytes[..bytes.len().min(room)];
        stream.room -= bytes.len() as i64;
        self.room -= bytes.len() as i64;
        for piece in bytes.chunks(self.frame) {
            self.frame(DATA, 0, id, piece);
        }
        Ok(bytes.len())
    }

    /// Sends bytes for which there must be room.
    pub(crate) fn send_all(&mut self, id: u32, bytes: &[u8]) -> Result<()> {
        let sent = self.send(id, bytes)?;
        ensure!(sent == bytes.len(), "no room for a message");
        Ok(())
    }

    /// Ends our direction of a stream.
    pub(crate) fn close(&mut self, id: u32) -> Result<()> {
        self.streams.get_mut(&id).context("no such stream")?.closed = true;
        self.frame(DATA, END_STREAM, id, &[]);
        Ok(())
    }

    /// Writes what was sent, in as few records as possible.
    pub(crate) fn flush(&mut self, poll: &Poll) -> Result<()> {
        if self.client.backlog() == 0 && self.outgoing.len() > 0 {
            let count = self.outgoing.len();
            self.client.send(poll, self.outgoing.filled())?;
            self.outgoing.consume(count);
        }
        let has_more = std::mem::take(&mut self.has_more);
        let room = match self.outgoing.len() > 0 || has_more {
            true => Room::Always,
            false => Room::WhenShort,
        };
        self.client.ask_for_room(poll, room)
    }

    /// Handles an event of the socket, and says what has happened to streams.
    pub(crate) fn go_on(
        &mut self,
        poll: &Poll,
        event: Ready,
        mut sink: impl FnMut(u32, Event<'_>) -> Result<()>,
    ) -> Result<()> {
        if event.write {
            self.client.flush(poll)?;
        }
        if event.read {
            let incoming = &mut self.incoming;
            self.client.receive(poll, |bytes| {
                incoming.append(bytes);
                Ok(())
            })?;
        }
        if !self.begun && self.client.is_established() {
            self.begin()?;
        }
        let mut incoming = std::mem::take(&mut self.incoming);
        let mut done = 0;
        let bytes = incoming.filled();
        while let Some(frame) = Frame::parse(&bytes[done..]) {
            self.hear(&frame, &mut sink)?;
            done += HEAD + frame.payload.len();
        }
        incoming.consume(done);
        self.incoming = incoming;
        Ok(())
    }

    fn begin(&mut self) -> Result<()> {
        self.client.handshake(Tls::V13)?;
        self.begun = true;
        self.outgoing.append(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let mut settings = Vec::new();
        // ENABLE_PUSH, INITIAL_WINDOW_SIZE.
        for (name, value) in [(2u16, 0u32), (4, WINDOW)] {
            settings.extend(name.to_be_bytes());
            settings.extend(value.to_be_bytes());
        }
        self.frame(SETTINGS, 0, 0, &settings);
        let more = CONNECTION_WINDOW - DEFAULT_WINDOW as u32;
        self.frame(WINDOW_UPDATE, 0, 0, &more.to_be_bytes());
        Ok(())
    }

    fn frame(&mut self, kind: u8, flags: u8, id: u32, payload: &[u8]) {
        let length = (payload.len() as u32).to_be_bytes();
        let mut head = [0; HEAD];
        head[..3].copy_from_slice(&length[1..]);
        head[3..5].copy_from_slice(&[kind, flags]);
        head[5..].copy_from_slice(&id.to_be_bytes());
        self.outgoing.append(&head);
        self.outgoing.append(payload);
    }

    fn hear(
        &mut self,
        frame: &Frame<'_>,
        sink: &mut impl FnMut(u32, Event<'_>) -> Result<()>,
    ) -> Result<()> {
        let id = frame.id;
        match frame.kind {
            DATA => {
                ensure!(frame.flags & 8 == 0, "padding");
                if !frame.payload.is_empty() {
                    sink(id, Event::Bytes(frame.payload))?;
                    self.report(id, frame.payload.len() as u32);
                }
            }
            HEADERS => {
                ensure!(
                    frame.flags & END_HEADERS != 0,
                    "more than one frame of headers"
                );
                let stream = self.streams.get_mut(&id).context("headers of no stream")?;
                if !stream.answered {
                    stream.answered = true;
                    // Updates of the size of the table may come first (RFC 7541 §6.3).
                    let mut fields = frame.payload.iter();
                    let first = fields.find(|first| **first & 0xE0 != 0x20);
                    ensure!(
                        first == Some(&STATUS_200),
                        "the answer is not 200: {:?}",
                        frame.payload
                    );
                    sink(id, Event::Answered)?;
                }
            }
            RST_STREAM => bail!("stream {id} was reset: {:?}", frame.payload),
            SETTINGS if frame.flags & ACK == 0 => self.adopt(frame.payload)?,
            PING if frame.flags & ACK == 0 => self.frame(PING, ACK, 0, frame.payload),
            GOAWAY => bail!("the proxy ends the tunnel: {:?}", frame.payload),
            WINDOW_UPDATE => {
                let more = i64::from(number(frame.payload)?);
                match self.streams.get_mut(&id) {
                    _ if id == 0 => self.room += more,
                    Some(stream) => stream.room += more,
                    None => {}
                }
            }
            _ => {}
        }
        if matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0 {
            sink(id, Event::Ended)?;
            if self.streams.get(&id).is_some_and(|stream| stream.closed) {
                self.streams.remove(&id);
            }
        }
        Ok(())
    }

    /// Gives the peer room again, seldom.
    fn report(&mut self, id: u32, count: u32) {
        self.unreported += count;
        if self.unreported >= CONNECTION_WINDOW / 2 {
            let count = std::mem::take(&mut self.unreported);
            self.frame(WINDOW_UPDATE, 0, 0, &count.to_be_bytes());
        }
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.unreported += count;
        if stream.read && stream.unreported >= WINDOW / 2 {
            let count = std::mem::take(&mut stream.unreported);
            self.frame(WINDOW_UPDATE, 0, id, &count.to_be_bytes());
        }
    }

    fn adopt(&mut self, settings: &[u8]) -> Result<()> {
        self.is_adopted = true;
        for setting in settings.chunks_exact(6) {
            let value = number(&setting[2..])?;
            match setting[1] {
                4 => {
                    let more = i64::from(value) - self.first_room;
                    self.first_room += more;
                    self.streams
                        .values_mut()
                        .for_each(|stream| stream.room += more);
                }
                5 => self.frame = (value as usize).min(64 * 1024),
                _ => {}
            }
        }
        self.frame(SETTINGS, ACK, 0, &[]);
        Ok(())
    }
}

struct Frame<'a> {
    kind: u8,
    flags: u8,
    id: u32,
    payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// None if it is not complete.
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let head = bytes.get(..HEAD)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        Some(Self {
            kind: head[3],
            flags: head[4],
            id: u32::from_be_bytes([head[5] & 0x7F, head[6], head[7], head[8]]),
            payload: bytes.get(HEAD..HEAD + length)?,
        })
    }
}

fn number(bytes: &[u8]) -> Result<u32> {
    Ok(u32::from_be_bytes(bytes.try_into().context("four bytes")?))
}
