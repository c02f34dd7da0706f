//! curl with `--proxy-http2`: each transfer is a stream, each in a tunnel of its own.

use std::path::PathBuf;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::task::JoinSet;

use super::talk::{self, Cut};
use super::{port, terminator};
use crate::common::changing::Site;
use crate::common::process::{Process, output, tool};
use crate::common::vestibule::Vestibule;
use crate::common::{bytes, project, soon};

/// A curl that reaches everything through a tunnel, with the certificate of alice.
async fn curl(site: &Site, vestibule: &Vestibule) -> Command {
    let mut command = program();
    command.args(["--help", "proxy"]);
    let help = output(command).await.text();
    assert!(
        help.contains("--proxy-http2"),
        "this curl has no HTTP/2 to proxies; tests/run installs one: `tests/run --quick`"
    );
    let mut command = program();
    command
        .args(["-q", "-sS", "--max-time", "50", "--noproxy", ""])
        .args(["--proxy-http2", "--proxytunnel", "--proxy"])
        .arg(format!("https://localhost:{}", port(vestibule)));
    for (option, name) in [
        ("--proxy-cacert", "ca.pem"),
        ("--proxy-cert", "alice.pem"),
        ("--proxy-key", "alice-key.pem"),
    ] {
        command.arg(option).arg(site.path(name));
    }
    command
}

/// The system's, unless tests/run has installed one because that is too old.
fn program() -> Command {
    let root = PathBuf::from(project("target/curl"));
    let installed = root.join("usr/bin/curl");
    if !installed.is_file() {
        return tool("curl");
    }
    let mut command = Command::new(installed);
    command.env("LD_LIBRARY_PATH", root.join("lib"));
    command
}

#[tokio::test]
async fn fifty_transfers_of_256_kib_go_both_ways() {
    const COUNT: usize = 50;
    let (site, vestibule, app) = terminator().await;
    std::fs::write(site.path("in"), seeded(1)).expect("a file");
    let mut command = curl(&site, &vestibule).await;
    command.current_dir(site.directory.path());
    command.args(["-Z", "--parallel-max", "50", "--parallel-immediate", "-f"]);
    command.args(["--data-binary", "@in", "-o", "out-#1"]);
    command.arg(format!("http://app:1/[1-{COUNT}]"));
    let serve = async {
        let mut answers = JoinSet::new();
        for _ in 0..COUNT {
            let socket = talk::tcp(soon("a connection", app.accept()).await.expect("one"));
            answers.spawn(async move {
                let (mut socket, body) = request(socket).await;
                let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: ";
                let head = format!("{head}{}\r\n\r\n", body.len());
                socket.write_all(head.as_bytes()).await.expect("room");
                socket.write_all(&body).await.expect("room");
                socket.shutdown().await.expect("open");
            });
        }
        while let Some(answer) = answers.join_next().await {
            answer.expect("an answer");
        }
    };
    let (done, ()) = tokio::join!(output(command), serve);
    done.ok();
    for number in 1..=COUNT {
        let back = std::fs::read(site.path(&format!("out-{number}"))).expect("an answer");
        assert!(back == seeded(1), "transfer {number}: other bytes");
    }
}

fn seeded(seed: u64) -> Vec<u8> {
    let mut content = vec![0; 256 * 1024];
    bytes::Bytes::seeded(seed).fill(&mut content);
    content
}

/// Reads a request of HTTP/1.1, and returns its body.
async fn request(mut socket: TcpStream) -> (TcpStream, Vec<u8>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = soon("a request", socket.read_u8()).await;
        head.push(byte.expect("a request"));
    }
    let head = String::from_utf8(head).expect("text").to_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let length = length.map_or(0, |it| it.parse().expect("a number"));
    let mut body = vec![0; length];
    soon("the body", socket.read_exact(&mut body))
        .await
        .expect("the body");
    (socket, body)
}

#[tokio::test]
async fn curl_names_the_status_of_a_refusal() {
    let (site, vestibule, _app) = terminator().await;
    for (url, status) in [
        ("http://dead:1/", "502"),
        ("http://nothing:1/", "404"),
        ("http://app:0/", "400"),
    ] {
        let mut command = curl(&site, &vestibule).await;
        command.args(["-v", "--trace-config", "h2-proxy", url]);
        let done = output(command).await;
        assert_eq!(done.code, Some(56), "{url}: {}", done.err);
        // Its `%{http_connect}` and its message say nothing of it with HTTP/2.
        let status = format!("got http status: {status}");
        assert!(done.err.contains(&status), "{url}: {}", done.err);
    }
}

/// Curl 8.14 gets END_STREAM, and waits all the same: until timeouts.half_close, or its own limit of time.
#[tokio::test]
async fn the_end_of_an_answer_reaches_curl() {
    let (site, vestibule, app) = terminator().await;
    let mut command = curl(&site, &vestibule).await;
    command.args(["-v", "--trace-config", "h2-proxy", "-N", "http://app:1/"]);
    let process = Process::start(command);
    let socket = talk::tcp(soon("a connection", app.accept()).await.expect("one"));
    let (mut socket, _) = request(socket).await;
    let answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nwhole\n";
    socket.write_all(answer).await.expect("room");
    socket.shutdown().await.expect("open");
    process.line("whole").await;
    process.line("[1] <- FRAME[DATA, len=0, eos=1").await;
}

/// A transfer whose answer has begun: curl, and the server's end of the connection.
async fn begun(site: &Site, vestibule: &Vestibule, app: &super::Backend) -> (Process, TcpStream) {
    let mut command = curl(site, vestibule).await;
    command.args(["-N", "-v", "--trace-config", "h2-proxy", "http://app:1/"]);
    let process = Process::start(command);
    let socket = talk::tcp(soon("a connection", app.accept()).await.expect("one"));
    let (mut socket, _) = request(socket).await;
    let begin = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nfirst\n";
    socket.write_all(begin).await.expect("room");
    process.line("first").await;
    (process, socket)
}

#[tokio::test]
async fn a_reset_of_either_side_reaches_the_other() {
    let (site, vestibule, app) = terminator().await;
    let (process, socket) = begun(&site, &vestibule, &app).await;
    socket.set_zero_linger().expect("an open socket");
    drop(socket);
    let (status, said) = process.wait().await;
    // The transfer is not complete, or the stream was reset.
    assert!(
        matches!(status.code(), Some(18 | 56 | 92)),
        "{status:?}: {said:?}"
    );
    vestibule.ended("backend_reset", 1).await;

    let (process, mut socket) = begun(&site, &vestibule, &app).await;
    process.signal(Signal::KILL);
    assert_eq!(talk::cut(&mut socket).await, Cut::Reset);
}

/// RFC 9113 §6.8 lets streams below the last one of the notice go on. Curl 8.14 ends its transfer all the same.
#[tokio::test]
async fn a_drain_ends_in_order_although_curl_gives_up_at_its_notice() {
    let (site, mut vestibule, app) = terminator().await;
    let (process, mut socket) = begun(&site, &vestibule, &app).await;
    vestibule.signal(Signal::TERM);
    let notice = "<- FRAME[GOAWAY, error=0, reason='', last_stream=2147483647]";
    process.line(notice).await;
    let _ = socket.write_all(b"second").await;
    drop(socket);
    let (status, said) = process.wait().await;
    match status.code() {
        Some(0) => assert_eq!(said.out, ["first", "second"]),
        code => assert_eq!(code, Some(56), "{said:?}"),
    }
    assert_eq!(vestibule.wait().await.code(), Some(0));
}
