//! Which sessions are resumed where, and that the client is verified again at each resumption.

mod common;

use std::io;
use std::sync::{Arc, Mutex};

use common::client::config_for;
use common::pki::{Authority, Issued, Subject, replace};
use common::vestibule::{RELAYS, Relay, Vestibule, complete};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::ResolvesClientCert;
use tokio_rustls::rustls::crypto::aws_lc_rs::sign::any_supported_type;
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, SignatureScheme, SupportedProtocolVersion};

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// Servers of one site with the same certificate, authority and secret.
struct Site {
    directory: Arc<TempDir>,
    authority: Authority,
    server: Issued,
}

impl Site {
    fn new() -> Self {
        let authority = Authority::root("everybody");
        let site = Self {
            directory: Arc::new(tempfile::tempdir().expect("a directory")),
            server: authority.issue(&Subject::host(&["localhost"])),
            authority,
        };
        site.equip(&site.directory);
        site
    }

    fn equip(&self, directory: &TempDir) {
        let path = |name: &str| directory.path().join(name);
        self.server.write(directory.path(), "server");
        replace(&path("ca.pem"), &self.authority.pem());
        replace(&path("revoked.pem"), &self.authority.revocations(&[]));
        replace(
            &path("secret"),
            "the same 32 random bytes or more for all of a fleet",
        );
    }

    async fn start(&self, relay: Relay, listener: &str) -> Vestibule {
        let text = config(relay, listener);
        Vestibule::start_whole(Arc::clone(&self.directory), &text).await
    }

    /// Another server of the site, in a directory of its own.
    async fn start_another(&self, relay: Relay, listener: &str) -> Vestibule {
        let directory = Arc::new(tempfile::tempdir().expect("a directory"));
        self.equip(&directory);
        Vestibule::start_whole(directory, &config(relay, listener)).await
    }

    /// A client with a session store.
    fn client(
        &self,
        version: &'static SupportedProtocolVersion,
        certificate: Option<&Issued>,
    ) -> Arc<ClientConfig> {
        let authority = self.authority.pem();
        Arc::new(config_for(&[version], &authority, certificate))
    }

    fn client_that_shows(
        &self,
        version: &'static SupportedProtocolVersion,
        shown: &Arc<Shown>,
    ) -> Arc<ClientConfig> {
        let mut config = config_for(&[version], &self.authority.pem(), None);
        config.client_auth_cert_resolver = Arc::<Shown>::clone(shown);
        Arc::new(config)
    }
}

/// A client's certificate, which may change while its sessions stay.
#[derive(Debug)]
struct Shown(Mutex<Arc<CertifiedKey>>);

impl Shown {
    fn new(issued: &Issued) -> Self {
        Self(Mutex::new(Self::key(issued)))
    }

    fn change(&self, issued: &Issued) {
        *self.0.lock().expect("no panic") = Self::key(issued);
    }

    fn key(issued: &Issued) -> Arc<CertifiedKey> {
        let chain: Result<_, _> = rustls_pemfile::certs(&mut issued.chain.as_bytes()).collect();
        let key = rustls_pemfile::private_key(&mut issued.key.as_bytes());
        let key = any_supported_type(&key.expect("PEM").expect("a key"));
        Arc::new(CertifiedKey::new(chain.expect("PEM"), key.expect("a key")))
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.lock().expect("no panic")))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn config(relay: Relay, listener: &str) -> String {
    format!("{}{LISTENER}{listener}{HELLO}", relay.config())
}

const LISTENER: &str = r#"
[[listener]]
name = "tcp"
address = "tcp:127.0.0.1:0"
[listener.tls]
certificates = [ { chain = "{dir}/server.pem", key = "{dir}/server-key.pem" } ]
"#;

const HELLO: &str = "
[[backend]]
name = \"hello\"
to = \"hello\"
";

const ROTATE: &str = "tickets = \"rotate\"\n";
const FLEET: &str = "tickets = { secret_file = \"{dir}/secret\" }\n";
const NONE: &str = "tickets = \"none\"\n";

/// Client certificates are required.
const MUTUAL: &str = "client_auth = \"required\"
client_ca = \"{dir}/ca.pem\"
crl = \"{dir}/revoked.pem\"
";

/// The facts of one visit, or the error of the client.
async fn visit(vestibule: &Vestibule, config: &Arc<ClientConfig>) -> io::Result<Value> {
    visit_at(&vestibule.tcp(), config).await
}

async fn visit_at(address: &str, config: &Arc<ClientConfig>) -> io::Result<Value> {
    let socket = TcpStream::connect(address).await?;
    let name = "localhost".try_into().expect("a name");
    let connector = TlsConnector::from(Arc::clone(config));
    let mut client = connector.connect(name, socket).await?;
    client
        .write_all(b"GET / HTTP/1.0\r\nAccept: application/json\r\n\r\n")
        .await?;
    let mut answer = String::new();
    client.read_to_string(&mut answer).await?;
    let (_, body) = answer.split_once("\r\n\r\n").expect("an answer");
    Ok(serde_json::from_str(body).expect("JSON"))
}

async fn resumes(vestibule: &Vestibule, config: &Arc<ClientConfig>) -> bool {
    let facts = visit(vestibule, config).await.expect("a visit");
    facts["tls"]["resumed"].as_bool().expect("a fact")
}

async fn reload(vestibule: &Vestibule, times: usize) {
    vestibule.signal(Signal::HUP);
    vestibule.said("reloaded", times).await;
}

#[tokio::test]
async fn a_session_is_resumed_wherever_its_ticket_is_valid() {
    for relay in RELAYS {
        for (tickets, again, elsewhere) in [
            (ROTATE, true, false),
            (FLEET, true, true),
            (NONE, false, false),
        ] {
            for version in VERSIONS {
                let site = Site::new();
                let client = site.client(version, None);
                let what = format!("{relay:?} {version:?} {tickets}");
                let first = site.start(relay, tickets).await;
                assert!(!resumes(&first, &client).await, "{what}: the first");
                assert_eq!(resumes(&first, &client).await, again, "{what}: again");
                reload(&first, 1).await;
                assert_eq!(resumes(&first, &client).await, again, "{what}: reloaded");

                let other = site.start_another(relay, tickets).await;
                assert_eq!(resumes(&other, &client).await, elsewhere, "{what}: fleet");
                let client = site.client(version, None);
                assert!(!resumes(&first, &client).await, "{what}: a new client");
                assert_eq!(first.terminate().await, Some(0));
                let restarted = site.start(relay, tickets).await;
                let is_resumed = resumes(&restarted, &client).await;
                assert_eq!(is_resumed, elsewhere, "{what}: restarted");
            }
        }
    }
}

#[tokio::test]
async fn a_resumed_client_keeps_its_identity() {
    let site = Site::new();
    let alice = site.authority.issue(&Subject::named("alice"));
    for relay in RELAYS {
        let vestibule = site.start(relay, MUTUAL).await;
        for version in VERSIONS {
            let client = site.client(version, Some(&alice));
            let first = visit(&vestibule, &client).await.expect("a visit");
            let second = visit(&vestibule, &client).await.expect("a visit");
            assert_eq!(first["tls"]["resumed"], false);
            assert_eq!(second["tls"]["resumed"], true);
            assert_eq!(second["identity"]["cn"], "alice");
            assert_eq!(first["identity"], second["identity"]);
        }
        assert_eq!(vestibule.terminate().await, Some(0));
    }
}

#[tokio::test]
async fn the_ticket_of_a_revoked_client_is_not_accepted() {
    let optional = &MUTUAL.replace("required", "optional");
    for (relay, tickets, mutual) in [
        (Relay::Auto, ROTATE, MUTUAL),
        (Relay::Auto, FLEET, MUTUAL),
        (Relay::Auto, ROTATE, optional),
        (Relay::Stream, ROTATE, MUTUAL),
    ] {
        for version in VERSIONS {
            let site = Site::new();
            let alice = site.authority.issue(&Subject::named("alice"));
            let client = site.client(version, Some(&alice));
            let vestibule = site.start(relay, &format!("{mutual}{tickets}")).await;
            assert!(!resumes(&vestibule, &client).await);
            assert!(resumes(&vestibule, &client).await);
            let list = site.authority.revocations(&[alice.serial]);
            replace(&site.directory.path().join("revoked.pem"), &list);
            vestibule.said("reloaded", 1).await;
            let error = visit(&vestibule, &client).await.expect_err("revoked");
            assert!(error.to_string().contains("CertificateRevoked"), "{error}");
            vestibule.ended("handshake_failed", 1).await;
        }
    }
}

/// As with certificates that are renewed every hour: the state of the old certificate says nothing
/// about the one that the client would present now.
#[tokio::test]
async fn a_new_certificate_is_accepted_whatever_the_state_of_the_old_one_in_the_ticket() {
    for relay in RELAYS {
        for version in VERSIONS {
            let site = Site::new();
            let alice = |ou| Subject {
                ou,
                ..Subject::named("alice")
            };
            let old = site.authority.issue(&alice(&["old"]));
            let new = site.authority.issue(&alice(&["new"]));
            let shown = Arc::new(Shown::new(&old));
            let client = site.client_that_shows(version, &shown);
            let vestibule = site.start(relay, MUTUAL).await;
            assert!(!resumes(&vestibule, &client).await);
            assert!(resumes(&vestibule, &client).await);
            let list = site.authority.revocations(&[old.serial]);
            replace(&site.directory.path().join("revoked.pem"), &list);
            vestibule.said("reloaded", 1).await;

            shown.change(&new);
            let what = format!("{relay:?} {version:?}");
            let facts = visit(&vestibule, &client).await.expect("a visit");
            assert_eq!(facts["tls"]["resumed"], false, "{what}");
            assert_eq!(facts["identity"]["ou"][0], "new", "{what}");
            assert!(resumes(&vestibule, &client).await, "{what}");
        }
    }
}

#[tokio::test]
async fn a_ticket_from_a_listener_with_other_authorities_causes_a_full_handshake() {
    for relay in RELAYS {
        for version in VERSIONS {
            let site = Site::new();
            let alice = site.authority.issue(&Subject::named("alice"));
            let shown = Arc::new(Shown::new(&alice));
            let client = site.client_that_shows(version, &shown);
            let others = Authority::root("others");
            replace(&site.directory.path().join("others.pem"), &others.pem());
            let other = LISTENER.replace("\"tcp\"", "\"other\"");
            let other = format!("{other}{}", MUTUAL.replace("/ca.pem", "/others.pem"));
            let other = other.replace("crl = \"{dir}/revoked.pem\"\n", "");
            let vestibule = site.start(relay, &format!("{MUTUAL}{other}")).await;
            let at_other = vestibule.address("other");
            assert!(!resumes(&vestibule, &client).await);
            // The error is about the certificate that the client presents, and not about the
            // ticket.
            shown.change(&others.issue(&Subject::named("alice")));
            let facts = visit_at(&at_other, &client).await.expect("a visit");
            assert_eq!(facts["tls"]["resumed"], false, "{relay:?} {version:?}");
        }
    }
}

#[tokio::test]
async fn a_resumed_session_uses_the_current_routes() {
    let routes =
        |names: &str| format!("{MUTUAL}[[route]]\nidentity = [{names}]\nbackend = \"hello\"\n");
    for version in VERSIONS {
        let site = Site::new();
        let alice = site.authority.issue(&Subject::named("alice"));
        let client = site.client(version, Some(&alice));
        let vestibule = site
            .start(Relay::Auto, &routes("\"cn:alice\", \"cn:bob\""))
            .await;
        assert!(!resumes(&vestibule, &client).await);
        assert!(resumes(&vestibule, &client).await);
        let text = config(Relay::Auto, &routes("\"cn:bob\""));
        let file = site.directory.path().join("vestibule.toml");
        replace(&file, &complete(&site.directory, &text));
        vestibule.said("reloaded", 1).await;
        let error = visit(&vestibule, &client).await.expect_err("no route");
        assert!(error.to_string().contains("AccessDenied"), "{error}");
        vestibule.ended("no_route", 1).await;
    }
}

/// As before an authority is replaced by another: the clients remain the same.
#[tokio::test]
async fn another_authority_beside_the_old_one_costs_no_session() {
    for version in VERSIONS {
        let site = Site::new();
        let alice = site.authority.issue(&Subject::named("alice"));
        let client = site.client(version, Some(&alice));
        let vestibule = site.start(Relay::Auto, MUTUAL).await;
        assert!(!resumes(&vestibule, &client).await);
        let bundle = Authority::root("somebody else").pem() + &site.authority.pem();
        replace(&site.directory.path().join("ca.pem"), &bundle);
        vestibule.said("reloaded", 1).await;
        assert!(resumes(&vestibule, &client).await, "{version:?}");

        let other = Authority::root("somebody else").pem();
        replace(&site.directory.path().join("ca.pem"), &other);
        replace(
            &site.directory.path().join("revoked.pem"),
            &Authority::root("x").revocations(&[]),
        );
        vestibule.said("reloaded", 2).await;
        let error = visit(&vestibule, &client).await.expect_err("unknown");
        assert!(error.to_string().contains("UnknownCA"), "{error}");
    }
}

/// A session from before certificates were required has no identity, and must not bypass the
/// requirement.
#[tokio::test]
async fn a_session_from_before_certificates_were_required_is_not_resumed() {
    for version in VERSIONS {
        let site = Site::new();
        let nobody = site.client(version, None);
        let vestibule = site.start(Relay::Auto, FLEET).await;
        assert!(!resumes(&vestibule, &nobody).await);
        assert!(resumes(&vestibule, &nobody).await);
        let text = config(Relay::Auto, &format!("{MUTUAL}{FLEET}"));
        let file = site.directory.path().join("vestibule.toml");
        replace(&file, &complete(&site.directory, &text));
        vestibule.said("reloaded", 1).await;
        let error = visit(&vestibule, &nobody)
            .await
            .expect_err("no certificate");
        assert!(error.to_string().contains("CertificateRequired"), "{error}");
        vestibule.ended("handshake_failed", 1).await;
    }
}
