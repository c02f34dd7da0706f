//! schemathesis asks the admin API for everything that its description allows, and for what it does not.
//!
//! The short form runs with all tests; `SCHEMA_SECONDS=300 cargo test --test admin_schema` takes five minutes.

mod common;

use std::io;
use std::time::Duration;

use common::admin::{WRITE, send};
use common::client::{Client, Front};
use common::process::{python_tool, run_within};
use common::vestibule::{Vestibule, message};
use common::{project, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

const CONFIG: &str = "[admin]\naddress = \"127.0.0.1:0\"\nallow_writes_over_tcp = true\n\
                      [[backend]]\nname = \"echo\"\nto = \"echo\"\n";

#[tokio::test]
async fn every_answer_is_described_and_none_harms_the_process_or_its_connections() {
    let mut vestibule = Vestibule::start(CONFIG).await;
    let url = url(&vestibule).await;
    let mut neighbours = JoinSet::new();
    for front in [
        Front::Tcp(vestibule.tcp()),
        Front::Unix(vestibule.path("front.sock")),
    ] {
        neighbours.spawn(neighbour(front.clone()));
        neighbours.spawn(neighbour(front));
    }

    let seconds = std::env::var("SCHEMA_SECONDS").unwrap_or_else(|_| "20".into());
    let mut schemathesis = python_tool("schemathesis");
    schemathesis
        .arg("--config-file")
        .arg(project("tests/schemathesis.toml"))
        .args(["run", "--no-color", "--max-time", &seconds])
        .arg(format!("{url}/v1/openapi.json"))
        // It leaves files where it runs.
        .current_dir(vestibule.directory.path());
    let bound = Duration::from_secs(seconds.parse::<u64>().expect("a number") + 120);
    let done = run_within(bound, schemathesis, b"").await;
    let said = String::from_utf8_lossy(&done.out);
    assert_eq!(done.code, Some(0), "{said}\n{}", done.err);
    assert!(said.contains("Test cases:"), "{said}");

    // It may kill connections, and has. No other one has ended.
    let status = send(&[], &format!("{url}/v1/status")).await.json();
    assert_eq!(status["pid"], vestibule.pid());
    let ended = status["connections"]["ended"].as_object().expect("counts");
    let ended: Vec<&str> = ended.keys().map(String::as_str).collect();
    assert_eq!(ended, ["killed"]);
    assert!(neighbours.try_join_next().is_none());
    neighbours.shutdown().await;
    echoed(&Front::Tcp(vestibule.tcp())).await.expect("an echo");

    let drain = [&["-X", "POST"], &WRITE[..]].concat();
    let answer = send(&drain, &format!("{url}/v1/drain")).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(vestibule.wait().await.code(), Some(0));
}

/// Has a connection again and again: each may be killed, also during its handshake.
async fn neighbour(front: Front) {
    loop {
        if let Ok(mut client) = echoed(&front).await {
            let read = client.read_to_end(&mut Vec::new()).await;
            assert_eq!(read.expect("a clean end"), 0);
        }
    }
}

async fn echoed(front: &Front) -> io::Result<Client> {
    let mut client = front.connect().await?;
    client.write_all(b"?").await?;
    soon("an echo", client.read_u8()).await?;
    Ok(client)
}

async fn url(vestibule: &Vestibule) -> String {
    let event = vestibule
        .event(|event| message(event).starts_with("admin API at tcp:"))
        .await;
    message(&event).replace("admin API at tcp:", "http://")
}
