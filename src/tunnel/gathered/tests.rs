use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;

/// Counts what is asked of a stream.
struct Counting<IO> {
    io: IO,
    flushes: Arc<AtomicUsize>,
}

impl<IO: AsyncRead + Unpin> AsyncRead for Counting<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Counting<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

type Io = Counting<DuplexStream>;

/// Both handles, the number of flushes, and the other end.
fn gathered(room: usize) -> (Gathered<Io>, Turn<Io>, Arc<AtomicUsize>, DuplexStream) {
    let (io, theirs) = duplex(room);
    let flushes = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&flushes);
    let (io, turn) = Gathered::new(Counting { io, flushes });
    (io, turn, count, theirs)
}

#[tokio::test]
async fn flushes_wait_for_the_end_of_the_turn() {
    let (mut io, turn, flushes, _theirs) = gathered(1024);
    io.write_all(b"settings").await.expect("room");
    io.flush().await.expect("open");
    assert_eq!(
        flushes.load(Ordering::Relaxed),
        1,
        "nobody ends the turns yet"
    );
    turn.begin();
    for _ in 0..5 {
        io.write_all(b"frame").await.expect("room");
        io.flush().await.expect("open");
    }
    assert_eq!(flushes.load(Ordering::Relaxed), 1);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(matches!(turn.poll_end(&mut cx), Poll::Ready(Ok(()))));
    assert_eq!(flushes.load(Ordering::Relaxed), 2);
    io.write_all(b"goaway").await.expect("room");
    io.shutdown().await.expect("open");
    assert_eq!(
        flushes.load(Ordering::Relaxed),
        3,
        "the last frames leave before the end"
    );
}

#[tokio::test]
async fn a_turn_is_limited_in_each_direction_and_the_next_one_goes_on() {
    let (mut io, turn, _, mut theirs) = gathered(4 * SHARE);
    turn.begin();
    theirs.write_all(&vec![7; 2 * SHARE]).await.expect("room");
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..2 {
        let (mut read, mut written) = (0, 0);
        let mut place = vec![0; 16 * 1024];
        loop {
            let mut buf = ReadBuf::new(&mut place);
            match Pin::new(&mut io).poll_read(&mut cx, &mut buf) {
                Poll::Ready(read_one) => read_one.expect("open"),
                Poll::Pending => break,
            }
            read += buf.filled().len();
        }
        while let Poll::Ready(count) = Pin::new(&mut io).poll_write(&mut cx, &place) {
            written += count.expect("open");
        }
        assert_eq!((read, written), (SHARE, SHARE));
        assert!(turn.poll_end(&mut cx).is_ready());
    }
}

#[tokio::test]
async fn h2_gets_the_error_of_a_flush_that_it_did_not_see() {
    struct Broken;
    impl AsyncRead for Broken {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }
    impl AsyncWrite for Broken {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(buf.len()))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }
    let (mut io, turn) = Gathered::new(Broken);
    turn.begin();
    io.write_all(b"frame").await.expect("room");
    let mut cx = Context::from_waker(Waker::noop());
    assert!(matches!(turn.poll_end(&mut cx), Poll::Ready(Err(Failed))));
    let read = io.read(&mut [0]).await.expect_err("the error");
    assert_eq!(read.kind(), io::ErrorKind::ConnectionReset);
    assert!(matches!(turn.poll_end(&mut cx), Poll::Ready(Ok(()))));
}
