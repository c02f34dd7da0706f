//! A socket in memory. The program controls its other end.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::wire::{Peer, Places, Wire, scatter};

/// Wakes a task only when a socket would. So a stream that forgets to register its waker makes no
/// progress.
#[derive(Clone)]
pub(super) struct Pipe(Rc<RefCell<Socket>>);

struct Socket {
    unread: VecDeque<u8>,
    ended: bool,
    /// How many bytes one read returns at most.
    grain: usize,
    reader: Option<Waker>,
    written: Vec<u8>,
    room: usize,
    shut: bool,
    writer: Option<Waker>,
}

impl Pipe {
    pub(super) fn new(grain: usize) -> Self {
        Self(Rc::new(RefCell::new(Socket {
            unread: VecDeque::new(),
            ended: false,
            grain,
            reader: None,
            written: Vec::new(),
            room: usize::MAX,
            shut: false,
            writer: None,
        })))
    }

    pub(super) fn say(&self, bytes: &[u8]) {
        let mut socket = self.0.borrow_mut();
        socket.unread.extend(bytes);
        wake(&mut socket.reader);
    }

    pub(super) fn end(&self) {
        let mut socket = self.0.borrow_mut();
        socket.ended = true;
        wake(&mut socket.reader);
    }

    /// Sets how many bytes it accepts from now on.
    pub(super) fn make_room(&self, room: usize) {
        let mut socket = self.0.borrow_mut();
        socket.room = room;
        wake(&mut socket.writer);
    }

    pub(super) fn take_written(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.borrow_mut().written)
    }

    pub(super) fn is_shut(&self) -> bool {
        self.0.borrow().shut
    }
}

fn wake(task: &mut Option<Waker>) {
    if let Some(task) = task.take() {
        task.wake();
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let unfilled = buf.initialize_unfilled();
        let read = ready!(self.0.borrow_mut().poll_read(cx, unfilled));
        buf.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl Peer for Pipe {
    fn poll_read_vectored(
        &mut self,
        cx: &mut Context<'_>,
        places: Places<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut socket = self.0.borrow_mut();
        let room: usize = places.room();
        let mut bytes = vec![0; room.min(socket.unread.len())];
        let read = ready!(socket.poll_read(cx, &mut bytes));
        scatter(&bytes[..read], places);
        Poll::Ready(Ok(read))
    }
}

impl Socket {
    fn poll_read(&mut self, cx: &mut Context<'_>, out: &mut [u8]) -> Poll<usize> {
        if self.unread.is_empty() && !self.ended {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = self.unread.len().min(self.grain).min(out.len());
        out[..count].copy_from_slice(&self.unread.make_contiguous()[..count]);
        self.unread.drain(..count);
        Poll::Ready(count)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut socket = self.0.borrow_mut();
        assert!(!socket.shut, "written to after its end");
        if socket.room == 0 {
            socket.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = buf.len().min(socket.room);
        if socket.room != usize::MAX {
            socket.room -= count;
        }
        socket.written.extend_from_slice(&buf[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().shut = true;
        Poll::Ready(Ok(()))
    }
}

impl Wire for Pipe {
    fn was_read_out(&self) -> bool {
        true
    }
}
