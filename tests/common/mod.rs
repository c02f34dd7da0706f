//! Shared by all tests of the running program: the program itself, TLS clients, backends, bytes.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses its own part of this, as its own crate"
)]

pub mod admin;
pub mod authority;
pub mod backend;
pub mod balancer;
pub mod bytes;
pub mod changing;
pub mod client;
pub mod gate;
pub mod network_worker;
pub mod pki;
pub mod process;
pub mod resources;
pub mod site;
pub mod tmux;
pub mod tunnel;
pub mod users;
pub mod vestibule;
pub mod world;

use std::future::Future;
use std::time::Duration;

/// Fails with a message instead of hanging.
pub async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    within(SOON, what, future).await
}

/// Far above the time that anything here takes: it only ends tests that would never end.
pub const SOON: Duration = Duration::from_secs(60);

pub async fn within<F: Future>(bound: Duration, what: &str, future: F) -> F::Output {
    match tokio::time::timeout(bound, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what}: not within {bound:?}"),
    }
}

/// Waits until `is_so` returns true. For changes in the kernel, which send no event.
pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    soon(what, async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}

/// The path of a file of the project.
pub fn project(path: &str) -> String {
    format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))
}
