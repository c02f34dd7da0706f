//! `vestibule claim`: makes a worker of any program.
//!
//! ```text
//! permit of --max ─► ACCEPT at the gate ─► OK <facts> ─► COMMAND, with the socket as stdin and stdout
//! ```

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use rustix::process::WaitStatus;
use serde_json::Value;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::task::TaskTracker;

use super::args::ClaimArgs;
use super::children::{Children, killed_by};
use super::signals::End;
use super::{Exit, Failure, stderr};

pub(super) fn claim(args: &ClaimArgs) -> Result<Exit, Failure> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot make a runtime")?;
    ensure_runnable(&args.command[0])?;
    runtime.block_on(async {
        let mut end = End::new().context("cannot listen for signals")?;
        // There is no file to reopen, but the default action of SIGUSR1 kills the process.
        let _reopen = signal(SignalKind::user_defined1()).context("cannot listen for signals")?;
        let running = TaskTracker::new();
        let children = Children::default();
        let mut reaping = pin!(children.reap());
        tokio::select! {
            failure = work(args, &running, &children) => return Err(failure),
            error = &mut reaping => return Err(error.into()),
            _ = end.asked() => {}
        }
        // Take no new connections; let the running commands end.
        running.close();
        tokio::select! {
            () = running.wait() => Ok(Exit::Clean),
            error = reaping => Err(error.into()),
            // A second signal: stop waiting. The commands keep running.
            _ = end.asked() => Ok(Exit::Cut),
        }
    })
}

/// Serves connections. Returns when it has to give up.
async fn work(args: &ClaimArgs, running: &TaskTracker, children: &Children) -> Failure {
    let permits = Arc::new(Semaphore::new(args.max.get()));
    let mut pause = SHORTEST_PAUSE;
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return anyhow!("the semaphore was closed").into();
        };
        match accept(args).await {
            Ok((stream, facts)) => {
                pause = SHORTEST_PAUSE;
                match spawn(args, stream, &facts) {
                    Ok(child) => {
                        let ended = children.wait_for(&child);
                        let what =
                            format!("{:?} of connection {}", args.command[0], short_id(&facts));
                        running.spawn(async move {
                            report(&what, ended.await.ok());
                            drop(permit);
                        });
                    }
                    // This connection is lost. The next one may succeed.
                    Err(error) if is_temporary(&error) => {
                        stderr::say(&format_args!(
                            "vestibule: cannot run {:?}: {error}; trying again",
                            args.command[0]
                        ));
                        sleep(LONGEST_PAUSE).await;
                    }
                    Err(error) => {
                        return anyhow!(error)
                            .context(format!("cannot run {:?}", args.command[0]))
                            .into();
                    }
                }
            }
            Err(NotAccepted::Final(failure)) => return failure,
            Err(NotAccepted::Temporary(reason)) => {
                if pause == SHORTEST_PAUSE {
                    stderr::say(&format_args!("vestibule: {reason}; trying again"));
                }
                sleep(pause).await;
                pause = (2 * pause).min(LONGEST_PAUSE);
            }
        }
    }
}

/// Reports that a signal killed a command. Other failures are reported by the command itself.
fn report(what: &str, status: Option<WaitStatus>) {
    if let Some(signal) = status.and_then(killed_by) {
        stderr::say(&format_args!("vestibule: {what} was killed by {signal}"));
    }
}

/// The part of a connection's id that may be logged.
fn short_id(facts: &Value) -> &str {
    let id = facts["id"].as_str().unwrap_or_default();
    id.get(..8).unwrap_or(id)
}

/// Checks in advance that the command can run: each failed attempt would cost a connection.
fn ensure_runnable(command: &OsStr) -> Result<(), Failure> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Box<dyn Iterator<Item = PathBuf>> = match command.as_bytes().contains(&b'/') {
        true => Box::new(std::iter::once(PathBuf::from(command))),
        false => Box::new(std::env::split_paths(&path).map(|directory| directory.join(command))),
    };
    let is_runnable = |file: PathBuf| {
        let metadata = file.metadata();
        metadata.is_ok_and(|metadata| metadata.is_file() && metadata.mode() & 0o111 != 0)
    };
    if places.any(is_runnable) {
        return Ok(());
    }
    Err(Failure::usage(anyhow!(
        "cannot run {command:?}: program not found; give a program in PATH, or its path"
    )))
}

/// Whether the process could not be started only because resources are short at the moment.
fn is_temporary(error: &io::Error) -> bool {
    use io::ErrorKind::{OutOfMemory, ResourceBusy, WouldBlock};
    const EMFILE: i32 = 24;
    matches!(error.kind(), OutOfMemory | ResourceBusy | WouldBlock)
        || error.raw_os_error() == Some(EMFILE)
}

/// Why there is no connection.
enum NotAccepted {
    /// The gate is away, full or draining. Try again later.
    Temporary(String),
    Final(Failure),
}

/// Waits at the gate for a connection.
async fn accept(args: &ClaimArgs) -> Result<(StdUnixStream, Value), NotAccepted> {
    let gate = args.gate.display();
    let mut stream = connect(&args.gate).await.map_err(|error| {
        NotAccepted::Temporary(format!("cannot reach the gate {gate}: {error}"))
    })?;
    let request = format!("ACCEPT {}\n", args.backend);
    // The gate may have refused and closed already. Then the write fails, and the answer can still be
    // read.
    let _ = stream.write_all(request.as_bytes()).await;
    let answer = answer(&stream).await;
    let answer = answer.map_err(|error| {
        NotAccepted::Temporary(format!(
            "the connection to the gate {gate} \
         failed: {error}"
        ))
    })?;
    match answer.split_once(' ') {
        Some(("OK", facts)) => {
            let facts = serde_json::from_str(facts).context("the gate's facts are not JSON");
            let stream = into_blocking(stream).context("cannot take over the connection's socket");
            match (stream, facts) {
                (Ok(stream), Ok(facts)) => Ok((stream, facts)),
                (Err(error), _) | (_, Err(error)) => Err(NotAccepted::Final(error.into())),
            }
        }
        Some(("NO", reason @ ("busy" | "draining"))) => Err(NotAccepted::Temporary(format!(
            "the gate {gate} is {reason}"
        ))),
        _ => {
            let why = match answer.as_str() {
                "NO unknown" => "no backend has this name; choose one with `to = \"gate\"`".into(),
                "NO forbidden" => format!(
                    "the backend does not have `to = \"gate\"`, or user {} is not allowed \
                     (gate.allow_uids, gate.allow_gids)",
                    rustix::process::geteuid().as_raw()
                ),
                _ => "check that --gate is the gate of a Vestibule".into(),
            };
            Err(NotAccepted::Final(Failure::usage(anyhow!(
                "the gate {gate} refused `{}`: {answer}: {why}",
                request.trim_end(),
            ))))
        }
    }
}

/// Connects to the gate. While the gate's backlog is full, a non-blocking connect fails at once
/// (EAGAIN, connect(2)). A blocking connect then waits in the kernel, which admits waiting connects in
/// order, a few milliseconds after there is room.
async fn connect(gate: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(gate).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            connected => return connected,
        }
        let gate = gate.to_owned();
        match spawn_blocking(move || connect_blocking(&gate)).await? {
            // Blocks for `CONNECT_TIMEOUT` at most: the exit of this worker waits for the blocking
            // call.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            connected => return UnixStream::from_std(connected?),
        }
    }
}

fn connect_blocking(gate: &Path) -> io::Result<StdUnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A Unix connect blocks as long as a write may (unix(7)).
    socket.set_write_timeout(Some(CONNECT_TIMEOUT))?;
    socket.connect(&SockAddr::unix(gate)?)?;
    socket.set_write_timeout(None)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Reads one line, byte by byte: the bytes after it belong to the command.
async fn answer(stream: &UnixStream) -> io::Result<String> {
    let mut line = Vec::new();
    loop {
        stream.readable().await?;
        let mut byte = [0];
        match stream.try_read(&mut byte) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) if byte == *b"\n" => break,
            Ok(_) => line.push(byte[0]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    String::from_utf8(line).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Makes the socket blocking: commands expect that of stdin.
fn into_blocking(stream: UnixStream) -> io::Result<StdUnixStream> {
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    Ok(stream)
}

fn spawn(args: &ClaimArgs, stream: StdUnixStream, facts: &Value) -> io::Result<Child> {
    let output: OwnedFd = stream.try_clone()?.into();
    let input: OwnedFd = stream.into();
    let text = |pointer: &str| match facts.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    };
    // `Command` and its stdio are dropped here. Otherwise our copies of the socket would keep the
    // connection open after the child has closed its own.
    Command::new(&args.command[0])
        .args(&args.command[1..])
        .env("VESTIBULE_ID", text("/id"))
        .env("VESTIBULE_PEER", text("/peer"))
        .env("VESTIBULE_SNI", text("/tls/sni"))
        .env("VESTIBULE_ALPN", text("/tls/alpn"))
        .env("VESTIBULE_IDENTITY", text("/identity"))
        .stdin(Stdio::from(input))
        .stdout(Stdio::from(output))
        .spawn()
}

const CONNECT_TIMEOUT: Duration = Duration::from_millis(100);

const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
