//! Records with known bytes, and the lifetime of keys.

use zeroize::ZeroizeOnDrop;

use super::*;

/// RFC 8448 §3: the application data of the simple 1-RTT handshake.
const PAYLOAD: std::ops::Range<u8> = 0..50;
const CLIENT_SECRET: &str = "9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5";
const CLIENT_RECORD: &str = "1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b\
    9819a8a5b46b395bd54a9a20441e2b62974e1f5a6292a2977014bd1e3deae63aeebb21694915e4";
const SERVER_SECRET: &str = "a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643";
const SERVER_RECORD: &str = "17030300432e937e11ef4ac740e538ad36005fc4a46932fc3225d05f82aa1b36e3\
    0efaf97d90e6dffc602dcb501a59a8fcc49c4bf2e5f0a21c0047c2abf332540dd032e167c2955d";

fn from_hex(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal"))
        .collect()
}

#[test]
fn records_are_those_of_rfc_8448() {
    let payload: Vec<u8> = PAYLOAD.collect();
    // The server has sealed a ticket before.
    for (secret, sequence, expected) in [
        (CLIENT_SECRET, 0, CLIENT_RECORD),
        (SERVER_SECRET, 1, SERVER_RECORD),
    ] {
        let expected = from_hex(expected);
        let mut cipher = cipher_of(TLS13, &from_hex(secret), sequence).expect("a cipher");
        let sealed = record(&mut cipher, ContentType::ApplicationData, &payload);
        assert_eq!(sealed, expected);

        let mut cipher = cipher_of(TLS13, &from_hex(secret), sequence).expect("a cipher");
        let header = Header::of_whole_record(&expected, TLS13).expect("a header");
        let opened = open(&mut cipher, header.expect("a whole record"), &expected);
        assert_eq!(opened, Ok((ContentType::ApplicationData, payload.clone())));
    }
}

#[test]
fn what_is_sealed_is_opened_with_every_suite_and_length() {
    for suite in suites() {
        let (mut ours, mut theirs) = (keys(suite, CLIENTS), keys(suite, CLIENTS));
        for length in [0, 1, 15, 16, 17, 1_000, MAX_PAYLOAD - 1, MAX_PAYLOAD] {
            let payload = bytes(length);
            let sealed = record(&mut ours.cipher, ContentType::ApplicationData, &payload);
            assert!(sealed.len() <= length + OVERHEAD, "{suite:?}");
            for end in 0..sealed.len().min(HEADER + 30) {
                let whole = Header::of_whole_record(&sealed[..end], suite);
                assert_eq!(whole, Ok(None), "{suite:?} cut at {end}");
            }
            let header = Header::of_whole_record(&sealed, suite).expect("a record");
            let opened = open(&mut theirs.cipher, header.expect("a whole one"), &sealed);
            let expected = Ok((ContentType::ApplicationData, payload));
            assert!(opened == expected, "{suite:?} of {length}");
        }
    }
}

#[test]
fn no_byte_of_a_record_can_be_changed() {
    for suite in suites() {
        let sealed = record(
            &mut keys(suite, 1).cipher,
            ContentType::ApplicationData,
            b"word",
        );
        // The header has tests of its own, and its length decides how much is read.
        for at in (0..sealed.len()).filter(|at| !(1..HEADER).contains(at)) {
            let mut forged = sealed.clone();
            // For the type this gives another one that may occur.
            forged[at] ^= 1;
            let opened = match Header::of_whole_record(&forged, suite) {
                Ok(header) => {
                    let mut keys = keys(suite, 1);
                    open(&mut keys.cipher, header.expect("a whole record"), &forged)
                }
                Err(alert) => Err(alert),
            };
            assert!(opened.is_err(), "{suite:?} at {at}");
        }
    }
}

#[test]
fn a_record_opens_in_its_own_place_alone() {
    for suite in suites() {
        let (mut ours, mut theirs) = (keys(suite, 1), keys(suite, 1));
        let first = record(&mut ours.cipher, ContentType::ApplicationData, b"first");
        let second = record(&mut ours.cipher, ContentType::ApplicationData, b"second");
        assert_ne!(first[HEADER..], second[HEADER..]);
        let header = Header::of_whole_record(&second, suite).expect("a record");
        let opened = open(&mut theirs.cipher, header.expect("a whole one"), &second);
        assert_eq!(opened, Err(AlertDescription::BadRecordMac), "{suite:?}");
    }
}

#[test]
fn the_last_sequence_number_is_never_used() {
    for suite in suites() {
        let at = |sequence| {
            let key = vec![7; suite.aead.key_length()];
            Cipher::new(suite, &key, Iv::new([7; 12]), sequence).expect("a cipher")
        };
        let mut out = [0; 64];
        let mut cipher = at(u64::MAX - 1);
        let length = cipher
            .seal(ContentType::ApplicationData, b"word", &mut out)
            .expect("the last but one");
        assert_eq!(
            cipher.seal(ContentType::ApplicationData, b"word", &mut [0; 64]),
            Err(Exhausted)
        );
        let sealed = &out[..length];
        let header = Header::of_whole_record(sealed, suite).expect("a record");
        let header = header.expect("a whole one");
        let mut cipher = at(u64::MAX - 1);
        assert!(open(&mut cipher, header, sealed).is_ok());
        let refused = open(&mut cipher, header, sealed);
        assert_eq!(refused, Err(AlertDescription::InternalError));
    }
}

#[test]
fn keys_go_on_from_generation_to_generation() {
    for suite in suites().filter(|suite| suite.version == Version::Tls13) {
        let (mut ours, mut theirs) = (keys(suite, 1), keys(suite, 1));
        let mut seen = std::collections::HashSet::new();
        for generation in 0..5 {
            let sealed = record(&mut ours.cipher, ContentType::ApplicationData, b"word");
            let header = Header::of_whole_record(&sealed, suite).expect("a record");
            let header = header.expect("a whole one");
            let opened = open(&mut theirs.cipher, header, &sealed);
            let expected = Ok((ContentType::ApplicationData, b"word".to_vec()));
            assert_eq!(opened, expected, "{generation}");
            assert!(seen.insert(sealed), "{suite:?}: the same keys again");
            ours.update().expect("a next generation");
            theirs.update().expect("a next generation");
        }
    }
    assert!(keys(TLS12, 1).update().is_err());
}

#[test]
fn key_material_is_wiped_when_it_is_dropped() {
    fn is_wiped<T: ZeroizeOnDrop>(_: &T) {}
    for suite in [TLS12, TLS13] {
        let keys = keys(suite, 1);
        is_wiped(&keys.cipher);
        match &keys.material {
            Material::Traffic(secret) => is_wiped(secret),
            Material::Fixed { key, iv } => {
                is_wiped(key);
                is_wiped(iv);
            }
        }
    }
}

/// Compared on every machine: the two must not differ in a byte.
#[cfg(target_arch = "x86_64")]
#[test]
fn both_libraries_seal_alike_and_open_what_the_other_has_sealed() {
    use crate::record::aead::{Failed, Key, vaes};

    for aead in [Aead::Aes128Gcm, Aead::Aes256Gcm] {
        let secret = bytes(aead.key_length());
        let keys = [
            Key::of_aws_lc(aead, &secret).expect("a key"),
            Key::Ring(vaes::Key::new(aead, &secret).expect("a key")),
        ];
        for length in [0, 1, 15, 16, 17, 127, 255, 256, 1_000, MAX_PAYLOAD + 1] {
            let (nonce, aad) = ([9; 12], b"header");
            let sealed = keys.each_ref().map(|key| {
                let mut sealed = bytes(length);
                let tag = key.seal(nonce, aad, &mut sealed).expect("sealed");
                sealed.extend(tag);
                sealed
            });
            assert!(sealed[0] == sealed[1], "{aead:?} of {length}");
            for (key, sealed) in keys.iter().zip(&sealed) {
                for before in [0, 1, 5, 13, 4_000] {
                    let buffer = [&bytes(before), &sealed[..]].concat();
                    let mut intact = buffer.clone();
                    let opened = key.open(nonce, aad, &mut intact, before..);
                    assert_eq!(opened, Ok(length));
                    assert!(intact[..length] == bytes(length), "{aead:?} of {length}");
                    let mut forged = buffer;
                    forged[before] ^= 1;
                    let opened = key.open(nonce, aad, &mut forged, before..);
                    assert_eq!(opened, Err(Failed), "{aead:?} of {length}");
                }
            }
        }
        assert!(Key::of_aws_lc(aead, &secret[1..]).is_none());
        assert!(vaes::Key::new(aead, &secret[1..]).is_none());
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn nothing_of_a_key_is_left_where_it_was() {
    use std::os::unix::fs::FileExt;

    use crate::record::aead::vaes;

    let memory = std::fs::File::open("/proc/self/mem").expect("our own memory");
    // AES-256 uses the second half of the secret as its second round key. That is behind the bytes
    // that the allocator writes into a free block.
    let secret: Vec<u8> = (0..32).map(|index| index * 7 + 1).collect();
    let key = vaes::Key::new(Aead::Aes256Gcm, &secret).expect("a key");
    let (address, length) = key.place();
    let has_secret = || {
        let mut place = vec![0; length];
        memory.read_exact_at(&mut place, address).expect("a place");
        place.windows(16).any(|window| window == &secret[16..])
    };
    assert!(has_secret());
    drop(key);
    assert!(!has_secret());
}

#[test]
fn the_limit_is_that_of_the_suite() {
    for suite in suites() {
        let expected = match suite.aead {
            Aead::Aes128Gcm | Aead::Aes256Gcm => 1 << 24,
            Aead::ChaCha20Poly1305 => u64::MAX,
        };
        assert_eq!(Outbound::new(keys(suite, 1)).limit, expected, "{suite:?}");
    }
}
