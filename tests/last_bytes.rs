//! The end of a tunnel: its peer gets every byte, also if it reads the last ones after our end, and is not waited for
//! without a limit.

mod common;
mod last_bytes {
    mod gate;
    pub(crate) mod peer;
    pub(crate) mod tunnels;
}

use std::time::{Duration, Instant};

use common::admin::{WRITE, ask};
use common::within;
use last_bytes::peer::answer;
use last_bytes::tunnels::{Ending, of_a_client, of_a_front, of_a_removed_join, of_a_server};
use rustix::process::Signal;

/// Longer than a test waits.
const LONG: &str = "50s";
/// Shorter, and far above what anything takes that is not waited for.
const SHORT: Duration = Duration::from_secs(25);

fn timeouts(half_close: &str, drain: &str) -> String {
    format!("[timeouts]\nhalf_close = \"{half_close}\"\ndrain = \"{drain}\"\n")
}

/// The tunnel of a client of ours, to a server, and to a front. All bytes are on their way.
async fn each(timeouts: &str) -> [Ending; 3] {
    [
        of_a_client(timeouts).await,
        of_a_server(timeouts).await,
        of_a_front(timeouts).await,
    ]
}

#[tokio::test]
async fn the_peer_of_a_tunnel_reads_all_bytes_after_our_end() {
    for mut ending in each(&timeouts(LONG, LONG)).await {
        ending.peer.until_ended().await;
        let read = ending.peer.rest().await;
        assert!(read == answer(), "{} bytes, or others", read.len());
        ending.vestibule.ended("done", 1).await;
        assert_eq!(ending.vestibule.wait().await.code(), Some(0));
    }
}

#[tokio::test]
async fn a_peer_that_never_reads_the_end_is_waited_for_as_long_as_half_close() {
    for role in 0..3 {
        let began = Instant::now();
        let mut ending = one(role, &timeouts("3s", LONG)).await;
        let status = within(SHORT, "an exit", ending.vestibule.wait()).await;
        assert_eq!(status.code(), Some(0));
        assert!(began.elapsed() >= Duration::from_secs(3), "{role}");
    }
}

async fn one(role: usize, timeouts: &str) -> Ending {
    match role {
        0 => of_a_client(timeouts).await,
        1 => of_a_server(timeouts).await,
        _ => of_a_front(timeouts).await,
    }
}

#[tokio::test]
async fn the_end_of_a_drain_cuts_the_wait_for_a_peer() {
    for role in 0..3 {
        let began = Instant::now();
        let mut ending = one(role, &timeouts(LONG, "3s")).await;
        within(SHORT, "an exit", ending.vestibule.wait()).await;
        assert!(began.elapsed() >= Duration::from_secs(3), "{role}");
    }
}

#[tokio::test]
async fn a_second_signal_cuts_the_wait_for_a_peer() {
    for mut ending in each(&timeouts(LONG, LONG)).await {
        ending.peer.until_ended().await;
        ending.vestibule.signal(Signal::TERM);
        within(SHORT, "an exit", ending.vestibule.wait()).await;
    }
}

#[tokio::test]
async fn a_kill_cuts_the_wait_for_a_client() {
    let mut ending = of_a_client(&timeouts(LONG, LONG)).await;
    ending.peer.until_ended().await;
    let socket = ending.vestibule.path("run/admin.sock");
    let page = ask(&socket, "/v1/connections", &[]).await.json();
    assert_eq!(page["connections"][0]["state"], "closing", "{page}");
    let id = page["connections"][0]["id"].as_str().expect("an id");
    let delete = [&WRITE[..], &["-X", "DELETE"]].concat();
    let killed = ask(&socket, &format!("/v1/connections/{id}"), &delete).await;
    assert_eq!(killed.status, 200, "{killed:?}");
    within(SHORT, "an exit", ending.vestibule.wait()).await;
}

#[tokio::test]
async fn a_join_that_a_reload_removes_waits_for_its_front_as_long_as_a_drain() {
    let began = Instant::now();
    let mut ending = of_a_removed_join(&timeouts("unlimited", "3s")).await;
    ending.peer.until_ended().await;
    ending.peer.until_closed().await;
    assert!(began.elapsed() >= Duration::from_secs(3));
    ending.vestibule.signal(Signal::TERM);
    assert_eq!(ending.vestibule.wait().await.code(), Some(0));
    let in_time = of_a_removed_join(&timeouts("unlimited", LONG)).await;
    in_time.peer.until_ended().await;
    let read = in_time.peer.rest().await;
    assert!(read == answer(), "{} bytes, or others", read.len());
}
