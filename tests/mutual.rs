//! Two Vestibules with mutual TLS between them, from one Unix socket to another.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::bytes;
use common::client::Front;
use common::pki::{Authority, Subject, replace};
use common::vestibule::{RELAYS, Relay, Vestibule};
use common::within;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
use tokio::net::UnixListener;

const GIB: usize = 1 << 30;
const MIB: usize = 1 << 20;

/// The two Vestibules, the connecting and the accepting one, with their certificates.
struct Pair {
    directory: Arc<TempDir>,
    here: Vestibule,
    there: Vestibule,
}

impl Pair {
    async fn start(relay: Relay, backend: &str) -> Self {
        let directory = Arc::new(tempfile::tempdir().expect("a directory"));
        let authority = Authority::root("everybody");
        replace(&directory.path().join("ca.pem"), &authority.pem());
        for (name, subject) in [
            (
                "here",
                Subject {
                    uri: &["spiffe://corp/ns/prod/sa/here"],
                    ..Subject::default()
                },
            ),
            (
                "there",
                Subject {
                    dns: vec!["there.internal".into()],
                    uri: &["spiffe://corp/ns/prod/sa/there"],
                    ..Subject::default()
                },
            ),
        ] {
            authority.issue(&subject).write(directory.path(), name);
        }
        let config = |name: &str, rest: &str| {
            let runtime = relay
                .config()
                .replace("{dir}/run", &format!("{{dir}}/{name}-run"));
            format!("{runtime}{rest}")
        };
        let there = config("there", &THERE.replace("BACKEND", backend));
        let there = Vestibule::start_as(&directory, "there.toml", &there).await;
        let here = Vestibule::start_as(&directory, "here.toml", &config("here", HERE)).await;
        Self {
            directory,
            here,
            there,
        }
    }

    fn front(&self) -> Front {
        Front::Unix(self.directory.path().join("front.sock"))
    }
}

const HERE: &str = r#"
[[listener]]
name = "plain"
address = "unix:{dir}/front.sock"
[[backend]]
name = "there"
to = "unix:{dir}/between.sock"
[backend.tls]
server_name = "there.internal"
ca = "{dir}/ca.pem"
certificate = { chain = "{dir}/here.pem", key = "{dir}/here-key.pem" }
allow = "uri:spiffe://corp/ns/*/sa/there"
"#;

const THERE: &str = r#"
[[listener]]
name = "tls"
address = "unix:{dir}/between.sock"
[listener.tls]
certificates = [ { chain = "{dir}/there.pem", key = "{dir}/there-key.pem" } ]
client_auth = "required"
client_ca = "{dir}/ca.pem"
[[route]]
identity = "uri:spiffe://corp/ns/*/sa/here"
backend = "app"
[[backend]]
name = "app"
to = BACKEND
"#;

#[tokio::test]
async fn a_gibibyte_passes_without_loss_or_reordering() {
    let pair = Pair::start(Relay::Auto, "\"unix:{dir}/app.sock\"").await;
    let listener = UnixListener::bind(pair.directory.path().join("app.sock")).expect("a socket");
    let client = pair.front().socket().await.expect("a listener");
    let (server, _) = listener.accept().await.expect("a connection");
    let ((mut up, mut down), (mut server_up, mut server_down)) = (split(client), split(server));
    let all = async {
        tokio::join!(
            async { bytes::send(&mut down, 1, GIB).await.expect("open") },
            bytes::expect(&mut server_up, 1, GIB),
            async { bytes::send(&mut server_down, 2, MIB).await.expect("open") },
            bytes::expect(&mut up, 2, MIB),
        )
    };
    within(Duration::from_secs(300), "all of it", all).await;
    pair.here.ended("done", 1).await;
    pair.there.ended("done", 1).await;
}

#[tokio::test]
async fn each_side_knows_the_identity_of_the_other() {
    for relay in RELAYS {
        let pair = Pair::start(relay, "\"hello\"").await;
        let mut client = pair.front().socket().await.expect("a listener");
        client
            .write_all(b"GET / HTTP/1.0\r\nAccept: application/json\r\n\r\n")
            .await
            .expect("room");
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.expect("an answer");
        drop(client);
        let (_, body) = answer.split_once("\r\n\r\n").expect("an answer");
        let facts: Value = serde_json::from_str(body).expect("JSON");
        let uris = serde_json::json!(["spiffe://corp/ns/prod/sa/here"]);
        assert_eq!(facts["identity"]["uri"], uris);

        pair.here.ended("done", 1).await;
        pair.there.ended("done", 1).await;
        let closed = pair.here.closed().remove(0);
        let there = "uri:spiffe://corp/ns/prod/sa/there";
        assert_eq!(closed["span"]["backend_identity"], there, "{closed}");
        let closed = pair.there.closed().remove(0);
        let here = "uri:spiffe://corp/ns/prod/sa/here";
        assert_eq!(closed["span"]["identity"], here, "{closed}");
    }
}
