//! The library as an embedding program uses it.

mod common;
mod embed {
    mod chances;
    mod serve;
    mod streams;
    mod supervised;
}

use std::time::Duration;

use common::{client, soon, until};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vestibule::{Backend, Config, Facts, Id, Outcome, Proxy, Rendezvous, Running, Unredeemed};

const BUDGET: Duration = Duration::from_secs(30);

/// One listener and one claimed backend.
fn config(extra: &str) -> Config {
    format!(
        r#"
        [gate]
        path = "none"
        {extra}
        [[listener]]
        name = "https"
        address = "127.0.0.1:0"
        [listener.tls]
        certificates = [ {{ chain = "certs/server.pem", key = "certs/server-key.pem" }} ]
        [[backend]]
        name = "app"
        to = "gate"
        "#
    )
    .parse()
    .expect("a configuration")
}

/// A proxy on this test's runtime, with one claimed backend.
async fn proxy(extra: &str) -> (String, Backend, Running) {
    let proxy = Proxy::builder(config(extra)).bind().await.expect("bound");
    let address = proxy.addresses()["https"].to_string().replace("tcp:", "");
    let app = proxy.backend("app");
    (address, app, proxy.start())
}

#[tokio::test]
async fn a_handler_in_process_serves_a_connection_with_its_facts() {
    let (address, mut app, running) = proxy("").await;
    let client = async {
        let mut client = client::connect(&address).await.expect("a handshake");
        client.write_all(b"question").await.expect("open");
        client.shutdown().await.expect("open");
        let mut answer = String::new();
        client
            .read_to_string(&mut answer)
            .await
            .expect("a clean end");
        answer
    };
    let server = async {
        let mut connection = app.accept().await.expect("a connection");
        assert_eq!(
            connection
                .facts()
                .tls
                .as_ref()
                .and_then(|tls| tls.sni.as_deref()),
            Some("localhost")
        );
        let mut question = String::new();
        connection
            .read_to_string(&mut question)
            .await
            .expect("a clean end");
        assert_eq!(question, "question");
        connection.write_all(b"answer").await.expect("open");
        connection.shutdown().await.expect("open");
    };
    let (answer, ()) = soon("an exchange", async { tokio::join!(client, server) }).await;
    assert_eq!(answer, "answer");
    until("it ends", || running.statistics().ended(Outcome::Done) == 1).await;
    assert_eq!(running.drain(BUDGET).await.cut, 0);
    assert!(
        app.accept().await.is_none(),
        "after the drain there are no more"
    );
}

#[tokio::test]
async fn a_cancelled_accept_loses_no_connection() {
    let (address, mut app, running) = proxy("").await;
    for _ in 0..50 {
        // `accept` is cancelled before, while and after a connection arrives.
        let (client, early) = tokio::join!(client::connect(&address), async {
            for _ in 0..20 {
                tokio::select! {
                    biased;
                    () = tokio::task::yield_now() => {}
                    connection = app.accept() => return connection,
                }
            }
            None
        });
        let mut client = client.expect("a handshake");
        let mut connection = match early {
            Some(connection) => connection,
            None => soon("a connection", app.accept())
                .await
                .expect("not draining"),
        };
        connection.write_all(b"x").await.expect("open");
        assert_eq!(client.read_u8().await.expect("a byte"), b'x');
    }
    assert_eq!(running.statistics().waiting, 0);
}

#[tokio::test]
async fn the_descriptor_of_a_connection_can_be_passed_on() {
    let (address, mut app, _running) = proxy("").await;
    let (client, connection) = soon("a pair", async {
        tokio::join!(client::connect(&address), app.accept())
    })
    .await;
    let stream = connection.expect("a connection").into_unix_stream();
    let stream = stream.into_std().expect("a plain socket");
    stream.set_nonblocking(false).expect("a plain socket");
    // `cat` gets only the descriptor.
    let mut child = std::process::Command::new("cat")
        .stdin(std::os::fd::OwnedFd::from(
            stream.try_clone().expect("a descriptor"),
        ))
        .stdout(std::os::fd::OwnedFd::from(stream))
        .spawn()
        .expect("cat");
    let mut client = client.expect("a handshake");
    client
        .write_all(b"through another process")
        .await
        .expect("open");
    client.shutdown().await.expect("open");
    let mut echo = String::new();
    soon("the echo", client.read_to_string(&mut echo))
        .await
        .expect("a clean end");
    assert_eq!(echo, "through another process");
    child.wait().expect("our child");
}

#[tokio::test]
async fn a_handler_that_panics_or_forgets_its_connection_ends_that_one_alone() {
    let (address, mut app, running) = proxy("").await;
    for _ in 0..2 {
        let (client, connection) = soon("a pair", async {
            tokio::join!(client::connect(&address), app.accept())
        })
        .await;
        drop(connection);
        let mut client = client.expect("a handshake");
        client
            .read_to_end(&mut Vec::new())
            .await
            .expect("a clean end");
        client.shutdown().await.expect("open");
    }
    until("both end", || {
        running.statistics().ended(Outcome::Done) == 2
    })
    .await;
    assert_eq!(running.statistics().open, 0);
}

#[tokio::test]
async fn a_drain_cuts_what_is_left_at_its_end_with_close_notify() {
    let (address, mut app, running) = proxy("").await;
    let (client, connection) = soon("a pair", async {
        tokio::join!(client::connect(&address), app.accept())
    })
    .await;
    let (mut client, _connection) = (client.expect("a handshake"), connection);
    let mut said = Vec::new();
    let (drained, read) = soon("a drain", async {
        tokio::join!(
            running.drain(Duration::from_millis(50)),
            client.read_to_end(&mut said)
        )
    })
    .await;
    assert_eq!(drained.cut, 1);
    assert_eq!(read.expect("close_notify"), 0);
    assert!(client::connect(&address).await.is_err());
}

/// The snippet in the README is this code. A loop with `accept` alone would never reach the drain.
#[tokio::test]
#[expect(
    clippy::disallowed_methods,
    reason = "the snippet is for programs that wait for their tasks as they like"
)]
async fn the_snippet_of_the_readme_drains_at_a_signal() -> Result<(), Box<dyn std::error::Error>> {
    async fn serve(mut connection: vestibule::Connection) {
        let asked = rustix::process::kill_process(rustix::process::getpid(), Signal::INT);
        asked.expect("our own process");
        connection.write_all(b"answer").await.expect("open");
        connection.shutdown().await.expect("open");
        // Until the client closes.
        let _ = connection.read_to_end(&mut Vec::new()).await;
    }
    let config = config("");
    let program = async {
        let proxy = vestibule::Proxy::builder(config).bind().await?;
        let address = proxy.addresses()["https"].to_string().replace("tcp:", "");
        let client = tokio::spawn(async move {
            let mut client = client::connect(&address).await.expect("a handshake");
            let mut answer = String::new();
            let read = client.read_to_string(&mut answer).await;
            read.expect("a clean end");
            client.shutdown().await.expect("open");
            answer
        });
        let mut app = proxy.backend("app");
        let running = proxy.start();
        loop {
            tokio::select! {
                Some(connection) = app.accept() => {
                    tokio::spawn(serve(connection));
                }
                _ = tokio::signal::ctrl_c() => break,
            }
        }
        running.drain(Duration::from_secs(30)).await;
        Ok::<_, Box<dyn std::error::Error>>(client.await?)
    };
    assert_eq!(soon("a drain", program).await?, "answer");

    let readme = include_str!("../README.md");
    let snippet = readme.split("```rust\n").nth(1).expect("a snippet");
    let snippet = snippet.split("```").next().expect("its end");
    let here = |line: &str| include_str!("embed.rs").lines().any(|it| it.trim() == line);
    for line in snippet.lines() {
        let code = line.split("//").next().unwrap_or_default().trim();
        assert!(here(code), "{code}");
    }
    Ok(())
}

#[tokio::test]
async fn dropping_a_running_proxy_closes_everything() {
    let (address, mut app, running) = proxy("").await;
    let (client, _connection) = soon("a pair", async {
        tokio::join!(client::connect(&address), app.accept())
    })
    .await;
    drop(running);
    let mut client = client.expect("a handshake");
    soon("an end", client.read_to_end(&mut Vec::new()))
        .await
        .expect("close_notify");
    assert!(soon("an end", app.accept()).await.is_none());
}

#[tokio::test]
async fn the_rendezvous_works_alone() {
    let rendezvous: Rendezvous<u32> = Rendezvous::new();
    let facts = Facts::new("app");
    let id: Id = facts.id;
    let ticket = rendezvous.announce(facts);
    assert!(rendezvous.claim(Id::random(), 1).is_err());
    assert!(rendezvous.claim(id, 2).is_ok());
    assert_eq!(rendezvous.claim(id, 3).expect_err("taken").into_stream(), 3);
    assert_eq!(ticket.redeem(BUDGET).await, Ok(2));

    let unclaimed = rendezvous.announce(Facts::new("app"));
    assert_eq!(
        unclaimed.redeem(Duration::ZERO).await,
        Err(Unredeemed::Expired)
    );
    assert!(rendezvous.is_empty());
}

#[tokio::test]
#[should_panic(expected = "no backend \"nobody\"")]
async fn a_backend_that_is_not_configured_panics() {
    let config: Config = "[[listener]]\nname = \"l\"\naddress = \"127.0.0.1:0\"\n\
                          [[backend]]\nname = \"app\"\nto = \"hello\"\n"
        .parse()
        .expect("a configuration");
    let proxy = Proxy::builder(config).bind().await.expect("bound");
    let _ = proxy.backend("nobody");
}
