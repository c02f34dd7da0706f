//! Which backends client mode trusts, and what happens with backends that violate TLS.

mod backend_trust {
    mod broken;
}
mod common;

use std::io::{self, ErrorKind};
use std::sync::Arc;

use common::authority::Authority;
use common::backend::Backend;
use common::client::{Front, Socket};
use common::pki::openssl::self_signed;
use common::site::{
    Door, IN_THE_CLEAR, Kind, Site, TLS, certificates, odd_server, server, strict_server,
};
use common::soon;
use common::vestibule::{RELAYS, Vestibule, message};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ALL_VERSIONS, ServerConfig};

/// The directory of [`certificates`], with a certificate for each kind of mistake.
fn wrong_certificates() -> Arc<TempDir> {
    let directory = certificates();
    let (path, names) = (directory.path(), ["api.internal", common::site::API]);
    let authority = Authority::new(path, "foreign");
    authority.issue("unknown", &names);
    // An authority with the same name and another key.
    let authority = Authority::new(&path.join("."), "again");
    authority.issue("other", &["other.internal"]);
    authority.issue_expired("expired", &names);
    directory
}

#[tokio::test]
async fn a_backend_with_a_wrong_certificate_gets_no_connection() {
    for (certificate, ca, tls, why) in [
        ("unknown", "ca", "", "UnknownIssuer"),
        ("other", "again", "", "api.internal"),
        ("expired", "again", "", "xpired"),
        (
            "api",
            "ca",
            "allow = [\"cn:us\"]\n",
            "no rule of `tls.allow` matches uri:spiffe://corp/ns/prod/sa/api",
        ),
    ] {
        for version in [&TLS12, &TLS13] {
            let directory = wrong_certificates();
            let config = server(directory.path(), certificate, &[version]);
            let backend = Backend::tcp().await;
            let (tls, to) = (
                TLS.replace("ca.pem", &format!("{ca}.pem")) + tls,
                backend.address(),
            );
            let vestibule = start(directory, &to, &tls).await;
            let _serving = serve(backend, config);
            for _ in 0..10 {
                assert_eq!(ask(&vestibule).await, "", "{certificate}");
            }
            vestibule.ended("backend_refused", 10).await;
            assert_eq!(vestibule.outcomes().len(), 1, "{:?}", vestibule.outcomes());
            let warnings = complaints(&vestibule);
            assert!(
                warnings[0]["error"].as_str().expect("text").contains(why),
                "{warnings:#?}"
            );
            assert!(warnings.len() < 10, "one a second: {warnings:#?}");
        }
    }
}

#[tokio::test]
async fn a_backend_may_present_a_trusted_certificate_itself_if_the_name_matches() {
    for is_ca in [true, false] {
        for (name, answer) in [("api.internal", ANSWER), ("other.internal", "")] {
            let directory = certificates();
            Authority::alone(directory.path(), "itself", &[name], is_ca);
            let backend = Backend::tcp().await;
            let config = server(directory.path(), "itself", ALL_VERSIONS);
            let tls = TLS.replace("ca.pem", "itself.pem");
            let vestibule = start(directory, &backend.address(), &tls).await;
            let _serving = serve(backend, config);
            assert_eq!(ask(&vestibule).await, answer, "{name} {is_ca}");
        }
    }
}

#[tokio::test]
async fn a_backend_with_a_trusted_certificate_is_accepted_whatever_its_extensions() {
    let ec = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
    let odd = "1.2.3.4=critical,DER:0500";
    for (names, answer) in [
        ("subjectAltName=DNS:api.internal", ANSWER),
        ("subjectAltName=DNS:*.internal", ANSWER),
        ("subjectAltName=DNS:other.internal", ""),
        ("subjectAltName=DNS:*.api.internal,IP:127.0.0.1", ""),
    ] {
        for version in [&TLS12, &TLS13] {
            let directory = certificates();
            self_signed(directory.path(), "itself", &ec, &[names, odd]);
            let backend = Backend::tcp().await;
            let config = odd_server(directory.path(), "itself", &[version]);
            let tls = TLS.replace("ca.pem", "itself.pem");
            let vestibule = start(directory, &backend.address(), &tls).await;
            let _serving = serve(backend, config);
            assert_eq!(ask(&vestibule).await, answer, "{names} {version:?}");
        }
    }
}

#[tokio::test]
async fn a_server_that_is_not_allowed_gets_an_alert_and_never_our_certificate() {
    for version in [&TLS12, &TLS13] {
        for relay in RELAYS {
            let directory = certificates();
            let config = strict_server(directory.path(), "api", &[version]);
            let more = "allow = [\"cn:us\"]\n\
                certificate = { chain = \"us.pem\", key = \"us-key.pem\" }\n";
            let site = Site::start(directory, relay, Kind::Tcp, config, more).await;
            let [_, _, clear, _] = site.doors();
            let (_client, shaken) = tokio::join!(clear.enter(), site.shaken());
            let error = shaken.expect_err("a certificate that the server asked for");
            assert!(error.to_string().contains("AccessDenied"), "{error}");
            site.vestibule.ended("backend_refused", 1).await;
        }
    }
}

#[tokio::test]
async fn a_backend_that_wants_another_certificate_refuses_the_connection_and_says_so() {
    for version in [&TLS12, &TLS13] {
        for relay in RELAYS {
            // A client certificate from another authority; in TLS 1.3 it is refused after the
            // handshake.
            let certificate =
                "certificate = { chain = \"unknown.pem\", key = \"unknown-key.pem\" }\n";
            let directory = wrong_certificates();
            let config = strict_server(directory.path(), "api", &[version]);
            let site = Site::start(directory, relay, Kind::Tcp, config, certificate).await;
            for (count, door) in site.doors().iter().enumerate() {
                let (mut client, refused) = tokio::join!(door.enter(), site.shaken());
                refused.expect_err("a certificate of nobody");
                let mut answer = Vec::new();
                // A reset or a close, without an answer.
                let _ = soon("an end", client.read_to_end(&mut answer)).await;
                assert_eq!(answer, b"");
                site.vestibule.ended("backend_refused", count + 1).await;
            }
            let warnings = complaints(&site.vestibule);
            let error = warnings[0]["error"].as_str().expect("text");
            assert!(
                error.contains("backend rejected our client certificate"),
                "{error}"
            );
        }
    }
}

#[tokio::test]
async fn the_next_address_is_tried_after_an_untrusted_one() {
    let directory = wrong_certificates();
    let (wrong, right) = (Backend::tcp().await, Backend::tcp().await);
    let to = format!("{}\", \"{}", wrong.address(), right.address());
    let configs = ["unknown", "api"].map(|name| server(directory.path(), name, ALL_VERSIONS));
    let [wrong_config, right_config] = configs;
    let config = format!("{IN_THE_CLEAR}[[backend]]\nname = \"app\"\nto = [\"{to}\"]\n{TLS}");
    let vestibule = Vestibule::start_in(directory, &config).await;
    let _serving = (serve(wrong, wrong_config), serve(right, right_config));
    for _ in 0..10 {
        assert_eq!(ask(&vestibule).await, ANSWER);
    }
    vestibule.ended("done", 10).await;
    vestibule
        .event(|event| message(event) == "backend address is down")
        .await;
}

async fn sites() -> Vec<(Site, &'static str)> {
    let mut sites = Vec::new();
    for relay in RELAYS {
        for kind in [Kind::Tcp, Kind::Unix] {
            for (version, name) in [(&TLS12, "1.2"), (&TLS13, "1.3")] {
                let directory = certificates();
                let config = server(directory.path(), "api", &[version]);
                sites.push((Site::start(directory, relay, kind, config, "").await, name));
            }
        }
    }
    sites
}

const ANSWER: &str = "an answer";

/// Performs handshakes and sends an [`ANSWER`].
fn serve(backend: Backend, config: ServerConfig) -> JoinSet<()> {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    backend.serve(move |socket| {
        let acceptor = acceptor.clone();
        async move {
            if let Ok(mut stream) = acceptor.accept(socket).await {
                let _ = stream.write_all(ANSWER.as_bytes()).await;
                let _ = stream.shutdown().await;
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
        }
    })
}

async fn start(directory: Arc<TempDir>, to: &str, tls: &str) -> Vestibule {
    let config = format!("{IN_THE_CLEAR}[[backend]]\nname = \"app\"\nto = \"{to}\"\n{tls}");
    Vestibule::start_in(directory, &config).await
}

async fn listen(kind: Kind, directory: &TempDir) -> Backend {
    match kind {
        Kind::Tcp => Backend::tcp().await,
        Kind::Unix => Backend::unix(&directory.path().join("backend.sock")),
    }
}

fn door(vestibule: &Vestibule) -> Door {
    Door::Clear(Front::Unix(vestibule.path("clear.sock")))
}

/// Sends a word, ends, and returns the answer. The answer is empty if no backend serves the client.
async fn ask(vestibule: &Vestibule) -> String {
    let mut client = door(vestibule).enter().await;
    client.write_all(b"?").await.expect("open");
    client.shutdown().await.expect("open");
    let mut answer = String::new();
    match soon("an end", client.read_to_string(&mut answer)).await {
        Ok(_) => answer,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => String::new(),
        Err(error) => panic!("{error}"),
    }
}

fn complaints(vestibule: &Vestibule) -> Vec<Value> {
    let mut log = vestibule.log();
    log.retain(|event| message(event) == "TLS with a backend failed: one side refuses the other");
    assert!(log.iter().all(|event| event["level"] == "WARN"), "{log:#?}");
    log
}
