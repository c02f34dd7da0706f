//! `runtime.heartbeat`: a file whose time of change says that connections are open.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::ledger::Ledger;
use crate::sys::file;

/// Touches the file while connections are open, at most once in ten seconds. A connection that opened
/// and closed meanwhile counts too.
pub(super) async fn beat(path: PathBuf, ledger: Arc<Ledger>) {
    let (mut seen, mut last) = (0, None::<Instant>);
    let mut fails = false;
    loop {
        sleep(LOOK).await;
        let accepted = ledger.accepted();
        let is_used = accepted != seen || ledger.open_connections() > 0;
        if !is_used || last.is_some_and(|last| last.elapsed() < INTERVAL) {
            continue;
        }
        (seen, last) = (accepted, Some(Instant::now()));
        let touched = path.clone();
        // The file system may hang.
        let touched = spawn_blocking(move || file::touch(&touched)).await;
        let (path, failed) = (path.display(), fails);
        fails = !matches!(touched, Ok(Ok(())));
        match touched {
            Ok(Err(error)) if !failed => warn!(
                "cannot touch {path} (runtime.heartbeat): {error}; a supervisor that watches the \
                 file takes this process for idle; trying again"
            ),
            Ok(Ok(())) if failed => info!("{path} (runtime.heartbeat) can be touched again"),
            _ => {}
        }
    }
}

/// How often it looks whether a connection is open: the first touch comes within this time.
const LOOK: Duration = Duration::from_secs(1);

/// The least time between two touches.
const INTERVAL: Duration = Duration::from_secs(10);
