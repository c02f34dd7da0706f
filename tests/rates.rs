//! Handshake rates: a client above the rate is closed before any work, and the others are served.

mod common;

use std::io;
use std::time::Instant;

use common::balancer::{self, assert_echoes};
use common::client::{self, Front, Socket, client_hello, from};
use common::soon;
use common::vestibule::{LISTENERS, Vestibule, complete, message};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const ECHO: &str = "[[backend]]\nname = \"echo\"\nto = \"echo\"\n";
const PER_IP: &str = "limits.handshakes_per_second_per_ip";
const ALL: &str = "limits.handshakes_per_second";

#[tokio::test]
async fn a_client_above_its_rate_is_closed_unanswered_and_another_is_served() {
    let config =
        format!("[limits]\nhandshakes_per_second = 1000\nhandshakes_per_second_per_ip = 2\n{ECHO}");
    let vestibule = Vestibule::start(&config).await;
    let address = vestibule.tcp();
    until_refused(2, async || from("127.0.0.1", &address).await).await;
    vestibule.ended("over_limit", 1).await;
    assert_eq!(last_limit(&vestibule), PER_IP);
    // The client has used up its own rate and nothing of the others'.
    for source in ["127.0.0.2", "127.0.0.3"] {
        let socket = from(source, &address).await.expect("a socket");
        assert_echoes(client::handshake(socket).await.expect("within its rate")).await;
    }
    // A Unix client has no address.
    let unix = Front::Unix(vestibule.path("front.sock"));
    for _ in 0..10 {
        assert_echoes(unix.connect().await.expect("within the rate of all")).await;
    }
    assert_eq!(vestibule.outcomes()["over_limit"], 1);
    assert_eq!(vestibule.terminate().await, Some(0));
}

#[tokio::test]
async fn the_total_rate_counts_exactly_the_clients_of_all_tls_listeners() {
    let config = format!("[limits]\nhandshakes_per_second = 3\n{ECHO}");
    let plain = "[[listener]]\nname = \"plain\"\naddress = \"tcp:127.0.0.1:0\"\n";
    let vestibule = Vestibule::start(&(config + plain)).await;
    let plain = Front::Tcp(vestibule.address("plain"));
    for _ in 0..10 {
        assert_echoes(plain.socket().await.expect("a socket")).await;
    }
    let fronts = [
        Front::Tcp(vestibule.tcp()),
        Front::Unix(vestibule.path("front.sock")),
    ];
    let mut turn = fronts.iter().cycle();
    until_refused(3, async || turn.next().expect("a cycle").socket().await).await;
    vestibule.ended("over_limit", 1).await;
    assert_eq!(last_limit(&vestibule), ALL);
    assert_echoes(plain.socket().await.expect("a socket")).await;
}

#[tokio::test]
async fn behind_a_load_balancer_the_rate_counts_for_the_client_in_the_header() {
    let config = format!("[limits]\nhandshakes_per_second_per_ip = 2\n{ECHO}");
    let vestibule = balancer::start(&config).await;
    for (round, front) in balancer::fronts(&vestibule).into_iter().enumerate() {
        let from = async |host| Ok(balancer::sent(&front, &balancer::from(host)).await);
        let host = 10 * (round as u8 + 1);
        until_refused(2, async || from(host).await).await;
        vestibule.ended("over_limit", round + 1).await;
        for another in 1..5 {
            let socket = from(host + another).await.expect("a socket");
            assert_echoes(client::handshake(socket).await.expect("within its rate")).await;
        }
    }
    // A plaintext client performs no handshake.
    let plain = Front::Tcp(vestibule.address("plain"));
    for _ in 0..10 {
        assert_echoes(balancer::sent(&plain, &balancer::from(1)).await).await;
    }
    assert_eq!(vestibule.outcomes()["over_limit"], 2);
}

#[tokio::test]
async fn a_reload_changes_the_rates() {
    let limited = format!("[limits]\nhandshakes_per_second_per_ip = 1\n{ECHO}");
    let vestibule = Vestibule::start(&limited).await;
    let front = Front::Tcp(vestibule.tcp());
    until_refused(1, async || front.socket().await).await;
    let unlimited = complete(&vestibule.directory, &format!("{ECHO}{LISTENERS}"));
    std::fs::write(vestibule.path("vestibule.toml"), unlimited).expect("a file");
    vestibule.signal(Signal::HUP);
    vestibule.event(|event| message(event) == "reloaded").await;
    for _ in 0..20 {
        assert_echoes(front.connect().await.expect("no limit")).await;
    }
}

/// Connects until one connection is closed without an answer. At least a tenth of a second's rate
/// is answered, and at most what the elapsed time allows.
async fn until_refused(rate: usize, mut socket: impl AsyncFnMut() -> io::Result<Socket>) {
    let began = Instant::now();
    let mut answered = Vec::new();
    loop {
        let mut probe = socket().await.expect("the kernel accepts for the listener");
        // It may be closed already.
        let _ = probe.write_all(&client_hello()).await;
        let mut answer = [0];
        match soon("an answer", probe.read(&mut answer)).await {
            Ok(1) => answered.push(probe),
            Ok(_) | Err(_) => break,
        }
    }
    let seconds = began.elapsed().as_secs() as usize + 1;
    let at_once = rate.div_ceil(10);
    let allowed = at_once..=at_once + rate * seconds;
    assert!(
        allowed.contains(&answered.len()),
        "{} of {allowed:?}",
        answered.len()
    );
}

/// The configuration key in the last refusal.
fn last_limit(vestibule: &Vestibule) -> String {
    let log = vestibule.log();
    let refused = log
        .iter()
        .rfind(|event| event["outcome"] == "over_limit")
        .expect("a refusal");
    refused["limit"].as_str().expect("a key").to_owned()
}
