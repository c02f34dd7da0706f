//! Node.js, with its own module `http2`.

use std::path::Path;

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
