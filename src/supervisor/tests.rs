use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::*;

const CONFIG: &str = r#"
    [[listener]]
    name = "plain"
    address = "tcp:127.0.0.1:0"
    [[backend]]
    name = "echo"
    to = "echo"
"#;

/// A supervisor on this runtime, and the address of its listener.
struct Supervised {
    handle: SupervisorHandle,
    address: String,
    run: JoinSet<Drained>,
}

impl Supervised {
    /// `again` makes the configuration of each reload, from the number of the reload.
    async fn start(
        again: impl Fn(usize) -> Result<Config, ReadError> + Send + Sync + 'static,
    ) -> Self {
        let reads = AtomicUsize::new(0);
        let source = ConfigSource::code(move || match reads.fetch_add(1, Ordering::Relaxed) {
            0 => config(CONFIG),
            number => again(number),
        });
        let proxy = Proxy::builder(source.read().expect("no problems")).bind();
        let proxy = proxy.await.expect("bound");
        let address = proxy.addresses()["plain"].to_string().replace("tcp:", "");
        let supervisor = Supervisor::start(proxy, source);
        let handle = supervisor.handle();
        let mut run = JoinSet::new();
        run.spawn(supervisor.run());
        Self {
            handle,
            address,
            run,
        }
    }

    /// Opens a connection and waits until it is relayed.
    async fn connect(&self) -> TcpStream {
        let mut client = TcpStream::connect(&self.address).await.expect("a listener");
        client.write_all(b"x").await.expect("room");
        assert_eq!(client.read_u8().await.expect("an echo"), b'x');
        client
    }

    async fn ended(mut self) -> Drained {
        let ended = timeout(LONG, self.run.join_next()).await;
        ended.expect("an end").expect("it runs").expect("no panic")
    }
}

fn config(text: &str) -> Result<Config, ReadError> {
    // With port 0, a reload has no fixed address to keep.
    Ok(text.parse::<Config>()?)
}

#[tokio::test]
async fn a_reload_is_complete_or_changes_nothing_and_the_supervisor_continues() {
    let supervised = Supervised::start(|number| match number {
        1 => config("[limits]\nconections = 5"),
        2 => config(&format!("[runtime]\nworkers = 7\n{CONFIG}")),
        _ => config(&format!("[limits]\nconnections = 5\n{CONFIG}")),
    })
    .await;
    let handle = supervised.handle.clone();
    let failures = [handle.reload().await, handle.reload().await];
    assert!(matches!(
        failures[0],
        Err(ReloadFailure::Read(ReadError::Config(_)))
    ));
    assert!(matches!(
        failures[1],
        Err(ReloadFailure::Reload(ReloadError::NeedsRestart(_)))
    ));
    let client = supervised.connect().await;
    assert!(handle.reload().await.is_ok());
    let mut others = Vec::new();
    for _ in 0..4 {
        others.push(supervised.connect().await);
    }
    let mut sixth = TcpStream::connect(&supervised.address)
        .await
        .expect("it listens");
    assert!(
        !matches!(sixth.read(&mut [0]).await, Ok(1..)),
        "over the limit"
    );
    drop((client, others));
    handle.drain();
    assert_eq!(supervised.ended().await.cut, 0);
}

#[tokio::test]
async fn the_handle_lists_and_kills_connections() {
    let supervised = Supervised::start(|_| config(CONFIG)).await;
    let (mut one, mut other) = (supervised.connect().await, supervised.connect().await);
    let handle = &supervised.handle;
    let echo = ConnectionFilter::all().backend("echo");
    let open = handle.connections(&echo);
    assert_eq!(open.len(), 2);
    let ours = one.local_addr().expect("connected").to_string();
    let is_ours = |it: &&OpenConnection| {
        it.facts.peer.as_ref().map(ToString::to_string).as_ref() == Some(&ours)
    };
    let connection = open.iter().find(is_ours).expect("it is listed");
    assert_eq!((connection.bytes_in, connection.bytes_out), (1, 1));
    let filter = ConnectionFilter::all().id(connection.facts.id);
    assert_eq!((handle.kill(&filter), handle.kill(&filter)), (1, 0));
    // Without TLS a kill is a reset: a clean end could come from the backend.
    let ended = timeout(LONG, one.read(&mut [0])).await.expect("an end");
    assert!(ended.is_err());
    other.write_all(b"y").await.expect("room");
    assert_eq!(other.read_u8().await.expect("an echo"), b'y');
    drop(other);
    handle.drain();
    assert_eq!(
        supervised.handle.statistics().ended(crate::Outcome::Killed),
        1
    );
    assert_eq!(supervised.ended().await.cut, 0);
}

#[tokio::test]
async fn a_cut_closes_connections_that_a_drain_waits_for() {
    let supervised = Supervised::start(|_| config(CONFIG)).await;
    let _client = supervised.connect().await;
    let handle = supervised.handle.clone();
    handle.drain();
    assert!(handle.is_draining());
    assert!(matches!(
        handle.reload().await,
        Err(ReloadFailure::Draining)
    ));
    handle.cut();
    // A later drain does not undo the cut.
    handle.drain();
    assert_eq!(supervised.ended().await.cut, 1);
    assert!(matches!(
        handle.reload().await,
        Err(ReloadFailure::Draining)
    ));
}

#[tokio::test]
async fn a_reading_that_hangs_is_given_up_for_a_drain() {
    let (started, has_started) = sync_channel(1);
    let (data, disk) = sync_channel::<()>(0);
    let disk = std::sync::Mutex::new(disk);
    let supervised = Supervised::start(move |_| {
        started.send(()).expect("a test that waits");
        // An error means that the test has failed.
        let _ = disk.lock().expect("no panic").recv_timeout(LONG);
        config(CONFIG)
    })
    .await;
    let handle = supervised.handle.clone();
    let mut asked = JoinSet::new();
    asked.spawn(async move { handle.reload().await });
    let waited = tokio::task::spawn_blocking(move || has_started.recv_timeout(LONG));
    waited.await.expect("no panic").expect("a read");
    supervised.handle.drain();
    assert_eq!(supervised.ended().await.cut, 0);
    let answer = asked.join_next().await.expect("one").expect("no panic");
    assert!(matches!(answer, Err(ReloadFailure::Draining)), "{answer:?}");
    data.send(()).expect("a read that hangs still");
}

/// Only a failing test takes this long.
const LONG: Duration = Duration::from_secs(60);
