//! A layer in the role of the client, with rustls as the server.

use std::io::{Read, Write};
use std::sync::{Arc, Mutex};

use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::aws_lc_rs::Ticketer;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, Error, KeyLog, RootCertStore, ServerConfig, ServerConnection,
    SupportedCipherSuite,
};

use super::client::Kept;
use super::*;

/// rustls as the server, after the handshake.
struct Server(ServerConnection);

impl Server {
    /// Its output, and the rest of what it has sealed.
    fn sent(&mut self) -> Vec<u8> {
        let mut sent = Vec::new();
        while self.0.wants_write() {
            self.0.write_tls(&mut sent).expect("a Vec takes all");
        }
        sent
    }

    fn say(&mut self, words: &[u8]) -> Vec<u8> {
        self.0.writer().write_all(words).expect("it takes all");
        self.sent()
    }

    fn hear(&mut self, mut records: &[u8]) -> Result<Vec<u8>, Error> {
        let mut words = Vec::new();
        while !records.is_empty() {
            self.0.read_tls(&mut records).expect("records");
            let state = self.0.process_new_packets()?;
            let end = words.len();
            words.resize(end + state.plaintext_bytes_to_read(), 0);
            let read = self.0.reader().read_exact(&mut words[end..]);
            read.expect("as many as there are");
        }
        Ok(words)
    }
}

/// A layer that continues a connection of rustls's client, and the server. What the server sent
/// after the handshake comes first. Tickets go to the keeper.
fn handshake(suite: SupportedCipherSuite, keeper: Option<Box<dyn Keeper>>) -> (Layer, Server) {
    let log = Arc::new(Log::default());
    let name = ServerName::try_from("localhost").expect("a name");
    let client = ClientConnection::new(Arc::new(client(suite, &log)), name);
    let mut client = client.expect("a client");
    let mut server = Server(ServerConnection::new(Arc::new(server(suite))).expect("a server"));
    while client.is_handshaking() || server.0.is_handshaking() {
        let mut flight = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut flight).expect("a Vec takes all");
        }
        assert!(server.hear(&flight).expect("a handshake").is_empty());
        if !client.is_handshaking() {
            break;
        }
        let mut flight = &server.sent()[..];
        while !flight.is_empty() {
            client.read_tls(&mut flight).expect("a slice");
            client.process_new_packets().expect("a handshake");
        }
    }
    let is_tls13 = matches!(suite, SupportedCipherSuite::Tls13(_));
    let traffic = is_tls13.then(|| std::mem::take(&mut *log.0.lock().expect("no panic")));
    let secrets = client.dangerous_extract_secrets().expect("it is enabled");
    let start = Start {
        role: Role::Client,
        secrets: Box::new(secrets),
        traffic,
        received: Vec::new(),
        keeper,
    };
    (Layer::new(start).expect("a known suite").0, server)
}

fn client(suite: SupportedCipherSuite, log: &Arc<Log>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_slice(include_bytes!("../../../certs/ca.pem"));
    roots.add(authority.expect("PEM")).expect("a root");
    let mut config = ClientConfig::builder_with_provider(provider(suite))
        .with_protocol_versions(&[suite.version()])
        .expect("a suite of this version")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.enable_secret_extraction = true;
    config.key_log = Arc::clone(log) as _;
    config
}

fn server(suite: SupportedCipherSuite) -> ServerConfig {
    let chain = CertificateDer::pem_slice_iter(include_bytes!("../../../certs/server.pem"));
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("../../../certs/server-key.pem"));
    let mut config = ServerConfig::builder_with_provider(provider(suite))
        .with_protocol_versions(&[suite.version()])
        .expect("a suite of this version")
        .with_no_client_auth()
        .with_single_cert(
            chain.map(|it| it.expect("PEM")).collect(),
            key.expect("PEM"),
        )
        .expect("a pair");
    config.ticketer = Ticketer::new().expect("random bytes");
    config
}

fn provider(suite: SupportedCipherSuite) -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![suite],
        ..aws_lc_rs::default_provider()
    })
}

#[derive(Debug, Default)]
struct Log(Mutex<TrafficSecrets>);

impl KeyLog for Log {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        let mut secrets = self.0.lock().expect("no panic");
        match label {
            "CLIENT_TRAFFIC_SECRET_0" => secrets.client = Secret::new(secret.into()),
            "SERVER_TRAFFIC_SECRET_0" => secrets.server = Secret::new(secret.into()),
            _ => {}
        }
    }
}

impl std::fmt::Debug for TrafficSecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TrafficSecrets")
    }
}

fn suites_of_rustls() -> [SupportedCipherSuite; 6] {
    use aws_lc_rs::cipher_suite::*;
    [
        TLS13_AES_128_GCM_SHA256,
        TLS13_AES_256_GCM_SHA384,
        TLS13_CHACHA20_POLY1305_SHA256,
        TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ]
}

fn suites_of_tls13() -> impl Iterator<Item = SupportedCipherSuite> {
    suites_of_rustls().into_iter().take(3)
}

/// Opens bytes one at a time. Returns the payload, what comes after it, and the answers.
fn open_by_byte(layer: &mut Layer, bytes: &[u8]) -> (Vec<u8>, Then, Vec<u8>) {
    let (mut held, mut payload, mut answers) = (Vec::new(), Vec::new(), Vec::new());
    let mut then = Then::More;
    for byte in bytes {
        held.push(*byte);
        let (opened, length) = layer.open_plain(&mut held, &mut answers);
        payload.extend(&held[..length]);
        held.drain(..opened.rest);
        then = opened.then;
        if then != Then::More {
            break;
        }
    }
    (payload, then, answers)
}

fn say(layer: &mut Layer, words: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    layer.seal_copy(words, &mut out).expect("a fresh key");
    out
}

#[test]
fn rustls_and_a_client_that_took_over_understand_each_other() {
    for suite in suites_of_rustls() {
        let (mut layer, mut server) = handshake(suite, None);
        // First come tickets that are not waited for.
        let (payload, then, answers) = open_by_byte(&mut layer, &server.sent());
        assert_eq!((payload, then, answers), (vec![], Then::More, vec![]));
        for length in [1, 1_000, 40_000] {
            let words = bytes(length);
            let up = say(&mut layer, &words);
            assert_eq!(server.hear(&up), Ok(words.clone()), "{suite:?}");
            let (payload, then, _) = open_by_byte(&mut layer, &server.say(&words));
            assert!(payload == words && then == Then::More, "{suite:?}");
        }
        let mut end = Vec::new();
        layer.close_notify(&mut end);
        assert_eq!(server.hear(&end), Ok(vec![]));
        server.0.send_close_notify();
        let (_, then, answers) = open_by_byte(&mut layer, &server.sent());
        assert_eq!((then, answers), (Then::End, vec![]), "{suite:?}");
    }
}

#[test]
fn keys_change_both_ways_between_rustls_and_a_client_that_took_over() {
    for suite in suites_of_tls13() {
        let (mut layer, mut server) = handshake(suite, None);
        for _ in 0..5 {
            server.0.refresh_traffic_keys().expect("TLS 1.3");
            let (payload, then, answers) = open_by_byte(&mut layer, &server.say(b"word"));
            assert_eq!(
                (&payload[..], then),
                (&b"word"[..], Then::More),
                "{suite:?}"
            );
            // The server asks for new keys of ours, and gets them.
            assert_eq!(server.hear(&answers), Ok(vec![]), "{suite:?}");
            layer.all_was_sent();
            let up = say(&mut layer, b"answer");
            assert_eq!(server.hear(&up), Ok(b"answer".to_vec()), "{suite:?}");
        }
        layer.set_limit(40);
        let mut out = Vec::new();
        for turn in 0..200 {
            out.extend(say(&mut layer, &[turn]));
            let heard = server.hear(&std::mem::take(&mut out));
            assert_eq!(heard, Ok(vec![turn]), "{suite:?}");
            layer.all_was_sent();
            assert!(layer.sequences().1 <= 40, "{suite:?}");
            let answers = open_by_byte(&mut layer, &server.say(&[turn])).2;
            server.hear(&answers).expect("answers");
            assert!(layer.sequences().0 <= 42, "{suite:?}");
        }
    }
}

#[test]
fn the_tickets_of_rustls_are_kept() {
    for suite in suites_of_tls13() {
        let kept = Kept::default();
        let (mut layer, mut server) = handshake(suite, Some(Box::new(kept.clone())));
        let mut sent = server.sent();
        let (opened, _) = layer.open_plain(&mut sent, &mut Vec::new());
        assert_eq!((opened.then, opened.rest), (Then::More, sent.len()));
        assert_eq!(kept.take().len(), 2, "{suite:?}");
        assert!(kept.is_given_up(), "{suite:?}");
    }
}
