//! The record layer of a TLS connection past its handshake, without its socket.
//!
//! ```text
//! records received ─► open ─► payloads in place ─► whoever reads them
//!                       └─► answers: new keys, alerts ─┐
//! records to send  ◄─ seal ◄─ payloads in place        ├─ behind what is to be sent
//!                     close_notify, alert ─────────────┘
//! ```
//!
//! rustls does the handshake and leaves; what remains is two keys, two sequence numbers, and what RFC 8446 and
//! RFC 5246 want of whoever has them. It is plain data, which can be exported in one process and imported in
//! another.

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
    /// A KeyUpdate that asks for none is on its way: one answers for all that are asked for meanwhile.
    updating: bool,
    /// The peer was asked for new keys and has not sent any yet.
    asked: bool,
    /// A closing alert was sealed, or received: we say no more (RFC 8446 §6.1, §6.2).
    is_mute: bool,
    /// The fatal alert by which the peer has given up.
    given_up: Option<AlertDescription>,
}

/// What a handshake leaves to begin with.
pub(crate) struct Start {
    pub role: Role,
    /// In a place of their own, where they are wiped: moving them would leave copies.
    pub secrets: Box<ExtractedSecrets>,
    /// In TLS 1.3 and in no other version.
    pub traffic: Option<TrafficSecrets>,
    /// What the peer has sent after its handshake, as it came; [`MOST_HELD`] bytes at most.
    pub received: Vec<u8>,
    /// Who keeps the tickets of a server.
    pub keeper: Option<Box<dyn Keeper>>,
}

impl Start {
    /// In the place of the server.
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

/// What was opened of a buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opened {
    /// Where the rest begins, which is to be opened again with what follows.
    pub rest: usize,
    pub then: Then,
}

/// How it goes on behind what was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// More may come.
    More,
    /// The peer has ended its stream in order.
    End,
    /// The connection has failed. If the peer is to be told why, the alert is among the answers.
    Refused(RecordRefusal),
    /// An answer was due that no key can seal.
    KeysSpent,
}

impl Layer {
    /// `None`: the secrets are of no suite that is known here.
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
        }
    }

    /// Changes keys after fewer records than they could seal.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn set_limit(&mut self, records: u64) {
        self.outbound.limit = records;
    }

    /// How payloads are to lie for [`Self::seal`].
    pub(crate) fn layout(&self) -> Layout {
        self.outbound.layout()
    }

    /// Where received bytes are to begin in a buffer of which [`Self::open`] makes this layout;
    /// [`MOST_HEADROOM`] at most.
    pub(crate) fn headroom(&self, layout: Layout) -> usize {
        layout.headroom(self.inbound.keys.suite)
    }

    /// The longest record that the peer may send.
    pub(crate) fn longest(&self) -> usize {
        HEADER + self.inbound.keys.suite.longest()
    }

    /// Whether there is something to open in what was received: a whole record, or one that is none.
    pub(crate) fn can_open(&self, received: &[u8]) -> bool {
        !matches!(
            Header::of_whole_record(received, self.inbound.keys.suite),
            Ok(None)
        )
    }

    /// Opens the records from `from` on, which is [`Self::headroom`] of the layout that `pieces` have, which
    /// are none yet: they are what was opened then. What is to be said to the peer because of it is appended
    /// to `answers`.
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
                    // What comes now is not looked at (RFC 8446 §6.1).
                    rest = buffer.len();
                    break Then::End;
                }
                Ok(Some(received)) => {
                    if let Err(Exhausted) = self.respond(received, answers) {
                        break Then::KeysSpent;
                    }
                }
                Ok(None) => break Then::More,
                Err(refusal) => {
                    self.refuse(refusal, answers);
                    break Then::Refused(refusal);
                }
            }
        };
        self.inbound.let_tickets_go();
        Opened { rest, then }
    }

    /// Opens the record at `rest`, which moves behind it; `None` when there is none, or no place for
    /// what it may hold.
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

    /// Does what a message of the record layer calls for.
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

    /// Tells the peer what it did wrong, if it does not know.
    fn refuse(&mut self, refusal: RecordRefusal, answers: &mut Vec<u8>) {
        match refusal {
            RecordRefusal::Broken(alert) => self.alert(alert, answers),
            RecordRefusal::Given(alert) => self.given_up = Some(alert),
        }
        // A fatal alert is the last word, whoever has it (RFC 8446 §6.2).
        self.is_mute = true;
    }

    /// Changes the keys that are near the end of what they may seal, and asks the peer to change its own: many
    /// never do by themselves. To be called before every [`Self::seal`].
    #[inline]
    pub(crate) fn keep_keys_fresh(&mut self, out: &mut Vec<u8>) -> Result<(), Exhausted> {
        let has_next = self.outbound.keys.suite.version == Version::Tls13;
        let received = self.inbound.keys.cipher.sequence();
        if has_next && received >= self.outbound.limit && !self.asked {
            self.asked = true;
            self.update_keys(Answer::Requested, out)
        } else if self.outbound.must_update() {
            self.update_keys(Answer::NotRequested, out)
        } else {
            Ok(())
        }
    }

    fn update_keys(&mut self, answer: Answer, out: &mut Vec<u8>) -> Result<(), Exhausted> {
        // One that asks answers nothing: when two such cross, each side sends an answer as well
        // (RFC 8446 §4.6.3).
        self.updating |= answer == Answer::NotRequested;
        self.outbound.key_update(answer, out)
    }

    /// All that was sealed is sent.
    pub(crate) fn all_was_sent(&mut self) {
        self.updating = false;
    }

    /// Seals payloads where they lie; the records have this length then, from the start of `buffer` on.
    pub(crate) fn seal(&mut self, pieces: &Pieces, buffer: &mut [u8]) -> Result<usize, Exhausted> {
        self.outbound.data(pieces, buffer)
    }

    /// Seals a payload that lies elsewhere; no more than the places of [`Self::layout`] have room for.
    pub(crate) fn seal_copy(&mut self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Exhausted> {
        self.outbound.copy(payload, out)
    }

    /// Says that nothing more comes. If the keys are spent the peer learns of the end as of a truncation, which
    /// it is.
    pub(crate) fn close_notify(&mut self, out: &mut Vec<u8>) {
        if !self.is_mute {
            let _ = self.outbound.close_notify(out);
            self.is_mute = true;
        }
    }

    /// Says why the connection ends; nothing after a last word that was said already.
    pub(crate) fn alert(&mut self, alert: AlertDescription, out: &mut Vec<u8>) {
        if !self.is_mute {
            // Keys that can seal no alert either leave nothing to say.
            let _ = self.outbound.fatal(alert, out);
            self.is_mute = true;
        }
    }

    /// Why the peer has given up, if it has.
    pub(crate) fn given_up(&self) -> Option<AlertDescription> {
        self.given_up
    }

    /// Whether we have nothing more to say.
    pub(crate) fn is_mute(&self) -> bool {
        self.is_mute
    }
}

/// How much may be received and not be opened yet.
pub(crate) const MOST_HELD: usize = RECORDS * (MAX_PAYLOAD + OVERHEAD);

/// As long as [`Layer::headroom`] of any two suites, and longer.
pub(crate) const MOST_HEADROOM: usize = OVERHEAD * (MOST_PIECES + 1);

#[cfg(test)]
pub(crate) mod tests;
