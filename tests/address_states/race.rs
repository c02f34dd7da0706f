//! Connections that come while their address goes down and up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use vestibule::{AddressState, ConnectionFilter, ConnectionState, Proxy};

use crate::common::backend::Backend;
use crate::common::until;
use crate::named;

/// Clients connect without a pause while the address goes down and up. Whoever was dialled before an
/// order, and is told after it, must not be forgotten.
#[tokio::test]
async fn no_connection_that_was_dialled_before_survives_down() {
    let backend = Backend::tcp().await;
    let address = backend.address();
    let _serving = named(backend, b'r');
    let config: vestibule::Config = format!(
        "[runtime]\nworkers = 2\n[[listener]]\nname = \"plain\"\naddress = \"tcp:127.0.0.1:0\"\n\
         [[backend]]\nname = \"app\"\nto = \"{address}\"\n"
    )
    .parse()
    .expect("no problems");
    let proxy = Proxy::builder(config)
        .on_worker_threads()
        .bind()
        .await
        .expect("bound");
    let front = proxy.addresses()["plain"].to_string().replace("tcp:", "");
    let running = proxy.start();
    let address = address.parse().expect("an address");
    let is_over = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for _ in 0..8 {
        let (front, is_over) = (front.clone(), Arc::clone(&is_over));
        clients.spawn(async move {
            while !is_over.load(Ordering::Relaxed) {
                let mut client = TcpStream::connect(&front).await.expect("a listener");
                // Held until Vestibule ends it, or the round is over.
                let mut byte = [0];
                while client.read(&mut byte).await.is_ok_and(|read| read == 1) {}
            }
        });
    }
    let relayed = ConnectionFilter::all().state(ConnectionState::Relaying);
    for _ in 0..300 {
        until("a connection", || !running.connections(&relayed).is_empty()).await;
        let set = |state| running.set_address_state("app", &address, state);
        set(AddressState::Down).expect("a known address");
        // A survivor would stay for ever.
        until("no survivor", || running.connections(&relayed).is_empty()).await;
        set(AddressState::Up).expect("a known address");
    }
    is_over.store(true, Ordering::Relaxed);
    set_down_and_end(running, clients).await;
}

async fn set_down_and_end(running: vestibule::Running, mut clients: JoinSet<()>) {
    clients.abort_all();
    while clients.join_next().await.is_some() {}
    running.drain(Duration::from_secs(30)).await;
}
