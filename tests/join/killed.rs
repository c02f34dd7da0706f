//! A connection that an operator ends while the worker dials its local server.

use h2::Reason;

use super::server::silent_address;
use crate::FACTS;
use crate::common::admin::{Answer, WRITE, ask};
use crate::common::changing::Site;
use crate::common::soon;
use crate::join::front::{Front, worker};

/// Ends the connection in this way until that has come in time: a dial takes at most 1.5 s. The front must not offer
/// the connection again.
async fn ended(outcome: &str, path: &str, flags: &[&str]) {
    soon("an order before the end of the dial", async {
        while !ended_in_time(outcome, path, flags).await {}
    })
    .await;
}

async fn ended_in_time(outcome: &str, path: &str, flags: &[&str]) -> bool {
    let site = Site::new();
    let front = Front::new(&site).await;
    let silent = silent_address().await;
    let worker = worker(&site, &[&front], &silent.address, 1).await;
    let tunnel = front.tunnel().await;
    let mut stream = tunnel.offer().await.give(FACTS);
    let socket = site.path("run/admin.sock");
    let admin = async |path: &str, flags: &[&str]| -> Answer { ask(&socket, path, flags).await };
    while admin("/v1/connections", &[]).await.json()["total"] == 0 && worker.outcomes().is_empty() {
    }
    admin(path, &[&WRITE[..], flags].concat()).await;
    if !worker
        .closed()
        .iter()
        .any(|it| it["outcome"] == "backend_timeout")
    {
        let end = worker.event(|it| !it["outcome"].is_null()).await;
        if end["outcome"] == outcome {
            assert_eq!(stream.read(1).await.expect("the byte that takes it"), [0]);
            assert_eq!(stream.reset().await, Some(Reason::CANCEL));
            return true;
        }
    }
    false
}

#[tokio::test]
async fn a_connection_that_is_killed_during_the_dial_does_not_come_back() {
    ended("killed", "/v1/connections?backend=app", &["-X", "DELETE"]).await;
}

#[tokio::test]
async fn a_connection_that_is_revoked_during_the_dial_does_not_come_back() {
    let body = r#"{"identity":"cn:alice"}"#;
    ended("revoked", "/v1/revocations", &["-d", body]).await;
}
