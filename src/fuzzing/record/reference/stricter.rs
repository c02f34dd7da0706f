//! The cases where our record layer is stricter than rustls, or sends another alert.

use super::super::cipher::{
    ALERT, APPLICATION_DATA, CHANGE_CIPHER_SPEC, HANDSHAKE, HEADER, Version,
};
use super::{
    BAD_RECORD_MAC, CLIENT_HELLO, CLOSE_NOTIFY, DECODE_ERROR, HELLO_REQUEST, Idle, KEY_UPDATE,
    MOST_WITHOUT_DATA, NEW_SESSION_TICKET, RECORD_OVERFLOW, RENEGOTIATIONS, Reference,
    UNEXPECTED_MESSAGE, USER_CANCELED, WARNING,
};
use crate::record::Role;

/// A record that we refuse on purpose, with our alert, and the known behaviour of rustls.
pub(super) struct Stricter {
    pub ours: Option<u8>,
    pub rustls: Rustls,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rustls {
    /// It accepts the record, or waits for more of the message.
    MayTakeIt,
    /// It refuses the record with another alert.
    RefusesToo,
}

impl Stricter {
    fn than_rustls(ours: u8) -> Option<Self> {
        let (ours, rustls) = (Some(ours), Rustls::MayTakeIt);
        Some(Self { ours, rustls })
    }

    fn in_other_words(ours: Option<u8>) -> Option<Self> {
        let rustls = Rustls::RefusesToo;
        Some(Self { ours, rustls })
    }
}

impl Reference {
    /// Only data resets our counters. In rustls, an empty data record resets the counter of KeyUpdates,
    /// and any other record resets the counter of empty ones: it accepts an endless alternation of
    /// both.
    pub(super) fn stricter_without_data(
        &mut self,
        opened: Option<&(u8, Vec<u8>)>,
    ) -> Option<Stricter> {
        match opened.map(|(kind, content)| (*kind, &content[..]))? {
            (_, []) => self.idle.empty += 1,
            (APPLICATION_DATA, _) => self.idle = Idle::default(),
            (HANDSHAKE, _) if matches!(self.message[..], [KEY_UPDATE, 0, 0, 1, _]) => {
                self.idle.updates += 1;
            }
            _ => {}
        }
        let most = self
            .idle
            .empty
            .max(self.idle.updates)
            .max(self.idle.tickets);
        let is_too_much = most > MOST_WITHOUT_DATA;
        match is_too_much {
            true => Stricter::than_rustls(UNEXPECTED_MESSAGE),
            false => None,
        }
    }

    pub(super) fn stricter_in_tls13(
        &self,
        opened: Option<&(u8, Vec<u8>)>,
        begun: bool,
    ) -> Option<Stricter> {
        match opened.map(|(kind, content)| (*kind, &content[..]))? {
            // An empty message. rustls treats it as an empty record (RFC 8446 §5.4).
            (HANDSHAKE, []) if !begun => Stricter::than_rustls(UNEXPECTED_MESSAGE),
            // The message was complete, and so were those before it.
            (HANDSHAKE, _) if self.message.is_empty() => None,
            (HANDSHAKE, _) if self.has_ticket() => match self.message[..] {
                [_, high, _, _, ..] if high > 0 => Stricter::than_rustls(DECODE_ERROR),
                _ => None,
            },
            // The first bytes of a message show whether a client may send it. rustls waits for the
            // rest.
            (HANDSHAKE, _) => match self.message[..] {
                [kind, ..] if kind != KEY_UPDATE => Stricter::than_rustls(UNEXPECTED_MESSAGE),
                [_, a, b, c, ..] if [a, b, c] != [0, 0, 1] => Stricter::than_rustls(DECODE_ERROR),
                // No message may follow it with the same keys (RFC 8446 §5.1). rustls looks at the
                // message that follows.
                [_, _, _, _, _, _, ..] => Stricter::in_other_words(Some(UNEXPECTED_MESSAGE)),
                _ => None,
            },
            // All alerts except two are errors, whatever their level, and end the connection (RFC 8446
            // §6).
            (ALERT, &[WARNING, description])
                if !begun && ![CLOSE_NOTIFY, USER_CANCELED].contains(&description) =>
            {
                Stricter::in_other_words(None)
            }
            // An unexpected type is an unexpected message (RFC 8446 §5). Zero is no valid type.
            (kind, _) if !(CHANGE_CIPHER_SPEC..=APPLICATION_DATA).contains(&kind) => {
                Stricter::in_other_words(Some(UNEXPECTED_MESSAGE))
            }
            _ => None,
        }
    }

    pub(super) fn stricter_in_tls12(
        &self,
        record: &[u8],
        opened: Option<&(u8, Vec<u8>)>,
    ) -> Option<Stricter> {
        let length = record.len() - HEADER;
        match opened {
            // rustls treats these records as plaintext, although they cannot be, and the last one as
            // too long, although it is not.
            _ if record[0] == CHANGE_CIPHER_SPEC
                || (length == 0 && record[0] != APPLICATION_DATA)
                || length == 16384 + 2048 =>
            {
                Stricter::in_other_words(Some(match opened {
                    Some((_, content)) if content.len() > 16384 => RECORD_OVERFLOW,
                    Some(_) => UNEXPECTED_MESSAGE,
                    None => BAD_RECORD_MAC,
                }))
            }
            // As in TLS 1.3.
            Some((HANDSHAKE, content)) if content.len() <= 16384 => self.stricter_renegotiation(),
            _ => None,
        }
    }

    fn stricter_renegotiation(&self) -> Option<Stricter> {
        let (mut rest, mut asked) = (&self.message[..], self.declined);
        while let [kind, body @ ..] = rest {
            if *kind != self.renegotiation() {
                return Stricter::than_rustls(UNEXPECTED_MESSAGE);
            }
            let length = u32::from_be_bytes([0, *body.first()?, *body.get(1)?, *body.get(2)?]);
            if length > 0xffff {
                return Stricter::than_rustls(DECODE_ERROR);
            }
            rest = body[3..].get(length as usize..)?;
            asked += 1;
            if asked > RENEGOTIATIONS {
                // Refused before it is checked any further.
                return Stricter::in_other_words(Some(UNEXPECTED_MESSAGE));
            }
        }
        None
    }

    /// The type of the message that requests a new handshake.
    fn renegotiation(&self) -> u8 {
        match self.role {
            Role::Server => CLIENT_HELLO,
            Role::Client => HELLO_REQUEST,
        }
    }

    pub(super) fn skips(&self) -> bool {
        self.version == Version::Tls12 || self.role == Role::Client
    }

    /// Whether a ticket has begun. We skip tickets; rustls reads them.
    fn has_ticket(&self) -> bool {
        let is_allowed = self.role == Role::Client && self.version == Version::Tls13;
        is_allowed && self.message.first() == Some(&NEW_SESSION_TICKET)
    }

    pub(super) fn drop_tickets(&mut self) {
        while self.has_ticket()
            && let &[_, 0, a, b, ref body @ ..] = &self.message[..]
            && let Some(rest) = body.get(usize::from(u16::from_be_bytes([a, b]))..)
        {
            self.message = rest.to_vec();
            self.idle.tickets += 1;
        }
    }
}
