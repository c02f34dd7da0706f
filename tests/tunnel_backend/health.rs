//! What the dial of a tunnel means for the health of its address.

use tokio::net::TcpStream;

use super::pair::{ECHO, connect, site, start_near};
use super::server::Server;
use crate::common::admin::ask;
use crate::common::changing::Site;
use crate::common::tunnel::LISTENER;
use crate::common::vestibule::{Relay, Vestibule, message};
use crate::echo;

/// A server that lets nobody wait for long, beside one that has not answered a handshake yet. Both clients are served.
async fn beside_a_slow_one(site: &Site, slow: &Server) -> ([Vestibule; 2], [TcpStream; 2]) {
    let far = "[runtime]\nworkers = 1\ndirectory = \"{dir}/far\"\nlog_format = \"json\"\n";
    let far = format!("{far}{LISTENER}{ECHO}");
    let far = Vestibule::start_as(&site.directory, "far.toml", &far).await;
    let to = [slow.address(), far.tcp()];
    let more = "health = { fall = 1, rise = 1 }\n{tunnel}";
    let near = start_near(site, Relay::Auto, &to, more).await;
    let mut clients = [connect(&near).await, connect(&near).await];
    for client in &mut clients {
        echo(client).await;
    }
    ([near, far], clients)
}

async fn health(near: &Vestibule) -> serde_json::Value {
    let socket = near.path("near/admin.sock");
    let status = ask(&socket, "/v1/status", &[]).await.json();
    status["backends"][0]["addresses"][0].clone()
}

#[tokio::test]
async fn a_slow_handshake_beside_a_server_that_answers_is_no_failure() {
    let site = site();
    let slow = Server::new(&site).await;
    let ([near, _far], _clients) = beside_a_slow_one(&site, &slow).await;
    let shown = health(&near).await;
    assert_eq!(shown["health"], "up", "{shown}");
    assert_eq!(shown["error"], serde_json::Value::Null, "{shown}");
    // The dial has gone on, and the tunnel serves.
    let mut tunnel = slow.tunnel().await;
    near.said("a tunnel is open", 2).await;
    let _client = connect(&near).await;
    super::server::asked(&mut tunnel).await;
}

#[tokio::test]
async fn a_dial_that_fails_after_its_connection_was_served_counts_for_the_next_one() {
    let site = site();
    let slow = Server::new(&site).await;
    let ([near, _far], _clients) = beside_a_slow_one(&site, &slow).await;
    slow.hang_up().await;
    near.event(|it| message(it) == "cannot open a tunnel to a backend")
        .await;
    let mut client = connect(&near).await;
    echo(&mut client).await;
    near.said("backend address is down", 1).await;
    assert!(slow.is_left_alone().await);
}
