//! A relay with records, tested with a client that can seal anything.

mod backends;
mod exported;
mod limits;
mod moving;
mod peers;
mod refused;

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::rustls::{AlertDescription, ContentType};

use super::*;
use crate::deadline::Deadline;
use crate::record::tests::{
    self as layer, Answer, MAX_PAYLOAD, OVERHEAD, Received, TLS13, Version, bytes, suites,
};
use crate::relay::drive::State;
use crate::relay::{End, Exported, Heard, InactivityTimeouts, Joint, Relay};
use crate::traffic::Traffic;

impl<IO> Records<IO> {
    /// For tests that put something between the records and their socket.
    pub(in crate::relay) fn io_mut(&mut self) -> &mut IO {
        &mut self.io
    }
}

type Client = Joint<Records<DuplexStream>>;

/// A client after its handshake that violates rules as the test wants, with valid keys.
struct Peer {
    wire: DuplexStream,
    layer: layer::Peer,
}

/// A joint and its client.
fn connection(suite: layer::Suite) -> (Client, Peer) {
    connection_over(suite, 1 << 20)
}

/// Like [`connection`], over a pipe with this much room.
fn connection_over(suite: layer::Suite, room: usize) -> (Client, Peer) {
    let (near, far) = duplex(room);
    let (layer, peer) = layer::pair(suite);
    let joint = Joint::new(Records::of(near, layer, Vec::new()));
    (
        joint,
        Peer {
            wire: far,
            layer: peer,
        },
    )
}

impl Deref for Peer {
    type Target = layer::Peer;

    fn deref(&self) -> &layer::Peer {
        &self.layer
    }
}

impl DerefMut for Peer {
    fn deref_mut(&mut self) -> &mut layer::Peer {
        &mut self.layer
    }
}

impl Peer {
    async fn say(&mut self, kind: ContentType, payload: &[u8]) {
        let record = self.layer.record(kind, payload);
        self.wire.write_all(&record).await.expect("a reader");
    }

    async fn data(&mut self, payload: &[u8]) {
        self.say(ContentType::ApplicationData, payload).await;
    }

    async fn key_update(&mut self, request: u8) {
        let record = self.layer.key_update(request);
        self.wire.write_all(&record).await.expect("a reader");
    }

    async fn close_notify(&mut self) {
        let record = self.layer.close_notify();
        self.wire.write_all(&record).await.expect("a reader");
    }

    /// The kind and the content of the next record; `None` at the end.
    async fn next(&mut self) -> Option<(Received, Vec<u8>)> {
        loop {
            if let Some(next) = self.layer.next() {
                return Some(next);
            }
            let unread = &mut self.layer.unread;
            if self.wire.read_buf(unread).await.expect("a pipe") == 0 {
                assert!(unread.is_empty(), "half a record at the end");
                return None;
            }
        }
    }

    /// The next record, which must be an alert.
    async fn alert(&mut self) -> (u8, AlertDescription) {
        loop {
            if let Some(alert) = self.layer.alert() {
                return alert;
            }
            let read = self.wire.read_buf(&mut self.layer.unread).await;
            assert_ne!(read.expect("a pipe"), 0, "no alert");
        }
    }

    async fn expect_data(&mut self, expected: &[u8]) {
        let mut said = Vec::new();
        while said.len() < expected.len() {
            let (received, bytes) = self.next().await.expect("bytes");
            assert!(matches!(received, Received::Data(_)), "{received:?}");
            said.extend(bytes);
        }
        assert!(said == expected, "other bytes than expected");
    }
}

/// Joins the client to a backend whose other end `test` controls.
async fn joined<F: Future>(
    client: &mut Client,
    test: impl FnOnce(DuplexStream) -> F,
) -> (End, F::Output) {
    let (mut near, far) = duplex(1 << 20);
    let traffic = Traffic::default();
    let both = async { tokio::join!(client.join(&mut near, patient(&traffic)), test(far)) };
    let day = Deadline::after(Duration::from_secs(24 * 60 * 60));
    day.bound(both).await.expect("it hangs")
}

/// Without time limits.
fn patient(traffic: &Traffic) -> Relay<'_> {
    Relay {
        settings: &InactivityTimeouts {
            idle: None,
            half_close: None,
            unacknowledged: None,
        },
        traffic,
    }
}

async fn read(stream: &mut DuplexStream, length: usize) -> Vec<u8> {
    let mut read = vec![0; length];
    stream.read_exact(&mut read).await.expect("bytes");
    read
}
