//! Node.js, with its own module `http2`.

use std::collections::HashMap;
use std::path::Path;

use tokio::process::ChildStdin;

use super::Doors;
use crate::common::process::{Process, tool};
use crate::common::project;

/// A session with the tunnel at `port` that carries what comes to its ports, with the certificate of alice.
pub(super) async fn client(directory: &Path, port: u16, authorities: &[&str]) -> (Process, Doors) {
    let mut command = tool("node");
    command
        .arg(project("tests/tunnel_peers/client.mjs"))
        .arg(format!("https://localhost:{port}"));
    command.args(["ca.pem", "alice.pem", "alice-key.pem"].map(|file| directory.join(file)));
    command.args(authorities);
    let process = Process::start(command);
    let mut doors = Doors::new();
    for authority in authorities {
        let line = process.line(&format!("listening {authority} ")).await;
        let port = line.rsplit(' ').next().expect("a port");
        doors.insert((*authority).to_owned(), format!("127.0.0.1:{port}"));
    }
    (process, doors)
}

/// A server of tunnels, with a port for each authority. Returns its address.
pub(super) async fn server(
    directory: &Path,
    targets: &HashMap<&str, String>,
) -> (Process, ChildStdin, String) {
    let mut command = tool("node");
    command.arg(project("tests/tunnel_peers/server.mjs"));
    command.args(["ca.pem", "server.pem", "server-key.pem"].map(|file| directory.join(file)));
    for (authority, port) in targets {
        command.arg(format!("{authority}={port}"));
    }
    let (process, stdin) = Process::start_listening(command);
    let line = process.line("listening ").await;
    let port = line.rsplit(' ').next().expect("a port");
    (process, stdin, format!("127.0.0.1:{port}"))
}
