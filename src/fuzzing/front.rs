//! Any bytes, in any pieces, at a TLS listener, with both engines.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, duplex, split};
use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, Error, RootCertStore};

use super::pieces;
use crate::deadline::Deadline;
use crate::facts::TlsFacts;
use crate::tls::certs::Certificate;
use crate::tls::tickets::TicketSecret;
use crate::tls::{AcceptorSettings, Alpn, Engine, HandshakeError, Hello, TlsAcceptor};

/// Performs a handshake with a client that the input describes, once with each engine.
///
/// The bits of the first byte select the behaviours below. The rest is split by [`pieces`]. For a
/// genuine client, the rest has three bytes for each byte of the client's stream to change: its offset,
/// and the value to XOR it with.
///
/// # Panics
///
/// The listener does not keep a promise, or the engines disagree.
pub fn front(data: &[u8]) {
    let (&behaviour, rest) = data.split_first().unwrap_or((&0, &[]));
    let [record, stream] = [&RECORD, &STREAM].map(|acceptor| {
        let acceptor = acceptor.with(TlsAcceptor::clone);
        RUNTIME.with(|runtime| runtime.block_on(perform(acceptor, behaviour, rest)))
    });
    if behaviour & GENUINE != 0 && !rest.is_empty() {
        // If a changed length makes random bytes part of a field, the details depend on chance.
        assert_eq!(record.ended.is_ok(), stream.ended.is_ok());
    } else {
        agree(&record, &stream);
    }
}

/// The results that must not depend on the engine.
struct HandshakeResult {
    /// The result of the handshake at the listener.
    ended: Result<TlsFacts, HandshakeError<(), ()>>,
    /// The error of a genuine client.
    failure: Option<Error>,
    /// The type of each record of the answer, with its content if it is a plaintext alert.
    answer: Vec<(u8, Option<[u8; 2]>)>,
}

fn agree(record: &HandshakeResult, stream: &HandshakeResult) {
    use HandshakeError::{Failed, Gone, TimedOut};
    if let (Err(Failed(..)), Err(Gone | TimedOut)) = (&record.ended, &stream.ended) {
        // The stream engine processes data that arrives with a ClientHello only together with the data
        // after it.
        assert!(record.answer.starts_with(&stream.answer));
        return;
    }
    let ended = |result: &HandshakeResult| format!("{:?}", result.ended);
    assert_eq!(ended(record), ended(stream));
    assert_eq!(record.answer, stream.answer);
    assert_eq!(record.failure, stream.failure);
}

/// The client sends nothing more, and does not close.
const SILENT: u8 = 1;
/// No route admits the client.
const REFUSED: u8 = 2;
/// The client sends its bytes over and over.
const REPEATED: u8 = 4;
/// The client is a real TLS client, and some bytes of its stream are changed.
const GENUINE: u8 = 8;
/// The genuine client supports TLS 1.2 at most.
const OLD: u8 = 16;

async fn perform(acceptor: TlsAcceptor, behaviour: u8, rest: &[u8]) -> HandshakeResult {
    let is = |bit| behaviour & bit != 0;
    let (ours, theirs) = duplex(PIPE);
    let (mut from_us, to_us) = split(theirs);
    let server = async {
        let admit = |_: &Hello<'_>| if is(REFUSED) { Err(()) } else { Ok(None) };
        let accepted = acceptor.accept(ours, Deadline::after(BUDGET), admit).await;
        // The stream of a successful handshake is dropped here.
        accepted
            .map(|secured| secured.facts)
            .map_err(|error| match error {
                HandshakeError::NotTls(_) => HandshakeError::NotTls(()),
                HandshakeError::Failed(cause, _) => HandshakeError::Failed(cause, ()),
                HandshakeError::Refused(reason, _) => HandshakeError::Refused(reason, ()),
                HandshakeError::Gone => HandshakeError::Gone,
                HandshakeError::TimedOut => HandshakeError::TimedOut,
            })
    };
    let client = async {
        if is(GENUINE) {
            return converse(behaviour, rest, from_us, to_us).await;
        }
        let (pieces, mut answer) = (pieces(rest), Vec::new());
        let (sent, read) = tokio::join!(
            send(behaviour, &pieces, to_us),
            from_us.read_to_end(&mut answer)
        );
        read.expect("a pipe in memory");
        (sent, answer, None)
    };
    let meeting = async { tokio::join!(server, client) };
    // The clock moves only while all tasks wait.
    let (ended, (sent, answer, failure)) = Deadline::after(2 * BUDGET)
        .bound(meeting)
        .await
        .expect("the front keeps to its deadline");

    assert!(sent.bytes <= MOST_TAKEN + PIPE, "too much taken: {sent:?}");
    let records = records(&answer);
    match &ended {
        _ if is(GENUINE) && !is(REFUSED) && rest.is_empty() => assert!(ended.is_ok(), "{ended:?}"),
        Ok(_) => assert!(is(GENUINE) && !is(REFUSED), "a handshake with nobody"),
        Err(HandshakeError::NotTls(())) => {
            assert!(matches!(records[..], [] | [(ALERT, _)]), "{answer:?}");
        }
        Err(HandshakeError::Refused((), ())) => {
            assert!(is(REFUSED));
            assert!(matches!(records[..], [(ALERT, [2, 49])]), "{answer:?}");
        }
        // An alert is not answered.
        Err(HandshakeError::Failed(..)) => {}
        Err(HandshakeError::TimedOut) => assert!(is(SILENT) || is(GENUINE)),
        Err(HandshakeError::Gone) => assert!(sent.closed, "it is still there"),
    }
    let answer = records
        .into_iter()
        .map(|(kind, content)| (kind, content.try_into().ok().filter(|_| kind == ALERT)));
    HandshakeResult {
        ended,
        failure,
        answer: answer.collect(),
    }
}

/// How much the client could send before the listener stopped reading.
#[derive(Debug, Default)]
struct Sent {
    bytes: usize,
    /// Whether it sent everything and then closed.
    closed: bool,
}

async fn send(behaviour: u8, pieces: &[&[u8]], mut to_us: impl AsyncWrite + Unpin) -> Sent {
    let length: usize = pieces.iter().map(|piece| piece.len()).sum();
    let rounds = match behaviour & REPEATED {
        0 => 1,
        _ => (2 * MOST_TAKEN).checked_div(length).unwrap_or(0),
    };
    let mut sent = Sent::default();
    for piece in std::iter::repeat_n(pieces, rounds).flatten() {
        if to_us.write_all(piece).await.is_err() {
            return sent;
        }
        sent.bytes += piece.len();
        yield_now().await;
    }
    sent.closed = close(behaviour, &mut to_us).await;
    sent
}

/// Whether the client closes.
async fn close(behaviour: u8, to_us: &mut (impl AsyncWrite + Unpin)) -> bool {
    behaviour & SILENT == 0 && to_us.shutdown().await.is_ok()
}

/// As [`send`], with a genuine client. Also returns the answer, and the client's error.
async fn converse(
    behaviour: u8,
    changes: &[u8],
    mut from_us: impl AsyncRead + Unpin,
    mut to_us: impl AsyncWrite + Unpin,
) -> (Sent, Vec<u8>, Option<Error>) {
    let mut client = client(behaviour);
    let (mut sent, mut answer, mut failure) = (Sent::default(), Vec::new(), None);
    loop {
        let mut flight = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut flight).expect("a Vec takes all");
        }
        disturb(&mut flight, sent.bytes, changes);
        if to_us.write_all(&flight).await.is_err() {
            break;
        }
        sent.bytes += flight.len();
        if failure.is_some() {
            sent.closed = close(behaviour, &mut to_us).await;
            break;
        }
        let mut chunk = [0; 4096];
        let length = from_us.read(&mut chunk).await.expect("a pipe in memory");
        if length == 0 {
            break;
        }
        answer.extend_from_slice(&chunk[..length]);
        failure = understand(&mut client, &chunk[..length]).err();
    }
    let read = from_us.read_to_end(&mut answer).await;
    read.expect("a pipe in memory");
    (sent, answer, failure)
}

fn understand(client: &mut ClientConnection, mut received: &[u8]) -> Result<(), Error> {
    while !received.is_empty() {
        let read = client.read_tls(&mut received);
        read.map_err(|error| Error::General(error.to_string()))?;
        client.process_new_packets()?;
    }
    Ok(())
}

/// Applies the changes to the bytes that start at `offset` of the stream.
fn disturb(flight: &mut [u8], offset: usize, changes: &[u8]) {
    for change in changes.chunks_exact(3) {
        let place = usize::from(u16::from_be_bytes([change[0], change[1]]));
        let inside = place.checked_sub(offset);
        if let Some(byte) = inside.and_then(|inside| flight.get_mut(inside)) {
            *byte ^= change[2];
        }
    }
}

fn client(behaviour: u8) -> ClientConnection {
    let versions = if behaviour & OLD == 0 { &TLS13 } else { &TLS12 };
    let mut roots = RootCertStore::empty();
    let mut root = &include_bytes!("../../certs/ca.pem")[..];
    roots.add_parsable_certificates(rustls_pemfile::certs(&mut root).filter_map(Result::ok));
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[versions])
        .expect("the provider speaks both")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    ClientConnection::new(Arc::new(config), name).expect("a client")
}

/// The records that were sent to a client (RFC 8446 §5.1), each with its type.
fn records(mut answer: &[u8]) -> Vec<(u8, &[u8])> {
    let mut records = Vec::new();
    while let [kind, 3, 0..=4, high, low, rest @ ..] = answer {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        assert!((1..=LARGEST_RECORD).contains(&length), "{answer:?}");
        let (content, behind) = rest.split_at_checked(length).expect("a whole record");
        assert!((CHANGE_CIPHER_SPEC..=APPLICATION_DATA).contains(kind));
        records.push((*kind, content));
        answer = behind;
    }
    assert!(answer.is_empty(), "no TLS: {answer:?}");
    let first = records.first().map(|(kind, _)| *kind);
    assert!(matches!(first, None | Some(ALERT | HANDSHAKE)), "{first:?}");
    records
}

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

/// Includes what encryption may add (RFC 5246 §6.2.3).
const LARGEST_RECORD: usize = (1 << 14) + 2048;

/// In virtual time.
const BUDGET: Duration = Duration::from_secs(10);

/// The capacity of a pipe in each direction.
const PIPE: usize = 4096;

/// A handshake message has at most 64 KiB, and a client without a certificate sends three of them.
const MOST_TAKEN: usize = 256 * 1024;

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without descriptors");

    static RECORD: TlsAcceptor = acceptor(Engine::Record);
    static STREAM: TlsAcceptor = acceptor(Engine::Stream);
}

fn acceptor(engine: Engine) -> TlsAcceptor {
    let certificate = Certificate::for_development().expect("it is tested");
    let settings = AcceptorSettings {
        alpn: Alpn::Offered(vec!["h2".into(), "http/1.1".into()]),
        engine,
        ..AcceptorSettings::with(certificate)
    };
    let secret = TicketSecret::new(&[7; 32]).expect("it is long enough");
    TlsAcceptor::new(&settings, &secret).expect("the development certificate and its key")
}
