//! Who is waited for, and how long.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::sys::socket::Socket;
use crate::wire::Transmission;

const PATIENCE: Patience = Patience {
    half_close: Some(Duration::from_secs(60)),
    unacknowledged: Some(Duration::from_secs(30)),
};

/// A stream whose socket says this of the time since the start.
struct Scripted<F> {
    stream: DuplexStream,
    start: Instant,
    says: F,
}

impl<F: Fn(Duration) -> Transmission + Unpin> Peer for Scripted<F> {
    fn transmission(&mut self) -> Option<Transmission> {
        Some((self.says)(self.start.elapsed()))
    }
}

impl<F: Unpin> AsyncRead for Scripted<F> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<F: Unpin> AsyncWrite for Scripted<F> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn owing(acknowledged: u64) -> Transmission {
    Transmission {
        is_unacknowledged: true,
        acknowledged,
        is_due: false,
        silent_for: Duration::ZERO,
    }
}

fn owing_nothing() -> Transmission {
    Transmission {
        is_unacknowledged: false,
        ..owing(0)
    }
}

/// How long a peer is waited for that stays, and whose socket says this.
async fn waited(says: impl Fn(Duration) -> Transmission + Unpin) -> Duration {
    let (stream, _far) = duplex(16);
    let start = Instant::now();
    let stream = Scripted {
        stream,
        start,
        says,
    };
    deliver(stream, &PATIENCE).await;
    start.elapsed()
}

fn about(waited: Duration, seconds: u64) -> bool {
    let slack = Duration::from_millis(300);
    let wanted = Duration::from_secs(seconds);
    (wanted..wanted + slack).contains(&waited)
}

#[tokio::test(start_paused = true)]
async fn a_slow_peer_gets_all_of_it_and_a_moment_to_close() {
    // A byte each 50 seconds, for ten minutes.
    let waited = waited(|time| match time.as_secs() {
        600.. => owing_nothing(),
        seconds => owing(seconds / 50),
    });
    let waited = waited.await;
    assert!(about(waited, 601), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_is_left_after_half_close() {
    let waited = waited(|_| owing(7)).await;
    assert!(about(waited, 60), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_left_sooner() {
    let waited = waited(|time| Transmission {
        is_due: true,
        silent_for: time,
        ..owing(7)
    });
    let waited = waited.await;
    assert!(about(waited, 30), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_closes_is_not_waited_for() {
    let (stream, far) = duplex(16);
    let start = Instant::now();
    drop(far);
    let says = |_| owing(0);
    let stream = Scripted {
        stream,
        start,
        says,
    };
    deliver(stream, &PATIENCE).await;
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_has_not_noticed_the_end_is_left() {
    let (stream, mut far) = duplex(16);
    let start = Instant::now();
    let says = |_| owing(0);
    let stream = Scripted {
        stream,
        start,
        says,
    };
    let speaks = async {
        let mut said = 0;
        while far.write_all(&[0; 16]).await.is_ok() {
            said += 16;
        }
        said
    };
    let ((), said) = tokio::join!(deliver(stream, &PATIENCE), speaks);
    assert!((MOST_DISCARDED..MOST_DISCARDED + 1024).contains(&said));
}

/// As HTTP/2 does with its windows.
#[tokio::test]
async fn a_peer_that_answers_while_it_reads_gets_every_byte() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (far, near) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (mut far, mut near) = (far.expect("one"), near.expect("one").0);
    let mut written = 0;
    near.writable().await.expect("room");
    while let Ok(count) = near.try_write(&[7; 64 * 1024]) {
        written += count;
    }
    let reads = async move {
        let (mut read, mut piece) = (0, vec![0; 64 * 1024]);
        loop {
            let _ = far.write_all(&[1; 13]).await;
            match far.read(&mut piece).await.expect("no reset") {
                0 => return read,
                count => read += count,
            }
        }
    };
    near.flush().await.expect("nothing waits");
    let ((), read) = tokio::join!(deliver(Socket::Tcp(near), &PATIENCE), reads);
    assert_eq!(read, written);
}
