//! First bytes that are not a handshake.

use crate::*;

#[tokio::test]
async fn bytes_that_are_not_tls_get_an_alert_and_affect_no_other_client() {
    let vestibule = Vestibule::start(ECHO).await;
    let mut neighbour = Neighbour::new(&vestibule).await;
    let mut random = vec![0; 4096];
    Bytes::seeded(3).fill(&mut random);
    random[0] = 0x99;
    let words: [(&str, &[u8]); 7] = [
        ("HTTP", b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"),
        ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n"),
        ("one byte", b"G"),
        ("random bytes", &random),
        ("zeros", &[0; 100]),
        ("SSLv2", &SSL2_HELLO),
        ("a record of TLS 9", b"\x16\x09\x00\x00\x05hello"),
    ];
    let mut strangers = 0;
    for (what, bytes) in words {
        for front in [tcp(&vestibule), unix(&vestibule)] {
            let answer = say(&front, bytes).await;
            assert_is_alert(&answer, what);
            strangers += 1;
            vestibule.ended("not_tls", strangers).await;
            neighbour.is_well().await;
        }
    }
    neighbour.leave(&vestibule, ("not_tls", strangers)).await;
}

#[tokio::test]
async fn curl_with_http_at_a_tls_listener_gets_a_tls_alert() {
    let vestibule = Vestibule::start(ECHO).await;
    let url = format!("http://{}/", vestibule.tcp());
    let mut command = curl();
    command.args(["--http0.9", &url]);
    assert_is_alert(&output(command).await.ok(), "curl");
    // A common mistake: the answer is not HTTP but comes at once, so that the page does not hang.
    let mut command = curl();
    command.arg(&url);
    let done = output(command).await;
    assert_eq!(done.code, Some(1), "{}", done.err);
    assert!(done.err.contains("HTTP/0.9"), "{}", done.err);
    vestibule.ended("not_tls", 2).await;
}

#[tokio::test]
async fn tls_without_a_usable_hello_is_a_failed_handshake() {
    let vestibule = Vestibule::start(ECHO).await;
    let mut neighbour = Neighbour::new(&vestibule).await;
    let mut wrong_hello = b"\x16\x03\x01\x00\x24\x01\x00\x00\x20".to_vec();
    wrong_hello.extend([0xaa; 32]);
    let words: [(&str, &[u8]); 5] = [
        ("a hello of rubbish", &wrong_hello),
        ("an empty record", b"\x16\x03\x01\x00\x00"),
        ("a record that is too long", b"\x16\x03\x01\xff\xff\x01"),
        ("data before the hello", b"\x17\x03\x03\x00\x05hello"),
        ("an alert before the hello", b"\x15\x03\x03\x00\x02\x02\x28"),
    ];
    for (before, (what, bytes)) in words.into_iter().enumerate() {
        say(&tcp(&vestibule), bytes).await;
        let outcomes = vestibule.outcomes();
        assert!(outcomes.len() <= 1, "{what}: {outcomes:?}");
        vestibule.ended("handshake_failed", before + 1).await;
        neighbour.is_well().await;
    }
    let ended = ("handshake_failed", words.len());
    neighbour.leave(&vestibule, ended).await;
}

#[tokio::test]
async fn a_first_message_other_than_a_hello_gets_unexpected_message() {
    for relay in RELAYS {
        let vestibule = Vestibule::start(&format!("{}{ECHO}", relay.config())).await;
        let words: [(&str, &[u8]); 5] = [
            ("data", b"\x17\x03\x03\x00\x05hello"),
            ("an alert", b"\x15\x03\x03\x00\x02\x02\x28"),
            ("close_notify", b"\x15\x03\x01\x00\x02\x01\x00"),
            ("change_cipher_spec", b"\x14\x03\x03\x00\x01\x01"),
            ("a Finished", b"\x16\x03\x01\x00\x05\x14\x00\x00\x01\x00"),
        ];
        for (before, (what, bytes)) in words.into_iter().enumerate() {
            let answer = say(&tcp(&vestibule), bytes).await;
            assert_is_alert(&answer, what);
            assert_eq!(answer[6], UNEXPECTED_MESSAGE, "{what}: {answer:x?}");
            vestibule.ended("handshake_failed", before + 1).await;
        }
    }
}

/// Sent in parts, so that rustls has the hello before the next record, and at once.
#[tokio::test]
async fn a_record_in_one_segment_with_the_hello_is_processed_as_soon_as_one_after_it() {
    for relay in RELAYS {
        let vestibule = Vestibule::start(&format!("{}{ECHO}", relay.config())).await;
        // Whatever this record is, it is no answer to the ServerHello.
        let bytes = [&hello()[..], b"\x16\x03\x03\x00\x05\x14\x00\x00\x01\x00"].concat();
        let mut socket = tcp(&vestibule).socket().await.expect("a connection");
        write(&mut socket, &bytes).await;
        soon("an end", to_the_end(&mut socket)).await;
        vestibule.ended("handshake_failed", 1).await;
    }
}

const UNEXPECTED_MESSAGE: u8 = 10;

/// A version 2 CLIENT-HELLO with three cipher specs and a challenge, as browsers sent it until
/// 2006.
const SSL2_HELLO: [u8; 36] = [
    0x80, 0x22, 0x01, 0x03, 0x01, 0x00, 0x09, 0x00, 0x00, 0x00, 0x10, // lengths
    0x00, 0x00, 0x05, 0x00, 0x00, 0x04, 0x01, 0x00, 0x80, // RC4
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, // challenge
];
