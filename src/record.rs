//! The record layer of a TLS connection after its handshake, without its socket.
//!
//! ```text
//! records received ─► open ─► payloads in place ─► the reader
//!                     └─► answers: new keys, alerts ─┐
//! records to send  ◄─ seal ◄─ payloads in place        ├─ behind what is to be sent
//!                     close_notify, alert ─────────────┘
//! ```
//!
//! rustls performs the handshake and is then not needed any more. What remains is two keys, two
//! sequence numbers, and the rules of RFC 8446 and RFC 5246 about their use. All of it is plain
//! data, which can be exported in one process and imported in another.

mod aead;
mod cipher;
mod inbound;
mod keys;
mod layout;
mod outbound;
#[cfg(any(test, fuzzing))]
mod state;
mod ticket;

use tokio_rustls::rustls::{AlertDescription, ExtractedSecrets};

pub(crate) use self::cipher::Exhausted;
use self::cipher::{HEADER, Header, MAX_PAYLOAD, OVERHEAD, Version};
use self::inbound::{Answer, Inbound, Received};
pub(crate) use self::inbound::{RecordRefusal, Role};
use self::keys::Keys;
pub(crate) use self::keys::{Secret, TrafficSecrets};
pub(crate) use self::layout::{Layout, Pieces};
use self::layout::{MOST_PIECES, RECORDS};
use self::outbound::Outbound;
#[cfg(any(test, fuzzing))]
pub(crate) use self::state::State as Exported;
use self::ticket::Tickets;
pub(crate) use self::ticket::{Keeper, Unreadable};

/// The record layer of one connection.
#[derive(Debug)]
pub(crate) struct Layer {
    inbound: Inbound,
    outbound: Outbound,
    /// A KeyUpdate without a request is queued: it answers all requests that arrive until it is
    /// sent.
    updating: bool,
    /// The peer was asked for new keys and has not sent them yet.
    asked: bool,
    /// A closing alert was sealed or received: nothing more is sent (RFC 8446 §6.1, §6.2).
    is_mute: bool,
    /// The fatal alert by which the peer has ended the connection.
    given_up: Option<AlertDescription>,
    /// The peer's socket has ended after its stream.
    is_over: bool,
}

/// The state after a handshake.
pub(crate) struct Start {
    pub role: Role,
    /// Boxed, because they are wiped where they are: a move would leave copies.
    pub secrets: Box<ExtractedSecrets>,
    /// Present only in TLS 1.3.
    pub traffic: Option<TrafficSecrets>,
    /// The encrypted bytes that the peer sent after its handshake, at most [`MOST_HELD`].
    pub received: Vec<u8>,
    /// Stores the tickets of a server.
    pub keeper: Option<Box<dyn Keeper>>,
}

impl Start {
    /// The layer has the role of the server.
    pub(crate) fn of_server(
        secrets: ExtractedSecrets,
        traffic: Option<TrafficSecrets>,
        received: Vec<u8>,
    ) -> Self {
        Self {
            role: Role::Server,
            secrets: Box::new(secrets),
            traffic,
            received,
            keeper: None,
        }
    }
}

/// The result of opening a buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opened {
    /// The start of the rest, which must be opened again together with the bytes that follow.
    pub rest: usize,
    pub then: Then,
}

/// What comes after the opened records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// More may come.
    More,
    /// The peer has ended its stream in order.
    End,
    /// The connection has failed. If the peer must be told why, the alert is among the answers.
    Refused(RecordRefusal),
    /// An answer was due, but our keys cannot seal any more records.
    KeysSpent,
}

impl Layer {
    /// Returns `None` if the cipher suite is not supported. Also returns the received bytes.
    pub(crate) fn new(start: Start) -> Option<(Self, Vec<u8>)> {
        let Start {
            role,
            secrets,
            traffic,
            received,
            keeper,
        } = start;
        let (client, server) = match traffic {
            Some(TrafficSecrets { client, server }) => (Some(client), Some(server)),
            None => (None, None),
        };
        let (theirs, ours) = match role {
            Role::Server => (client, server),
            Role::Client => (server, client),
        };
        let theirs = Keys::new(&secrets.rx, theirs)?;
        let ours = Keys::new(&secrets.tx, ours)?;
        let mut layer = Self::of(role, theirs, ours);
        let tickets = keeper.map(|keeper| Box::new(Tickets::new(keeper)));
        layer.inbound.tickets = tickets;
        Some((layer, received))
    }

    fn of(role: Role, theirs: Keys, ours: Keys) -> Self {
        Self {
            inbound: Inbound::new(role, theirs),
            outbound: Outbound::new(ours),
            updating: false,
            asked: false,
            is_mute: false,
            given_up: None,
            is_over: false,
        }
    }

    /// Updates keys after fewer records than they may seal.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn set_limit(&mut self, records: u64) {
        self.outbound.limit = records;
    }

    /// The layout of payloads for [`Self::seal`].
    pub(crate) fn layout(&self) -> Layout {
        self.outbound.layout()
    }

    /// Where received bytes must begin in a buffer, if [`Self::open`] uses this layout; at most
    /// [`MOST_HEADROOM`].
    pub(crate) fn headroom(&self, layout: Layout) -> usize {
        layout.headroom(self.inbound.keys.suite)
    }

    /// The longest record that the peer may send, in bytes.
    pub(crate) fn longest(&self) -> usize {
        HEADER + self.inbound.keys.suite.longest()
    }

    /// Whether there is something to open in what was received: a complete record, or an invalid
    /// header.
    pub(crate) fn can_open(&self, received: &[u8]) -> bool {
        !matches!(
            Header::of_whole_record(received, self.inbound.keys.suite),
            Ok(None)
        )
    }

    /// Opens the records from `from` on, which is [`Self::headroom`] for the layout of `pieces`. These
    /// must be empty, and then describe the payloads. Answers to the peer are appended to `answers`.
    pub(crate) fn open(
        &mut self,
        buffer: &mut [u8],
        from: usize,
        pieces: &mut Pieces,
        answers: &mut Vec<u8>,
    ) -> Opened {
        let mut rest = from;
        let then = loop {
            match self.open_one(buffer, pieces, &mut rest) {
                Ok(Some(Received::CloseNotify)) => {
                    // What follows `close_notify` is ignored (RFC 8446 §6.1).
                    rest = buffer.len();
                    break Then::End;
                }
                Ok(Some(received)) => {
                    if let Err(Exhausted) = self.respond(received, answers) {
                        break Then::KeysSpent;
                    }
                }
                Ok(None) => match self.ask_for_new_keys(answers) {
                    Ok(()) => break Then::More,
                    Err(Exhausted) => break Then::KeysSpent,
                },
                Err(refusal) => {
                    self.refuse(refusal, answers);
                    break Then::Refused(refusal);
                }
            }
        };
        self.inbound.let_tickets_go();
        Opened { rest, then }
    }

    /// Opens the record at `rest`, and moves `rest` behind it. `None` if there is no complete
    /// record, or no room for its payload.
    fn open_one(
        &mut self,
        buffer: &mut [u8],
        pieces: &mut Pieces,
        rest: &mut usize,
    ) -> Result<Option<Received>, RecordRefusal> {
        let suite = self.inbound.keys.suite;
        let Some(header) = Header::of_whole_record(&buffer[*rest..], suite)? else {
            return Ok(None);
        };
        let Some(place) = pieces.place(header.sealed_length()) else {
            return Ok(None);
        };
        let at = *rest;
        *rest += header.record_length();
        let received = (self.inbound).receive(header, &mut buffer[..*rest], at, place.at)?;
        if let Received::Data(length) = received {
            pieces.add(place, length);
        }
        Ok(Some(received))
    }

    /// Reacts to a message of the record layer.
    fn respond(&mut self, received: Received, answers: &mut Vec<u8>) -> Result<(), Exhausted> {
        match received {
            Received::KeyUpdate(answer) => {
                self.asked = false;
                if answer == Answer::Requested && !self.updating && !self.is_mute {
                    self.update_keys(Answer::NotRequested, answers)?;
                }
            }
            Received::Renegotiation if !self.is_mute => self.outbound.no_renegotiation(answers)?,
            Received::Renegotiation
            | Received::Data(_)
            | Received::Nothing
            | Received::CloseNotify => {}
        }
        Ok(())
    }

    /// Tells the peer what it did wrong, if the peer has not ended the connection itself.
    fn refuse(&mut self, refusal: RecordRefusal, answers: &mut Vec<u8>) {
        match refusal {
            RecordRefusal::Broken(alert) => self.alert(alert, answers),
            RecordRefusal::Given(alert) => self.given_up = Some(alert),
        }
        // Nothing follows a fatal alert, whoever sent it (RFC 8446 §6.2).
        self.is_mute = true;
    }

    /// Asks the peer for new keys when its present ones have sealed as many records as they may: many peers never
    /// change them by themselves.
    fn ask_for_new_keys(&mut self, answers: &mut Vec<u8>) -> Result<(), Exhausted> {
        let has_next = self.outbound.keys.suite.version == Version::Tls13;
        let received = self.inbound.keys.cipher.sequence();
        if received < self.outbound.limit || !has_next || self.asked || self.is_mute {
            return Ok(());
        }
        self.asked = true;
        self.update_keys(Answer::Requested, answers)
    }

    /// Changes our own keys when they are near the end of what they may seal.
    #[inline]
    fn keep_keys_fresh(&mut self, out: &mut Vec<u8>) -> Result<(), Exhausted> {
        match self.outbound.must_update() {
            true => self.update_keys(Answer::NotRequested, out),
            false => Ok(()),
        }
    }

    fn update_keys(&mut self, answer: Answer, out: &mut Vec<u8>) -> Result<(), Exhausted> {
        // A KeyUpdate with a request is no answer: if two requests cross, each side must also send
        // an answer (RFC 8446 §4.6.3).
        self.updating |= answer == Answer::NotRequested;
        self.outbound.key_update(answer, out)
    }

    /// Call this when everything that was sealed was sent.
    pub(crate) fn all_was_sent(&mut self) {
        self.updating = false;
    }

    /// Seals payloads in place. The records then lie at the start of `buffer`; returns their length. A KeyUpdate that
    /// has to be sent before them is appended to `first`.
    pub(crate) fn seal(
        &mut self,
        pieces: &Pieces,
        buffer: &mut [u8],
        first: &mut Vec<u8>,
    ) -> Result<usize, Exhausted> {
        self.keep_keys_fresh(first)?;
        self.outbound.data(pieces, buffer)
    }

    /// Seals a payload that lies elsewhere, and appends the records to `out`. It may be at most as long as the room in
    /// the places of [`Self::layout`].
    pub(crate) fn seal_copy(&mut self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Exhausted> {
        self.keep_keys_fresh(out)?;
        self.outbound.copy(payload, out)
    }

    /// Announces the end of our stream. If our keys cannot seal any more, the peer sees a
    /// truncation, which it is.
    pub(crate) fn close_notify(&mut self, out: &mut Vec<u8>) {
        if !self.is_mute {
            let _ = self.outbound.close_notify(out);
            self.is_mute = true;
        }
    }

    /// Announces why the connection ends, unless a closing alert was sent already.
    pub(crate) fn alert(&mut self, alert: AlertDescription, out: &mut Vec<u8>) {
        if !self.is_mute {
            // If the keys cannot seal an alert either, nothing more can be sent.
            let _ = self.outbound.fatal(alert, out);
            self.is_mute = true;
        }
    }

    /// The fatal alert by which the peer has ended the connection, if it has.
    pub(crate) fn given_up(&self) -> Option<AlertDescription> {
        self.given_up
    }

    /// Whether nothing more may be sent.
    pub(crate) fn is_mute(&self) -> bool {
        self.is_mute
    }

    /// The peer's socket has ended after its stream, so nothing arrives any more.
    pub(crate) fn set_over(&mut self) {
        self.is_over = true;
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }
}

/// The most bytes that may be received and not opened yet.
pub(crate) const MOST_HELD: usize = RECORDS * (MAX_PAYLOAD + OVERHEAD);

/// At least [`Layer::headroom`] for every pair of suites.
pub(crate) const MOST_HEADROOM: usize = OVERHEAD * (MOST_PIECES + 1);

#[cfg(test)]
pub(crate) mod tests;
