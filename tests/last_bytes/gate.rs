//! A TCP connection whose reader stops where the test wants it to.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A connection with a gate before its reader.
pub(crate) struct Gated {
    socket: TcpStream,
    gate: Gate,
}

/// How much of a connection may be read. A clone is another handle.
#[derive(Clone)]
pub(crate) struct Gate(Arc<Mutex<State>>);

struct State {
    left: usize,
    written: usize,
    reader: Option<Waker>,
}

impl Gated {
    /// An open gate.
    pub(crate) fn new(socket: TcpStream) -> (Self, Gate) {
        let gate = Gate(Arc::new(Mutex::new(State {
            left: usize::MAX,
            written: 0,
            reader: None,
        })));
        let gated = Self {
            socket,
            gate: gate.clone(),
        };
        (gated, gate)
    }
}

impl Gate {
    /// Lets as many bytes more be read.
    pub(crate) fn close_after(&self, bytes: usize) {
        self.state().left = bytes;
    }

    pub(crate) fn open(&self) {
        let mut state = self.state();
        state.left = usize::MAX;
        let reader = state.reader.take();
        drop(state);
        reader.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state().left == 0
    }

    /// The bytes that were written to the connection.
    pub(crate) fn written(&self) -> usize {
        self.state().written
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no panic with the lock")
    }
}

impl AsyncRead for Gated {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let left = {
            let mut state = this.gate.state();
            if state.left == 0 {
                state.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
            state.left
        };
        let mut room = [0; 16 * 1024];
        let most = room.len().min(left).min(buf.remaining());
        let mut part = ReadBuf::new(&mut room[..most]);
        ready!(Pin::new(&mut this.socket).poll_read(cx, &mut part))?;
        buf.put_slice(part.filled());
        let mut state = this.gate.state();
        if state.left != usize::MAX {
            state.left -= part.filled().len();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Gated {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.socket).poll_write(cx, buf))?;
        this.gate.state().written += written;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}
