//! A layer in the role of the client, with a server that may violate rules.

use std::sync::{Arc, Mutex};

use tokio_rustls::rustls::AlertDescription as Alert;
use tokio_rustls::rustls::ContentType::{Alert as ALERT, Handshake as HANDSHAKE};

use super::*;

/// Stores tickets where the test sees them.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept(Arc<Mutex<Vec<Vec<u8>>>>);

impl Kept {
    pub(super) fn take(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.0.lock().expect("no panic"))
    }

    pub(super) fn is_given_up(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

impl Keeper for Kept {
    fn keep(&mut self, ticket: &[u8]) -> Result<(), Unreadable> {
        match ticket {
            b"unreadable" => Err(Unreadable),
            ticket => {
                self.0.lock().expect("no panic").push(ticket.to_vec());
                Ok(())
            }
        }
    }
}

#[test]
fn tickets_are_kept_however_they_come_and_forgotten_with_the_first_payload() {
    for tickets in [&[b"one".as_slice()][..], &[b"one", b"three"]] {
        let kept = Kept::default();
        let (mut layer, mut peer) = client_with(&kept);
        let messages: Vec<u8> = tickets.iter().flat_map(|it| ticket(it)).collect();
        for part in messages.chunks(2) {
            let mut record = peer.record(HANDSHAKE, part);
            let (opened, _) = layer.open_plain(&mut record, &mut Vec::new());
            assert_eq!(opened.then, Then::More);
        }
        // The beginning of the second one came with the end of the first.
        assert_eq!(kept.take(), tickets);
        assert!(kept.is_given_up());
        let mut record = [peer.record(HANDSHAKE, &ticket(b"more")), peer.data(b"w")].concat();
        let (opened, length) = layer.open_plain(&mut record, &mut Vec::new());
        assert_eq!((opened.then, length), (Then::More, 1));
        assert_eq!(kept.take(), [[0; 0]; 0]);
    }
    let kept = Kept::default();
    let (mut layer, mut peer) = client_with(&kept);
    let mut record = peer.data(b"word");
    layer.open_plain(&mut record, &mut Vec::new());
    assert!(kept.is_given_up(), "a server that sends none");
}

#[test]
fn a_ticket_that_is_too_long_is_not_kept_and_one_that_is_none_is_refused() {
    let kept = Kept::default();
    let (mut layer, mut peer) = client_with(&kept);
    let long = ticket(&[7; 16 * 1024 + 1]);
    let mut wire: Vec<u8> = (long.chunks(MAX_PAYLOAD))
        .flat_map(|part| peer.record(HANDSHAKE, part))
        .collect();
    let longest = ticket(&[7; 16 * 1024]);
    for part in longest.chunks(MAX_PAYLOAD) {
        wire.extend(peer.record(HANDSHAKE, part));
    }
    let (opened, _) = layer.open_plain(&mut wire, &mut Vec::new());
    assert_eq!(opened.then, Then::More);
    assert_eq!(kept.take(), [[7; 16 * 1024]]);

    let (mut layer, mut peer) = client_with(&Kept::default());
    let mut record = peer.record(HANDSHAKE, &ticket(b"unreadable"));
    let (opened, _) = layer.open_plain(&mut record, &mut Vec::new());
    assert_eq!(opened.then, refused(Alert::DecodeError));
}

/// A layer in the role of a client, and its server.
fn client_with(kept: &Kept) -> (Layer, Peer) {
    let (mut layer, peer) = pair_in(Role::Client, TLS13);
    layer.inbound.tickets = Some(Box::new(Tickets::new(Box::new(kept.clone()))));
    (layer, peer)
}

fn ticket(body: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = (body.len() as u32).to_be_bytes();
    [&[4, a, b, c], body].concat()
}

fn refused(alert: Alert) -> Then {
    Then::Refused(RecordRefusal::Broken(alert))
}

/// Messages, and the layer's reaction in the role of the client and of the server.
fn messages() -> Vec<(Vec<u8>, Suite, Then, Then)> {
    vec![
        (
            ticket(b"ticket"),
            TLS13,
            Then::More,
            refused(Alert::UnexpectedMessage),
        ),
        (key_update(0).into(), TLS13, Then::More, Then::More),
        // After a ticket, in the same record.
        (
            [&ticket(b"one")[..], &key_update(0)].concat(),
            TLS13,
            Then::More,
            refused(Alert::UnexpectedMessage),
        ),
        (
            [&key_update(0)[..], &ticket(b"one")].concat(),
            TLS13,
            refused(Alert::UnexpectedMessage),
            refused(Alert::UnexpectedMessage),
        ),
        // A CertificateRequest, although the client has not offered post-handshake authentication
        // (RFC 8446 §4.6.2).
        (
            vec![13, 0, 0, 3, 0, 0, 0],
            TLS13,
            refused(Alert::UnexpectedMessage),
            refused(Alert::UnexpectedMessage),
        ),
        (
            vec![4, 1, 0, 0],
            TLS13,
            refused(Alert::DecodeError),
            refused(Alert::UnexpectedMessage),
        ),
        (
            vec![0, 0, 0, 0],
            TLS12,
            Then::More,
            refused(Alert::UnexpectedMessage),
        ),
        (
            vec![1, 0, 0, 2, 3, 3],
            TLS12,
            refused(Alert::UnexpectedMessage),
            Then::More,
        ),
        (
            ticket(b"ticket"),
            TLS12,
            refused(Alert::UnexpectedMessage),
            refused(Alert::UnexpectedMessage),
        ),
        (
            vec![0, 0, 0, 0],
            TLS13,
            refused(Alert::UnexpectedMessage),
            refused(Alert::UnexpectedMessage),
        ),
    ]
}

#[test]
fn a_server_may_send_what_a_client_may_not_and_the_other_way_round() {
    for (message, suite, to_client, to_server) in messages() {
        for (role, expected) in [(Role::Client, to_client), (Role::Server, to_server)] {
            let (mut layer, mut peer) = pair_in(role, suite);
            let mut record = peer.record(HANDSHAKE, &message);
            let mut answers = Vec::new();
            let (opened, _) = layer.open_plain(&mut record, &mut answers);
            assert_eq!(opened.then, expected, "{role:?} {message:?}");
            if let Then::Refused(RecordRefusal::Broken(alert)) = expected {
                peer.unread = answers;
                assert_eq!(peer.alert(), Some((2, alert)));
                assert!(layer.is_mute());
            }
        }
    }
}

#[test]
fn a_request_to_begin_anew_is_declined() {
    let (mut layer, mut peer) = pair_in(Role::Client, TLS12);
    let mut record = peer.record(HANDSHAKE, &[0, 0, 0, 0]);
    let mut answers = Vec::new();
    layer.open_plain(&mut record, &mut answers);
    peer.unread = answers;
    assert_eq!(peer.alert(), Some((1, Alert::NoRenegotiation)));
}

#[test]
fn tickets_are_not_taken_for_ever() {
    let (mut layer, mut peer) = pair_in(Role::Client, TLS13);
    let mut open = |mut record: Vec<u8>| {
        let (opened, _) = layer.open_plain(&mut record, &mut Vec::new());
        opened.then
    };
    for round in [true, false] {
        for _ in 0..32 {
            assert_eq!(open(peer.record(HANDSHAKE, &ticket(b"ticket"))), Then::More);
        }
        if round {
            assert_eq!(open(peer.data(b"word")), Then::More);
        }
    }
    let one_more = open(peer.record(HANDSHAKE, &ticket(b"ticket")));
    assert_eq!(one_more, refused(Alert::UnexpectedMessage));
}

#[test]
fn a_server_that_gives_up_is_not_answered_and_its_alert_is_known() {
    for suite in suites() {
        let (mut layer, mut peer) = pair_in(Role::Client, suite);
        let mut record = peer.record(ALERT, &[2, Alert::CertificateRequired.into()]);
        let mut answers = Vec::new();
        let (opened, _) = layer.open_plain(&mut record, &mut answers);
        let expected = RecordRefusal::Given(Alert::CertificateRequired);
        assert_eq!(opened.then, Then::Refused(expected), "{suite:?}");
        assert_eq!(layer.given_up(), Some(Alert::CertificateRequired));
        assert!(answers.is_empty() && layer.is_mute());
    }
}

#[test]
fn a_client_goes_on_elsewhere_in_the_middle_of_a_ticket() {
    let (mut layer, mut peer) = client_with(&Kept::default());
    let whole = ticket(&[7; 300]);
    for (part, role) in whole.chunks(100).zip(0..) {
        let mut record = peer.record(HANDSHAKE, part);
        let (opened, _) = layer.open_plain(&mut record, &mut Vec::new());
        assert_eq!(opened.then, Then::More, "part {role}");
        let state = serde_json::to_string(&layer.export()).expect("plain data");
        let state = serde_json::from_str(&state).expect("plain data");
        layer = Layer::import(state).expect("a state that fits");
    }
    let mut record = peer.data(b"word");
    let (opened, length) = layer.open_plain(&mut record, &mut Vec::new());
    assert_eq!((opened.then, length), (Then::More, 4));
}
