//! The bytes that the client has sent and the network has not delivered.

use super::cipher::{APPLICATION_DATA, HANDSHAKE, HEADER, RecordCipher, Version, header};
use super::program::{Message, Operation, Sealed};
use super::reference::KEY_UPDATE;

pub(super) struct Wire {
    version: Version,
    upwards: RecordCipher,
    hello: Vec<u8>,
    undelivered: Vec<u8>,
    /// Where the last record begins in `undelivered`.
    last: usize,
    repeated: Option<Operation>,
    /// How many bytes of data were sealed.
    position: usize,
    /// How many bytes the client may still send.
    budget: usize,
}

impl Wire {
    /// `hello` is a message that the client could send. The client sends at most `budget` bytes.
    pub(super) fn new(
        version: Version,
        upwards: RecordCipher,
        hello: Vec<u8>,
        budget: usize,
    ) -> Self {
        Self {
            version,
            upwards,
            hello,
            undelivered: Vec::new(),
            last: 0,
            repeated: None,
            position: 0,
            budget,
        }
    }

    pub(super) fn deliver(&mut self, most: usize) -> Vec<u8> {
        let count = self.undelivered.len().min(most);
        self.last = self.last.saturating_sub(count);
        self.undelivered.drain(..count).collect()
    }

    pub(super) fn seal(&mut self, sealed: &Sealed) {
        let record = match sealed {
            Sealed::Data { length, padding } => {
                let content = pattern(self.position, *length);
                self.position += length;
                self.upwards.seal(APPLICATION_DATA, &content, *padding)
            }
            Sealed::Other {
                kind,
                content,
                padding,
            } => self.upwards.seal(*kind, content, *padding),
            Sealed::Zeros(length) => self.upwards.seal_inner(APPLICATION_DATA, vec![0; *length]),
        };
        self.send(&record);
        self.repeated = Some(Operation::Seal(sealed.clone()));
    }

    pub(super) fn message(&mut self, message: &Message, most: usize) {
        let bytes = match *message {
            Message::KeyUpdate(asks) => vec![KEY_UPDATE, 0, 0, 1, asks],
            Message::Hello { place, change, cut } => {
                let mut hello = self.hello.clone();
                let place = place % hello.len();
                hello[place] ^= change;
                hello.truncate(hello.len().saturating_sub(cut));
                hello
            }
            Message::Other { kind, says, has } => {
                let [_, a, b, c] = (says as u32).to_be_bytes();
                [vec![kind, a, b, c], pattern(0, has)].concat()
            }
        };
        for part in bytes.chunks(most.min(16384)) {
            let record = self.upwards.seal(HANDSHAKE, part, 0);
            self.send(&record);
        }
        if self.version == Version::Tls13 && matches!(message, Message::KeyUpdate(0..=1)) {
            self.upwards.update();
        }
        let bytes = message.clone();
        self.repeated = Some(Operation::Message { bytes, most });
    }

    pub(super) fn repeated(&self) -> Option<Operation> {
        self.repeated.clone()
    }

    pub(super) fn rekey(&mut self) {
        if self.version == Version::Tls13 {
            self.upwards.update();
        }
    }

    pub(super) fn skip(&mut self, count: u64) {
        self.upwards.skip(count);
    }

    pub(super) fn replay(&mut self) {
        let record = self.undelivered[self.last..].to_vec();
        self.send(&record);
    }

    pub(super) fn plain(&mut self, kind: u8, length: usize) {
        self.send(&[&header(kind, length)[..], &vec![1; length]].concat());
    }

    /// Changes the byte at `place`, counted from the end.
    pub(super) fn flip(&mut self, place: usize, change: u8) {
        if let Some(byte) = self.undelivered.iter_mut().rev().nth(place) {
            *byte ^= change;
        }
    }

    pub(super) fn cut(&mut self, count: usize) {
        let length = self.undelivered.len().saturating_sub(count);
        self.undelivered.truncate(length);
        self.last = self.last.min(length);
    }

    pub(super) fn set_header(&mut self, place: usize, value: u8) {
        debug_assert!(place < HEADER);
        if let Some(byte) = self.undelivered.get_mut(self.last + place) {
            *byte = value;
        }
    }

    fn send(&mut self, record: &[u8]) {
        if let Some(left) = self.budget.checked_sub(record.len()) {
            self.budget = left;
            self.last = self.undelivered.len();
            self.undelivered.extend_from_slice(record);
        }
    }
}

/// The bytes of a test pattern, starting at `from`. Neighbouring bytes differ, and so do blocks.
pub(super) fn pattern(from: usize, length: usize) -> Vec<u8> {
    (from..from + length)
        .map(|place| (place ^ (place >> 8)) as u8)
        .collect()
}
