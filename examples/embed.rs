//! Vestibule inside a program: TLS at the door, and each connection served by a task of ours.
//!
//! ```sh
//! cargo run --release --example embed
//! curl --cacert certs/ca.pem https://localhost:8444/
//! ```

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use vestibule::{Config, Connection, Proxy};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::from_file(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/embed.toml"))?;
    let proxy = Proxy::builder(config).bind().await?;
    println!("listening on {}", proxy.addresses()["https"]);

    // Connections of the backend `app` come here, as those of a worker at the gate would.
    let mut app = proxy.backend("app");
    let running = proxy.start();

    // What container runtimes and service managers send, where a terminal sends SIGINT.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut serving = JoinSet::new();
    loop {
        tokio::select! {
            connection = app.accept() => match connection {
                Some(connection) => drop(serving.spawn(serve(connection))),
                // Draining, which has not begun here.
                None => break,
            },
            // A task that has ended makes room.
            Some(_) = serving.join_next() => {}
            _ = tokio::signal::ctrl_c() => break,
            _ = terminate.recv() => break,
        }
    }
    // The tasks go on meanwhile.
    let drained = running.drain(Duration::from_secs(30)).await;
    println!("drained, {} connections had to be cut", drained.cut);
    Ok(())
}

/// Answers one request with what is known of its connection. Any HTTP library would do: a
/// [`Connection`] reads and writes like a socket.
async fn serve(connection: Connection) -> std::io::Result<()> {
    let body = format!("{}\n", connection.facts().to_json());
    let mut connection = BufReader::new(connection);
    let mut line = String::new();
    // Up to the empty line that ends the request's head.
    while connection.read_line(&mut line).await? > 2 {
        line.clear();
    }
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    connection.write_all(head.as_bytes()).await?;
    connection.write_all(body.as_bytes()).await?;
    connection.shutdown().await
}
