//! The body of an event stream, and what is known of how its client reads.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::limits::Slot;

/// The body of an answer that ends with the process, or when its client is cut.
#[derive(Debug)]
pub(super) struct EventStream {
    frames: mpsc::Receiver<Bytes>,
    progress: Arc<Progress>,
    _place: Slot,
}

/// Whether a client may keep its connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stay {
    #[default]
    Allowed,
    /// It has the descriptor of the reserve: it gets one answer, because all others wait for it.
    OneAnswer,
}

/// What a connection of the admin API and the hub know of a stream. A connection has one, used or not.
#[derive(Debug, Default)]
pub(super) struct Progress {
    stay: Stay,
    /// How many frames the connection has taken.
    taken: AtomicU64,
    is_stream: AtomicBool,
    cut: CancellationToken,
}

impl Progress {
    pub(super) fn of(stay: Stay) -> Self {
        Self {
            stay,
            ..Self::default()
        }
    }

    /// Whether the client may keep its connection, and so have a stream.
    pub(super) fn stay(&self) -> Stay {
        self.stay
    }

    /// Whether the connection has a stream, which may last longer than a request.
    pub(super) fn is_stream(&self) -> bool {
        self.is_stream.load(Ordering::Relaxed)
    }

    /// How many frames the connection has taken.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Has the connection closed, because its client does not read.
    pub(super) fn cut(&self) {
        self.cut.cancel();
    }

    /// Waits for [`Self::cut`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(super) async fn is_cut(&self) {
        self.cut.cancelled().await;
    }
}

impl EventStream {
    /// Marks the connection as one with a stream. `place` is held until the stream is dropped.
    pub(super) fn begin(
        frames: mpsc::Receiver<Bytes>,
        progress: &Arc<Progress>,
        place: Slot,
    ) -> Self {
        progress.is_stream.store(true, Ordering::Relaxed);
        Self {
            frames,
            progress: Arc::clone(progress),
            _place: place,
        }
    }
}

impl Body for EventStream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let polled = self.frames.poll_recv(context);
        if let Poll::Ready(Some(_)) = polled {
            self.progress.taken.fetch_add(1, Ordering::Relaxed);
        }
        polled.map(|frame| frame.map(|bytes| Ok(Frame::data(bytes))))
    }
}
