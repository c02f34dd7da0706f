//! Decodes the bytes of an input: the set-up of a connection, and the operations on it.

use super::cipher::{ALERT, APPLICATION_DATA, CHANGE_CIPHER_SPEC, HANDSHAKE};
use super::reference::{CLIENT_HELLO, CLOSE_NOTIFY, KEY_UPDATE, WARNING};
use super::session::SUITES;
use crate::record::Role;

#[derive(Debug)]
pub(super) struct Setup {
    pub suite: usize,
    /// The role of the stream under test.
    pub role: Role,
    /// How many bytes one read returns at most.
    pub grain: usize,
    /// Keys are updated after this many records.
    pub limit: Option<u64>,
    /// How many bytes are read before there is a backend.
    pub hear: Option<usize>,
    /// The first bytes arrive together with the end of the handshake.
    pub handed_over: bool,
    /// Every record is delivered at once.
    pub prompt: bool,
}

impl Setup {
    /// How many bytes are sent in each direction: eight full reads of a relay, or a limited number of
    /// small reads.
    pub(super) fn most(&self) -> usize {
        self.grain.saturating_mul(4096).min(1 << 20)
    }
}

#[derive(Clone, Debug)]
pub(super) enum Operation {
    /// The client sends a sealed record.
    Seal(Sealed),
    /// The last operation is repeated this many times.
    Again(usize),
    /// The client sends a handshake message, in records with at most `most` bytes of it each.
    Message {
        bytes: Message,
        most: usize,
    },
    /// The client switches to its next keys without a KeyUpdate.
    Rekey,
    /// This many records are lost.
    Skip(u64),
    /// The last record is sent twice.
    Replay,
    /// The client sends a record that is not sealed.
    Plain {
        kind: u8,
        length: usize,
    },
    /// A byte that is not delivered yet is changed. `place` counts from the last one.
    Flip {
        place: usize,
        change: u8,
    },
    /// This many of the last bytes that are not delivered yet are lost.
    Cut(usize),
    /// A byte in the header of the last record is changed.
    Header {
        place: usize,
        value: u8,
    },
    /// This many of the sent bytes arrive.
    Deliver(usize),
    /// The client's stream ends.
    End,
    /// The backend sends bytes.
    Say(usize),
    BackendEnds,
    /// This much is accepted from now on.
    ClientTakes(usize),
    BackendTakes(usize),
    /// The connection is exported and imported.
    Move,
}

#[derive(Clone, Debug)]
pub(super) enum Sealed {
    Data {
        length: usize,
        padding: usize,
    },
    Other {
        kind: u8,
        content: Vec<u8>,
        padding: usize,
    },
    /// Only zeros: a record without a content type.
    Zeros(usize),
}

#[derive(Clone, Debug)]
pub(super) enum Message {
    /// With its request_update field.
    KeyUpdate(u8),
    /// A genuine ClientHello, with one byte changed and some bytes cut off at its end.
    Hello {
        place: usize,
        change: u8,
        cut: usize,
    },
    /// With the length in its header, and its real length.
    Other { kind: u8, says: usize, has: usize },
}

pub(super) struct Program<'a>(pub &'a [u8]);

impl Program<'_> {
    pub(super) fn setup(&mut self) -> Setup {
        let (suite, manner, how_much) = (self.number(), self.byte(), self.number());
        let is = |bit: u8| manner & bit != 0;
        Setup {
            suite: suite % SUITES,
            role: if is(32) { Role::Client } else { Role::Server },
            prompt: is(1),
            handed_over: is(2),
            hear: is(4).then_some(1 + how_much),
            limit: is(8).then_some(24 + how_much as u64 % 32),
            grain: if is(16) { 1 + how_much } else { usize::MAX },
        }
    }

    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((byte, rest)) => {
                self.0 = rest;
                *byte
            }
            None => 0,
        }
    }

    fn number(&mut self) -> usize {
        self.byte().into()
    }

    fn length(&mut self) -> usize {
        match self.number() {
            short @ 0..192 => short,
            long => LENGTHS[(long - 192) % LENGTHS.len()],
        }
    }

    fn padding(&mut self) -> usize {
        match self.number() {
            0..128 => 0,
            short @ 128..192 => short - 127,
            long => LENGTHS[(long - 192) % LENGTHS.len()],
        }
    }

    fn literal(&mut self) -> Vec<u8> {
        let length = self.number() % 16;
        (0..length).map(|_| self.byte()).collect()
    }

    /// 0 to 63: no limit.
    fn most(&mut self) -> usize {
        match self.number() {
            0..64 => usize::MAX,
            short @ 64..248 => short - 63,
            _ => 16384,
        }
    }

    fn room(&mut self) -> usize {
        match self.number() {
            0..64 => usize::MAX,
            64..128 => 0,
            some => (some - 127) * 8,
        }
    }
}

impl Iterator for Program<'_> {
    type Item = Operation;

    fn next(&mut self) -> Option<Operation> {
        let (&number, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(match number % 22 {
            0 => {
                let (length, padding) = (self.length(), self.padding());
                Operation::Seal(Sealed::Data { length, padding })
            }
            1 => Operation::Seal(self.other()),
            2..5 => self.message(number % 22),
            5 => {
                let content = vec![self.byte() % 4, self.byte()];
                self.alert(content)
            }
            6 => self.alert(vec![WARNING, CLOSE_NOTIFY]),
            7 => Operation::Seal(Sealed::Zeros(self.length())),
            8 => {
                let (kind, length) = (20 + self.byte() % 6, self.length());
                Operation::Plain { kind, length }
            }
            9 => {
                let (place, change) = (self.number(), self.byte());
                Operation::Flip { place, change }
            }
            10 => Operation::Cut(self.number()),
            11 => {
                let (place, value) = (self.number() % 5, self.byte());
                Operation::Header { place, value }
            }
            12 => Operation::Deliver(match self.number() {
                0..64 => usize::MAX,
                some => some - 63,
            }),
            13 => Operation::End,
            14 => Operation::Say(match self.length() {
                long @ 16384.. => long * 3,
                short => short,
            }),
            15 => Operation::BackendEnds,
            16 => Operation::ClientTakes(self.room()),
            17 => Operation::BackendTakes(self.room()),
            18 => Operation::Move,
            19 => Operation::Again(1 + self.number() % 40),
            20 => match self.byte() {
                0..96 => Operation::Rekey,
                96..192 => Operation::Replay,
                some => Operation::Skip(u64::from(some - 191)),
            },
            _ => Operation::Seal(Sealed::Data {
                length: usize::from(number),
                padding: 0,
            }),
        })
    }
}

impl Program<'_> {
    /// A record of any type.
    fn other(&mut self) -> Sealed {
        Sealed::Other {
            kind: match self.byte() {
                0..64 => HANDSHAKE,
                64..128 => ALERT,
                128..160 => CHANGE_CIPHER_SPEC,
                160..192 => APPLICATION_DATA,
                any => any.wrapping_add(64),
            },
            padding: self.padding(),
            content: self.literal(),
        }
    }

    /// A handshake message of one of three kinds.
    fn message(&mut self, kind: u8) -> Operation {
        let bytes = match kind {
            2 => Message::KeyUpdate([0, 1, 0, 1, 0, 1, 2, 255][self.number() % 8]),
            3 => {
                let (place, change) = (self.number(), self.byte());
                let cut = self.number().saturating_sub(192);
                Message::Hello { place, change, cut }
            }
            _ => {
                let kind = match self.byte() {
                    0..64 => KEY_UPDATE,
                    64..128 => CLIENT_HELLO,
                    any => any.wrapping_sub(128),
                };
                let (says, has) = (self.length(), self.length());
                let says = if says < 16384 { says } else { says * 4 - 4 };
                Message::Other { kind, says, has }
            }
        };
        let most = self.most();
        Operation::Message { bytes, most }
    }

    fn alert(&mut self, content: Vec<u8>) -> Operation {
        Operation::Seal(Sealed::Other {
            kind: ALERT,
            padding: self.padding(),
            content,
        })
    }
}

/// Lengths around the longest payload (2^14) and around the longest records (2^14 + 256 and 2^14 +
/// 2048, less the overhead of sealing), and a few others.
#[rustfmt::skip]
const LENGTHS: [usize; 16] = [
    256, 1024, 4096, 16382, 16383, 16384, 16385, 16386, 16623, 16624, 16625, 18407, 18408, 18416,
    18417, 18432,
];
