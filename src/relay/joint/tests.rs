//! What a plaintext connection owns, and when.

use std::future::poll_fn;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;
use crate::relay::tests::{PATIENT, ROOM, bytes, come};

impl<C> Joint<C> {
    pub(in crate::relay) fn up(&self) -> &State {
        &self.up.state
    }

    /// What the backend has not accepted.
    pub(in crate::relay) fn opened(&self) -> &WriteBuffer {
        &self.up.unsent
    }
}

fn poll(
    lane: &mut Lane,
    cx: &mut Context<'_>,
    reader: &mut DuplexStream,
    writer: &mut DuplexStream,
    counter: &Counter,
) -> Poll<()> {
    let mut flow = Flow {
        lane,
        reader,
        writer,
        counter,
    };
    super::pump(&mut flow, cx, OnEnd::PassOn)
}

fn holding(unsent: Vec<u8>) -> Lane {
    Lane {
        unsent: unsent.into(),
        ..Lane::default()
    }
}

#[tokio::test(start_paused = true)]
async fn the_memory_of_a_stall_is_given_back_when_it_has_ended() {
    let (mut from_far, mut from) = duplex(1 << 20);
    let (mut to, mut to_far) = duplex(1_000);
    let counter = Counter::default();
    let mut lane = holding(bytes(10));
    from_far.write_all(&bytes(30_000)).await.expect("room");

    let moved = poll_fn(|cx| Poll::Ready(poll(&mut lane, cx, &mut from, &mut to, &counter))).await;
    assert!(moved.is_pending());
    assert!((29_000..=64 * 1024).contains(&lane.unsent.capacity()));

    come(async {
        let mut read = vec![0; 30_010];
        tokio::select! {
            () = poll_fn(|cx| poll(&mut lane, cx, &mut from, &mut to, &counter)) => panic!("nobody has closed"),
            read = to_far.read_exact(&mut read) => read.expect("the bytes"),
        }
    })
    .await;
    assert_eq!(lane.unsent.capacity(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_quiet_connection_owns_no_buffer() {
    let (_from_far, mut from) = duplex(ROOM);
    let (mut to, _to_far) = duplex(ROOM);
    let counter = Counter::default();
    let mut lane = holding(bytes(1_000));
    let moved = poll_fn(|cx| Poll::Ready(poll(&mut lane, cx, &mut from, &mut to, &counter))).await;
    assert!(moved.is_pending());
    assert_eq!((counter.get(), lane.unsent.capacity()), (1_000, 0));
}

#[test]
fn a_relay_at_rest_is_small() {
    let ((client, _client_far), (mut backend, _backend_far)) = (duplex(ROOM), duplex(ROOM));
    let traffic = Traffic::default();
    let relay = Relay {
        settings: &PATIENT,
        traffic: &traffic,
    };
    let lanes = 2 * size_of::<Lane>();
    let mut joint = Joint::new(client);
    let size = lanes + size_of_val(&joint.join(&mut backend, relay));
    // Ten thousand of them take a few megabytes. A much smaller size means that the state is
    // elsewhere.
    assert!((200..=400).contains(&size), "{size} bytes");
}
