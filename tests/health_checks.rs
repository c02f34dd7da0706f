//! Health checks: what they find, what they leave to the server, and what clients get of it.

mod common;
mod health_checks {
    mod peers;
}

use std::fs;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use common::admin::ask;
use common::backend::Backend;
use common::client::{Front, Socket};
use common::gate;
use common::vestibule::{LISTENERS, Vestibule, complete, message};
use common::{soon, until};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

/// As Redis: an answer is expected.
pub(crate) const PING: &str = "health = { interval = \"100ms\", fall = 2, rise = 2, send = \"PING\\r\\n\", expect = \"+PONG\" }\n";

/// A connection proves enough.
const CONNECT: &str = "health = { interval = \"100ms\", fall = 2, rise = 2 }\n";

pub(crate) fn config(to: &str, more: &str) -> String {
    format!(
        "[audit]\npath = \"{{dir}}/audit.log\"\n[[backend]]\nname = \"app\"\nto = \"{to}\"\n{more}"
    )
}

async fn address(vestibule: &Vestibule) -> Value {
    let socket = vestibule.path("run/admin.sock");
    let backends = ask(&socket, "/v1/backends", &[]).await.json();
    backends["backends"][0]["addresses"][0].clone()
}

pub(crate) async fn down(vestibule: &Vestibule, times: usize) -> Value {
    vestibule.said("backend address is down", times).await;
    vestibule
        .event(|event| message(event) == "backend address is down")
        .await
}

async fn up(vestibule: &Vestibule, times: usize) {
    vestibule.said("backend address is up", times).await;
}

/// Answers a ping, and then echoes.
async fn pong(mut socket: Socket) {
    let mut line = [0; 6];
    if socket.read_exact(&mut line).await.is_ok() && line == *b"PING\r\n" {
        let _ = socket.write_all(b"+PONG\r\n").await;
    }
    // Until the other side has ended.
    let _ = socket.read_to_end(&mut Vec::new()).await;
}

async fn silent(mut socket: Socket) {
    let _ = socket.read_to_end(&mut Vec::new()).await;
}

async fn trickling(mut socket: Socket) {
    while socket.write_all(b"+").await.is_ok() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

async fn garbage(mut socket: Socket) {
    while socket.write_all(&[b'+'; 4096]).await.is_ok() {}
}

async fn wrong(mut socket: Socket) {
    let _ = socket.write_all(b"-LOADING\r\n+PO").await;
    let _ = socket.shutdown().await;
    silent(socket).await;
}

async fn reset(socket: Socket) {
    match socket {
        Socket::Tcp(stream) => stream.set_zero_linger().expect("a socket"),
        Socket::Unix(_) => {}
    }
}

/// Checks of a backend that serves so: they find the error, no client gets to it, and no descriptor
/// is lost.
async fn assert_found<F>(serve: fn(Socket) -> F, error: &str)
where
    F: Future<Output = ()> + Send + 'static,
{
    let backend = Backend::tcp().await;
    let to = backend.address();
    let checks = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&checks);
    let _serving = backend.serve(move |socket| {
        counted.fetch_add(1, Ordering::Relaxed);
        serve(socket)
    });
    let vestibule = Vestibule::start(&config(&to, &format!("park = false\n{PING}"))).await;
    let event = down(&vestibule, 1).await;
    let found = event["error"].as_str().expect("an error");
    assert!(found.starts_with("health check: "), "{found}");
    assert!(found.contains(error), "{found}");
    assert_eq!(
        (&event["backend"], &event["address"]),
        (&"app".into(), &(*to).into())
    );
    let status = address(&vestibule).await;
    assert_eq!(
        (&status["health"], &status["state"]),
        (&"down".into(), &"up".into())
    );

    let front = Front::Tcp(vestibule.tcp());
    let mut client = front.connect().await.expect("a handshake");
    assert!(!matches!(
        soon("an end", client.read(&mut [0])).await,
        Ok(1)
    ));
    drop(client);
    vestibule.ended("backend_refused", 1).await;
    let (seen, open) = (checks.load(Ordering::Relaxed), vestibule.descriptors());
    until("more checks", || checks.load(Ordering::Relaxed) >= seen + 8).await;
    until("no descriptor is lost", || vestibule.descriptors() <= open).await;
    // One line for the change, however many checks.
    let log = vestibule.log();
    let lines = log
        .iter()
        .filter(|it| message(it).starts_with("backend address is"));
    assert_eq!(lines.count(), 1);
}

#[tokio::test]
async fn a_backend_that_says_nothing_is_down() {
    assert_found(silent, "`expect` did not come in time").await;
}

#[tokio::test]
async fn a_backend_that_trickles_is_down() {
    assert_found(trickling, "`expect` did not come in time").await;
}

#[tokio::test]
async fn a_backend_that_sends_garbage_without_end_is_down() {
    assert_found(garbage, "`expect` is not in its first 65536 bytes").await;
}

#[tokio::test]
async fn a_backend_with_a_wrong_answer_is_down() {
    assert_found(wrong, "it closed before `expect` came").await;
}

#[tokio::test]
async fn a_backend_that_resets_is_down() {
    assert_found(reset, "reset").await;
}

#[tokio::test]
async fn an_answer_may_come_in_single_bytes_and_behind_others() {
    let backend = Backend::tcp().await;
    let to = backend.address();
    let checks = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&checks);
    let _serving = backend.serve(move |mut socket| {
        let checks = Arc::clone(&counted);
        async move {
            for byte in b"* hello\r\n++PO+PONG" {
                if socket.write_all(&[*byte]).await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
            silent(socket).await;
            checks.fetch_add(1, Ordering::Relaxed);
        }
    });
    let vestibule = Vestibule::start(&config(&to, PING)).await;
    until("checks", || checks.load(Ordering::Relaxed) >= 6).await;
    assert_eq!(address(&vestibule).await["health"], "up");
    let log = vestibule.log();
    assert!(
        !log.iter()
            .any(|it| message(it).starts_with("backend address"))
    );
}

#[tokio::test]
async fn without_a_client_an_address_goes_down_and_comes_up() {
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    let path = directory.path().join("app.sock");
    let to = format!("unix:{}", path.display());
    let vestibule = Vestibule::start_in(Arc::clone(&directory), &config(&to, CONNECT)).await;
    for times in 1..=3 {
        down(&vestibule, times).await;
        let status = address(&vestibule).await;
        assert_eq!(status["health"], "down");
        assert!(status["error"].is_string());
        let serving = Backend::unix(&path).serve(silent);
        up(&vestibule, times).await;
        assert_eq!(address(&vestibule).await["health"], "up");
        drop(serving);
        fs::remove_file(&path).expect("a socket");
    }
    let audit = vestibule.path("audit.log");
    assert_eq!(vestibule.terminate().await, Some(0));
    let audit = fs::read_to_string(audit).expect("an audit log");
    assert!(!audit.contains("\"event\":\"backend\""), "{audit}");
}

#[tokio::test]
async fn a_full_queue_at_every_check_is_a_failure() {
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    let path = directory.path().join("app.sock");
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    let at = socket2::SockAddr::unix(&path).expect("an address");
    socket.bind(&at).expect("a path");
    socket.listen(0).expect("a listener");
    let _queued = std::os::unix::net::UnixStream::connect(&path).expect("room for one");
    let to = format!("unix:{}", path.display());
    let vestibule = Vestibule::start_in(directory, &config(&to, CONNECT)).await;
    let event = down(&vestibule, 1).await;
    assert_eq!(
        event["error"],
        "health check: the queue of its listener is full"
    );
}

#[tokio::test]
async fn clients_wait_while_the_answer_is_wrong_and_are_served_when_it_is_right() {
    let backend = Backend::tcp().await;
    let to = backend.address();
    let is_right = Arc::new(AtomicBool::new(false));
    let right = Arc::clone(&is_right);
    let _serving = backend.serve(move |socket| {
        let is_right = right.load(Ordering::Relaxed);
        async move {
            match is_right {
                true => pong(socket).await,
                false => wrong(socket).await,
            }
        }
    });
    let config = config(&to, PING) + "[timeouts]\nbackend = \"50s\"\n";
    let vestibule = Vestibule::start(&config).await;
    let front = Front::Tcp(vestibule.tcp());
    for times in 1..=3 {
        is_right.store(false, Ordering::Relaxed);
        down(&vestibule, times).await;
        let mut client = front.connect().await.expect("a handshake");
        client.write_all(b"PING\r\n").await.expect("open");
        is_right.store(true, Ordering::Relaxed);
        let mut answer = [0; 7];
        let served = soon("a backend", client.read_exact(&mut answer)).await;
        served.expect("an answer");
        assert_eq!(&answer, b"+PONG\r\n");
        up(&vestibule, times).await;
    }
}

#[tokio::test]
async fn a_registered_address_and_a_name_are_checked_too() {
    let backend = Backend::tcp().await;
    let to = backend.address();
    let is_right = Arc::new(AtomicBool::new(true));
    let right = Arc::clone(&is_right);
    let _serving: JoinSet<()> = backend.serve(move |socket| {
        let is_right = right.load(Ordering::Relaxed);
        async move {
            match is_right {
                true => pong(socket).await,
                false => wrong(socket).await,
            }
        }
    });
    let name = to.replace("127.0.0.1", "localhost");
    for to_and_register in [(&*name, None), ("gate", Some(&to))] {
        let (configured, registered) = to_and_register;
        is_right.store(true, Ordering::Relaxed);
        let vestibule = Vestibule::start(&config(configured, PING)).await;
        let mut registration = None;
        if let Some(to) = registered {
            let line = format!("REGISTER app {to}");
            let mut socket = gate::send(&vestibule.gate(), &line).await;
            let answer = soon("OK", gate::line(&mut socket)).await;
            assert_eq!(answer.expect("OK"), "OK {}");
            registration = Some(socket);
        }
        is_right.store(false, Ordering::Relaxed);
        let event = down(&vestibule, 1).await;
        assert_eq!(event["address"], *registered.unwrap_or(&name));
        assert_eq!(address(&vestibule).await["health"], "down");
        is_right.store(true, Ordering::Relaxed);
        up(&vestibule, 1).await;
        assert_eq!(address(&vestibule).await["health"], "up");
        drop(registration);
    }
}

#[tokio::test]
async fn a_reload_without_checks_takes_back_what_they_said_of_a_registered_address() {
    let backend = Backend::tcp().await;
    let line = format!("REGISTER app {}", backend.address());
    let _serving = backend.serve(wrong);
    let vestibule = Vestibule::start(&config("gate", PING)).await;
    let mut registration = gate::send(&vestibule.gate(), &line).await;
    let answer = soon("OK", gate::line(&mut registration)).await;
    assert_eq!(answer.expect("OK"), "OK {}");
    down(&vestibule, 1).await;
    let text = complete(&vestibule.directory, &(config("gate", "") + LISTENERS));
    fs::write(vestibule.path("vestibule.toml"), text).expect("a file");
    vestibule.said("reloaded", 1).await;
    assert_eq!(address(&vestibule).await["health"], "up");
    let mut client = Front::Tcp(vestibule.tcp())
        .connect()
        .await
        .expect("a handshake");
    let mut answer = [0; 8];
    let served = soon("the backend", client.read_exact(&mut answer)).await;
    served.expect("an answer");
    assert_eq!(&answer, b"-LOADING");
}

#[tokio::test]
async fn a_reload_ends_the_checks_of_an_address_that_is_gone() {
    let counts = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
    let mut serving = Vec::new();
    let mut addresses = Vec::new();
    for count in &counts {
        let backend = Backend::tcp().await;
        addresses.push(backend.address());
        let count = Arc::clone(count);
        serving.push(backend.serve(move |socket| {
            count.fetch_add(1, Ordering::Relaxed);
            silent(socket)
        }));
    }
    let seen = |index: usize| counts[index].load(Ordering::Relaxed);
    let vestibule = Vestibule::start(&config(&addresses[0], CONNECT)).await;
    until("checks", || seen(0) >= 3).await;
    let text = config(&addresses[1], CONNECT) + LISTENERS;
    let text = complete(&vestibule.directory, &text);
    fs::write(vestibule.path("vestibule.toml"), text).expect("a file");
    vestibule.said("reloaded", 1).await;
    until("checks", || seen(1) >= 1).await;
    let before = seen(0);
    until("more checks", || seen(1) >= 8).await;
    // A check that had begun may be accepted late.
    assert!(seen(0) <= before + 1, "{} after {before}", seen(0));
}
