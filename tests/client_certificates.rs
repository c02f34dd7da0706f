//! Which client certificates are accepted, what refused clients are told, and what backends learn.

mod client_certificates {
    mod identity;
    mod revocation;
    mod trusted;
}
mod common;

use std::sync::Arc;

use common::pki::openssl::{issued_by, self_signed};
use common::pki::{Authority, Issued, Subject, replace};
use common::process::{Done, Process, output, s_client};
use common::soon;
use common::vestibule::{RELAYS, Relay, Vestibule, message};
use rcgen::DnValue;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

/// An authority, an intermediate, and a directory with the files of a listener.
struct World {
    directory: Arc<TempDir>,
    root: Authority,
    below: Authority,
}

impl World {
    fn new() -> Self {
        let directory = Arc::new(tempfile::tempdir().expect("a directory"));
        let root = Authority::root("clients");
        let (below, _) = root.intermediate("clients of a branch");
        let world = Self {
            directory,
            root,
            below,
        };
        replace(&world.path("clients.pem"), &world.root.pem());
        world.revoke(&[], &[]);
        world
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    /// Issues a client certificate, under the name that [`Self::say`] uses.
    fn client(&self, authority: &Authority, name: &'static str, subject: &Subject) -> Issued {
        let issued = authority.issue(subject);
        issued.write(self.directory.path(), name);
        issued
    }

    fn revoke(&self, of_root: &[u64], of_below: &[u64]) {
        let lists = self.root.revocations(of_root) + &self.below.revocations(of_below);
        replace(&self.path("revoked.pem"), &lists);
    }

    async fn start(&self, relay: Relay, client_auth: &str, rest: &str) -> Vestibule {
        let config = format!(
            "{}[[listener]]
            name = \"tcp\"
            address = \"tcp:127.0.0.1:0\"
            [listener.tls]
            certificates = [ {{ chain = \"{{certs}}/server.pem\", key = \"{{certs}}/server-key.pem\" }} ]
            client_auth = \"{client_auth}\"
            client_ca = [\"{{dir}}/clients.pem\"]
            crl = [\"{{dir}}/revoked.pem\"]
            {rest}",
            relay.config()
        );
        Vestibule::start_whole(Arc::clone(&self.directory), &config).await
    }

    /// The output of `openssl s_client` with or without a client certificate.
    async fn say(&self, vestibule: &Vestibule, client: Option<&str>, options: &[&str]) -> Done {
        let mut command = s_client(&vestibule.tcp());
        command.arg("-quiet").args(options);
        if let Some(name) = client {
            command
                .arg("-cert")
                .arg(self.path(&format!("{name}.pem")))
                .arg("-cert_chain")
                .arg(self.path(&format!("{name}.pem")))
                .arg("-key")
                .arg(self.path(&format!("{name}-key.pem")));
        }
        common::process::run(
            command,
            b"GET / HTTP/1.0\r\nAccept: application/json\r\n\r\n",
        )
        .await
    }
}

const HELLO: &str = "
    [[backend]]
    name = \"hello\"
    to = \"hello\"
";

/// The facts in the answer of the hello backend.
#[track_caller]
fn facts(done: Done) -> Value {
    let said = String::from_utf8_lossy(&done.out).into_owned();
    let (_, body) = said
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no answer: {said} {}", done.err));
    serde_json::from_str(body).expect("JSON")
}

const VERSIONS: [&str; 2] = ["-tls1_2", "-tls1_3"];

#[tokio::test]
async fn an_accepted_client_is_known_by_all_names_in_its_certificate() {
    let world = World::new();
    let subject = Subject {
        cn: Some("web"),
        ou: &["ops"],
        dns: vec!["web.corp.example".into()],
        uri: &["spiffe://corp/ns/prod/sa/web"],
        ..Subject::default()
    };
    let issued = world.client(&world.below, "web", &subject);
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &issued.der);
    let digest: String = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    for relay in RELAYS {
        let vestibule = world.start(relay, "required", HELLO).await;
        for version in VERSIONS {
            let facts = facts(world.say(&vestibule, Some("web"), &[version]).await);
            let expected = serde_json::json!({
                "uri": ["spiffe://corp/ns/prod/sa/web"],
                "dns": ["web.corp.example"],
                "cn": "web",
                "ou": ["ops"],
                "sha256": digest,
            });
            assert_eq!(facts["identity"], expected, "{version}");
        }
        assert_eq!(vestibule.terminate().await, Some(0));
    }
}

/// RFC 8446 §6.2; rustls sends certificate_required in TLS 1.2 too.
#[tokio::test]
async fn a_client_with_a_bad_certificate_gets_the_matching_alert() {
    let world = World::new();
    let stranger = Authority::root("strangers");
    world.client(&stranger, "stranger", &Subject::named("stranger"));
    let expired = Subject {
        expired: true,
        ..Subject::named("expired")
    };
    world.client(&world.root, "expired", &expired);
    let revoked = world.client(&world.root, "withdrawn", &Subject::named("withdrawn"));
    world.client(&world.root, "line-break", &Subject::named("a\nb"));
    // An authority with the same name and another key.
    let namesake = Authority::root("clients");
    world.client(&namesake, "forged", &Subject::named("forged"));
    let (lost, lost_serial) = world.root.intermediate("a branch that was closed");
    world.client(&lost, "orphan", &Subject::named("orphan"));
    // More certificates with one name than are accepted: each could be the issuer of each.
    let crowded = world.client(&world.below, "crowded", &Subject::named("crowded"));
    let crowd = format!("{}{}", crowded.chain, world.below.pem().repeat(2));
    replace(&world.path("crowded.pem"), &crowd);
    world.revoke(&[revoked.serial, lost_serial], &[]);
    let table = [
        (None, "certificate required", 116, 56),
        (Some("stranger"), "unknown ca", 48, 56),
        (Some("expired"), "certificate expired", 45, 56),
        (Some("withdrawn"), "certificate revoked", 44, 56),
        (Some("orphan"), "certificate revoked", 44, 56),
        (Some("line-break"), "bad certificate", 42, 56),
        (Some("crowded"), "unknown ca", 48, 56),
        (Some("forged"), "bad certificate", 42, 56),
    ];
    for relay in RELAYS {
        let vestibule = world.start(relay, "required", HELLO).await;
        let mut failed = 0;
        for (client, words, number, curls) in table {
            for version in VERSIONS {
                let done = world.say(&vestibule, client, &[version]).await;
                assert!(
                    done.err.contains(words),
                    "{client:?} {version}: {}",
                    done.err
                );
                let number = format!("SSL alert number {number}");
                assert!(done.err.contains(&number), "{client:?}: {}", done.err);
                assert!(done.out.is_empty(), "{client:?}");
                failed += 1;
                vestibule.ended("handshake_failed", failed).await;
            }
            let done = curl(&world, &vestibule, client).await;
            assert_eq!(done.code, Some(curls), "{client:?}: {}", done.err);
            failed += 1;
            vestibule.ended("handshake_failed", failed).await;
        }
        assert_eq!(vestibule.outcomes().len(), 1, "{:?}", vestibule.outcomes());
        assert_eq!(vestibule.terminate().await, Some(0));
    }
}

/// If only some authorities were named, clients of the others would not send their certificates.
#[tokio::test]
async fn authorities_are_named_up_to_16_kib_and_not_at_all_beyond_that() {
    let world = World::new();
    let asked = async |bundle: &str| {
        replace(&world.path("clients.pem"), bundle);
        let vestibule = world.start(Relay::Auto, "optional", HELLO).await;
        let mut said = Vec::new();
        for version in VERSIONS {
            let mut command = s_client(&vestibule.tcp());
            command.arg(version);
            let done = output(command).await;
            said.push(String::from_utf8_lossy(&done.out).into_owned());
        }
        assert_eq!(vestibule.terminate().await, Some(0));
        said
    };
    let few = world.root.pem();
    let named = |n: usize| Authority::root(&format!("{n:060}")).pem();
    let many: String = (0..230).map(named).collect();
    for said in asked(&few).await {
        assert!(
            said.contains("Acceptable client certificate CA names"),
            "{said}"
        );
        assert!(said.contains("CN = clients"), "{said}");
    }
    for said in asked(&(few + &many)).await {
        assert!(
            said.contains("No client certificate CA names sent"),
            "{said}"
        );
    }
}

#[tokio::test]
async fn an_unsupported_certificate_is_refused_with_a_readable_reason() {
    let world = World::new();
    let critical = Subject {
        critical: true,
        ..Subject::named("critical")
    };
    world.client(&world.root, "critical", &critical);
    let directory = world.directory.path();
    let ec = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
    self_signed(
        directory,
        "uris",
        &ec,
        &["nameConstraints=permitted;URI:.corp"],
    );
    issued_by(
        directory,
        "uris",
        "uri",
        "subjectAltName=URI:spiffe://a.corp/b\n",
    );
    issued_by(
        directory,
        "uris",
        "policy",
        "certificatePolicies=critical,1.2.3.4\n",
    );
    let constrained = std::fs::read_to_string(world.path("uris.pem")).expect("a file");
    replace(
        &world.path("clients.pem"),
        &(world.root.pem() + &constrained),
    );
    let vestibule = world.start(Relay::Auto, "required", HELLO).await;
    for (name, words) in [
        ("critical", "a critical extension that is not supported"),
        ("uri", "name constraint"),
        ("policy", "a critical extension that is not supported"),
    ] {
        let before = vestibule.log().len();
        let done = world.say(&vestibule, Some(name), &["-tls1_3"]).await;
        assert!(done.out.is_empty(), "{}", done.err);
        let event = soon("a line", async {
            loop {
                let log = vestibule.log();
                let is_it = |event: &&Value| message(event) == "handshake failed";
                match log[before..].iter().find(is_it) {
                    Some(event) => break event.clone(),
                    None => tokio::task::yield_now().await,
                }
            }
        });
        let event = event.await;
        let cause = event["cause"].as_str().expect("text");
        assert!(cause.contains(words), "{name}: {cause}");
        assert!(!cause.contains("Other("), "{name}: {cause}");
    }
}

async fn curl(world: &World, vestibule: &Vestibule, client: Option<&str>) -> Done {
    let mut command = common::process::curl();
    command.arg("--resolve").arg(format!(
        "localhost:{}:127.0.0.1",
        vestibule.tcp().rsplit(':').next().expect("a port")
    ));
    if let Some(name) = client {
        command
            .arg("--cert")
            .arg(world.path(&format!("{name}.pem")))
            .arg("--key")
            .arg(world.path(&format!("{name}-key.pem")));
    }
    let port = vestibule.tcp();
    let port = port.rsplit(':').next().expect("a port");
    command.arg(format!("https://localhost:{port}/"));
    output(command).await
}

#[tokio::test]
async fn an_optional_certificate_may_be_missing_but_not_invalid() {
    let world = World::new();
    world.client(&world.root, "alice", &Subject::named("alice"));
    let stranger = Authority::root("strangers");
    world.client(&stranger, "stranger", &Subject::named("stranger"));
    let vestibule = world.start(Relay::Auto, "optional", HELLO).await;
    for version in VERSIONS {
        let nobody = facts(world.say(&vestibule, None, &[version]).await);
        assert_eq!(nobody["identity"], Value::Null);
        let alice = facts(world.say(&vestibule, Some("alice"), &[version]).await);
        assert_eq!(alice["identity"]["cn"], "alice");
        let done = world.say(&vestibule, Some("stranger"), &[version]).await;
        assert!(done.err.contains("unknown ca"), "{}", done.err);
    }
}
