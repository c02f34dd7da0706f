//! The receiving half: opens records, interprets their types, and limits records without payload.

use serde::{Deserialize, Serialize};
use tokio_rustls::rustls::{AlertDescription, ContentType, HandshakeType};

use super::cipher::{Header, Version};
use super::keys::Keys;
use super::ticket::{Tickets, Unreadable};

/// The receiving half of a record layer.
#[derive(Debug)]
pub(crate) struct Inbound {
    pub keys: Keys,
    pub role: Role,
    pub message: Message,
    pub patience: Patience,
    /// Present while tickets are waited for.
    pub tickets: Option<Box<Tickets>>,
    tickets_have_come: bool,
}

/// Our role in the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Role {
    Server,
    Client,
}

/// The meaning of a received record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// Bytes of payload.
    Data(usize),
    /// Nothing to react to.
    Nothing,
    /// The end of the peer's stream. What follows is ignored (RFC 8446 §6.1).
    CloseNotify,
    /// The peer has updated its keys. If it requests so, ours must follow (RFC 8446 §4.6.3).
    KeyUpdate(Answer),
    /// The peer asks for a renegotiation, which is refused (RFC 5746 §4.5 allows that).
    Renegotiation,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Requested,
    NotRequested,
}

/// Why nothing more can be received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordRefusal {
    /// The peer has violated the protocol, and gets this alert.
    Broken(AlertDescription),
    /// The peer has sent this fatal alert.
    Given(AlertDescription),
}

impl From<AlertDescription> for RecordRefusal {
    fn from(alert: AlertDescription) -> Self {
        Self::Broken(alert)
    }
}

impl Inbound {
    pub(super) fn new(role: Role, keys: Keys) -> Self {
        Self::resumed(role, keys, Message::default(), Patience::default())
    }

    /// Continues, possibly in the middle of a message.
    pub(super) fn resumed(role: Role, keys: Keys, message: Message, patience: Patience) -> Self {
        Self {
            keys,
            role,
            message,
            patience,
            tickets: None,
            tickets_have_come: false,
        }
    }

    /// Opens the complete record at the end of `buffer`, from `at` on, and returns its meaning. Its
    /// payload is moved to `to`, as in [`Cipher::open`].
    ///
    /// [`Cipher::open`]: super::cipher::Cipher::open
    pub(super) fn receive(
        &mut self,
        header: Header,
        buffer: &mut [u8],
        at: usize,
        to: usize,
    ) -> Result<Received, RecordRefusal> {
        let (kind, length) = self.keys.cipher.open(header, buffer, at, to)?;
        let payload = &buffer[to..to + length];
        if self.message.is_begun() && kind != ContentType::Handshake {
            // RFC 8446 §5.1: no other record may come between the parts of a message.
            return Err(AlertDescription::UnexpectedMessage.into());
        }
        self.patience.with_record(kind, length)?;
        match kind {
            ContentType::ApplicationData => {
                self.tickets_have_come |= length > 0;
                Ok(Received::Data(length))
            }
            ContentType::Alert => self.alert(payload),
            ContentType::Handshake => self.handshake(payload),
            _ => Err(AlertDescription::UnexpectedMessage.into()),
        }
    }

    fn alert(&mut self, payload: &[u8]) -> Result<Received, RecordRefusal> {
        let &[level, description] = payload else {
            return Err(AlertDescription::DecodeError.into());
        };
        let description = AlertDescription::from(description);
        match (self.keys.suite.version, level, description) {
            (_, WARNING | FATAL, AlertDescription::CloseNotify) => Ok(Received::CloseNotify),
            // In TLS 1.3 all other alerts are errors, whatever their level (RFC 8446 §6).
            (Version::Tls13, WARNING, AlertDescription::UserCanceled)
            | (Version::Tls12, WARNING, _) => {
                self.patience.with_warning()?;
                Ok(Received::Nothing)
            }
            (_, WARNING | FATAL, description) => Err(RecordRefusal::Given(description)),
            _ => Err(AlertDescription::IllegalParameter.into()),
        }
    }

    fn handshake(&mut self, payload: &[u8]) -> Result<Received, RecordRefusal> {
        match self.keys.suite.version {
            Version::Tls13 => self.post_handshake(payload),
            Version::Tls12 => self.renegotiation(payload),
        }
    }

    /// A server accepts only a KeyUpdate: tickets come from servers, and we do not ask for
    /// certificates after the handshake. A client also accepts tickets, but no request for a
    /// certificate, because it has not offered that (RFC 8446 §4.6.2).
    fn post_handshake(&mut self, mut payload: &[u8]) -> Result<Received, RecordRefusal> {
        loop {
            payload = self.message.take(payload);
            match (self.message.kind(), self.role) {
                (HandshakeType::KeyUpdate, _) => return self.key_update(payload),
                (HandshakeType::NewSessionTicket, Role::Client) => {
                    payload = self.ticket(payload)?;
                }
                _ => return Err(AlertDescription::UnexpectedMessage.into()),
            }
            if payload.is_empty() {
                return Ok(Received::Nothing);
            }
        }
    }

    fn key_update(&mut self, rest: &[u8]) -> Result<Received, RecordRefusal> {
        let Some(length) = self.message.length() else {
            return Ok(Received::Nothing);
        };
        let request = match (length, rest) {
            (1, []) => return Ok(Received::Nothing),
            (1, [request]) => *request,
            // The following records have other keys, so this must be the last message in its record
            // (RFC 8446 §5.1).
            (1, _) => return Err(AlertDescription::UnexpectedMessage.into()),
            _ => return Err(AlertDescription::DecodeError.into()),
        };
        self.patience.with_key_update()?;
        let answer = match request {
            0 => Answer::NotRequested,
            1 => Answer::Requested,
            _ => return Err(AlertDescription::IllegalParameter.into()),
        };
        self.message = Message::default();
        self.keys
            .update()
            .map_err(|_| AlertDescription::InternalError)?;
        Ok(Received::KeyUpdate(answer))
    }

    /// Takes the available part of a ticket, and returns what follows it.
    fn ticket<'a>(&mut self, payload: &'a [u8]) -> Result<&'a [u8], RecordRefusal> {
        let Some(length) = self.message.length() else {
            return Ok(&[]);
        };
        let skipped = self.message.skip(payload);
        let rest = match skipped {
            Skipped::All(rest) => rest,
            Skipped::Some => &[],
            Skipped::TooLong => return Err(AlertDescription::DecodeError.into()),
        };
        let part = &payload[..payload.len() - rest.len()];
        if let Some(tickets) = &mut self.tickets {
            tickets.add(length, part);
        }
        if let Skipped::All(_) = skipped {
            self.patience.with_ticket()?;
            if let Some(tickets) = &mut self.tickets {
                let kept = tickets.keep(length);
                kept.map_err(|Unreadable| AlertDescription::DecodeError)?;
                self.tickets_have_come = true;
            }
        }
        Ok(rest)
    }

    /// Stops the wait for tickets. They come together, after the handshake and before any payload.
    /// After that, the memory for them is not needed any more.
    pub(super) fn let_tickets_go(&mut self) {
        if self.tickets_have_come && !self.message.is_begun() {
            self.tickets = None;
        }
    }

    /// Skips a request for a renegotiation: a ClientHello or a HelloRequest.
    fn renegotiation(&mut self, mut payload: &[u8]) -> Result<Received, RecordRefusal> {
        let expected = match self.role {
            Role::Server => HandshakeType::ClientHello,
            Role::Client => HandshakeType::HelloRequest,
        };
        let mut received = Received::Nothing;
        while !payload.is_empty() {
            payload = self.message.take(payload);
            if self.message.kind() != expected {
                return Err(AlertDescription::UnexpectedMessage.into());
            }
            payload = match self.message.skip(payload) {
                Skipped::All(rest) => {
                    self.patience.with_renegotiation()?;
                    received = Received::Renegotiation;
                    rest
                }
                Skipped::Some => return Ok(received),
                Skipped::TooLong => return Err(AlertDescription::DecodeError.into()),
            };
        }
        Ok(received)
    }
}

/// A handshake message in parts: its header, and the number of skipped bytes of its body.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Message {
    header: [u8; 4],
    held: usize,
    skipped: usize,
}

enum Skipped<'a> {
    All(&'a [u8]),
    Some,
    TooLong,
}

impl Message {
    fn is_begun(self) -> bool {
        self.held > 0
    }

    /// Takes the missing part of the header, and returns the rest.
    fn take<'a>(&mut self, payload: &'a [u8]) -> &'a [u8] {
        let (ours, rest) = payload.split_at(payload.len().min(self.header.len() - self.held));
        self.header[self.held..][..ours.len()].copy_from_slice(ours);
        self.held += ours.len();
        rest
    }

    fn kind(self) -> HandshakeType {
        HandshakeType::from(self.header[0])
    }

    /// `None` until the header is complete.
    fn length(self) -> Option<usize> {
        let [_, a, b, c] = self.header;
        (self.held == self.header.len()).then_some(u32::from_be_bytes([0, a, b, c]) as usize)
    }

    /// Skips the available part of the body. After its end, the next message may begin.
    fn skip<'a>(&mut self, body: &'a [u8]) -> Skipped<'a> {
        let Some(length) = self.length() else {
            return Skipped::Some;
        };
        if length > MAX_MESSAGE {
            return Skipped::TooLong;
        }
        let (_, rest) = body.split_at(body.len().min(length - self.skipped));
        self.skipped += body.len() - rest.len();
        if self.skipped < length {
            return Skipped::Some;
        }
        *self = Self::default();
        Skipped::All(rest)
    }
}

/// Limits records that carry no payload, so that a peer cannot keep us busy at no cost. The limits
/// are those of rustls, which are BoringSSL's, except for tickets. Here only bytes of payload reset
/// a count. In rustls an empty record of data resets the count of KeyUpdates, and any other record
/// the count of empty records, so that a peer can alternate between them forever.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Patience {
    empty_records: u8,
    key_updates: u8,
    warnings: u8,
    renegotiations: u8,
    tickets: u8,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            empty_records: EMPTY_RECORDS_WITHOUT_DATA,
            key_updates: KEY_UPDATES_WITHOUT_DATA,
            warnings: 4,
            renegotiations: 1,
            tickets: TICKETS_WITHOUT_DATA,
        }
    }
}

impl Patience {
    fn with_record(&mut self, kind: ContentType, length: usize) -> Result<(), RecordRefusal> {
        match (kind, length) {
            (_, 0) => spend(&mut self.empty_records)?,
            (ContentType::ApplicationData, _) => {
                self.empty_records = EMPTY_RECORDS_WITHOUT_DATA;
                self.key_updates = KEY_UPDATES_WITHOUT_DATA;
                self.tickets = TICKETS_WITHOUT_DATA;
            }
            _ => {}
        }
        Ok(())
    }

    fn with_key_update(&mut self) -> Result<(), RecordRefusal> {
        spend(&mut self.key_updates)
    }

    fn with_ticket(&mut self) -> Result<(), RecordRefusal> {
        spend(&mut self.tickets)
    }

    fn with_warning(&mut self) -> Result<(), RecordRefusal> {
        spend(&mut self.warnings)
    }

    fn with_renegotiation(&mut self) -> Result<(), RecordRefusal> {
        spend(&mut self.renegotiations)
    }
}

fn spend(allowed: &mut u8) -> Result<(), RecordRefusal> {
    match allowed.checked_sub(1) {
        Some(left) => *allowed = left,
        None => return Err(AlertDescription::UnexpectedMessage.into()),
    }
    Ok(())
}

const EMPTY_RECORDS_WITHOUT_DATA: u8 = 32;
const KEY_UPDATES_WITHOUT_DATA: u8 = 32;
/// rustls has no limit; servers send one to four.
const TICKETS_WITHOUT_DATA: u8 = 32;

/// The limit of rustls for a handshake message.
const MAX_MESSAGE: usize = 0xffff;

/// RFC 8446 §6.
pub(super) const WARNING: u8 = 1;
pub(super) const FATAL: u8 = 2;
