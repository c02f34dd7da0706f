//! A backend that restarts during traffic: connections wait for it, and each is served exactly
//! once.

mod common;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use common::vestibule::Vestibule;
use common::{client, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How often each client, by its number, was served.
type Served = Arc<Mutex<HashMap<u32, u32>>>;

/// A server with a graceful stop: it removes its path, serves the clients that are connected
/// already, and exits.
struct Server {
    path: PathBuf,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Server {
    fn start(path: &Path, served: &Served) -> Self {
        let listener = UnixListener::bind(path).expect("a free path");
        let (stop, mut stopped) = watch::channel(false);
        let served = Arc::clone(served);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    biased;
                    accepted = listener.accept() => {
                        let (socket, _) = accepted.expect("a connection");
                        connections.spawn(serve(socket, Arc::clone(&served)));
                    }
                    _ = stopped.wait_for(|stop| *stop) => break,
                }
            }
            // The kernel knows whether a connection is left; the runtime may not know it yet.
            let listener = listener.into_std().expect("a listener");
            while let Ok((socket, _)) = listener.accept() {
                socket.set_nonblocking(true).expect("a socket");
                let socket = UnixStream::from_std(socket).expect("a runtime");
                connections.spawn(serve(socket, Arc::clone(&served)));
            }
            drop(listener);
            while let Some(served) = connections.join_next().await {
                served.expect("served");
            }
        });
        Self {
            path: path.to_owned(),
            stop,
            tasks,
        }
    }

    async fn stop(mut self) {
        std::fs::remove_file(&self.path).expect("our socket");
        self.stop.send(true).expect("a running server");
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("a clean end");
        }
    }
}

async fn serve(mut socket: UnixStream, served: Served) {
    let number = socket.read_u32().await.expect("a number");
    *served.lock().expect("no panic").entry(number).or_default() += 1;
    socket.write_u32(!number).await.expect("an open connection");
}

#[tokio::test]
async fn no_connection_is_lost_and_none_served_twice() {
    const CLIENTS: u32 = 1_000;
    const AT_A_TIME: usize = 32;
    const RESTARTS: usize = 5;

    let config = "[limits]\nconnections_per_ip = \"unlimited\"\n[timeouts]\nbackend = \"50s\"\n\
                  [[backend]]\nname = \"app\"\nto = \"unix:{dir}/app.sock\"\npark = true\n";
    let vestibule = Vestibule::start(config).await;
    let path = vestibule.path("app.sock");
    let served = Served::default();
    let mut server = Server::start(&path, &served);

    let mut clients = JoinSet::new();
    let (arrived, mut arrivals) = watch::channel(0);
    let spawn = |clients: &mut JoinSet<()>, number: u32| {
        let (address, arrived) = (vestibule.tcp(), arrived.clone());
        clients.spawn(async move {
            let mut client = client::connect(&address).await.expect("a handshake");
            client.write_u32(number).await.expect("an open connection");
            arrived.send_modify(|count| *count += 1);
            assert_eq!(client.read_u32().await.expect("an answer"), !number);
        });
    };
    let mut answered = 0;
    for number in 0..CLIENTS {
        spawn(&mut clients, number);
        // In the middle of the traffic the server stops, stays away until clients have tried to
        // connect, and returns.
        if (number as usize + 1).is_multiple_of(CLIENTS as usize / (RESTARTS + 1)) {
            soon("a stop", server.stop()).await;
            let before = *arrivals.borrow();
            for late in 0..AT_A_TIME as u32 {
                spawn(&mut clients, CLIENTS + number * AT_A_TIME as u32 + late);
            }
            let come = arrivals.wait_for(|count| *count >= before + AT_A_TIME);
            soon("clients without a server", come)
                .await
                .expect("a sender");
            server = Server::start(&path, &served);
        }
        while clients.len() >= AT_A_TIME {
            soon("a client", clients.join_next())
                .await
                .expect("some")
                .expect("an answer");
            answered += 1;
        }
    }
    while let Some(client) = soon("a client", clients.join_next()).await {
        client.expect("an answer");
        answered += 1;
    }

    let served = served.lock().expect("no panic");
    assert_eq!(served.len(), answered, "each client was served");
    assert!(
        served.values().all(|times| *times == 1),
        "and none of them twice"
    );
    assert!(
        answered > CLIENTS as usize,
        "and some while there was no server"
    );
    let ended: usize = vestibule.outcomes().values().sum();
    assert!(ended <= answered, "no connection but those of the clients");
}

#[tokio::test]
async fn a_full_queue_of_the_backend_is_waited_for_and_not_refused() {
    // With a backlog of 1 and no accept, a third connect finds the queue full.
    let config = "[[backend]]\nname = \"app\"\nto = \"unix:{dir}/app.sock\"\npark = false\n";
    let vestibule = Vestibule::start(config).await;
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::STREAM,
        None,
    )
    .expect("a socket");
    let address = rustix::net::SocketAddrUnix::new(vestibule.path("app.sock")).expect("a path");
    rustix::net::bind(&socket, &address).expect("a free path");
    rustix::net::listen(&socket, 1).expect("a listener");

    let mut clients = Vec::new();
    for number in 0..8 {
        let mut client = client::connect(&vestibule.tcp())
            .await
            .expect("a handshake");
        client.write_u32(number).await.expect("an open connection");
        clients.push(client);
    }
    let listener = std::os::unix::net::UnixListener::from(socket);
    listener.set_nonblocking(true).expect("a listener");
    let listener = UnixListener::from_std(listener).expect("a listener");
    let served = Served::default();
    let serving = async {
        for _ in 0..8 {
            let (socket, _) = listener.accept().await.expect("a connection");
            serve(socket, Arc::clone(&served)).await;
        }
    };
    soon("eight connections", serving).await;
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(
            client.read_u32().await.expect("an answer"),
            !(number as u32)
        );
    }
}
