//! What a record layer must get right, seen by a client that can seal whatever it likes.

mod exported;
mod known;
mod limits;
mod moving;
mod peers;
mod received;
mod refused;

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::rustls::ContentType;

use super::aead::Aead;
use super::cipher::{Cipher, Header, Iv, OVERHEAD, Suite, Version};
use super::inbound::{Inbound, Received};
use super::keys::{Keys, Material, cipher_of};
use super::outbound::Outbound;
use super::*;
use crate::deadline::Deadline;
use crate::relay::Settings;
use crate::traffic::Traffic;

impl<IO> RecordStream<IO> {
    /// For tests that put something between a stream and its socket.
    pub(in crate::relay) fn io_mut(&mut self) -> &mut IO {
        &mut self.io
    }
}

const AEADS: [Aead; 3] = [Aead::Aes128Gcm, Aead::Aes256Gcm, Aead::ChaCha20Poly1305];

const TLS13: Suite = Suite {
    version: Version::Tls13,
    aead: Aead::Aes128Gcm,
};

const TLS12: Suite = Suite {
    version: Version::Tls12,
    aead: Aead::Aes128Gcm,
};

fn suites() -> impl Iterator<Item = Suite> {
    [Version::Tls13, Version::Tls12]
        .into_iter()
        .flat_map(|version| AEADS.map(|aead| Suite { version, aead }))
}

/// The keys of one direction; the same `seed` gives the same ones.
fn keys(suite: Suite, seed: u8) -> Keys {
    let secret = |length| Secret::new(vec![seed; length].into_boxed_slice());
    let iv = Iv::new([seed; 12]);
    let (material, cipher) = match suite.version {
        Version::Tls13 => {
            let secret = secret(if suite.aead == Aead::Aes256Gcm {
                48
            } else {
                32
            });
            let cipher = cipher_of(suite, &secret, 0);
            (Material::Traffic(secret), cipher)
        }
        Version::Tls12 => {
            let key = secret(suite.aead.key_length());
            let cipher = Cipher::new(suite, &key, iv.clone(), 0);
            (Material::Fixed { key, iv }, cipher)
        }
    };
    Keys {
        cipher: cipher.expect("keys that fit the suite"),
        suite,
        material,
    }
}

const CLIENTS: u8 = 1;
const SERVERS: u8 = 2;

/// A client past its handshake that follows no rules but those of its keys.
struct Peer {
    wire: DuplexStream,
    ours: Outbound,
    theirs: Inbound,
    /// Read, and not opened yet.
    unread: Vec<u8>,
}

/// A record stream and its client.
fn connection(suite: Suite) -> (RecordStream<DuplexStream>, Peer) {
    connection_over(suite, 1 << 20)
}

/// As [`connection`], over a pipe with so much room.
fn connection_over(suite: Suite, room: usize) -> (RecordStream<DuplexStream>, Peer) {
    let (near, far) = duplex(room);
    let stream = RecordStream {
        io: near,
        inbound: Inbound::new(keys(suite, CLIENTS)),
        outbound: Outbound::new(keys(suite, SERVERS)),
        up: State::Open,
        down: State::Open,
        held: Vec::new(),
        opened: Unsent::default(),
        sealed: Unsent::default(),
        owed: 0,
        updating: false,
        asked: false,
    };
    let peer = Peer {
        wire: far,
        ours: Outbound::new(keys(suite, CLIENTS)),
        theirs: Inbound::new(keys(suite, SERVERS)),
        unread: Vec::new(),
    };
    (stream, peer)
}

impl Peer {
    async fn say(&mut self, kind: ContentType, payload: &[u8]) {
        let record = record(&mut self.ours.keys.cipher, kind, payload);
        self.wire.write_all(&record).await.expect("a reader");
    }

    async fn data(&mut self, payload: &[u8]) {
        self.say(ContentType::ApplicationData, payload).await;
    }

    async fn key_update(&mut self, request: u8) {
        self.say(ContentType::Handshake, &key_update(request)).await;
        self.ours.keys.update().expect("TLS 1.3");
    }

    async fn close_notify(&mut self) {
        self.say(ContentType::Alert, &CLOSE_NOTIFY).await;
    }

    /// What the next record is, and what it says; `None` at the end.
    async fn next(&mut self) -> Option<(Received, Vec<u8>)> {
        loop {
            let header = Header::of_whole_record(&self.unread, self.theirs.keys.suite);
            if let Some(header) = header.expect("a record") {
                let rest = self.unread.split_off(header.record_length());
                let mut out = std::mem::replace(&mut self.unread, rest);
                let received = self.theirs.receive(header, &mut out, 0);
                let received = received.unwrap_or_else(|refusal| panic!("{refusal:?}"));
                out.truncate(match received {
                    Received::Data(length) => length,
                    _ => 0,
                });
                return Some((received, out));
            }
            if self.wire.read_buf(&mut self.unread).await.expect("a pipe") == 0 {
                assert!(self.unread.is_empty(), "half a record at the end");
                return None;
            }
        }
    }

    /// The alert that ends the stream.
    async fn alert(&mut self) -> (u8, AlertDescription) {
        loop {
            let header = Header::of_whole_record(&self.unread, self.theirs.keys.suite);
            if let Some(header) = header.expect("a record") {
                let opened = open(&mut self.theirs.keys.cipher, header, &self.unread);
                let Ok((ContentType::Alert, alert)) = opened else {
                    panic!("no alert: {opened:?}");
                };
                return (alert[0], AlertDescription::from(alert[1]));
            }
            let read = self.wire.read_buf(&mut self.unread).await.expect("a pipe");
            assert_ne!(read, 0, "no alert");
        }
    }

    async fn expect_data(&mut self, expected: &[u8]) {
        let mut said = Vec::new();
        while said.len() < expected.len() {
            let (received, bytes) = self.next().await.expect("bytes");
            assert!(matches!(received, Received::Data(_)), "{received:?}");
            said.extend(bytes);
        }
        assert!(said == expected, "other bytes than expected");
    }
}

fn record(cipher: &mut Cipher, kind: ContentType, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0; payload.len() + OVERHEAD];
    let length = cipher.seal(kind, payload, &mut out).expect("a fresh key");
    out.truncate(length);
    out
}

fn open(
    cipher: &mut Cipher,
    header: Header,
    record: &[u8],
) -> Result<(ContentType, Vec<u8>), AlertDescription> {
    let mut buffer = record.to_vec();
    let (kind, length) = cipher.open(header, &mut buffer, 0)?;
    buffer.truncate(length);
    Ok((kind, buffer))
}

fn key_update(request: u8) -> [u8; 5] {
    [24, 0, 0, 1, request]
}

const CLOSE_NOTIFY: [u8; 2] = [1, 0];

/// Joins the stream to a backend whose other side is in the hands of `test`.
async fn joined<F: Future>(
    stream: &mut RecordStream<DuplexStream>,
    test: impl FnOnce(DuplexStream) -> F,
) -> (End, F::Output) {
    let (mut near, far) = duplex(1 << 20);
    let traffic = Traffic::default();
    let both = async { tokio::join!(stream.join(&mut near, patient(&traffic)), test(far)) };
    let day = Deadline::after(Duration::from_secs(24 * 60 * 60));
    day.bound(both).await.expect("it hangs")
}

/// Ends for no lack of bytes.
fn patient(traffic: &Traffic) -> Relay<'_> {
    Relay {
        settings: &Settings {
            idle: None,
            half_close: None,
            unacknowledged: None,
        },
        traffic,
    }
}

/// Bytes of which no two stretches are alike.
fn bytes(length: usize) -> Vec<u8> {
    (0..length as u32)
        .map(|index| (index.wrapping_mul(2_654_435_761) >> 19) as u8)
        .collect()
}

async fn read(stream: &mut DuplexStream, length: usize) -> Vec<u8> {
    let mut read = vec![0; length];
    stream.read_exact(&mut read).await.expect("bytes");
    read
}
