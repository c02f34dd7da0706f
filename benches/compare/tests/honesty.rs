//! A relay that changes, loses or holds back bytes causes an error and not a number.
//!
//! The relay is in the place of the proxy, without TLS: everything that it does wrong is in the
//! payload.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, id};
use std::sync::Arc;
use std::thread;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};

/// What the relay does with byte [`AT`] of one stream.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    Change,
    Lose,
    End,
    /// The same with the client's stream.
    ChangeFromClient,
    LoseFromClient,
    /// Where nothing is compared.
    LoseLate,
}

/// In a part that the backend compares in every work.
const AT: usize = 50_000;
const LATE: usize = 5_000_000;

#[test]
fn a_faithful_relay_gets_a_number() {
    for work in [
        "handshakes",
        "echo",
        "to_client",
        "from_client",
        "both_ways",
        "saturated_to_client",
        "saturated_from_client",
    ] {
        let output = load(work, Fault::None);
        let answer = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{work}: {errors}");
        assert!(answer.contains("\"proxy_cpu_ns\":"), "{work}: {answer}");
    }
}

#[test]
fn a_changed_byte_is_an_error() {
    fails_with(Fault::Change, "echo", "the echo is wrong");
    fails_with(Fault::Change, "to_client", "wrong bytes at the client");
    fails_with(Fault::Change, "both_ways", "wrong bytes at the client");
    let work = "saturated_to_client";
    fails_with(Fault::Change, work, "wrong bytes at the client");
    for work in ["from_client", "saturated_from_client"] {
        fails_with(Fault::ChangeFromClient, work, "wrong bytes at the backend");
    }
}

#[test]
fn a_lost_byte_is_an_error() {
    fails_with(Fault::Lose, "echo", "the echo is wrong");
    fails_with(Fault::Lose, "to_client", "wrong bytes at the client");
    let work = "saturated_to_client";
    fails_with(Fault::Lose, work, "wrong bytes at the client");
    fails_with(Fault::LoseLate, work, "nothing has moved");
    for work in ["from_client", "saturated_from_client"] {
        fails_with(Fault::LoseFromClient, work, "wrong bytes at the backend");
    }
}

#[test]
fn an_end_is_an_error() {
    fails_with(Fault::End, "echo", "closed a connection in use");
    fails_with(Fault::End, "to_client", "closed a connection in use");
    let work = "saturated_to_client";
    fails_with(Fault::End, work, "closed a connection in use");
}

#[test]
fn another_certificate_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let target = listener.local_addr().expect("its address").to_string();
    thread::spawn(move || {
        let config = Arc::new(tls_server());
        for mut client in listener.incoming().flatten() {
            let mut session = ServerConnection::new(Arc::clone(&config)).expect("a session");
            while session.complete_io(&mut client).is_ok() && session.is_handshaking() {}
        }
    });
    let wrong = certificates().join("client.pem");
    let output = run(
        "1.3",
        "handshakes",
        &target,
        &directory("certificate"),
        &wrong,
    );
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        errors.contains("the proxy has shown another certificate"),
        "{errors}"
    );
    assert_eq!(output.status.code(), Some(1));
}

fn tls_server() -> ServerConfig {
    let chain = CertificateDer::from_pem_file(certificates().join("server.pem"));
    let key = PrivateKeyDer::from_pem_file(certificates().join("server-key.pem"));
    ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![chain.expect("a certificate")], key.expect("a key"))
        .expect("a configuration")
}

fn fails_with(fault: Fault, work: &str, message: &str) {
    let output = load(work, fault);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        output.status.code(),
        Some(1),
        "{work} with {fault:?}: {errors}"
    );
    assert!(errors.contains(message), "{work} with {fault:?}: {errors}");
    assert!(
        output.stdout.is_empty(),
        "{work} with {fault:?} has answered"
    );
}

fn load(work: &str, fault: Fault) -> Output {
    let directory = directory(&format!("{work}-{fault:?}"));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let target = listener.local_addr().expect("its address").to_string();
    let backend = directory.join("backend.sock");
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = UnixStream::connect(&backend) else {
                return;
            };
            relay(client, server, fault);
        }
    });
    let certificate = certificates().join("server.pem");
    run("none", work, &target, &directory, &certificate)
}

fn run(tls: &str, work: &str, target: &str, directory: &Path, certificate: &Path) -> Output {
    let task = format!(
        r#"{{"work":"{work}","tls":"{tls}","target":"{target}","certificate":"{}",
            "backend":"unix:{}","pids":[{}],"connections":2,"size":4096,"measure_ms":300}}"#,
        certificate.display(),
        directory.join("backend.sock").display(),
        id(),
    );
    Command::new(env!("CARGO_BIN_EXE_load"))
        .arg(task)
        .output()
        .expect("load")
}

fn relay(client: TcpStream, server: UnixStream, fault: Fault) {
    let from_client = client.try_clone().expect("a descriptor");
    let to_server = server.try_clone().expect("a descriptor");
    let (up, down) = match fault {
        Fault::ChangeFromClient => (Fault::Change, Fault::None),
        Fault::LoseFromClient => (Fault::Lose, Fault::None),
        fault => (Fault::None, fault),
    };
    thread::spawn(move || {
        let mut to_server = to_server;
        copy(from_client, &mut to_server, up);
        let _gone = to_server.shutdown(Shutdown::Write);
    });
    thread::spawn(move || {
        let mut client = client;
        copy(server, &mut client, down);
        let _gone = client.shutdown(Shutdown::Both);
    });
}

fn copy(mut from: impl Read, to: &mut impl Write, fault: Fault) {
    let mut buffer = vec![0; 64 * 1024];
    let mut sent = 0;
    while let Ok(count) = from.read(&mut buffer)
        && count > 0
    {
        let mut bytes = buffer[..count].to_vec();
        let at = if fault == Fault::LoseLate { LATE } else { AT };
        if (sent..sent + count).contains(&at) {
            match fault {
                Fault::None | Fault::ChangeFromClient | Fault::LoseFromClient => {}
                Fault::Change => bytes[at - sent] ^= 1,
                Fault::Lose | Fault::LoseLate => drop(bytes.remove(at - sent)),
                Fault::End => break,
            }
        }
        sent += count;
        if to.write_all(&bytes).is_err() {
            return;
        }
    }
}

fn directory(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&directory).expect("a directory");
    directory
}

fn certificates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../certs")
}
