//! What the peer of a tunnel sends, and what its streams carry.

use std::collections::BTreeMap;

use super::Role;
use super::subject::Seen;

/// The bytes of a peer, in the pieces in which it sends them.
#[derive(Default)]
pub(super) struct Script {
    is_client: bool,
    pub pieces: Vec<Vec<u8>>,
    streams: BTreeMap<u32, Carried>,
}

/// What was sent as the data of a stream.
#[derive(Default)]
struct Carried {
    bytes: Vec<u8>,
    /// The bytes before each END_STREAM.
    ends: Vec<usize>,
}

impl Script {
    pub(super) fn of_bytes(role: Role, pieces: &[&[u8]]) -> Self {
        Self {
            is_client: role == Role::Client,
            pieces: pieces.iter().map(|piece| piece.to_vec()).collect(),
            streams: BTreeMap::new(),
        }
    }

    /// Each frame is four bytes: its kind, its stream, and two for its content.
    pub(super) fn of_frames(role: Role, input: &[u8]) -> Self {
        let mut script = Self::of_bytes(role, &[]);
        for frame in input.chunks_exact(4).take(MOST_FRAMES) {
            let &[kind, stream, a, b] = frame else {
                continue;
            };
            let stream = match stream {
                // Even ones, and the tunnel itself, are rare.
                255 => 2,
                254 => 0,
                stream => 2 * u32::from(stream % 32) + 1,
            };
            let bytes = script.frame(kind, stream, a, b);
            script.pieces.push(bytes);
        }
        script
    }

    /// RFC 9113 §3.4: with settings of large windows, so that they are not the limit.
    pub(super) fn preface(&self) -> &'static [u8] {
        match self.is_client {
            true => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x06\x04\0\0\0\0\0\0\x04\0\x7f\xff\xff",
            false => b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\x7f\xff\xff",
        }
    }

    pub(super) fn length(&self) -> usize {
        self.pieces.iter().map(Vec::len).sum()
    }

    /// What was read is the beginning of what was sent, and all of it if the end was in order.
    pub(super) fn check(&self, seen: &Seen) {
        let is_it = |sent: &Carried| {
            sent.bytes.starts_with(&seen.bytes)
                && (!seen.ended || sent.ends.contains(&seen.bytes.len()))
        };
        let fits = match seen.stream {
            Some(stream) => self.streams.get(&stream).is_some_and(is_it),
            None => self.streams.values().any(is_it) || (seen.bytes.is_empty() && !seen.ended),
        };
        let Seen { stream, ended, .. } = seen;
        let count = seen.bytes.len();
        assert!(fits, "stream {stream:?}: {count} bytes, ended: {ended}");
    }

    fn frame(&mut self, kind: u8, stream: u32, a: u8, b: u8) -> Vec<u8> {
        let number = [a & 0x7f, b, a, b];
        match kind % 20 {
            0..=3 => self.headers(stream, a, b),
            4..=9 => self.data(stream, a, b),
            10 => frame(WINDOW_UPDATE, 0, stream, &increment(a, b)),
            11 => frame(WINDOW_UPDATE, 0, 0, &increment(a, b)),
            12 => frame(RST_STREAM, 0, stream, &[0, 0, 0, a % 16]),
            13 => {
                let value = SETTINGS_VALUES[usize::from(b) % SETTINGS_VALUES.len()];
                let setting = [&[0, a % 10][..], &value.to_be_bytes()].concat();
                frame(SETTINGS, 0, 0, &setting)
            }
            14 => frame(SETTINGS, ACK, 0, &[]),
            15 => frame(PING, a % 2, 0, &[b; 8]),
            16 => {
                let last = match a % 3 {
                    0 => 0,
                    1 => stream,
                    _ => u32::MAX >> 1,
                };
                let notice = [last.to_be_bytes(), [0, 0, 0, b % 16]].concat();
                frame(GOAWAY, 0, 0, &notice)
            }
            17 => frame(PRIORITY, 0, stream, &[&number[..], &[b]].concat()),
            18 => frame(
                CONTINUATION,
                a & END_HEADERS,
                stream,
                &[0x88][..usize::from(b % 2)],
            ),
            // Anything but data and headers, whose content is known: with a payload of one byte over and over.
            _ => frame(PRIORITY + a % 12, b, stream, &vec![a; usize::from(b)]),
        }
    }

    fn headers(&mut self, stream: u32, a: u8, b: u8) -> Vec<u8> {
        let ends = a & 0x30 == 0x30;
        let flags = match a & 0xc0 {
            0xc0 => 0,
            _ => END_HEADERS,
        } | u8::from(ends);
        let sent = self.streams.entry(stream).or_default();
        if ends {
            sent.ends.push(sent.bytes.len());
        }
        let mut block = match self.is_client {
            true => {
                let authority = format!("s{stream}:{}", b % 8);
                let length = authority.len() as u8;
                // RFC 7541 §6.2.2: literals, with names of the static table.
                [b"\x02\x07CONNECT\x01", &[length][..], authority.as_bytes()].concat()
            }
            // 200, rarely 404.
            false => vec![if b < 250 { 0x88 } else { 0x8d }],
        };
        match a & 0x0f {
            // A path; a name in upper case; an index that there is not; many fields.
            0 => block.push(0x84),
            1 => block.extend(b"\0\x01X\x01y"),
            2 => block.push(0xff),
            3 => (0..b).for_each(|_| block.extend(b"\x40\x01x\x08yyyyyyyy")),
            _ => {}
        }
        frame(HEADERS, flags, stream, &block)
    }

    /// Bytes that are told apart by their stream and place.
    fn data(&mut self, stream: u32, a: u8, b: u8) -> Vec<u8> {
        let sent = self.streams.entry(stream).or_default();
        let length = match a & 0x0f {
            0..=7 => usize::from(b),
            _ => usize::from(b) * 64,
        };
        let begun = sent.bytes.len();
        let byte = |place: usize| (place as u32 ^ (place as u32 >> 8) ^ (stream * 37)) as u8;
        sent.bytes.extend((begun..begun + length).map(byte));
        let padding = match a & 0x30 {
            0x10 => Some(b % 32),
            _ => None,
        };
        let mut flags = 0;
        if a & 0xc0 == 0xc0 {
            flags |= END_STREAM;
            sent.ends.push(sent.bytes.len());
        }
        let content = &sent.bytes[begun..];
        match padding {
            Some(padding) => {
                let padded = [&[padding], content, &vec![0; padding.into()]].concat();
                frame(DATA, flags | PADDED, stream, &padded)
            }
            None => frame(DATA, flags, stream, content),
        }
    }
}

fn increment(a: u8, b: u8) -> [u8; 4] {
    match a % 4 {
        0 => [0, 0, 0, b],
        1 => [0, b, 0, 0],
        2 => [0, 0, b, 0],
        _ => [0x7f, 0xff, 0xff, b],
    }
}

/// RFC 9113 §4.1.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
    [&[a, b, c, kind, flags][..], &stream.to_be_bytes(), payload].concat()
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
pub(super) const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

const SETTINGS_VALUES: [u32; 10] = [
    0,
    1,
    100,
    16_383,
    16_384,
    65_535,
    1 << 20,
    (1 << 24) - 1,
    (1 << 31) - 1,
    u32::MAX,
];

/// Longer scripts find nothing that these do not.
const MOST_FRAMES: usize = 400;
