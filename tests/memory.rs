//! The memory of a burst of connections goes back to the system when they have ended.

mod common;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use common::backend::Backend;
use common::client::{Client, Front, Socket};
use common::resources::raise_own_limit;
use common::vestibule::{LISTENERS, Vestibule};
use common::{soon, until, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;

const CONFIG: &str = r#"
[limits]
connections = 9000
connections_per_ip = "unlimited"
[[backend]]
name = "app"
to = "unix:{dir}/app.sock"
"#;

/// The proxy has two descriptors for each connection, and this process the other two.
const BURST: usize = 9_000;

/// The first connections, after which the program has allocated its fixed share.
const FIRST: usize = 100;

const MIB: usize = 1024 * 1024;

#[tokio::test]
async fn the_memory_of_nine_thousand_connections_goes_back_to_the_system() {
    raise_own_limit();
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    let backend = Backend::unix(&directory.path().join("app.sock"));
    let _serving = backend.serve(echo);
    let vestibule = Vestibule::start_whole(directory, &format!("{CONFIG}{LISTENERS}")).await;
    let descriptors = vestibule.descriptors();
    let front = Front::Tcp(vestibule.tcp());

    come_and_go(&vestibule, &front, FIRST, descriptors).await;
    let before = vestibule.memory();
    let held = come_and_go(&vestibule, &front, BURST, descriptors).await;
    let enough = before + before / 4 + 4 * MIB;
    assert!(
        held > enough,
        "there was no burst: {held} of {before} bytes"
    );

    let mut left = held;
    let gone = async {
        while left > enough {
            sleep(Duration::from_millis(10)).await;
            left = vestibule.memory();
        }
    };
    let what = format!("from {before} by way of {held} bytes to no more than {enough}");
    within(Duration::from_secs(10), &what, gone).await;
}

/// Opens this many connections at the same time, each with some traffic, and returns the memory
/// while they are open.
async fn come_and_go(
    vestibule: &Vestibule,
    front: &Front,
    count: usize,
    descriptors: usize,
) -> usize {
    let places = Arc::new(Semaphore::new(64));
    let mut coming = JoinSet::new();
    for _ in 0..count {
        let (front, places) = (front.clone(), Arc::clone(&places));
        coming.spawn(async move {
            let _place = places.acquire().await.expect("open");
            let mut client = front.connect().await.expect("a handshake");
            say(&mut client).await.expect("an echo");
            client
        });
    }
    let clients = soon("all connections", coming.join_all()).await;
    let held = vestibule.memory();
    let mut going = JoinSet::new();
    for mut client in clients {
        going.spawn(async move {
            client.shutdown().await.expect("open");
            assert_eq!(client.read(&mut [0]).await.expect("close_notify"), 0);
        });
    }
    soon("all ends", going.join_all()).await;
    until("every descriptor is closed", || {
        vestibule.descriptors() == descriptors
    })
    .await;
    held
}

async fn say(client: &mut Client) -> io::Result<()> {
    client.write_all(&[7; 1024]).await?;
    client.flush().await?;
    client.read_exact(&mut [0; 1024]).await?;
    Ok(())
}

async fn echo(mut socket: Socket) {
    let mut message = [0; 1024];
    socket.read_exact(&mut message).await.expect("a message");
    socket.write_all(&message).await.expect("open");
    assert_eq!(socket.read(&mut message).await.expect("an end"), 0);
}
