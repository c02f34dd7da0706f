//! The record layer, tested with a peer that can seal anything.

mod client;
mod known;
mod layout;
mod received;
mod rustls;

use tokio_rustls::rustls::ContentType;

use super::aead::Aead;
use super::cipher::{Cipher, Iv};
pub(crate) use super::cipher::{MAX_PAYLOAD, OVERHEAD, Suite, Version};
pub(crate) use super::inbound::{Answer, Received};
use super::keys::{Material, cipher_of};
use super::*;

const AEADS: [Aead; 3] = [Aead::Aes128Gcm, Aead::Aes256Gcm, Aead::ChaCha20Poly1305];

pub(crate) const TLS13: Suite = Suite {
    version: Version::Tls13,
    aead: Aead::Aes128Gcm,
};

const TLS12: Suite = Suite {
    version: Version::Tls12,
    aead: Aead::Aes128Gcm,
};

pub(crate) fn suites() -> impl Iterator<Item = Suite> {
    [Version::Tls13, Version::Tls12]
        .into_iter()
        .flat_map(|version| AEADS.map(|aead| Suite { version, aead }))
}

/// The keys of one direction. Equal seeds give equal keys.
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

impl Layer {
    /// The number of records that the current keys have opened and sealed.
    pub(crate) fn sequences(&self) -> (u64, u64) {
        let of = |keys: &Keys| keys.cipher.sequence();
        (of(&self.inbound.keys), of(&self.outbound.keys))
    }

    pub(crate) fn is_updating(&self) -> bool {
        self.updating
    }
}

/// A peer after its handshake that violates rules as the test wants, with valid keys.
pub(crate) struct Peer {
    ours: Outbound,
    theirs: Inbound,
    /// Received bytes that were not opened yet.
    pub unread: Vec<u8>,
}

/// A layer in the role of the server, and its peer.
pub(crate) fn pair(suite: Suite) -> (Layer, Peer) {
    pair_in(Role::Server, suite)
}

/// A layer in this role, and its peer in the other one.
pub(crate) fn pair_in(role: Role, suite: Suite) -> (Layer, Peer) {
    let (ours, theirs, other) = match role {
        Role::Server => (SERVERS, CLIENTS, Role::Client),
        Role::Client => (CLIENTS, SERVERS, Role::Server),
    };
    let layer = Layer::of(role, keys(suite, theirs), keys(suite, ours));
    let peer = Peer {
        ours: Outbound::new(keys(suite, theirs)),
        theirs: Inbound::new(other, keys(suite, ours)),
        unread: Vec::new(),
    };
    (layer, peer)
}

impl Peer {
    /// One record with this content.
    pub(crate) fn record(&mut self, kind: ContentType, payload: &[u8]) -> Vec<u8> {
        record(&mut self.ours.keys.cipher, kind, payload)
    }

    pub(crate) fn data(&mut self, payload: &[u8]) -> Vec<u8> {
        self.record(ContentType::ApplicationData, payload)
    }

    pub(crate) fn key_update(&mut self, request: u8) -> Vec<u8> {
        let record = self.record(ContentType::Handshake, &key_update(request));
        self.ours.keys.update().expect("TLS 1.3");
        record
    }

    pub(crate) fn close_notify(&mut self) -> Vec<u8> {
        self.record(ContentType::Alert, &CLOSE_NOTIFY)
    }

    /// The meaning and the content of the next record; `None` if it is not complete.
    pub(crate) fn next(&mut self) -> Option<(Received, Vec<u8>)> {
        let (header, mut record) = self.next_record()?;
        let received = self.theirs.receive(header, &mut record, 0, 0);
        let received = received.unwrap_or_else(|refusal| panic!("{refusal:?}"));
        record.truncate(match received {
            Received::Data(length) => length,
            _ => 0,
        });
        Some((received, record))
    }

    /// The next record, which must be an alert.
    pub(crate) fn alert(&mut self) -> Option<(u8, AlertDescription)> {
        let (header, record) = self.next_record()?;
        let opened = open(&mut self.theirs.keys.cipher, header, &record);
        let Ok((ContentType::Alert, alert)) = opened else {
            panic!("no alert: {opened:?}");
        };
        Some((alert[0], AlertDescription::from(alert[1])))
    }

    fn next_record(&mut self) -> Option<(Header, Vec<u8>)> {
        let header = Header::of_whole_record(&self.unread, self.theirs.keys.suite);
        let header = header.expect("a record")?;
        let rest = self.unread.split_off(header.record_length());
        Some((header, std::mem::replace(&mut self.unread, rest)))
    }

    /// The number of records that the layer's current keys have sealed.
    pub(crate) fn opened(&self) -> u64 {
        self.theirs.keys.cipher.sequence()
    }
}

impl Layer {
    /// Opens records to the start of the buffer. Returns the number of bytes of payload there.
    pub(crate) fn open_plain(
        &mut self,
        buffer: &mut [u8],
        answers: &mut Vec<u8>,
    ) -> (Opened, usize) {
        let mut pieces = Pieces::new(Layout::PLAIN);
        let opened = self.open(buffer, 0, &mut pieces, answers);
        (opened, pieces.length())
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
    let (kind, length) = cipher.open(header, &mut buffer, 0, 0)?;
    buffer.truncate(length);
    Ok((kind, buffer))
}

fn key_update(request: u8) -> [u8; 5] {
    [24, 0, 0, 1, request]
}

const CLOSE_NOTIFY: [u8; 2] = [1, 0];

/// Bytes without a repetition.
pub(crate) fn bytes(length: usize) -> Vec<u8> {
    (0..length as u32)
        .map(|index| (index.wrapping_mul(2_654_435_761) >> 19) as u8)
        .collect()
}
