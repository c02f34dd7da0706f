//! Which keys of a connection are in the memory of the process while it is open, and after its end.

mod common;

use std::fs::{self, File};
use std::io::{self, BufRead};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use common::client::{self, Front};
use common::site::{Kind, Site, certificates, server};
use common::vestibule::{Relay, Vestibule};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ConnectionTrafficSecrets, KeyLog, SupportedProtocolVersion};

#[derive(Clone)]
struct Secret {
    name: String,
    /// Whether it is a traffic secret and not a key.
    is_secret: bool,
    bytes: Vec<u8>,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

/// The logged secrets from which the first keys are derived (RFC 8446 §7.1).
#[derive(Debug, Default)]
struct Log(Mutex<Vec<Secret>>);

impl Log {
    /// The logged secrets together with these keys.
    fn with(&self, keys: [Secret; 2]) -> Vec<Secret> {
        let mut secrets = self.0.lock().expect("no panic").clone();
        secrets.extend(keys);
        secrets
    }
}

impl KeyLog for Log {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        if label.ends_with("_TRAFFIC_SECRET_0") {
            self.0.lock().expect("no panic").push(Secret {
                name: label.to_owned(),
                is_secret: true,
                bytes: secret.to_owned(),
            });
        }
    }
}

/// The copies that rustls leaves: each TLS 1.3 secret, or the keys of TLS 1.2, once in freed memory
/// that the next handshakes overwrite.
const OF_RUSTLS: usize = 1;

#[tokio::test]
async fn keys_exist_only_where_they_are_used_and_are_wiped_at_the_end() {
    for relay in [Relay::Auto, Relay::Stream] {
        for version in [&TLS12, &TLS13] {
            let vestibule = start(relay).await;
            let (socket, secrets) = connect(&vestibule, version, 0).await;
            ensure_used(&vestibule, version, &secrets);
            drop(socket);
            vestibule.ended("client_truncated", 1).await;
            ensure_gone(&vestibule, version, &secrets);
        }
    }
}

#[tokio::test]
async fn backend_keys_exist_only_where_they_are_used_and_are_wiped_at_the_end() {
    for relay in [Relay::Auto, Relay::Stream] {
        for version in [&TLS12, &TLS13] {
            let (log, directory) = (Arc::new(Log::default()), certificates());
            let mut config = server(directory.path(), "api", &[version]);
            config.key_log = Arc::<Log>::clone(&log);
            config.enable_secret_extraction = true;
            let site = Site::start(directory, relay, Kind::Tcp, config, "").await;
            let [.., clear, _] = site.doors();
            let (mut client, mut backend) = site.pair(&clear).await;
            client.write_all(b"words").await.expect("open");
            backend.read_exact(&mut [0; 5]).await.expect("words");
            backend.write_all(b"words").await.expect("open");
            client.read_exact(&mut [0; 5]).await.expect("words");
            let (socket, connection) = backend.into_inner();
            let extracted = connection.dangerous_extract_secrets().expect("keys");
            let secrets = log.with([
                key("the client's key", &extracted.rx.1),
                key("the server's key", &extracted.tx.1),
            ]);
            ensure_used(&site.vestibule, version, &secrets);
            drop(socket);
            site.vestibule.ended("backend_reset", 1).await;
            ensure_gone(&site.vestibule, version, &secrets);
        }
    }
}

/// Checks an open connection.
fn ensure_used(
    vestibule: &Vestibule,
    version: &'static SupportedProtocolVersion,
    secrets: &[Secret],
) {
    for (what, count) in count(vestibule, secrets) {
        // In TLS 1.2 a key cannot be derived again, so a second copy of it is kept.
        let most = match (what.is_secret, version.version == TLS13.version) {
            (true, _) => 1 + OF_RUSTLS,
            (false, true) => 1,
            (false, false) => 2 + OF_RUSTLS,
        };
        assert!((1..=most).contains(&count), "{what:?}: {count}");
    }
}

/// Checks a connection that has ended.
fn ensure_gone(
    vestibule: &Vestibule,
    version: &'static SupportedProtocolVersion,
    secrets: &[Secret],
) {
    for (what, count) in count(vestibule, secrets) {
        let most = match what.is_secret || version.version != TLS13.version {
            true => OF_RUSTLS,
            false => 0,
        };
        assert!(count <= most, "{what:?}: {count}, when all has ended");
    }
}

#[tokio::test]
async fn replaced_keys_are_wiped() {
    let vestibule = start(Relay::Auto).await;
    let (socket, secrets) = connect(&vestibule, &TLS13, 1).await;
    let traffic = |(what, _): &&(Secret, usize)| what.is_secret;
    for (what, count) in count(&vestibule, &secrets).iter().filter(traffic) {
        assert!(*count <= OF_RUSTLS, "{what:?}: {count}");
    }
    drop(socket);
}

async fn start(relay: Relay) -> Vestibule {
    let app = "[[backend]]\nname = \"app\"\nto = \"echo\"\n";
    Vestibule::start(&format!("{}{app}", relay.config())).await
}

/// An open connection with traffic in both directions and this many key updates. Returns its first
/// secrets and last keys.
async fn connect(
    vestibule: &Vestibule,
    version: &'static SupportedProtocolVersion,
    changes: usize,
) -> (client::Socket, Vec<Secret>) {
    let log = Arc::new(Log::default());
    let mut config = (*client::config(&[version])).clone();
    config.key_log = Arc::<Log>::clone(&log);
    config.enable_secret_extraction = true;
    let socket = Front::Tcp(vestibule.tcp())
        .socket()
        .await
        .expect("a listener");
    let connector = TlsConnector::from(Arc::new(config));
    let name = "localhost".try_into().expect("a name");
    let mut client = connector.connect(name, socket).await.expect("a handshake");
    for change in 0..=changes {
        if change > 0 {
            let connection = client.get_mut().1;
            connection.refresh_traffic_keys().expect("TLS 1.3");
        }
        client.write_all(b"words").await.expect("open");
        client.read_exact(&mut [0; 5]).await.expect("an echo");
    }
    let (socket, connection) = client.into_inner();
    let extracted = connection.dangerous_extract_secrets().expect("keys");
    let secrets = log.with([
        key("the client's key", &extracted.tx.1),
        key("the server's key", &extracted.rx.1),
    ]);
    (socket, secrets)
}

fn key(name: &str, secrets: &ConnectionTrafficSecrets) -> Secret {
    let (ConnectionTrafficSecrets::Aes128Gcm { key, .. }
    | ConnectionTrafficSecrets::Aes256Gcm { key, .. }
    | ConnectionTrafficSecrets::Chacha20Poly1305 { key, .. }) = secrets
    else {
        panic!("another suite");
    };
    Secret {
        name: name.to_owned(),
        is_secret: false,
        bytes: key.as_ref().to_vec(),
    }
}

/// How often each of them is in the writable memory of the process.
fn count(vestibule: &Vestibule, secrets: &[Secret]) -> Vec<(Secret, usize)> {
    let pid = vestibule.pid();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("our own child");
    let memory = File::open(format!("/proc/{pid}/mem")).expect("our own child");
    let mut counts: Vec<_> = secrets.iter().map(|it| (it.clone(), 0)).collect();
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (range, _) = line.split_once(' ').expect("a range");
        let (from, to) = range.split_once('-').expect("a range");
        let [from, to] = [from, to].map(|at| u64::from_str_radix(at, 16).expect("a number"));
        let region = read(&memory, from, to).expect("memory");
        for (secret, count) in &mut counts {
            *count += occurrences(&region, &secret.bytes);
        }
    }
    counts
}

fn read(memory: &File, from: u64, to: u64) -> io::Result<Vec<u8>> {
    let mut region = vec![0; (to - from) as usize];
    let mut read = 0;
    while read < region.len() {
        match memory.read_at(&mut region[read..], from + read as u64) {
            Ok(0) => break,
            Ok(count) => read += count,
            // Pages that are reserved and not mapped.
            Err(error) if error.raw_os_error() == Some(5) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(region)
}

fn occurrences(region: &[u8], secret: &[u8]) -> usize {
    let (first, others) = secret.split_first().expect("a secret");
    let (mut rest, mut count) = (region, 0);
    while rest.skip_until(*first).expect("memory") > 0 {
        count += usize::from(rest.starts_with(others));
    }
    count
}
