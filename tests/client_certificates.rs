//! Who may come in with which certificate, what the others are told, and what a backend learns.

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

/// An authority, one below it, and a directory with what a listener needs of them.
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

    /// Makes a client's certificate, for the options of [`Self::ask`].
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

    /// What `openssl s_client` says that shows a certificate, or none.
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
async fn a_client_that_is_let_in_is_known_by_all_its_names() {
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

/// RFC 8446 §6.2; rustls sends certificate_required in TLS 1.2 as well.
#[tokio::test]
async fn a_client_with_a_bad_certificate_is_told_what_is_wrong_with_it() {
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
    // Of the right name, and signed with another key.
    let namesake = Authority::root("clients");
    world.client(&namesake, "forged", &Subject::named("forged"));
    let (lost, lost_serial) = world.root.intermediate("a branch that was closed");
    world.client(&lost, "orphan", &Subject::named("orphan"));
    // More certificates of one name than it takes, each of which would be tried for each.
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

/// A new list is put behind the old one in its file, or before it.
#[tokio::test]
async fn a_client_is_turned_away_if_any_list_of_its_authority_has_it() {
    let world = World::new();
    let alice = world.client(&world.root, "alice", &Subject::named("alice"));
    let old = world.root.revocations(&[]);
    let new = world.root.revocations(&[alice.serial]);
    for lists in [format!("{old}{new}"), format!("{new}{old}")] {
        replace(&world.path("revoked.pem"), &lists);
        let vestibule = world.start(Relay::Auto, "required", HELLO).await;
        for version in VERSIONS {
            let done = world.say(&vestibule, Some("alice"), &[version]).await;
            assert!(done.err.contains("certificate revoked"), "{}", done.err);
        }
    }
}

#[tokio::test]
async fn a_list_is_about_what_its_own_key_has_signed() {
    let world = World::new();
    // The same authority with its next key.
    let renewed = Authority::root("clients");
    replace(
        &world.path("clients.pem"),
        &(world.root.pem() + &renewed.pem()),
    );
    let alice = world.client(&world.root, "alice", &Subject::named("alice"));
    let bob = world.client(&renewed, "bob", &Subject::named("bob"));
    let lists = |old: &[u64], new: &[u64]| world.root.revocations(old) + &renewed.revocations(new);

    replace(
        &world.path("revoked.pem"),
        &lists(&[bob.serial], &[alice.serial]),
    );
    let vestibule = world.start(Relay::Auto, "required", HELLO).await;
    for name in ["alice", "bob"] {
        let facts = facts(world.say(&vestibule, Some(name), &[]).await);
        assert_eq!(facts["identity"]["cn"], name);
    }
    replace(
        &world.path("revoked.pem"),
        &lists(&[alice.serial], &[bob.serial]),
    );
    vestibule.said("reloaded", 1).await;
    for name in ["alice", "bob"] {
        let done = world.say(&vestibule, Some(name), &["-tls1_3"]).await;
        assert!(done.err.contains("certificate revoked"), "{}", done.err);
    }
}

/// Whoever wrote the names: the same key has signed the certificates and the list.
#[tokio::test]
async fn a_list_is_matched_by_its_key_and_not_by_how_its_issuer_is_written() {
    let world = World::new();
    let alice = world.client(&world.root, "alice", &Subject::named("alice"));
    let carol = world.client(&world.below, "carol", &Subject::named("carol"));
    let printable = |name: &str| DnValue::PrintableString(name.try_into().expect("ASCII"));
    for lists in [
        world
            .root
            .revocations_as(printable("clients"), &[alice.serial]),
        world.root.revocations_as("CLIENTS", &[alice.serial]),
        world.root.revocations_as("another name", &[alice.serial]),
    ] {
        let below = [
            world
                .below
                .revocations_as(printable("clients of a branch"), &[carol.serial]),
            world
                .below
                .revocations_as("Clients  of a Branch", &[carol.serial]),
            world
                .below
                .revocations_as("a branch of another name", &[carol.serial]),
        ];
        for below in below {
            replace(&world.path("revoked.pem"), &format!("{lists}{below}"));
            let vestibule = world.start(Relay::Auto, "required", HELLO).await;
            for name in ["alice", "carol"] {
                let done = world.say(&vestibule, Some(name), &["-tls1_3"]).await;
                assert!(
                    done.err.contains("certificate revoked"),
                    "{name}: {}",
                    done.err
                );
            }
            assert_eq!(vestibule.terminate().await, Some(0));
        }
    }
}

/// `openssl ca -gencrl` makes them of a configuration that names no extensions.
#[tokio::test]
async fn a_list_of_version_1_is_in_force() {
    let world = World::new();
    let alice = world.client(&world.root, "alice", &Subject::named("alice"));
    world.client(&world.root, "bob", &Subject::named("bob"));
    for extensions in ["", "crl_extensions = crl"] {
        let list = world
            .root
            .revocations_by_openssl(extensions, &[], &[alice.serial]);
        replace(&world.path("revoked.pem"), &list);
        let vestibule = world.start(Relay::Auto, "required", HELLO).await;
        let done = world.say(&vestibule, Some("alice"), &[]).await;
        assert!(done.err.contains("certificate revoked"), "{}", done.err);
        let facts = facts(world.say(&vestibule, Some("bob"), &[]).await);
        assert_eq!(facts["identity"]["cn"], "bob");
        assert_eq!(vestibule.terminate().await, Some(0));
    }
}

/// A list in the name of an authority between that the one of this client has not signed: whether it is
/// the one that revokes nobody can tell.
#[tokio::test]
async fn a_list_that_its_issuer_has_not_signed_refuses_the_issuers_clients() {
    let world = World::new();
    let carol = world.client(&world.below, "carol", &Subject::named("carol"));
    world.client(&world.root, "alice", &Subject::named("alice"));
    let namesake = Authority::root("clients of a branch");
    let forged = namesake.revocations(&[carol.serial]);
    let unnamed = namesake.revocations_by_openssl("", &[], &[carol.serial]);
    for lists in [
        forged.clone(),
        unnamed.clone(),
        namesake.revocations_as("CLIENTS OF A BRANCH", &[]),
        world.below.revocations(&[]) + &unnamed,
    ] {
        replace(&world.path("revoked.pem"), &lists);
        let vestibule = world.start(Relay::Auto, "required", HELLO).await;
        for version in VERSIONS {
            let done = world.say(&vestibule, Some("carol"), &[version]).await;
            assert!(done.err.contains("SSL alert number 48"), "{}", done.err);
            assert!(done.out.is_empty());
            // It is none of hers.
            let facts = facts(world.say(&vestibule, Some("alice"), &[version]).await);
            assert_eq!(facts["identity"]["cn"], "alice");
        }
        assert_eq!(vestibule.terminate().await, Some(0));
    }
    // One of a former key, beside that of today.
    replace(
        &world.path("revoked.pem"),
        &(forged + &world.below.revocations(&[])),
    );
    let vestibule = world.start(Relay::Auto, "required", HELLO).await;
    let facts = facts(world.say(&vestibule, Some("carol"), &[]).await);
    assert_eq!(facts["identity"]["cn"], "carol");
}

#[tokio::test]
async fn a_list_whose_signature_cannot_be_verified_is_an_error() {
    let world = World::new();
    let rsa = Authority::rsa_root("clients");
    replace(&world.path("clients.pem"), &(world.root.pem() + &rsa.pem()));
    let pss: &[&str] = &[
        "-sigopt",
        "rsa_padding_mode:pss",
        "-sigopt",
        "rsa_pss_saltlen:20",
    ];
    let config = "[[listener]]\nname = \"tcp\"\naddress = \"tcp:127.0.0.1:0\"\n[listener.tls]\n\
        certificates = [ { chain = \"CERTS/server.pem\", key = \"CERTS/server-key.pem\" } ]\n\
        client_auth = \"required\"\nclient_ca = \"clients.pem\"\ncrl = \"revoked.pem\"\n\
        [[backend]]\nname = \"hello\"\nto = \"hello\"\n"
        .replace("CERTS", concat!(env!("CARGO_MANIFEST_DIR"), "/certs"));
    replace(&world.path("vestibule.toml"), &config);
    let check = async |list: String| {
        replace(&world.path("revoked.pem"), &list);
        let mut command = common::process::vestibule();
        command
            .args(["check", "-c"])
            .arg(world.path("vestibule.toml"));
        let done = output(command).await;
        let said = String::from_utf8_lossy(&done.out).into_owned() + &done.err;
        (done.code, said)
    };
    let good = rsa.revocations_by_openssl("", &["-md", "sha256"], &[7]);
    for (list, why) in [
        (
            rsa.revocations_by_openssl("", &["-md", "sha1"], &[7]),
            "SHA-1 and RSA",
        ),
        (
            world
                .root
                .revocations_by_openssl("", &["-md", "sha1"], &[7]),
            "SHA-1 and ECDSA",
        ),
        (rsa.revocations_by_openssl("", pss, &[7]), "RSA-PSS"),
    ] {
        let (code, said) = check(good.clone() + &list).await;
        assert_eq!(code, Some(2), "{}", said);
        assert!(said.contains(why), "{}", said);
        assert!(said.contains("vestibule.toml:8:7: "), "{}", said);
    }
    let pss_of_its_hash: &[&str] = &[
        "-sigopt",
        "rsa_padding_mode:pss",
        "-sigopt",
        "rsa_pss_saltlen:32",
    ];
    let (code, said) =
        check(good + &rsa.revocations_by_openssl("", pss_of_its_hash, &[7, 8])).await;
    assert_eq!(code, Some(0), "{}", said);
    for line in [
        "  revocation list: CN=clients; 1 entry; next update 21",
        "  revocation list: CN=clients; 2 entries; next update 21",
    ] {
        assert!(said.contains(line), "{}", said);
    }
    assert!(!said.contains("warning"), "{}", said);
    // Nobody's, as far as can be known before a client comes.
    let (code, said) = check(Authority::root("somebody else").revocations(&[])).await;
    assert_eq!(code, Some(0), "{}", said);
    let warning = "warning: ";
    assert!(said.contains(warning), "{}", said);
    assert!(
        said.contains("signed the revocation list of CN=somebody else"),
        "{}",
        said
    );
}

/// As `openssl req -x509` makes it, for a client and the bundle alike.
#[tokio::test]
async fn a_client_may_show_a_trusted_certificate_itself() {
    let world = World::new();
    let me = Authority::root("me");
    let signer = me.signer();
    signer.write(world.directory.path(), "me");
    let lists = world.root.revocations(&[]) + &me.revocations(&[]);
    replace(&world.path("revoked.pem"), &lists);
    replace(&world.path("clients.pem"), &(world.root.pem() + &me.pem()));
    let vestibule = world.start(Relay::Auto, "required", HELLO).await;
    for version in VERSIONS {
        let facts = facts(world.say(&vestibule, Some("me"), &[version]).await);
        assert_eq!(facts["identity"]["cn"], "me");
    }
    // Another certificate of the same name and key is another one.
    let again = me.reissued("me");
    again.write(world.directory.path(), "again");
    let done = world.say(&vestibule, Some("again"), &["-tls1_3"]).await;
    assert!(done.out.is_empty(), "{}", done.err);
    let event = vestibule
        .event(|event| message(event) == "handshake failed")
        .await;
    let cause = event["cause"].as_str().expect("text");
    assert!(cause.contains("CA:TRUE"), "{cause}");
    // It may revoke itself.
    let lists = world.root.revocations(&[]) + &me.revocations(&[signer.serial]);
    replace(&world.path("revoked.pem"), &lists);
    vestibule.said("reloaded", 1).await;
    let done = world.say(&vestibule, Some("me"), &["-tls1_3"]).await;
    assert!(done.err.contains("certificate revoked"), "{}", done.err);
}

/// webpki takes none of these; but of a certificate that was named itself nothing depends on what is in it.
#[tokio::test]
async fn a_trusted_certificate_is_its_owners_however_it_was_made() {
    let ec: &[&str] = &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
    let p384: &[&str] = &["ec", "-pkeyopt", "ec_paramgen_curve:P-384"];
    for (key, extensions) in [
        (ec, &[][..]),
        (&["rsa:2048"][..], &[]),
        (p384, &["certificatePolicies=critical,1.2.3.4"]),
        (ec, &["1.2.3.4=critical,DER:0500"]),
        (&["rsa:2048"], &["1.2.3.4=critical,DER:0500"]),
    ] {
        let world = World::new();
        self_signed(world.directory.path(), "me", key, extensions);
        self_signed(world.directory.path(), "not-me", key, extensions);
        let me = std::fs::read_to_string(world.path("me.pem")).expect("a file");
        replace(&world.path("clients.pem"), &(world.root.pem() + &me));
        let vestibule = world.start(Relay::Auto, "required", HELLO).await;
        for version in VERSIONS {
            let facts = facts(world.say(&vestibule, Some("me"), &[version]).await);
            assert_eq!(facts["identity"]["cn"], "me", "{key:?} {extensions:?}");
            let done = world.say(&vestibule, Some("not-me"), &[version]).await;
            assert!(done.out.is_empty(), "{}", done.err);
        }
        // Who only has the certificate has not signed with its key.
        std::fs::copy(world.path("me.pem"), world.path("thief.pem")).expect("a file");
        std::fs::copy(world.path("not-me-key.pem"), world.path("thief-key.pem")).expect("a file");
        for version in VERSIONS {
            let done = world.say(&vestibule, Some("thief"), &[version]).await;
            assert!(done.out.is_empty(), "{}", done.err);
        }
    }
}

/// Those that are left out would keep their clients from showing a certificate.
#[tokio::test]
async fn authorities_are_named_up_to_16_kib_and_beyond_that_none() {
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
async fn what_is_not_supported_in_a_certificate_is_refused_in_words() {
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

#[tokio::test]
async fn a_list_that_its_authority_has_not_signed_changes_nothing() {
    let world = World::new();
    let alice = world.client(&world.root, "alice", &Subject::named("alice"));
    let vestibule = world.start(Relay::Auto, "required", HELLO).await;
    let forged = Authority::root("clients").revocations(&[alice.serial]);
    replace(&world.path("revoked.pem"), &forged);
    let event = vestibule
        .event(|event| message(event).starts_with("reload failed"))
        .await;
    let why = "an authority in `client_ca` has the issuer name of the revocation list, but did not sign it";
    assert!(message(&event).contains(why), "{event}");
    let facts = facts(world.say(&vestibule, Some("alice"), &[]).await);
    assert_eq!(facts["identity"]["cn"], "alice");
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
async fn an_optional_certificate_may_be_left_out_and_must_be_good() {
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

#[tokio::test]
async fn a_route_takes_whom_it_names_and_the_others_are_denied_access() {
    let world = World::new();
    for name in ["alice", "bob", "mallory", "carol"] {
        world.client(&world.root, name, &Subject::named(name));
    }
    let routes = "
        [[route]]
        identity = \"cn:mallory\"
        deny = true
        [[route]]
        identity = [\"cn:alice\", \"cn:bob\"]
        backend = \"inner\"
        [[backend]]
        name = \"inner\"
        to = \"hello\"
    ";
    for relay in RELAYS {
        let vestibule = world.start(relay, "optional", routes).await;
        let (mut denied, mut astray) = (0, 0);
        for version in VERSIONS {
            for name in ["alice", "bob"] {
                let facts = facts(world.say(&vestibule, Some(name), &[version]).await);
                assert_eq!(facts["identity"]["cn"], name);
                assert_eq!(facts["backend"], "inner");
            }
            for name in [Some("mallory"), Some("carol"), None] {
                let done = world.say(&vestibule, name, &[version]).await;
                assert!(
                    done.err.contains("access denied"),
                    "{relay:?} {version} {name:?}: {}",
                    done.err
                );
                assert!(done.err.contains("SSL alert number 49"), "{}", done.err);
                assert!(done.out.is_empty());
                match name {
                    Some("mallory") => denied += 1,
                    _ => astray += 1,
                }
                vestibule.ended("denied", denied).await;
                vestibule.ended("no_route", astray).await;
            }
        }
        // In TLS 1.3 it is told after its handshake, when it reads the answer.
        let done = curl(&world, &vestibule, Some("mallory")).await;
        assert_eq!(done.code, Some(56), "{}", done.err);
        assert!(done.err.contains("access denied"), "{}", done.err);
        let done = curl(&world, &vestibule, Some("alice")).await;
        assert_eq!(done.code, Some(0), "{}", done.err);
        assert_eq!(vestibule.terminate().await, Some(0));
    }
}

#[tokio::test]
async fn an_identity_has_as_many_connections_as_the_limit_says() {
    let world = World::new();
    world.client(&world.root, "alice", &Subject::named("alice"));
    world.client(&world.root, "bob", &Subject::named("bob"));
    // The same names in another certificate are the same client.
    world.client(&world.below, "alice-again", &Subject::named("alice"));
    let rest = "
        [limits]
        connections_per_identity = 2
        [[backend]]
        name = \"echo\"
        to = \"echo\"
    ";
    let vestibule = world.start(Relay::Auto, "required", rest).await;
    let open = async |name: &str| {
        let mut command = s_client(&vestibule.tcp());
        command
            .args(["-quiet", "-cert"])
            .arg(world.path(&format!("{name}.pem")))
            .arg("-cert_chain")
            .arg(world.path(&format!("{name}.pem")))
            .arg("-key")
            .arg(world.path(&format!("{name}-key.pem")));
        let (process, mut stdin) = Process::start_listening(command);
        stdin.write_all(b"hello\n").await.expect("openssl listens");
        process.line("hello").await;
        (process, stdin)
    };
    let first = open("alice").await;
    let _second = open("alice-again").await;
    let _bob = open("bob").await;
    let done = world.say(&vestibule, Some("alice"), &["-tls1_3"]).await;
    assert!(done.err.contains("access denied"), "{}", done.err);
    vestibule.ended("over_limit", 1).await;
    drop(first);
    vestibule.ended("client_truncated", 1).await;
    let _third = open("alice-again").await;
    let done = world.say(&vestibule, Some("alice"), &["-tls1_2"]).await;
    assert!(done.err.contains("access denied"), "{}", done.err);
    vestibule.ended("over_limit", 2).await;
}
