//! The work that benches/guard/run counts: connections in memory, and visits to a Vestibule under a
//! tool that counts.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use tempfile::TempDir;
use tokio_rustls::rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, StreamOwned};
use vestibule::bench::{self, Front, Sessions};

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [work, count, wrapper @ ..] = arguments.as_slice() else {
        bail!("usage: guard echo|full|resumed|visits|idle COUNT [PROGRAM THAT STARTS ANOTHER ...]");
    };
    let count = count.parse().context("COUNT")?;
    match work.as_str() {
        "echo" => echo(count),
        "full" => handshakes(count, Sessions::New),
        "resumed" => handshakes(count, Sessions::Resumed),
        "visits" => visits(count, wrapper)?,
        "idle" => idle(count, wrapper)?,
        _ => bail!("no such work: {work}"),
    }
    Ok(())
}

/// In memory, like all but the last two.
fn echo(count: usize) {
    let mut meeting = Front::new(TLS13_AES_128_GCM_SHA256, Sessions::New).meet();
    for _ in 0..count {
        meeting.echo(&MESSAGE);
    }
}

fn handshakes(count: usize, sessions: Sessions) {
    let front = Front::new(TLS13_AES_128_GCM_SHA256, sessions);
    front.meet();
    for _ in 0..count {
        let meeting = front.meet();
        let resumed = meeting.client.has_resumed();
        assert_eq!(
            resumed,
            sessions == Sessions::Resumed,
            "the other handshake"
        );
    }
}

/// Performs this many connections one after the other: a full handshake, an echo, and an orderly
/// end.
fn visits(count: usize, wrapper: &[String]) -> Result<()> {
    let proxy = Proxy::start(wrapper)?;
    proxy.serve(|mut client| {
        let mut message = MESSAGE;
        client.read_exact(&mut message)?;
        client.write_all(&message)?;
        ensure!(client.read(&mut message)? == 0, "more than was sent");
        Ok(())
    })?;
    for _ in 0..count {
        let mut client = proxy.visit()?;
        client.conn.send_close_notify();
        client.flush()?;
        client.sock.shutdown(std::net::Shutdown::Write)?;
        ensure!(client.read(&mut [0])? == 0, "more than was sent");
    }
    proxy.end()
}

/// Prints the bytes of memory for each of `count` further connections, after as many others, once
/// it has carried an echo and is idle.
fn idle(count: usize, wrapper: &[String]) -> Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let current = maximum;
    setrlimit(Resource::Nofile, Rlimit { current, maximum })?;
    let proxy = Proxy::start(wrapper)?;
    let mut kept = Vec::new();
    proxy.serve(move |mut client| {
        let mut message = MESSAGE;
        client.read_exact(&mut message)?;
        client.write_all(&message)?;
        kept.push(client);
        Ok(())
    })?;
    let mut clients = Vec::new();
    let mut sizes = Vec::new();
    for _ in 0..2 {
        for _ in 0..count {
            clients.push(proxy.visit()?);
        }
        sizes.push(proxy.resident()?);
    }
    println!("{}", (sizes[1] - sizes[0]) / count);
    drop(clients);
    proxy.end()
}

/// A running Vestibule, with this process as its backend.
struct Proxy {
    child: Child,
    pid: Pid,
    address: String,
    directory: TempDir,
    client: Arc<ClientConfig>,
}

impl Proxy {
    /// `wrapper` is a command that starts the command in its arguments.
    fn start(wrapper: &[String]) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("vestibule.toml");
        let config = CONFIG
            .replace("{dir}", &directory.path().display().to_string())
            .replace("{certs}", concat!(env!("CARGO_MANIFEST_DIR"), "/certs"));
        fs::write(&path, config)?;
        let words = wrapper.iter().map(String::as_str);
        let mut words = words.chain([env!("CARGO_BIN_EXE_vestibule"), "run", "-c"]);
        let mut child = Command::new(words.next().context("a command")?)
            .args(words)
            .arg(path)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut log = BufReader::new(child.stderr.take().context("piped")?).lines();
        let address = loop {
            let line = log.next().context("it did not start")??;
            if let Some((_, address)) = line.split_once("listening on tcp:") {
                break address.split(' ').next().context("an address")?.to_owned();
            }
        };
        // The rest of the output is read, so that the process never waits for room in the pipe.
        thread::spawn(move || log.for_each(drop));
        // The process is a child of the wrapper, unless the wrapper has replaced itself with it.
        let id = child.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
        let pid = match children.split_whitespace().next() {
            Some(child) => child.parse()?,
            None => i32::try_from(id)?,
        };
        let pid = Pid::from_raw(pid);
        Ok(Self {
            pid: pid.context("a process")?,
            child,
            address,
            directory,
            client: bench::client(TLS13_AES_128_GCM_SHA256, Sessions::New),
        })
    }

    /// Serves the connections, one after the other.
    fn serve(
        &self,
        mut serve: impl FnMut(UnixStream) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let listener = UnixListener::bind(self.directory.path().join("backend.sock"))?;
        thread::spawn(move || {
            for client in listener.incoming() {
                let served = client.map_err(Into::into).and_then(&mut serve);
                served.expect("an orderly connection");
            }
        });
        Ok(())
    }

    /// A connection that has carried one echo.
    fn visit(&self) -> Result<StreamOwned<ClientConnection, TcpStream>> {
        let socket = TcpStream::connect(&self.address)?;
        socket.set_nodelay(true)?;
        let tls = ClientConnection::new(Arc::clone(&self.client), "localhost".try_into()?)?;
        let mut client = StreamOwned::new(tls, socket);
        client.write_all(&MESSAGE)?;
        let mut message = [0; MESSAGE.len()];
        client.read_exact(&mut message)?;
        ensure!(message == MESSAGE, "other bytes came back");
        Ok(client)
    }

    /// Its resident memory in bytes, a multiple of the page size.
    fn resident(&self) -> Result<usize> {
        let pid = self.pid.as_raw_nonzero();
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:"));
        let kib = line.and_then(|line| line.split_whitespace().next());
        Ok(kib.context("a size")?.parse::<usize>()? * 1024)
    }

    fn end(mut self) -> Result<()> {
        kill_process(self.pid, Signal::TERM)?;
        let status = self.child.wait()?;
        // Exit code 3 means that connections were cut; the ends of the visits check that.
        ensure!(
            matches!(status.code(), Some(0 | 3)),
            "it ended with {status}"
        );
        Ok(())
    }
}

const MESSAGE: [u8; 1024] = [b'x'; 1024];

const CONFIG: &str = r#"
[runtime]
workers = 1
directory = "{dir}/run"

[limits]
connections = 10000
connections_per_ip = "unlimited"

[timeouts]
drain = "100ms"

[[listener]]
name = "front"
address = "tcp:127.0.0.1:0"
[listener.tls]
certificates = [ { chain = "{certs}/server.pem", key = "{certs}/server-key.pem" } ]

[[backend]]
name = "echo"
to = "unix:{dir}/backend.sock"
"#;
