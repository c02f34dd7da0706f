//! The meaning of each kind of record.

use tokio_rustls::rustls::AlertDescription as Alert;
use tokio_rustls::rustls::ContentType::{
    Alert as ALERT, ApplicationData as DATA, ChangeCipherSpec as CCS, Handshake as HANDSHAKE,
};

use super::*;

type All = Result<Vec<Received>, RecordRefusal>;
type Parsed = Result<Option<Header>, Alert>;

/// The reactions of an inbound layer to these records, until it refuses one.
fn receive(suite: Suite, records: &[(ContentType, &[u8])]) -> All {
    let mut inbound = Inbound::new(Role::Server, keys(suite, CLIENTS));
    let mut theirs = keys(suite, CLIENTS);
    let mut all = Vec::new();
    for (kind, payload) in records {
        let mut sealed = record(&mut theirs.cipher, *kind, payload);
        let header = Header::of_whole_record(&sealed, suite)?.expect("a whole record");
        let received = inbound.receive(header, &mut sealed, 0, 0)?;
        if matches!(received, Received::KeyUpdate(_)) {
            theirs.update().expect("TLS 1.3");
        }
        all.push(received);
    }
    Ok(all)
}

fn broken<T>(alert: Alert) -> Result<T, RecordRefusal> {
    Err(RecordRefusal::Broken(alert))
}

#[test]
fn data_is_data() {
    for suite in suites() {
        let received = receive(suite, &[(DATA, b"word"), (DATA, b""), (DATA, b"words")]);
        let expected = [4, 0, 5].map(Received::Data).to_vec();
        assert_eq!(received, Ok(expected), "{suite:?}");
    }
}

#[test]
fn the_version_of_a_record_of_tls_1_3_is_ignored() {
    let mut theirs = keys(TLS13, CLIENTS);
    let mut inbound = Inbound::new(Role::Server, keys(TLS13, CLIENTS));
    for minor in [1, 2, 3, 4] {
        let mut sealed = record(&mut theirs.cipher, DATA, b"word");
        sealed[2] = minor;
        let header = Header::of_whole_record(&sealed, TLS13).expect("a record");
        let received = inbound.receive(header.expect("a whole one"), &mut sealed, 0, 0);
        assert_eq!(received, Ok(Received::Data(4)), "{minor}");
    }
}

#[test]
fn padding_is_taken_off_and_must_leave_a_type() {
    let mut theirs = keys(TLS13, CLIENTS);
    let mut inbound = Inbound::new(Role::Server, keys(TLS13, CLIENTS));
    let mut open = |inner: &[u8]| {
        // The type follows the payload in the sealed part: a type of 0 looks like one more byte of
        // padding.
        let mut sealed = record(&mut theirs.cipher, ContentType::from(0), inner);
        let header = Header::of_whole_record(&sealed, TLS13)?.expect("a whole record");
        inbound.receive(header, &mut sealed, 0, 0)
    };
    assert_eq!(open(&[b'w', 23]), Ok(Received::Data(1)));
    assert_eq!(open(&[b'w', 0, 23, 0, 0]), Ok(Received::Data(2)));
    assert_eq!(open(&[23]), Ok(Received::Data(0)));
    let padded = [&[b'w', 23][..], &[0; 16_000]].concat();
    assert_eq!(open(&padded), Ok(Received::Data(1)));
    assert_eq!(open(&[0; 100]), broken(Alert::UnexpectedMessage));
}

#[test]
fn a_record_without_anything_in_it_is_refused() {
    // Sealed by hand, without content and type.
    for all_zero in [0, 1] {
        let mut theirs = keys(TLS13, CLIENTS);
        let mut sealed = record(&mut theirs.cipher, ContentType::from(0), &vec![0; all_zero]);
        let mut inbound = Inbound::new(Role::Server, keys(TLS13, CLIENTS));
        let header = Header::of_whole_record(&sealed, TLS13).expect("a record");
        let received = inbound.receive(header.expect("a whole one"), &mut sealed, 0, 0);
        assert_eq!(received, broken(Alert::UnexpectedMessage));
    }
}

#[test]
fn records_without_a_byte_are_not_taken_for_ever() {
    for suite in suites() {
        let empty: Vec<(ContentType, &[u8])> = vec![(DATA, b""); 32];
        assert!(receive(suite, &empty).is_ok(), "{suite:?}");
        let flood: Vec<(ContentType, &[u8])> = vec![(DATA, b""); 33];
        assert_eq!(receive(suite, &flood), broken(Alert::UnexpectedMessage));
        let paused = [&empty[..], &[(DATA, b"word")], &empty[..]].concat();
        assert!(receive(suite, &paused).is_ok(), "{suite:?}");
    }
}

#[test]
fn a_key_update_is_taken_whole_and_in_parts() {
    for (request, answer) in [(0, Answer::NotRequested), (1, Answer::Requested)] {
        let message = key_update(request);
        let updated = Received::KeyUpdate(answer);
        for cut in 1..5 {
            let (first, second) = message.split_at(cut);
            let parts: [(ContentType, &[u8]); 3] =
                [(HANDSHAKE, first), (HANDSHAKE, second), (DATA, b"word")];
            let received = receive(TLS13, &parts);
            let expected = vec![Received::Nothing, updated, Received::Data(4)];
            assert_eq!(received, Ok(expected), "cut at {cut}");
        }
        let received = receive(TLS13, &[(HANDSHAKE, &message), (DATA, b"word")]);
        assert_eq!(received, Ok(vec![updated, Received::Data(4)]));
    }
}

#[test]
fn no_other_handshake_message_is_taken_after_the_handshake() {
    let cases: [(Suite, &[u8], Alert); 13] = [
        (TLS13, &key_update(2), Alert::IllegalParameter),
        (TLS13, &[24, 0, 0, 2, 0, 0], Alert::DecodeError),
        (TLS13, &[24, 0, 0, 0], Alert::DecodeError),
        (TLS13, &[24, 1, 0, 1, 0], Alert::DecodeError),
        // The following record has other keys, so nothing may follow in the same record.
        (TLS13, &[24, 0, 0, 1, 0, 24], Alert::UnexpectedMessage),
        (
            TLS13,
            &[24, 0, 0, 1, 0, 24, 0, 0, 1, 0],
            Alert::UnexpectedMessage,
        ),
        (TLS13, &[1, 0, 0, 0], Alert::UnexpectedMessage),
        (TLS13, &[4, 0, 0, 0], Alert::UnexpectedMessage),
        (TLS13, &[20], Alert::UnexpectedMessage),
        (TLS13, b"", Alert::UnexpectedMessage),
        (TLS12, &[0, 0, 0, 0], Alert::UnexpectedMessage),
        (TLS12, &[20, 0, 0, 0], Alert::UnexpectedMessage),
        (TLS12, &[1, 1, 0, 0], Alert::DecodeError),
    ];
    for (suite, message, alert) in cases {
        let received = receive(suite, &[(HANDSHAKE, message)]);
        assert_eq!(received, broken(alert), "{suite:?} {message:?}");
    }
}

#[test]
fn a_message_in_parts_has_nothing_between_them() {
    for between in [(DATA, &b"word"[..]), (DATA, b""), (ALERT, &CLOSE_NOTIFY)] {
        let received = receive(TLS13, &[(HANDSHAKE, &[24, 0]), between]);
        assert_eq!(received, broken(Alert::UnexpectedMessage), "{between:?}");
        let received = receive(TLS12, &[(HANDSHAKE, &[1, 0, 0, 9, 3, 3]), between]);
        assert_eq!(received, broken(Alert::UnexpectedMessage), "{between:?}");
    }
}

#[test]
fn key_updates_without_data_are_not_taken_for_ever() {
    let update = key_update(0);
    let updates: Vec<(ContentType, &[u8])> = vec![(HANDSHAKE, &update); 32];
    assert!(receive(TLS13, &updates).is_ok());
    let flood: Vec<(ContentType, &[u8])> = vec![(HANDSHAKE, &update); 33];
    assert_eq!(receive(TLS13, &flood), broken(Alert::UnexpectedMessage));
    let paused = [&updates[..], &[(DATA, b"word")], &updates[..]].concat();
    assert!(receive(TLS13, &paused).is_ok());
}

#[test]
fn only_data_makes_up_for_records_without_any() {
    let update = key_update(0);
    let by_turns: [(ContentType, &[u8]); 2] = [(HANDSHAKE, &update), (DATA, b"")];
    assert!(receive(TLS13, &by_turns.repeat(32)).is_ok());
    let flood = by_turns.repeat(33);
    assert_eq!(receive(TLS13, &flood), broken(Alert::UnexpectedMessage));
    let paused = [&by_turns.repeat(32)[..], &[(DATA, b"word")]].concat();
    assert!(receive(TLS13, &paused.repeat(2)).is_ok());

    let empty: Vec<(ContentType, &[u8])> = vec![(DATA, b""); 32];
    for suite in suites() {
        let warned = [&empty[..], &[(ALERT, &[1, 90])]].concat();
        assert!(receive(suite, &warned).is_ok(), "{suite:?}");
        let flood = [&warned[..], &[(DATA, b"")]].concat();
        assert_eq!(receive(suite, &flood), broken(Alert::UnexpectedMessage));
    }
}

#[test]
fn a_change_cipher_spec_is_not_taken_after_the_handshake() {
    for suite in suites() {
        let received = receive(suite, &[(CCS, &[1])]);
        assert_eq!(received, broken(Alert::UnexpectedMessage), "{suite:?}");
    }
    // In TLS 1.3 it is unencrypted, for middleboxes.
    let in_the_clear = [20, 3, 3, 0, 1, 1];
    let header = Header::of_whole_record(&in_the_clear, TLS13);
    assert_eq!(header, Err(Alert::UnexpectedMessage));
}

#[test]
fn alerts_are_told_apart() {
    let given = |alert| Err(RecordRefusal::Given(alert));
    let nothing = || Ok(vec![Received::Nothing]);
    let closed = || Ok(vec![Received::CloseNotify]);
    let cases: [(Suite, &[u8], All); 16] = [
        (TLS13, &[1, 0], closed()),
        (TLS13, &[2, 0], closed()),
        (TLS12, &[1, 0], closed()),
        (TLS12, &[2, 0], closed()),
        (TLS13, &[1, 90], nothing()),
        (TLS12, &[1, 90], nothing()),
        // RFC 8446 §6: all other alerts are errors in TLS 1.3, whatever their level.
        (TLS13, &[1, 41], given(Alert::NoCertificate)),
        (TLS12, &[1, 41], nothing()),
        (TLS13, &[2, 80], given(Alert::InternalError)),
        (TLS12, &[2, 80], given(Alert::InternalError)),
        (TLS13, &[2, 90], given(Alert::UserCanceled)),
        (TLS13, &[2, 255], given(Alert::from(255))),
        (TLS13, &[3, 0], broken(Alert::IllegalParameter)),
        (TLS12, &[0, 40], broken(Alert::IllegalParameter)),
        (TLS13, &[2], broken(Alert::DecodeError)),
        (TLS12, &[1, 0, 1], broken(Alert::DecodeError)),
    ];
    for (suite, alert, expected) in cases {
        let received = receive(suite, &[(ALERT, alert)]);
        assert_eq!(received, expected, "{suite:?} {alert:?}");
    }
}

#[test]
fn warnings_are_not_taken_for_ever() {
    for suite in suites() {
        let warning: (ContentType, &[u8]) = (ALERT, &[1, 90]);
        assert!(receive(suite, &[warning; 4]).is_ok(), "{suite:?}");
        let received = receive(suite, &[warning; 5]);
        assert_eq!(received, broken(Alert::UnexpectedMessage), "{suite:?}");
    }
}

#[test]
fn a_renegotiation_is_noticed_once_and_refused_the_second_time() {
    let hello = [&[1, 0, 0x40, 0][..], &[0; 0x4000]].concat();
    let (first, second) = hello.split_at(0x3000);
    let parts: [(ContentType, &[u8]); 3] = [(HANDSHAKE, first), (HANDSHAKE, second), (DATA, b"w")];
    let expected = vec![
        Received::Nothing,
        Received::Renegotiation,
        Received::Data(1),
    ];
    assert_eq!(receive(TLS12, &parts), Ok(expected));
    let again = receive(TLS12, &[parts, parts].concat());
    assert_eq!(again, broken(Alert::UnexpectedMessage));
    let two_in_one = [[1, 0, 0, 1, 9], [1, 0, 0, 1, 9]].concat();
    let received = receive(TLS12, &[(HANDSHAKE, &two_in_one)]);
    assert_eq!(received, broken(Alert::UnexpectedMessage));
}

#[test]
fn headers_of_other_versions_types_and_lengths_are_refused() {
    let longest = |length: usize| [(length >> 8) as u8, length as u8];
    let [high, low] = longest(MAX_PAYLOAD + 256);
    let [too_high, too_low] = longest(MAX_PAYLOAD + 257);
    let [high12, low12] = longest(MAX_PAYLOAD + 2048);
    let [too_high12, too_low12] = longest(MAX_PAYLOAD + 2049);
    let incomplete = Ok(None);
    let cases: [(Suite, [u8; 5], Parsed); 16] = [
        (TLS13, [23, 3, 3, high, low], incomplete),
        (
            TLS13,
            [23, 3, 3, too_high, too_low],
            Err(Alert::RecordOverflow),
        ),
        (TLS12, [23, 3, 3, high12, low12], incomplete),
        (
            TLS12,
            [23, 3, 3, too_high12, too_low12],
            Err(Alert::RecordOverflow),
        ),
        (TLS13, [23, 3, 1, 0, 50], incomplete),
        (TLS13, [23, 3, 4, 0, 50], incomplete),
        (TLS13, [23, 2, 3, 0, 50], Err(Alert::DecodeError)),
        (TLS12, [23, 3, 2, 0, 50], Err(Alert::DecodeError)),
        (TLS12, [23, 2, 3, 0, 50], Err(Alert::DecodeError)),
        (TLS13, [22, 3, 3, 0, 50], Err(Alert::UnexpectedMessage)),
        (TLS13, [21, 3, 3, 0, 2], Err(Alert::UnexpectedMessage)),
        (TLS13, [24, 3, 3, 0, 50], Err(Alert::UnexpectedMessage)),
        (TLS13, [0, 3, 3, 0, 50], Err(Alert::UnexpectedMessage)),
        (TLS12, [22, 3, 3, 0, 50], incomplete),
        (TLS12, [19, 3, 3, 0, 50], Err(Alert::UnexpectedMessage)),
        (TLS12, [24, 3, 3, 0, 50], Err(Alert::UnexpectedMessage)),
    ];
    for (suite, header, expected) in cases {
        let parsed = Header::of_whole_record(&header, suite);
        assert_eq!(parsed, expected, "{suite:?} {header:?}");
        for end in 0..5 {
            assert_eq!(Header::of_whole_record(&header[..end], suite), Ok(None));
        }
    }
}

#[test]
fn more_than_a_record_may_carry_is_refused_however_it_is_sealed() {
    for suite in suites() {
        let too_long = vec![b'w'; MAX_PAYLOAD + 1];
        let received = receive(suite, &[(DATA, &too_long)]);
        assert_eq!(received, broken(Alert::RecordOverflow), "{suite:?}");
        let longest = &too_long[1..];
        let received = receive(suite, &[(DATA, longest)]);
        assert_eq!(received, Ok(vec![Received::Data(MAX_PAYLOAD)]), "{suite:?}");
    }
    // Padding counts (RFC 8446 §5.4).
    let padded = [&[b'w', 23][..], &[0; MAX_PAYLOAD]].concat();
    let received = receive(TLS13, &[(ContentType::from(0), &padded)]);
    assert_eq!(received, broken(Alert::RecordOverflow));
}

#[test]
fn a_record_too_short_for_its_tag_is_forged() {
    for suite in suites() {
        let shortest = match (suite.version, suite.aead) {
            (Version::Tls12, Aead::Aes128Gcm | Aead::Aes256Gcm) => 24,
            _ => 16,
        };
        for length in 0..=shortest {
            let mut record = [&[23, 3, 3, 0, length][..], &[0; 24][..usize::from(length)]].concat();
            let header = Header::of_whole_record(&record, suite).expect("a record");
            let mut inbound = Inbound::new(Role::Server, keys(suite, CLIENTS));
            let received = inbound.receive(header.expect("a whole one"), &mut record, 0, 0);
            assert_eq!(received, broken(Alert::BadRecordMac), "{suite:?} {length}");
        }
    }
}
