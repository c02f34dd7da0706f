//! The windows of a real program, as a client with single frames is told them, over a path of 10 ms.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_rustls::client::TlsStream;

use crate::before_tcp;
use crate::common::changing::Site;
use crate::common::client::Socket;
use crate::common::soon;
use crate::common::tunnel::secured_at;

/// A window at rest (docs/tunnels.md).
const REST: i64 = 192 * 1024;

#[tokio::test]
async fn windows_grow_over_a_long_path_and_return_when_a_stream_stalls() {
    let site = Site::new();
    let alice = site.client("alice");
    let (vestibule, backend) = before_tcp(&site).await;
    let (address, _path) = long_path(vestibule.tcp()).await;
    let tls = secured_at(&address, &site, &alice).await;
    let (mut client, server) = tokio::join!(Client::open(tls), async {
        match backend.accept().await.expect("a connection") {
            Socket::Tcp(socket) => socket,
            Socket::Unix(_) => panic!("it is TCP"),
        }
    });
    let (stop, stopped) = oneshot::channel();
    let mut reader = JoinSet::new();
    reader.spawn(read_until(server, stopped));
    // As much is on its way as only a larger window allows.
    soon("larger windows", async {
        while client.credit <= REST {
            client.step().await;
        }
    })
    .await;
    assert!(client.window > REST);
    stop.send(()).expect("it reads");
    let read = soon("the reader", reader.join_next()).await;
    let (mut server, read) = read.expect("one task").expect("no panic");
    soon("the window at rest", async {
        while client.window > REST {
            client.step().await;
        }
    })
    .await;
    let mut reader = JoinSet::new();
    reader.spawn(async move {
        let mut rest = Vec::new();
        server.read_to_end(&mut rest).await.expect("a clean end");
        rest.len() as u64
    });
    // Nothing is on its way, and the client may send again, but not more than at rest.
    while client.credit <= 0 {
        client.take().await;
    }
    client.end().await;
    let rest = soon("the end", reader.join_next()).await;
    let rest = rest.expect("one task").expect("no panic");
    assert_eq!(read + rest, client.sent, "bytes were lost");
    assert!(client.credit <= REST, "{}", client.credit);
}

/// Reads until it is told to stop, and returns how much that was.
async fn read_until(mut server: TcpStream, mut stopped: oneshot::Receiver<()>) -> (TcpStream, u64) {
    let (mut room, mut read) = (vec![0; 64 * 1024], 0);
    loop {
        tokio::select! {
            biased;
            _ = &mut stopped => return (server, read),
            count = server.read(&mut room) => read += count.expect("bytes") as u64,
        }
    }
}

/// A place that passes on what comes 10 ms later.
async fn long_path(there: String) -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (here, _) = listener.accept().await.expect("a connection");
        let there = TcpStream::connect(there).await.expect("a connection");
        for socket in [&here, &there] {
            socket.set_nodelay(true).expect("an open socket");
        }
        let ((from, back), (answers, to)) = (split(here), split(there));
        tokio::join!(later(from, to), later(answers, back));
    });
    (address, tasks)
}

async fn later(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    let (sender, mut under_way) = mpsc::channel(1024);
    let take = async move {
        let mut room = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut room).await {
            let due = Instant::now() + Duration::from_millis(10);
            if sender.send((due, room[..count].to_vec())).await.is_err() {
                break;
            }
        }
    };
    let give = async move {
        while let Some((due, bytes)) = under_way.recv().await {
            sleep_until(due).await;
            if to.write_all(&bytes).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(take, give);
}

type Frame = (u8, u8, u32, Vec<u8>);

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const INITIAL_WINDOW_SIZE: u16 = 4;

/// A client with one stream, which counts what it may send (RFC 9113 §6.9).
struct Client {
    writer: WriteHalf<TlsStream<TcpStream>>,
    frames: mpsc::Receiver<Frame>,
    _reader: JoinSet<()>,
    /// Of a new stream, as the server has said last.
    window: i64,
    /// Of the stream.
    credit: i64,
    /// Of the tunnel.
    carrier: i64,
    sent: u64,
}

impl Client {
    async fn open(tls: TlsStream<TcpStream>) -> Self {
        let (reader, mut writer) = split(tls);
        let begun = writer.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        begun.expect("open");
        let (sender, frames) = mpsc::channel(64);
        let mut reading = JoinSet::new();
        reading.spawn(read(reader, sender));
        let mut client = Self {
            writer,
            frames,
            _reader: reading,
            window: 65_535,
            credit: 65_535,
            carrier: 65_535,
            sent: 0,
        };
        client.write(SETTINGS, 0, 0, &[]).await;
        // `:method: CONNECT`, `:authority: a:1`.
        let fields = b"\x02\x07CONNECT\x01\x03a:1";
        client.write(HEADERS, END_HEADERS, 1, fields).await;
        while client.take().await != HEADERS {}
        client
    }

    /// Sends what may be sent, or waits for a frame.
    async fn step(&mut self) {
        while let Ok(frame) = self.frames.try_recv() {
            self.heard(frame).await;
        }
        let room = self.credit.min(self.carrier).min(16 * 1024);
        match usize::try_from(room) {
            Ok(room @ 1..) => {
                self.write(DATA, 0, 1, &vec![7; room]).await;
                self.sent += room as u64;
                (self.credit, self.carrier) =
                    (self.credit - room as i64, self.carrier - room as i64);
            }
            _ => {
                self.take().await;
            }
        }
    }

    async fn end(&mut self) {
        self.write(DATA, END_STREAM, 1, &[]).await;
    }

    /// The kind of the next frame.
    async fn take(&mut self) -> u8 {
        let frame = soon("a frame", self.frames.recv()).await.expect("open");
        let kind = frame.0;
        self.heard(frame).await;
        kind
    }

    async fn heard(&mut self, (kind, flags, stream, payload): Frame) {
        match kind {
            SETTINGS if flags & ACK == 0 => {
                for setting in payload.chunks(6) {
                    let value = i64::from(number(&setting[2..]));
                    if setting[..2] == INITIAL_WINDOW_SIZE.to_be_bytes() {
                        self.credit += value - self.window;
                        self.window = value;
                    }
                }
                self.write(SETTINGS, ACK, 0, &[]).await;
            }
            PING if flags & ACK == 0 => self.write(PING, ACK, 0, &payload).await,
            WINDOW_UPDATE => match stream {
                0 => self.carrier += i64::from(number(&payload)),
                _ => self.credit += i64::from(number(&payload)),
            },
            _ => {}
        }
    }

    async fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
        let head = [&[a, b, c, kind, flags][..], &stream.to_be_bytes()].concat();
        let written = self.writer.write_all(&[&head, payload].concat()).await;
        written.expect("open");
        self.writer.flush().await.expect("open");
    }
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().expect("four bytes"))
}

async fn read(mut tls: ReadHalf<TlsStream<TcpStream>>, frames: mpsc::Sender<Frame>) {
    let mut head = [0; 9];
    while tls.read_exact(&mut head).await.is_ok() {
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; number(&[0, a, b, c]) as usize];
        if tls.read_exact(&mut payload).await.is_err() {
            return;
        }
        let frame = (kind, flags, u32::from_be_bytes(stream), payload);
        if frames.send(frame).await.is_err() {
            return;
        }
    }
}
