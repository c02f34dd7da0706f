//! Revoked identities: who is refused, which connections end, and what survives a restart.

mod common;
mod revocations {
    mod commands;
    mod library;
    mod stored;
}

use std::sync::Arc;

use common::admin::{Answer, WRITE, ask};
use common::client::{Client, Front, config_for};
use common::pki::{Authority, Issued, Subject, replace};
use common::vestibule::{RELAYS, Relay, Vestibule};
use common::{soon, until};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ALL_VERSIONS, ClientConfig, SupportedProtocolVersion};

/// A proxy for clients with certificates: an echo over TCP, workers over a Unix socket.
pub(crate) struct World {
    pub(crate) vestibule: Vestibule,
    pub(crate) alice: Issued,
    pub(crate) bob: Issued,
}

const CONFIG: &str = r#"
[audit]
path = "{dir}/audit.log"
[[listener]]
name = "tcp"
address = "tcp:127.0.0.1:0"
[listener.tls]
certificates = [ { chain = "{certs}/server.pem", key = "{certs}/server-key.pem" } ]
client_auth = "required"
client_ca = "{dir}/clients.pem"
[[listener]]
name = "unix"
address = "unix:{dir}/front.sock"
[listener.tls]
certificates = [ { chain = "{certs}/server.pem", key = "{certs}/server-key.pem" } ]
client_auth = "required"
client_ca = "{dir}/clients.pem"
[timeouts]
backend = "unlimited"
[[backend]]
name = "echo"
to = "echo"
[[backend]]
name = "app"
to = "gate"
[[route]]
listener = ["tcp"]
backend = "echo"
[[route]]
listener = ["unix"]
backend = "app"
"#;

impl World {
    pub(crate) async fn new(relay: Relay) -> Self {
        let directory = Arc::new(tempfile::tempdir().expect("a directory"));
        let authority = Authority::root("clients");
        replace(&directory.path().join("clients.pem"), &authority.pem());
        let alice = Subject {
            ou: &["ops"],
            uri: &["spiffe://corp/ns/prod/sa/alice"],
            dns: vec!["Alice.corp.example".into()],
            ..Subject::named("alice")
        };
        Self {
            vestibule: start(&directory, relay).await,
            alice: authority.issue(&alice),
            bob: authority.issue(&Subject::named("bob")),
        }
    }

    pub(crate) async fn revoke(&self, identity: &str) -> Answer {
        revoke(&self.vestibule, identity).await
    }

    pub(crate) async fn remove(&self, id: &str) -> Answer {
        let flags = [&["-X", "DELETE"], &WRITE[..]].concat();
        ask_of(&self.vestibule, &format!("/v1/revocations/{id}"), &flags).await
    }

    pub(crate) async fn is_admitted(&self, who: &Issued) -> bool {
        let config = config(who, ALL_VERSIONS);
        admitted(&self.tcp(), &config).await.is_some()
    }

    pub(crate) fn tcp(&self) -> Front {
        Front::Tcp(self.vestibule.tcp())
    }
}

pub(crate) async fn start(directory: &Arc<TempDir>, relay: Relay) -> Vestibule {
    let config = format!("{}{CONFIG}", relay.config());
    Vestibule::start_whole(Arc::clone(directory), &config).await
}

pub(crate) async fn ask_of(vestibule: &Vestibule, path: &str, flags: &[&str]) -> Answer {
    ask(&vestibule.path("run/admin.sock"), path, flags).await
}

pub(crate) async fn revoke(vestibule: &Vestibule, identity: &str) -> Answer {
    let body = serde_json::json!({ "identity": identity }).to_string();
    let flags = [&["-d", &body], &WRITE[..]].concat();
    ask_of(vestibule, "/v1/revocations", &flags).await
}

pub(crate) fn config(
    who: &Issued,
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let server = std::fs::read_to_string(common::project("certs/ca.pem")).expect("a file");
    Arc::new(config_for(versions, &server, Some(who)))
}

/// A client after its handshake. In TLS 1.3 it may be refused after that.
async fn shaken(front: &Front, config: &Arc<ClientConfig>) -> std::io::Result<Client> {
    let connector = TlsConnector::from(Arc::clone(config));
    let name = "localhost".try_into().expect("a name");
    connector.connect(name, front.socket().await?).await
}

/// A client that had an echo, or `None` if it is refused.
pub(crate) async fn admitted(front: &Front, config: &Arc<ClientConfig>) -> Option<Client> {
    let connected = async {
        let mut client = shaken(front, config).await.ok()?;
        client.write_all(b"?").await.ok()?;
        let read = client.read_u8().await.ok()?;
        assert_eq!(read, b'?');
        Some(client)
    };
    soon("an answer", connected).await
}

async fn echoes(client: &mut Client) {
    client.write_all(b"!").await.expect("a live connection");
    let read = soon("an echo", client.read_u8()).await;
    assert_eq!(read.expect("a live connection"), b'!');
}

pub(crate) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{value}"))
}

#[tokio::test]
async fn a_revoked_identity_is_refused_its_connections_end_and_others_stay() {
    for relay in RELAYS {
        let world = World::new(relay).await;
        let tcp = world.tcp();
        let mut ends = Vec::new();
        for version in [&TLS12, &TLS13] {
            let config = config(&world.alice, &[version]);
            ends.push(admitted(&tcp, &config).await.expect("good"));
        }
        let unix = Front::Unix(world.vestibule.path("front.sock"));
        let waiting = shaken(&unix, &config(&world.alice, ALL_VERSIONS)).await;
        ends.push(waiting.expect("good"));
        let bobs = config(&world.bob, ALL_VERSIONS);
        let mut bob = admitted(&tcp, &bobs).await.expect("good");
        let waits = "/v1/connections?state=waiting&identity=cn:alice";
        while ask_of(&world.vestibule, waits, &[]).await.json()["total"] == 0 {}

        let made = world.revoke("cn:alice").await;
        assert_eq!(made.status, 201, "{made:?}");
        let made = made.json();
        assert_eq!((&made["ended"], &made["stored"]), (&3.into(), &true.into()));
        for client in &mut ends {
            let read = soon("the end", client.read_to_end(&mut Vec::new())).await;
            assert_eq!(read.expect("a clean end"), 0);
        }
        world.vestibule.ended("revoked", 3).await;
        for version in [&TLS12, &TLS13] {
            let refused = config(&world.alice, &[version]);
            for front in [&tcp, &unix] {
                assert!(admitted(front, &refused).await.is_none());
            }
        }
        world.vestibule.ended("revoked", 7).await;
        echoes(&mut bob).await;
        assert!(world.is_admitted(&world.bob).await);

        let again = world.revoke("cn:alice").await;
        assert_eq!(again.status, 200);
        assert_eq!(again.json()["id"], made["id"]);
        let id = text(&made, "id").to_owned();
        assert_eq!(
            text(&world.remove(&id).await.json(), "identity"),
            "cn:alice"
        );
        assert!(world.is_admitted(&world.alice).await);
        assert_eq!(world.remove(&id).await.status, 404);
        assert_eq!(world.remove("alice").await.status, 400);
    }
}

#[tokio::test]
async fn every_form_of_an_identity_can_be_revoked() {
    let world = World::new(Relay::Auto).await;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &world.alice.der);
    let digest: Vec<String> = (digest.as_ref().iter())
        .map(|byte| format!("{byte:02X}"))
        .collect();
    let serial = format!("{:X}", world.alice.serial);
    let colons: Vec<&str> = (0..serial.len() / 2)
        .map(|at| &serial[2 * at..2 * at + 2])
        .collect();
    for identity in [
        "uri:spiffe://corp/ns/prod/sa/alice".to_owned(),
        "uri:spiffe://corp/ns/*/sa/alice".to_owned(),
        "dns:alice.CORP.example".to_owned(),
        "dns:*.corp.example".to_owned(),
        "cn:alice".to_owned(),
        "ou:ops".to_owned(),
        format!("sha256:{}", digest.concat()),
        format!("sha256:{}", digest.join(":")),
        format!("serial:{serial}"),
        format!("serial:00:{}", colons.join(":").to_lowercase()),
    ] {
        let alices = config(&world.alice, ALL_VERSIONS);
        let client = admitted(&world.tcp(), &alices).await;
        let _client = client.expect("not revoked");
        let made = world.revoke(&identity).await;
        assert_eq!(made.status, 201, "{made:?}");
        let made = made.json();
        assert_eq!(made["ended"], 1, "{identity}");
        assert!(!world.is_admitted(&world.alice).await, "{identity}");
        assert!(world.is_admitted(&world.bob).await, "{identity}");
        let list = ask_of(&world.vestibule, "/v1/revocations", &[]).await;
        let list = list.json();
        assert_eq!(list["revocations"][0]["id"], made["id"]);
        assert_eq!(list["revocations"].as_array().map(Vec::len), Some(1));
        assert_eq!(world.remove(text(&made, "id")).await.status, 200);
    }
}

#[tokio::test]
async fn a_resumed_session_does_not_escape_a_revocation() {
    let world = World::new(Relay::Auto).await;
    for version in [&TLS12, &TLS13] {
        let config = config(&world.alice, &[version]);
        let tcp = world.tcp();
        for _ in 0..2 {
            drop(admitted(&tcp, &config).await.expect("good"));
        }
        let client = admitted(&tcp, &config).await.expect("good");
        let kind = client.get_ref().1.handshake_kind();
        assert_eq!(format!("{kind:?}"), "Some(Resumed)");
        let made = world.revoke("cn:alice").await.json();
        assert!(admitted(&tcp, &config).await.is_none());
        world.remove(text(&made, "id")).await;
    }
}

/// Clients that never stop to connect: each either had its echo before the revocation, and then ends, or
/// is refused.
#[tokio::test]
async fn no_handshake_slips_through_a_revocation() {
    let world = World::new(Relay::Auto).await;
    let tcp = world.tcp();
    for _ in 0..8 {
        let mut clients = JoinSet::new();
        for _ in 0..40 {
            let (tcp, config) = (tcp.clone(), config(&world.alice, ALL_VERSIONS));
            clients.spawn(async move {
                let client = admitted(&tcp, &config).await;
                if let Some(mut client) = client {
                    let mut rest = Vec::new();
                    let end = client.read_to_end(&mut rest);
                    soon("the end of a revoked client", end).await.ok();
                }
            });
        }
        let open = async || {
            let path = "/v1/connections?identity=cn:alice";
            ask_of(&world.vestibule, path, &[]).await.json()["total"].clone()
        };
        while open().await == 0 {}
        let made = world.revoke("cn:alice").await;
        assert_eq!(made.status, 201);
        clients.join_all().await;
        assert!(!world.is_admitted(&world.alice).await);
        world.remove(text(&made.json(), "id")).await;
    }
    let ended = world.vestibule.outcomes();
    assert_eq!(ended.keys().collect::<Vec<_>>(), ["revoked"], "{ended:?}");
}

#[tokio::test]
async fn a_mistake_revokes_nobody_and_is_explained() {
    let world = World::new(Relay::Auto).await;
    for (body, why) in [
        ("", "EOF"),
        ("{}", "missing field `identity`"),
        ("{\"identity\":1}", "invalid type"),
        (
            "{\"identity\":\"cn:alice\",\"for\":\"1h\"}",
            "unknown field",
        ),
        ("{\"identity\":\"alice\"}", "starts with `uri:`"),
        ("{\"identity\":\"cn:\"}", "missing"),
        ("{\"identity\":\"serial:xyz\"}", "hexadecimal"),
        ("{\"identity\":\"sha256:ab\"}", "64 hexadecimal digits"),
        ("{\"identity\":\"cn:a\\nb\"}", "control characters"),
    ] {
        let flags = [&["-d", body], &WRITE[..]].concat();
        let refused = ask_of(&world.vestibule, "/v1/revocations", &flags).await;
        assert_eq!((refused.status, &*refused.code()), (400, "bad_request"));
        assert!(refused.body.contains(why), "{body}: {refused:?}");
    }
    let bare = ["-d", "{\"identity\":\"cn:alice\"}"];
    let refused = ask_of(&world.vestibule, "/v1/revocations", &bare).await;
    assert_eq!(refused.status, 403);
    let list = ask_of(&world.vestibule, "/v1/revocations", &[]).await;
    assert_eq!(list.body, "{\"revocations\":[]}");
    assert!(world.is_admitted(&world.alice).await);
}

#[tokio::test]
async fn the_audit_log_has_the_revocation_its_author_and_the_refused_client() {
    let world = World::new(Relay::Auto).await;
    let made = world.revoke("cn:alice").await.json();
    assert!(!world.is_admitted(&world.alice).await);
    world.remove(text(&made, "id")).await;
    let path = world.vestibule.path("audit.log");
    let mut events: Vec<Value> = Vec::new();
    until("five events", || {
        let text = std::fs::read_to_string(&path).expect("a log");
        let lines = text.lines().map(serde_json::from_str);
        events = lines.collect::<Result<_, _>>().expect("JSON");
        events.len() == 6
    })
    .await;
    let words: Vec<&str> = events.iter().map(|it| text(it, "event")).collect();
    let expected = ["start", "revoke", "admin", "refuse", "revoke", "admin"];
    assert_eq!(words, expected);
    assert_eq!(events[1]["result"], "revoked");
    assert_eq!(events[1]["what"], "cn:alice");
    assert_eq!(events[1]["revocation"], made["id"]);
    assert_eq!(events[1]["ended"], 0);
    assert_eq!(events[2]["action"], "POST /v1/revocations");
    assert_eq!(
        (&events[2]["uid"], &events[2]["result"]),
        (&0.into(), &"201".into())
    );
    assert_eq!(events[3]["outcome"], "revoked");
    let cause = text(&events[3], "cause");
    assert!(
        cause.ends_with("an operator has revoked cn:alice"),
        "{cause}"
    );
    assert_eq!(events[3]["identity"]["cn"], "alice");
    assert_eq!(events[4]["result"], "removed");
    // The operator learns of refused clients at the default level too.
    world
        .vestibule
        .event(|event| event["reason"] == "revoked")
        .await;
}
