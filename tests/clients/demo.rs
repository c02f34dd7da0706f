//! The demo of the README.

use crate::*;

/// The only test of the demo, because the demo has a fixed port.
#[tokio::test]
async fn the_demo_runs_from_any_directory_and_shows_a_client_its_connection() {
    let elsewhere = tempfile::tempdir().expect("a directory");
    let demo = || {
        let mut command = process::vestibule();
        command.current_dir(elsewhere.path()).env_remove("RUST_LOG");
        command
    };
    let running = started(demo).await;
    let said = running.line("listening on tcp:127.0.0.1:8443").await;
    assert!(said.contains("listening on tcp:127.0.0.1:8443"), "{said}");

    // The command in the README, word for word.
    let get = |arguments: &[&str]| {
        let mut command = tool("curl");
        command
            .current_dir(project(""))
            .args(["-q", "--noproxy", "*"])
            .args(["--cacert", "certs/ca.pem", "https://localhost:8443/"])
            .args(arguments);
        command
    };
    let page = output(get(&[])).await.text();
    let row = |name: &str| -> String {
        let row = page
            .lines()
            .find_map(|line| line.trim().strip_prefix(name))
            .unwrap_or_else(|| panic!("no {name} in {page}"));
        row.trim().to_owned()
    };
    assert_is_random_uuid(&row("id "));
    assert_eq!(row("TLS version"), "1.3");
    assert!(row("cipher").starts_with("TLS13_"), "{page}");
    assert_eq!(row("SNI"), "localhost");
    assert_eq!(row("local "), ADDRESS);

    let what = "%{stderr}%{local_ip}:%{local_port} %{http_code} %{content_type}";
    let done = output(get(&["-H", "accept: application/json", "-s", "-w", what])).await;
    let (peer, form) = done.err.split_once(' ').expect("two words");
    assert_eq!(form, "200 application/json");
    let facts: Value = serde_json::from_slice(&done.out).expect("JSON");
    assert_ne!(facts["id"], row("id ").as_str(), "one id a connection");
    assert_eq!(facts["peer"], peer);
    let cipher = assert_facts(&facts);

    let done = output(get(&["-H", "accept: text/html", "-s", "-w", what])).await;
    assert!(done.err.ends_with(" 200 text/html; charset=utf-8"));
    let page = done.text();
    assert!(page.starts_with("<!doctype html>"), "{page}");
    for fact in ["localhost", "1.3", cipher, ADDRESS] {
        assert!(page.contains(&format!("<td>{fact}</td>")), "{fact}: {page}");
    }

    // A second demo finds the port in use, says so in one line, and does not affect the first.
    let second = output(demo()).await;
    assert_eq!(second.code, Some(1), "{}", second.err);
    assert!(second.err.contains(ADDRESS), "{}", second.err);
    assert_eq!(second.err.trim().lines().count(), 1, "{}", second.err);
    output(get(&["-s"])).await.ok();

    running.signal(rustix::process::Signal::TERM);
    let (status, said) = running.wait().await;
    assert_eq!(status.code(), Some(0), "{:?}", said.err);
    assert!(said.out.is_empty(), "nobody asked for {:?}", said.out);
    let left = std::fs::read_dir(elsewhere.path()).expect("the directory");
    assert_eq!(left.count(), 0, "it left something where it was started");
}

const ADDRESS: &str = "127.0.0.1:8443";

/// Starts the demo when its port is free.
async fn started(demo: impl Fn() -> Command) -> Process {
    soon("the demo's port", async {
        loop {
            let running = Process::start(demo());
            if running.heard("limits: ", 1).await.is_some() {
                return running;
            }
            // Another test run on this machine may use the port.
            let (_, said) = running.wait().await;
            assert!(said.err[0].contains("in use"), "{:?}", said.err);
            until("the port is free", || TcpListener::bind(ADDRESS).is_ok()).await;
        }
    })
    .await
}

/// Checks the facts of a curl connection in the demo's JSON, and returns the cipher.
fn assert_facts(facts: &Value) -> &str {
    assert_is_random_uuid(facts["id"].as_str().expect("an id"));
    assert_eq!(facts["local"], ADDRESS);
    assert_eq!(facts["listener"], "default");
    assert_eq!(facts["backend"], "default");
    assert_is_recent(facts["accepted_at"].as_str().expect("a time"));
    assert_eq!(facts["identity"], Value::Null);
    let tls = facts["tls"].as_object().expect("TLS facts");
    assert_eq!(tls["version"], "1.3");
    assert_eq!(tls["sni"], "localhost");
    assert_eq!(tls["alpn"], Value::Null);
    assert_eq!(tls["resumed"], false);
    let cipher = tls["cipher"].as_str().expect("a cipher");
    assert!(cipher.starts_with("TLS13_"), "{cipher}");
    assert!(tls["group"].is_string(), "{tls:?}");
    assert_eq!(
        (tls.len(), facts.as_object().map(|o| o.len())),
        (6, Some(8))
    );
    cipher
}
