//! The promises of the relay, over streams that do all that a socket may do to it.

mod bytes;
mod ends;
mod quiet;
mod streams;

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use self::streams::Stream;
use super::*;
use crate::deadline::Deadline;

/// Ends for no lack of bytes.
pub(super) const PATIENT: Settings = Settings {
    idle: None,
    half_close: None,
};

/// Room for everything that a small test says.
pub(super) const ROOM: usize = 4096;

async fn join<C: Stream, B: Stream>(
    client: &mut C,
    backend: &mut B,
    early: Vec<u8>,
    settings: Settings,
    traffic: &Traffic,
) -> End {
    let relay = Relay { settings, traffic };
    stream::join(client, backend, early, relay, |_| false).await
}

async fn relay(client: impl Stream, backend: impl Stream, settings: Settings) -> End {
    relay_after(b"", client, backend, settings).await
}

/// Closes both streams when it ends, as the owner of a relay does.
async fn relay_after(
    early: &[u8],
    mut client: impl Stream,
    mut backend: impl Stream,
    settings: Settings,
) -> End {
    let traffic = Traffic::default();
    join(
        &mut client,
        &mut backend,
        early.to_vec(),
        settings,
        &traffic,
    )
    .await
}

/// What has not come after a day in which nothing else could happen will never come.
pub(super) async fn come<F: Future>(work: F) -> F::Output {
    let day = Deadline::after(Duration::from_secs(24 * 60 * 60));
    day.bound(work).await.expect("it hangs")
}

/// Bytes of which no two stretches are alike, so that a lost or repeated one shows.
pub(super) fn bytes(length: usize) -> Vec<u8> {
    (0..length as u32)
        .map(|index| (index.wrapping_mul(2_654_435_761) >> 19) as u8)
        .collect()
}

/// Sends `ours` and closes, and reads to the end meanwhile.
async fn talk(stream: DuplexStream, ours: &[u8]) -> Vec<u8> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut theirs = Vec::new();
    let send = async {
        writer.write_all(ours).await.expect("a relay that takes it");
        writer.shutdown().await.expect("a relay that takes the end");
    };
    let ((), read) = tokio::join!(send, reader.read_to_end(&mut theirs));
    read.expect("an end");
    theirs
}
