//! What a reload changes, what it leaves alone, and which connections it ends.

mod common;

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::changing::{ECHO, LISTENER, Site, config, connect, echo, open, refused, reloaded};
use common::client::Front;
use common::pki::{Issued, Subject};
use common::vestibule::{Vestibule, message};
use common::{soon, within};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;

#[tokio::test]
async fn exactly_the_clients_with_revoked_certificates_are_ended_within_a_second() {
    const REVOKED: usize = 50;
    const OTHERS: usize = 500;
    let site = Site::new();
    let (mallory, alice) = (site.client("mallory"), site.client("alice"));
    let vestibule = site.start(ECHO).await;
    let mut revoked = Vec::new();
    let mut others = Vec::new();
    let (for_mallory, for_alice) = (site.config(Some(&mallory)), site.config(Some(&alice)));
    let for_nobody = site.config(None);
    for _ in 0..REVOKED {
        revoked.push(open(&vestibule, &for_mallory).await);
    }
    for index in 0..OTHERS {
        let config = if index % 5 == 0 {
            &for_nobody
        } else {
            &for_alice
        };
        others.push(open(&vestibule, config).await);
    }

    site.revoke(&[mallory.serial]);
    vestibule.signal(Signal::HUP);
    let asked = Instant::now();
    let mut ended = JoinSet::new();
    for mut client in revoked {
        ended.spawn(async move {
            // An orderly close_notify, not a reset.
            assert_eq!(client.read(&mut [0]).await.expect("an end"), 0);
        });
    }
    within(Duration::from_secs(10), "their end", ended.join_all()).await;
    let took = asked.elapsed();
    vestibule.ended("revoked", REVOKED).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    for client in &mut others {
        echo(client).await.expect("the others stay");
    }
    assert_eq!(vestibule.outcomes().len(), 1, "{:?}", vestibule.outcomes());
    // New connections with this certificate are refused too.
    let error = open_and_fail(&vestibule, &for_mallory).await;
    assert!(error.contains("CertificateRevoked"), "{error}");
}

/// The error of a refused client. In TLS 1.3 it appears with the first read.
async fn open_and_fail(vestibule: &Vestibule, config: &Arc<ClientConfig>) -> String {
    let mut client = match connect(vestibule, config).await {
        Ok(client) => client,
        Err(error) => return error.to_string(),
    };
    let mut rest = Vec::new();
    match client.read_to_end(&mut rest).await {
        Ok(_) => panic!("let in: {rest:?}"),
        Err(error) => error.to_string(),
    }
}

/// An authority has two certificates, one of them revoked. A client with the same certificate of
/// its own may still be accepted through the other one.
#[tokio::test]
async fn clients_with_different_chains_for_one_certificate_are_judged_separately() {
    let site = Site::new();
    let (team, serial) = site.authority.intermediate("team");
    let alice = team.issue(&Subject::named("alice"));
    let leaf = alice.chain.split_inclusive(END).next().expect("a leaf");
    let chain = leaf.to_owned() + "\n" + &site.authority.vouch_again("team", &team);
    let otherwise = Issued {
        chain,
        key: alice.key.clone(),
        der: alice.der.clone(),
        serial: alice.serial,
    };
    let vestibule = site.start(ECHO).await;
    let (revoked, good) = (site.config(Some(&alice)), site.config(Some(&otherwise)));
    let (mut leaving, mut staying) = (Vec::new(), Vec::new());
    // So many that no order of the checks is right by chance.
    for _ in 0..4 {
        leaving.push(open(&vestibule, &revoked).await);
        staying.push(open(&vestibule, &good).await);
    }
    site.revoke(&[serial]);
    reloaded(&vestibule, 1).await;
    for client in &mut staying {
        echo(client).await.expect("the others stay");
    }
    for client in &mut leaving {
        let end = soon("their end", client.read(&mut [0])).await;
        assert_eq!(end.expect("an end"), 0);
    }
    vestibule.ended("revoked", 4).await;
}

const END: &str = "-----END CERTIFICATE-----";

#[tokio::test]
async fn clients_without_a_route_after_a_reload_are_ended() {
    let site = Site::new();
    let (alice, bob) = (site.client("alice"), site.client("bob"));
    let routes = |names: &str| {
        config(&format!(
            "[[route]]\nidentity = [{names}]\nbackend = \"echo\"\n{ECHO}"
        ))
    };
    let vestibule = Vestibule::start_whole(
        Arc::clone(&site.directory),
        &routes("\"cn:alice\", \"cn:bob\""),
    )
    .await;
    let mut alice = open(&vestibule, &site.config(Some(&alice))).await;
    let mut bob = open(&vestibule, &site.config(Some(&bob))).await;
    site.configure(&routes("\"cn:alice\""));
    vestibule.ended("revoked", 1).await;
    assert_eq!(bob.read(&mut [0]).await.expect("an end"), 0);
    echo(&mut alice).await.expect("she stays");
}

/// There are no rules left for their listener: the remaining routes are for other clients.
#[tokio::test]
async fn connections_of_a_removed_listener_stay_open() {
    let site = Site::new();
    let (alice, bob) = (site.client("alice"), site.client("bob"));
    let only = |listener: &str| {
        let keys = format!("listener = [\"{listener}\"]\nidentity = [\"cn:*\"]\n");
        format!("[[route]]\n{keys}backend = \"echo\"\n{ECHO}")
    };
    let vestibule =
        Vestibule::start_whole(Arc::clone(&site.directory), &config(&only("tcp"))).await;
    let mut staying = Vec::new();
    for somebody in [&alice, &bob] {
        staying.push(open(&vestibule, &site.config(Some(somebody))).await);
    }
    let other = LISTENER.replace("\"tcp\"", "\"other\"");
    site.configure(&(other + &only("other")));
    reloaded(&vestibule, 1).await;
    assert_eq!(revoked(&vestibule), [0]);
    for client in &mut staying {
        echo(client).await.expect("they stay");
    }
    // When the listener exists again, its current rules apply to them.
    site.revoke(&[bob.serial]);
    site.configure(&config(&only("tcp")));
    vestibule.ended("revoked", 1).await;
    let [alice, bob] = &mut staying[..] else {
        unreachable!("two of them")
    };
    assert_eq!(bob.read(&mut [0]).await.expect("an end"), 0);
    echo(alice).await.expect("she stays");
}

#[tokio::test]
async fn a_revoked_connection_that_lingers_is_counted_once() {
    let site = Site::new();
    let mallory = site.client("mallory");
    let vestibule = site.start(ECHO).await;
    // This client does not read, and so does not leave.
    let lingering = open(&vestibule, &site.config(Some(&mallory))).await;
    site.revoke(&[mallory.serial]);
    for times in 1..=3 {
        reloaded(&vestibule, times).await;
        vestibule.signal(Signal::HUP);
    }
    assert_eq!(revoked(&vestibule)[..3], [1, 0, 0]);
    drop(lingering);
}

/// The number of connections that each reload has ended.
fn revoked(vestibule: &Vestibule) -> Vec<u64> {
    let log = vestibule.log();
    let reloads = log.iter().filter(|event| message(event) == "reloaded");
    reloads
        .map(|event| event["revoked"].as_u64().expect("a count"))
        .collect()
}

#[tokio::test]
async fn a_configuration_with_a_mistake_changes_nothing() {
    let site = Site::new();
    let vestibule = site.start(ECHO).await;
    let client = site.config(None);
    let mut before = open(&vestibule, &client).await;
    for (text, expected) in [
        (config("conections = 5\n"), "unknown key"),
        (
            config(ECHO).replace("server-key", "ca"),
            "the key file has no private key",
        ),
        (
            format!("{}[timeouts]\nunacknowledged = \"1s\"\n", config(ECHO)),
            "timeouts.unacknowledged changed; restart to apply it",
        ),
        (
            config(ECHO) + "[[listener]]\nname = \"more\"\naddress = \"tcp:203.0.113.1:1\"\n",
            "cannot listen on tcp:203.0.113.1:1",
        ),
    ] {
        site.configure(&text);
        let said = refused(&vestibule).await;
        let is_it = |event: &serde_json::Value| {
            message(event).starts_with("reload failed") && message(event).contains(expected)
        };
        vestibule.event(is_it).await;
        assert!(!said.is_empty());
        echo(&mut before).await.expect("it goes on");
        open(&vestibule, &client).await;
    }
    site.configure(&config(ECHO));
    reloaded(&vestibule, 1).await;
    echo(&mut before).await.expect("it goes on");
}

#[tokio::test]
async fn listeners_come_and_go_and_their_connections_stay() {
    let site = Site::new();
    let vestibule = site.start(ECHO).await;
    let client = site.config(None);
    let mut old = open(&vestibule, &client).await;
    let address = vestibule.tcp();
    let more = "[[listener]]\nname = \"unix\"\naddress = \"unix:{dir}/front.sock\"\n";
    site.configure(&config(&format!("{ECHO}{more}")));
    reloaded(&vestibule, 1).await;
    let unix = Front::Unix(site.path("front.sock"));
    let mut plain = unix.socket().await.expect("it listens");
    plain.write_all(b"word").await.expect("room");
    plain.read_exact(&mut [0; 4]).await.expect("an echo");

    let only_unix = format!("{more}{ECHO}");
    site.configure(&only_unix);
    reloaded(&vestibule, 2).await;
    soon("the port to be closed", async {
        while TcpStream::connect(&address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    echo(&mut old).await.expect("it stays");
    plain.write_all(b"word").await.expect("room");
    plain.read_exact(&mut [0; 4]).await.expect("an echo");

    site.configure(&config(ECHO));
    reloaded(&vestibule, 3).await;
    assert!(!site.path("front.sock").exists());
    let error = unix.socket().await.expect_err("it is gone");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    echo(&mut old).await.expect("it stays");
}

#[tokio::test]
async fn clients_in_the_queue_of_a_removed_listener_are_served_and_not_reset() {
    let site = Site::new();
    let vestibule = site.start(ECHO).await;
    let (config, address) = (site.config(None), vestibule.tcp());
    vestibule.signal(Signal::STOP);
    let mut clients = JoinSet::new();
    for _ in 0..100 {
        let socket = TcpStream::connect(&address)
            .await
            .expect("a place in the queue");
        let connector = TlsConnector::from(Arc::clone(&config));
        clients.spawn(async move {
            let name = "localhost".try_into().expect("a name");
            echo(&mut connector.connect(name, socket).await?).await
        });
    }
    let more = "[[listener]]\nname = \"unix\"\naddress = \"unix:{dir}/front.sock\"\n";
    site.configure(&format!("{more}{ECHO}"));
    vestibule.signal(Signal::HUP);
    vestibule.signal(Signal::CONT);
    while let Some(served) = soon("a client", clients.join_next()).await {
        served.expect("no panic").expect("no reset");
    }
    reloaded(&vestibule, 1).await;
}

#[tokio::test]
async fn another_name_for_an_open_listener_is_refused_with_the_reason() {
    // An address of its own: the port is free for a while, and other tests look for free ports.
    let free = TcpListener::bind("127.9.9.9:0").await.expect("a port");
    let port = free.local_addr().expect("bound");
    drop(free);
    for address in ["unix:{dir}/front.sock", &format!("tcp:{port}")] {
        let site = Site::new();
        let address = address.replace("{dir}", &site.directory.path().display().to_string());
        let named = |name: &str| {
            config(&format!(
                "{ECHO}[[listener]]\nname = \"{name}\"\naddress = \"{address}\"\n"
            ))
        };
        let vestibule = Vestibule::start_whole(Arc::clone(&site.directory), &named("old")).await;
        site.configure(&named("new"));
        let said = refused(&vestibule).await;
        let expected = format!(
            "listener \"new\" cannot use {address}, because the open listener \"old\" has it"
        );
        assert!(said.contains(&expected), "{said}");
        let front = match address.strip_prefix("unix:") {
            Some(path) => Front::Unix(path.into()),
            None => Front::Tcp(port.to_string()),
        };
        let mut client = front.socket().await.expect("it goes on");
        client.write_all(b"word").await.expect("room");
        client.read_exact(&mut [0; 4]).await.expect("an echo");
    }
}
