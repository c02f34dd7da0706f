//! The admin API of the real binary: who may use it, what it answers, and what it bounds.

mod common;
mod admin {
    mod access;
    mod bounds;
    mod commands;
    mod events;
    mod watch;
}

use std::collections::BTreeSet;
use std::sync::Arc;

use common::admin::{Answer, WRITE, ask};
use common::client::{Client, Front};
use common::vestibule::Vestibule;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Clients of both listeners get an echo.
pub(crate) const ECHO: &str = "[[backend]]\nname = \"echo\"\nto = \"echo\"\n";

pub(crate) async fn ask_of(vestibule: &Vestibule, path: &str, flags: &[&str]) -> Answer {
    ask(&vestibule.path("run/admin.sock"), path, flags).await
}

async fn delete(vestibule: &Vestibule, path: &str) -> Answer {
    let flags = [&["-X", "DELETE"], &WRITE[..]].concat();
    ask_of(vestibule, path, &flags).await
}

/// A client whose connection is relayed.
pub(crate) async fn relayed(front: &Front) -> Client {
    let mut client = front.connect().await.expect("a handshake");
    echoes(&mut client).await;
    client
}

async fn echoes(client: &mut Client) {
    client.write_all(b"hello").await.expect("a live connection");
    let mut answer = [0; 5];
    common::soon("an echo", client.read_exact(&mut answer))
        .await
        .expect("a live connection");
}

fn ids(page: &Value) -> BTreeSet<String> {
    let rows = page["connections"].as_array().expect("a list").iter();
    rows.map(|row| row["id"].as_str().expect("an id").to_owned())
        .collect()
}

#[tokio::test]
async fn every_path_of_the_description_answers_as_described() {
    let vestibule = Vestibule::start(ECHO).await;
    let _client = relayed(&Front::Tcp(vestibule.tcp())).await;
    let all = ask_of(&vestibule, "/v1/connections", &[]).await.json();
    let id = ids(&all).pop_first().expect("a connection");
    let description = ask_of(&vestibule, "/v1/openapi.json", &[]).await.json();
    let paths = description["paths"].as_object().expect("paths");
    assert!(paths.len() >= 9);
    for (path, methods) in paths {
        // They are no JSON. Other tests ask for them.
        if ["/", "/metrics", "/v1/events"].contains(&path.as_str()) {
            continue;
        }
        let path = path.replace("{id}", &id);
        for (method, operation) in methods.as_object().expect("methods") {
            let method = method.to_uppercase();
            // Without the header for writes, nothing changes.
            let answer = ask_of(&vestibule, &path, &["-X", &method]).await;
            let expected = match method.as_str() {
                "GET" => 200,
                _ => 403,
            };
            assert_eq!(answer.status, expected, "{method} {path}: {answer:?}");
            let described = &operation["responses"][expected.to_string()];
            let schema = &described["content"]["application/json"]["schema"];
            assert!(schema.is_object(), "{method} {path}");
            let whole = resolved(&description, schema);
            for key in whole["required"].as_array().into_iter().flatten() {
                let key = key.as_str().expect("a name");
                assert!(
                    !answer.json()[key].is_null()
                        || key == "next"
                        || key == "last_problem"
                        || is_nullable(&whole["properties"][key]),
                    "{path} has no {key}"
                );
            }
        }
    }
}

fn resolved<'d>(description: &'d Value, schema: &'d Value) -> &'d Value {
    match schema["$ref"].as_str() {
        Some(path) => description.pointer(&path[1..]).expect("a schema"),
        None => schema,
    }
}

fn is_nullable(schema: &Value) -> bool {
    let any = schema["anyOf"].as_array().into_iter().flatten();
    any.into_iter().any(|it| it["type"] == "null")
}

/// Seven connections of the TCP listener and four of the Unix listener.
async fn eleven(vestibule: &Vestibule) -> Vec<Client> {
    let tcp = Front::Tcp(vestibule.tcp());
    let unix = Front::Unix(vestibule.path("front.sock"));
    let mut clients = Vec::new();
    for index in 0..11 {
        clients.push(relayed(if index < 7 { &tcp } else { &unix }).await);
    }
    clients
}

async fn list(vestibule: &Vestibule, query: &str) -> Answer {
    ask_of(vestibule, &format!("/v1/connections{query}"), &[]).await
}

#[tokio::test]
async fn filters_select_connections_and_mistakes_are_refused() {
    let vestibule = Vestibule::start(ECHO).await;
    let _clients = eleven(&vestibule).await;
    for (query, count) in [
        ("", 11),
        ("?backend=echo&state=relaying", 11),
        ("?listener=tcp", 7),
        ("?listener=unix&sni=LOCALHOST", 4),
        ("?peer=127.0.0.1", 7),
        ("?identity=cn:alice", 0),
        ("?state=waiting", 0),
    ] {
        let page = list(&vestibule, query).await.json();
        let total = &page["total"];
        assert_eq!((ids(&page).len(), total), (count, &count.into()), "{query}");
        assert!(page["next"].is_null());
    }
    for wrong in [
        "limit=0",
        "limit=1001",
        "sort=name",
        "after=x",
        "peer=x",
        "identiy=x",
    ] {
        let answer = list(&vestibule, &format!("?{wrong}")).await;
        assert_eq!(
            (answer.status, &*answer.code()),
            (400, "bad_request"),
            "{wrong}"
        );
    }
}

#[tokio::test]
async fn pages_together_have_each_connection_once() {
    let vestibule = Vestibule::start(ECHO).await;
    let _clients = eleven(&vestibule).await;
    let mut seen = BTreeSet::new();
    let mut after = String::new();
    for rest in [11, 7, 3] {
        let page = list(&vestibule, &format!("?limit=4{after}")).await.json();
        let page_ids = ids(&page);
        assert_eq!(page_ids.len(), 4.min(rest));
        assert!(page_ids.is_disjoint(&seen));
        seen.extend(page_ids);
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => assert_eq!(rest, 3),
        }
    }
    assert_eq!(seen.len(), 11);
    let row = &list(&vestibule, "?limit=1").await.json()["connections"][0];
    assert_eq!(
        (&row["bytes_in"], &row["bytes_out"]),
        (&5.into(), &5.into())
    );
    assert_eq!(row["tls"]["sni"], "localhost");
    let one = format!("/{}", row["id"].as_str().expect("an id"));
    assert_eq!(list(&vestibule, &one).await.json()["id"], row["id"]);
}

#[tokio::test]
async fn the_connection_that_has_been_idle_longest_is_first() {
    let vestibule = Vestibule::start(ECHO).await;
    let front = Front::Tcp(vestibule.tcp());
    let mut first = relayed(&front).await;
    let alone = list(&vestibule, "").await.json()["connections"][0]["id"].clone();
    let _second = relayed(&front).await;
    let order = async |query| {
        let page = list(&vestibule, query).await.json();
        let rows = page["connections"].as_array().expect("a list").clone();
        for row in &rows {
            let seconds = |key: &str| row[key].as_f64().expect("a number");
            assert!(seconds("idle") <= seconds("age"), "{row}");
        }
        rows[0]["id"].clone()
    };
    assert_eq!(order("?sort=-idle").await, alone);
    echoes(&mut first).await;
    // The worker notes the time after it has sent the echo.
    let noted = async { while order("?sort=-idle").await == alone {} };
    common::soon("the other order", noted).await;
    assert_eq!(order("?sort=idle").await, alone);
}

#[tokio::test]
async fn a_kill_ends_exactly_what_it_names() {
    let vestibule = Vestibule::start(ECHO).await;
    let mut stays = relayed(&Front::Unix(vestibule.path("front.sock"))).await;
    let tcp = Front::Tcp(vestibule.tcp());
    let mut ends = Vec::new();
    for _ in 0..3 {
        ends.push(relayed(&tcp).await);
    }
    let answer = delete(&vestibule, "/v1/connections").await;
    assert_eq!((answer.status, &*answer.code()), (400, "bad_request"));
    let answer = delete(&vestibule, "/v1/connections?listner=tcp").await;
    assert_eq!((answer.status, &*answer.code()), (400, "bad_request"));
    let unknown = "/v1/connections/00000000-0000-4000-8000-000000000000";
    assert_eq!(delete(&vestibule, unknown).await.status, 404);

    let all = ask_of(&vestibule, "/v1/connections?listener=tcp", &[])
        .await
        .json();
    let first = ids(&all).pop_first().expect("one");
    let killed = delete(&vestibule, &format!("/v1/connections/{first}")).await;
    assert_eq!(killed.json()["killed"], 1);
    vestibule.ended("killed", 1).await;
    let killed = delete(&vestibule, "/v1/connections?listener=tcp").await;
    assert_eq!(killed.json()["killed"], 2);
    vestibule.ended("killed", 3).await;
    for client in &mut ends {
        let mut rest = Vec::new();
        let read = common::soon("the end", client.read_to_end(&mut rest)).await;
        assert_eq!(read.expect("a clean end"), 0);
    }
    echoes(&mut stays).await;
    let status = ask_of(&vestibule, "/v1/status", &[]).await.json();
    assert_eq!(status["connections"]["ended"]["killed"], 3);
    assert_eq!(status["connections"]["open"], 1);
}

#[tokio::test]
async fn the_status_has_listeners_backends_limits_and_certificates() {
    let config =
        "[limits]\nconnections = 9\n[[backend]]\nname = \"app\"\nto = \"unix:{dir}/none.sock\"\n";
    let vestibule = Vestibule::start(config).await;
    let status = ask_of(&vestibule, "/v1/status", &[]).await.json();
    assert_eq!(status["pid"], vestibule.pid());
    assert_eq!(status["listeners"][0]["addresses"][0], vestibule.tcp());
    assert_eq!(status["limits"][0]["limit"], 9);
    let days = status["certificates"][0]["days_left"].as_i64();
    assert!(days.is_some_and(|days| days > 0), "{status}");
    assert!(status["memory"]["resident"].as_u64() > Some(1 << 20));
    let address = &status["backends"][0]["addresses"][0];
    assert_eq!(
        (&address["state"], &address["health"]),
        (&"up".into(), &"up".into())
    );

    // Three failed connects, and it is down.
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(Front::Tcp(vestibule.tcp()).connect().await);
    }
    vestibule
        .event(|event| event["message"] == "backend address is down")
        .await;
    let backends = ask_of(&vestibule, "/v1/backends", &[]).await.json();
    let address = &backends["backends"][0]["addresses"][0];
    assert_eq!(
        (&address["state"], &address["health"]),
        (&"up".into(), &"down".into())
    );
    assert!(address["error"].is_string(), "{address}");
}

#[tokio::test]
async fn a_second_instance_takes_another_name_and_both_answer() {
    let first = Vestibule::start(ECHO).await;
    let config = format!("{ECHO}{}", common::vestibule::LISTENERS).replace("front", "other");
    let second = Vestibule::start_as(&Arc::clone(&first.directory), "second.toml", &config).await;
    let socket = first.path(&format!("run/admin-{}.sock", second.pid()));
    let status = ask(&socket, "/v1/status", &[]).await.json();
    assert_eq!(status["pid"], second.pid());
    let status = ask_of(&first, "/v1/status", &[]).await.json();
    assert_eq!(status["pid"], first.pid());
    assert_eq!(second.terminate().await, Some(0));
    assert!(!socket.exists());
}
