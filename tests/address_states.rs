//! Addresses that an operator takes out of service: `drain` and `down`.

mod common;
mod address_states {
    mod race;
}

use std::fs;
use std::sync::Arc;

use common::admin::{Answer, WRITE, ask};
use common::backend::Backend;
use common::client::{Client, Front};
use common::gate;
use common::vestibule::{LISTENERS, Vestibule, complete};
use common::{soon, until};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

/// A backend that says its name, and echoes one byte at a time.
pub(crate) fn named(backend: Backend, name: u8) -> JoinSet<()> {
    backend.serve(move |mut socket| async move {
        let mut byte = [name];
        while socket.write_all(&byte).await.is_ok() {
            match socket.read(&mut byte).await {
                Ok(1) => {}
                _ => break,
            }
        }
    })
}

/// A backend `a` on a Unix socket and a backend `b` on TCP.
struct Two {
    vestibule: Vestibule,
    addresses: [String; 2],
    _serving: [JoinSet<()>; 2],
}

impl Two {
    async fn start(more: &str) -> Self {
        let directory = Arc::new(tempfile::tempdir().expect("a directory"));
        let a = Backend::unix(&directory.path().join("a.sock"));
        let b = Backend::tcp().await;
        let addresses = [a.address(), b.address()];
        let serving = [named(a, b'a'), named(b, b'b')];
        let config = config(&addresses, more);
        Self {
            vestibule: Vestibule::start_in(directory, &config).await,
            addresses,
            _serving: serving,
        }
    }

    async fn connect(&self) -> (u8, Client) {
        let front = Front::Tcp(self.vestibule.tcp());
        let mut client = front.connect().await.expect("a handshake");
        let name = soon("a backend", client.read_u8()).await;
        (name.expect("a name"), client)
    }

    /// The names of the backends of the next connections, in order.
    async fn names(&self, count: usize) -> (String, Vec<Client>) {
        let (mut names, mut clients) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let (name, client) = self.connect().await;
            names.push(name);
            clients.push(client);
        }
        names.sort();
        (String::from_utf8(names).expect("letters"), clients)
    }

    async fn put(&self, address: usize, state: &str) -> Value {
        let answer = put(&self.vestibule, "app", &self.addresses[address], state).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }
}

fn config(addresses: &[String], more: &str) -> String {
    let addresses = addresses.join("\", \"");
    format!(
        "[audit]\npath = \"{{dir}}/audit.log\"\n[[backend]]\nname = \"app\"\nto = [\"{addresses}\"]\n\
         balance = \"round_robin\"\n{more}\n"
    )
}

async fn put(vestibule: &Vestibule, backend: &str, address: &str, state: &str) -> Answer {
    let body = format!("{{\"state\":\"{state}\"}}");
    let address = address.replace('/', "%2F");
    send(vestibule, &format!("{backend}/addresses/{address}"), &body).await
}

async fn send(vestibule: &Vestibule, path: &str, body: &str) -> Answer {
    let flags = [&["-X", "PUT", "--data-binary", body], &WRITE[..]].concat();
    let socket = vestibule.path("run/admin.sock");
    ask(&socket, &format!("/v1/backends/{path}"), &flags).await
}

async fn addresses(vestibule: &Vestibule) -> Value {
    let socket = vestibule.path("run/admin.sock");
    let backends = ask(&socket, "/v1/backends", &[]).await.json();
    backends["backends"][0]["addresses"].clone()
}

async fn echoes(client: &mut Client) {
    client.write_all(b"x").await.expect("a live connection");
    let echo = soon("an echo", client.read_u8()).await;
    assert_eq!(echo.expect("a live connection"), b'x');
}

#[tokio::test]
async fn a_drained_address_gets_no_new_connection_and_keeps_those_that_it_has() {
    let two = Two::start("").await;
    let (names, mut clients) = two.names(4).await;
    assert_eq!(names, "aabb");
    let answer = two.put(0, "drain").await;
    assert_eq!(
        (&answer["connections"], &answer["killed"]),
        (&2.into(), &0.into())
    );
    let (names, _more) = two.names(4).await;
    assert_eq!(names, "bbbb");
    for client in &mut clients {
        echoes(client).await;
    }
    let all = addresses(&two.vestibule).await;
    assert_eq!(
        (&all[0]["state"], &all[0]["health"]),
        (&"drain".into(), &"up".into())
    );
    assert_eq!(
        (&all[1]["state"], &all[1]["health"]),
        (&"up".into(), &"up".into())
    );

    two.put(0, "up").await;
    let (names, _more) = two.names(4).await;
    assert_eq!(names, "aabb");
}

#[tokio::test]
async fn down_ends_the_connections_at_the_address_and_no_others() {
    let two = Two::start("").await;
    let (_, mut clients) = two.names(6).await;
    let answer = two.put(0, "down").await;
    assert_eq!(
        (&answer["connections"], &answer["killed"]),
        (&3.into(), &3.into())
    );
    two.vestibule.ended("killed", 3).await;
    let mut ended = 0;
    for client in &mut clients {
        let _ = client.write_all(b"x").await;
        match soon("an answer", client.read(&mut [0])).await {
            Ok(1) => {}
            _ => ended += 1,
        }
    }
    assert_eq!(ended, 3);
    let closed = two.vestibule.closed();
    let cause = closed[0]["cause"].as_str().expect("a cause");
    assert_eq!(
        cause,
        "an operator ended it: backend \"app\": its address was put down"
    );
    let (names, _more) = two.names(2).await;
    assert_eq!(names, "bb");

    let audit = two.vestibule.path("audit.log");
    let uid = format!("\"uid\":{}", rustix::process::geteuid().as_raw());
    until("a line in the audit log", || {
        let text = fs::read_to_string(&audit).unwrap_or_default();
        text.lines().any(|line| {
            line.contains("\"event\":\"admin\"")
                && line.contains("PUT /v1/backends/app/addresses/unix:%2F")
                && line.contains(&uid)
        })
    })
    .await;
}

#[tokio::test]
async fn while_all_addresses_are_out_of_service_connections_wait_for_one() {
    let two = Two::start("").await;
    two.put(0, "drain").await;
    two.put(1, "down").await;
    let front = Front::Tcp(two.vestibule.tcp());
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(front.connect().await.expect("a handshake"));
    }
    let socket = two.vestibule.path("run/admin.sock");
    // A client is through its handshake before Vestibule is.
    let query = "/v1/connections?state=waiting";
    soon("three that wait", async {
        while ask(&socket, query, &[]).await.json()["total"] != 3 {}
    })
    .await;
    two.put(1, "up").await;
    for client in &mut clients {
        assert_eq!(
            soon("a backend", client.read_u8()).await.expect("a name"),
            b'b'
        );
    }
}

#[tokio::test]
async fn a_connection_that_no_address_may_have_ends_with_that_cause() {
    const CAUSE: &str = "backend \"app\": an operator has drained or put down every address";
    for (more, outcome) in [
        ("park = false", "backend_refused"),
        ("[timeouts]\nbackend = \"100ms\"", "backend_timeout"),
    ] {
        let two = Two::start(more).await;
        two.put(0, "down").await;
        two.put(1, "drain").await;
        let front = Front::Tcp(two.vestibule.tcp());
        let mut client = front.connect().await.expect("a handshake");
        assert!(!matches!(
            soon("an end", client.read(&mut [0])).await,
            Ok(1)
        ));
        two.vestibule.ended(outcome, 1).await;
        let cause = two.vestibule.closed()[0]["cause"].clone();
        let cause = cause.as_str().expect("a cause");
        assert!(cause.ends_with(CAUSE), "{cause}");
        // A drain is not a failure of the address.
        assert_eq!(addresses(&two.vestibule).await[1]["health"], "up");
    }
}

#[tokio::test]
async fn what_does_not_exist_is_answered_with_what_exists() {
    let two = Two::start("").await;
    let [unix, tcp] = &two.addresses;
    let backend = put(&two.vestibule, "api", unix, "drain").await;
    assert_eq!((backend.status, &*backend.code()), (404, "not_found"));
    assert!(backend.body.contains("backends: app"), "{backend:?}");
    for wrong in ["tcp:127.0.0.1:1", "unix:/nowhere", "x", "tcp:"] {
        let address = put(&two.vestibule, "app", wrong, "drain").await;
        assert_eq!((address.status, &*address.code()), (404, "not_found"));
        let message = address.json()["error"]["message"].to_string();
        assert!(message.contains(unix) && message.contains(tcp), "{message}");
    }
    let short = tcp.trim_start_matches("tcp:");
    assert_eq!(put(&two.vestibule, "app", short, "up").await.status, 200);
    for body in [
        "",
        "up",
        "{}",
        "{\"state\":\"off\"}",
        "{\"state\":1}",
        "{\"state\":\"down\",\"for\":\"1h\"}",
        "[\"up\"]",
    ] {
        let answer = send(&two.vestibule, &format!("app/addresses/{tcp}"), body).await;
        assert_eq!(
            (answer.status, &*answer.code()),
            (400, "bad_request"),
            "{body}"
        );
    }
    let answer = send(&two.vestibule, "app/addresses/%", "{\"state\":\"up\"}").await;
    assert_eq!(answer.status, 400);
    let states = addresses(&two.vestibule).await;
    assert_eq!(
        (&states[0]["state"], &states[1]["state"]),
        (&"up".into(), &"up".into())
    );
}

#[tokio::test]
async fn a_state_survives_a_reload_that_keeps_the_address() {
    let two = Two::start("").await;
    let (_, mut clients) = two.names(2).await;
    two.put(0, "drain").await;
    let third = "tcp:127.0.0.1:9".to_owned();
    let all = [two.addresses[0].clone(), third];
    // With another setting too, so that it is a new backend with the same addresses.
    let changed = config(&all, "health = { fall = 5 }") + LISTENERS;
    let text = complete(&two.vestibule.directory, &changed);
    fs::write(two.vestibule.path("vestibule.toml"), text).expect("a file");
    two.vestibule.said("reloaded", 1).await;
    let states = addresses(&two.vestibule).await;
    assert_eq!(
        (&states[0]["state"], &states[1]["state"]),
        (&"drain".into(), &"up".into())
    );
    // Also the connections from before the reload belong to the address.
    for client in &mut clients {
        echoes(client).await;
    }
    assert_eq!(two.put(0, "down").await["killed"], 1);
    two.vestibule.ended("killed", 1).await;
    two.put(0, "up").await;
    // The address that was removed is unknown, and its connection stays.
    let gone = put(&two.vestibule, "app", &two.addresses[1], "down").await;
    assert_eq!(gone.status, 404);
}

#[tokio::test]
async fn a_socket_address_of_a_name_has_its_own_state_and_that_of_the_name() {
    let backend = Backend::tcp().await;
    let address = backend.address();
    let _serving = named(backend, b'n');
    let name = address.replace("127.0.0.1", "localhost");
    let vestibule = Vestibule::start(&config(std::slice::from_ref(&name), "")).await;
    let front = Front::Tcp(vestibule.tcp());
    let mut client = front.connect().await.expect("a handshake");
    assert_eq!(soon("a name", client.read_u8()).await.expect("one"), b'n');
    let known = addresses(&vestibule).await;
    let resolved = known[0]["resolved"].as_array().expect("a list");
    assert!(
        resolved.iter().any(|it| it["address"] == *address),
        "{known}"
    );

    assert_eq!(put(&vestibule, "app", &address, "drain").await.status, 200);
    echoes(&mut client).await;
    let known = addresses(&vestibule).await;
    assert_eq!(known[0]["state"], "up");
    let resolved = known[0]["resolved"].as_array().expect("a list");
    let ours = resolved.iter().find(|it| it["address"] == *address);
    assert_eq!(ours.expect("it is known")["state"], "drain");
    // An order for the name is also about connections of its socket addresses.
    let answer = put(&vestibule, "app", &name, "down").await.json();
    assert_eq!(
        (&answer["connections"], &answer["killed"]),
        (&1.into(), &1.into())
    );
    vestibule.ended("killed", 1).await;
    let mut parked = front.connect().await.expect("a handshake");
    assert_eq!(put(&vestibule, "app", &address, "up").await.status, 200);
    assert_eq!(put(&vestibule, "app", &name, "up").await.status, 200);
    assert_eq!(soon("a name", parked.read_u8()).await.expect("one"), b'n');
}

#[tokio::test]
async fn a_registered_address_is_drained_until_it_is_registered_again() {
    let config = "[[backend]]\nname = \"app\"\nto = \"gate\"\n";
    let vestibule = Vestibule::start(config).await;
    let backend = Backend::tcp().await;
    let address = backend.address();
    let _serving = named(backend, b'r');
    let line = format!("REGISTER app {address}");
    let mut registered = gate::send(&vestibule.gate(), &line).await;
    assert_eq!(
        soon("OK", gate::line(&mut registered)).await.expect("OK"),
        "OK {}"
    );
    assert_eq!(put(&vestibule, "app", &address, "drain").await.status, 200);
    let front = Front::Tcp(vestibule.tcp());
    let mut client = front.connect().await.expect("a handshake");
    drop(registered);
    vestibule.said("address withdrawn", 1).await;
    assert_eq!(put(&vestibule, "app", &address, "up").await.status, 404);
    let mut registered = gate::send(&vestibule.gate(), &line).await;
    assert_eq!(
        soon("OK", gate::line(&mut registered)).await.expect("OK"),
        "OK {}"
    );
    assert_eq!(soon("a name", client.read_u8()).await.expect("one"), b'r');
}
