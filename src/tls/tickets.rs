//! Session tickets with keys that are derived from a secret and the time (RFC 5077, RFC 8446
//! §4.6.1).
//!
//! ```text
//! secret ─ HKDF(period, who may resume) ─► key name, key     processes with one secret derive the
//!                                                            same keys and need not communicate
//! ```
//!
//! Nothing is stored. A key is valid in its period and the following one, in every process that has
//! the secret, and then in none.
//!
//! If the client of a ticket would not be admitted any more, the ticket is not used: a full
//! handshake follows, in which the client may present another certificate.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf::{self, HKDF_SHA256, Prk, Salt};
use aws_lc_rs::rand;
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::server::ProducesTickets;
use zeroize::Zeroizing;

use super::client_auth::ClientAuth;
use super::session;

/// The secret from which keys are derived. Whoever knows it can decrypt resumed sessions.
#[derive(Clone)]
pub(crate) struct TicketSecret(Prk);

impl TicketSecret {
    /// A secret that ends with the process.
    pub(crate) fn random() -> Result<Self, rustls::Error> {
        let mut secret = Zeroizing::new([0; SHORTEST_SECRET]);
        rand::fill(&mut *secret).map_err(|_| rustls::Error::FailedToGetRandomBytes)?;
        Ok(Self::extract(&*secret))
    }

    /// A secret that several processes share.
    ///
    /// # Errors
    ///
    /// It has fewer than 32 bytes and could be guessed.
    pub(crate) fn new(bytes: &[u8]) -> Result<Self, SecretError> {
        match bytes.len() {
            length if length < SHORTEST_SECRET => Err(SecretError(length)),
            _ => Ok(Self::extract(bytes)),
        }
    }

    fn extract(bytes: &[u8]) -> Self {
        Self(Salt::new(HKDF_SHA256, b"vestibule tickets v1").extract(bytes))
    }
}

impl fmt::Debug for TicketSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketSecret")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a ticket secret needs 32 random bytes or more, as from `openssl rand 32`; this one has {0}"
)]
pub(crate) struct SecretError(usize);

/// The ticket keys of a listener.
pub(super) struct Ring {
    secret: TicketSecret,
    /// Part of the derivation of keys: tickets that were issued under other rules cannot be
    /// decrypted.
    context: Vec<u8>,
    /// Verifies the client again before its session is resumed.
    client_auth: Option<ClientAuth>,
    /// The chain that was refused last: a ClientHello may have many tickets of the same client.
    unwelcome: ArcSwapOption<Vec<CertificateDer<'static>>>,
    keys: ArcSwap<Keys>,
    clock: Clock,
}

type Clock = fn() -> SystemTime;

/// The keys that are valid in a period.
struct Keys {
    period: u64,
    current: Key,
    /// The keys of the period before and of the next one, because the clocks of several processes
    /// differ.
    others: [Key; 2],
}

struct Key {
    name: [u8; NAME],
    cipher: RandomizedNonceKey,
}

impl Ring {
    /// Sessions belong to the requirements of `client_auth`: under others their tickets cannot be
    /// decrypted.
    pub(super) fn new(
        secret: TicketSecret,
        client_auth: Option<&ClientAuth>,
    ) -> Result<Self, rustls::Error> {
        let context = client_auth.map(ClientAuth::context).unwrap_or_default();
        let ring = Self::with_clock(secret, context, SystemTime::now)?;
        Ok(Self {
            client_auth: client_auth.cloned(),
            ..ring
        })
    }

    fn with_clock(
        secret: TicketSecret,
        context: &[u8],
        clock: Clock,
    ) -> Result<Self, rustls::Error> {
        let context = context.to_vec();
        let keys = Keys::of(&secret, &context, period(clock())).ok_or(UNDERIVED)?;
        Ok(Self {
            secret,
            context,
            client_auth: None,
            unwelcome: ArcSwapOption::empty(),
            keys: ArcSwap::from_pointee(keys),
            clock,
        })
    }

    /// The keys of the current period. At its end several workers may derive the next keys at the
    /// same time; the result is the same.
    fn keys(&self) -> Option<arc_swap::Guard<Arc<Keys>>> {
        let keys = self.keys.load();
        let period = period((self.clock)());
        if keys.period == period {
            return Some(keys);
        }
        let next = Keys::of(&self.secret, &self.context, period)?;
        self.keys.store(Arc::new(next));
        Some(self.keys.load())
    }

    /// Whether the client that began the session would be admitted now. After the handshake it is
    /// asked again, with the configuration of a later reload.
    fn admits(&self, session: &[u8]) -> bool {
        let Some(client_auth) = &self.client_auth else {
            return true;
        };
        let Some(chain) = session::client_chain(session) else {
            return false;
        };
        if self.unwelcome.load().as_deref() == Some(&chain) {
            return false;
        }
        let is_welcome = client_auth.verify(&chain, UnixTime::now()).is_ok();
        if !is_welcome {
            let chain = chain.into_iter().map(CertificateDer::into_owned);
            self.unwelcome.store(Some(Arc::new(chain.collect())));
        }
        is_welcome
    }
}

impl Keys {
    fn of(secret: &TicketSecret, context: &[u8], period: u64) -> Option<Self> {
        let key = |period| Key::of(secret, context, period);
        Some(Self {
            period,
            current: key(period)?,
            others: [key(period.wrapping_sub(1))?, key(period.wrapping_add(1))?],
        })
    }
}

impl Key {
    fn of(secret: &TicketSecret, context: &[u8], period: u64) -> Option<Self> {
        let mut material = Zeroizing::new([0; Material::LENGTH]);
        let period = period.to_be_bytes();
        let info = [&period, context];
        let expanded = secret.0.expand(&info, Material).ok()?;
        expanded.fill(&mut *material).ok()?;
        let (name, key) = material.split_first_chunk()?;
        Some(Self {
            name: *name,
            cipher: RandomizedNonceKey::new(&AES_256_GCM, key).ok()?,
        })
    }
}

impl ProducesTickets for Ring {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        (2 * PERIOD).as_secs() as u32
    }

    /// `key name ‖ nonce ‖ sealed session`
    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let keys = self.keys()?;
        let Key { name, cipher } = &keys.current;
        let mut sealed = plain.to_vec();
        let nonce = cipher
            .seal_in_place_append_tag(Aad::from(name), &mut sealed)
            .ok()?;
        Some([&name[..], nonce.as_ref(), &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let keys = self.keys()?;
        let mut all = std::iter::once(&keys.current).chain(&keys.others);
        // The name of a key is public, so the comparison need not take constant time.
        let Key { cipher, .. } = all.find(|key| key.name == *name)?;
        let mut session = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = cipher
            .open_in_place(nonce, Aad::from(name), &mut session)
            .ok()?
            .len();
        session.truncate(length);
        self.admits(&session).then_some(session)
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").finish_non_exhaustive()
    }
}

/// The name of a key, and the key.
struct Material;

impl Material {
    const LENGTH: usize = NAME + 32;
}

impl hkdf::KeyType for Material {
    fn len(&self) -> usize {
        Self::LENGTH
    }
}

/// The number of the period since 1970, which is the same in all processes.
fn period(now: SystemTime) -> u64 {
    let since = now.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() / PERIOD.as_secs())
}

/// How long a key encrypts; it decrypts for as long again.
const PERIOD: Duration = Duration::from_secs(6 * 60 * 60);

const NAME: usize = 16;
const SHORTEST_SECRET: usize = 32;
const UNDERIVED: rustls::Error = rustls::Error::FailedToGetRandomBytes;

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static NOW: Cell<u64> = const { Cell::new(0) };
    }

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + PERIOD * 1_000 + Duration::from_secs(NOW.get())
    }

    fn pass(periods: u32) {
        NOW.set(NOW.get() + u64::from(periods) * PERIOD.as_secs());
    }

    fn ring(secret: &[u8], context: &[u8]) -> Ring {
        let secret = TicketSecret::new(secret).expect("it is long enough");
        Ring::with_clock(secret, context, now).expect("keys")
    }

    const SECRET: &[u8] = &[7; 32];

    #[test]
    fn a_ticket_is_valid_for_two_periods_and_no_longer() {
        let ring = ring(SECRET, b"");
        let ticket = ring.encrypt(b"session").expect("a ticket");
        assert_eq!(ring.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        pass(1);
        assert_eq!(ring.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        pass(1);
        assert_eq!(ring.decrypt(&ticket), None);
        let next = ring.encrypt(b"session").expect("a ticket");
        assert_ne!(next[..NAME], ticket[..NAME]);
    }

    #[test]
    fn a_fleet_with_one_secret_opens_each_others_tickets() {
        let (one, other) = (ring(SECRET, b"rules"), ring(SECRET, b"rules"));
        let ticket = one.encrypt(b"session").expect("a ticket");
        assert_eq!(other.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        // The other process's clock is ahead.
        pass(1);
        let early = one.encrypt(b"session").expect("a ticket");
        NOW.set(0);
        assert_eq!(other.decrypt(&early).as_deref(), Some(&b"session"[..]));
    }

    #[test]
    fn another_secret_or_other_rules_make_a_ticket_invalid() {
        let ticket = ring(SECRET, b"rules")
            .encrypt(b"session")
            .expect("a ticket");
        assert_eq!(ring(&[8; 32], b"rules").decrypt(&ticket), None);
        assert_eq!(ring(SECRET, b"others").decrypt(&ticket), None);
    }

    #[test]
    fn a_modified_ticket_is_invalid() {
        let ring = ring(SECRET, b"");
        let ticket = ring.encrypt(b"session").expect("a ticket");
        for place in 0..ticket.len() {
            let mut touched = ticket.clone();
            touched[place] ^= 1;
            assert_eq!(ring.decrypt(&touched), None, "byte {place}");
            assert_eq!(ring.decrypt(&ticket[..place]), None, "cut at {place}");
        }
    }

    #[test]
    fn a_secret_that_could_be_guessed_is_refused() {
        assert_eq!(TicketSecret::new(&[1; 31]).err(), Some(SecretError(31)));
        assert_eq!(TicketSecret::new(b"").err(), Some(SecretError(0)));
    }
}
