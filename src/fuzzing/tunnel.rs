//! Frames of HTTP/2, legal and not, at each side of a tunnel.
//!
//! ```text
//! input ─► Script ─► a peer ══ pipe ══ Carried: streams are echoed, read late, refused, reset …
//!                            or pipe ══ Originated: four streams, each written and read to its end
//! ```

mod script;
mod subject;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncWriteExt, DuplexStream, duplex, split};
use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

use self::script::Script;
use self::subject::Seen;
use super::pieces;
use crate::deadline::Deadline;

/// Plays a peer that the input describes.
///
/// The bits of the first byte select the behaviours below. The rest is bytes in [`pieces`], which follow a valid
/// preface, or frames.
///
/// # Panics
///
/// The tunnel does not keep a promise.
pub fn tunnel(data: &[u8]) {
    let (&behaviour, rest) = data.split_first().unwrap_or((&0, &[]));
    let role = match behaviour & SERVER {
        0 => Role::Client,
        _ => Role::Server,
    };
    let script = match behaviour & FRAMES {
        0 => Script::of_bytes(role, &pieces(rest)),
        _ => Script::of_frames(role, rest),
    };
    RUNTIME.with(|runtime| runtime.block_on(perform(behaviour, role, &script)));
}

/// What the peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Client,
    Server,
}

/// The peer is the server, and our client is tested.
const SERVER: u8 = 1;
/// The input describes frames.
const FRAMES: u8 = 2;
/// The peer reads nothing.
const DEAF: u8 = 4;
/// The peer sends its bytes over and over.
const REPEATED: u8 = 8;
/// Our server drains when it has a stream.
const DRAINING: u8 = 16;
/// The peer is silent before it closes, for longer than a heartbeat.
const SILENT: u8 = 32;

async fn perform(behaviour: u8, role: Role, script: &Script) {
    let (ours, theirs) = duplex(PIPE);
    let log = Log::default();
    let subject = async {
        match role {
            Role::Client => subject::carry(ours, behaviour & DRAINING != 0, &log).await,
            Role::Server => subject::originate(ours, &log).await,
        }
    };
    let meeting = async { tokio::join!(play(behaviour, script, theirs), subject) };
    // The clock moves only while all tasks wait.
    let met = Deadline::after(LIMIT).bound(meeting).await;
    met.expect("a tunnel ends with its peer");
    for seen in log.lock().expect("no panic").iter() {
        if behaviour & FRAMES != 0 && behaviour & REPEATED == 0 {
            script.check(seen);
        }
    }
}

/// Sends everything, and leaves.
async fn play(behaviour: u8, script: &Script, pipe: DuplexStream) {
    let is = |bit| behaviour & bit != 0;
    let (mut reading, mut writing) = split(pipe);
    let write = async {
        let rounds = match is(REPEATED) {
            true => MOST_SENT.checked_div(script.length()).unwrap_or(0),
            false => 1,
        };
        writing.write_all(script.preface()).await?;
        for piece in std::iter::repeat_n(&script.pieces, rounds).flatten() {
            writing.write_all(piece).await?;
            yield_now().await;
        }
        writing.flush().await
    };
    let read = async {
        // What the tunnel says is read by its own tests.
        let _ = tokio::io::copy(&mut reading, &mut tokio::io::sink()).await;
    };
    if is(DEAF) {
        // If the tunnel takes no more, it waits for the peer to read.
        let _ = timeout(PATIENCE, write).await;
    } else {
        let _ = timeout(PATIENCE, async { tokio::join!(write, read) }).await;
    }
    if is(SILENT) {
        sleep(SILENCE).await;
    }
}

/// What became of each stream.
type Log = Arc<Mutex<Vec<Seen>>>;

/// The capacity of the pipe in each direction.
const PIPE: usize = 16 * 1024;

/// By a peer that sends its bytes over and over.
const MOST_SENT: usize = 1 << 20;

/// In virtual time, as all of these.
const LIMIT: Duration = Duration::from_secs(300);
/// How long the peer tries to send, and listens.
const PATIENCE: Duration = Duration::from_secs(8);
const SILENCE: Duration = Duration::from_secs(30);

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without descriptors");
}
