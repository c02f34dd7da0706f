//! `vestibule run` and the demo: from a configuration to the end of its last connection.

use std::path::{Path, absolute};
use std::time::Duration;

use anyhow::Context;
use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};
use vestibule::{Config, Proxy, Running, Sidecar};

use super::args::RunArgs;
use super::{Exit, Failure, logging};

pub(super) fn demo() -> Result<Exit, Failure> {
    serve(Config::demo())
}

pub(super) fn run(args: &RunArgs) -> Result<Exit, Failure> {
    let config = match (&args.config, &args.listen) {
        (Some(file), _) => Config::from_file(file).map_err(Failure::usage)?,
        (None, Some(listen)) => {
            let to = args.to.clone().unwrap_or_default();
            if args.cert.is_none() && !to.starts_with("tls:") {
                return Err(Failure::usage(anyhow::anyhow!(IN_THE_CLEAR)));
            }
            let sidecar = Sidecar {
                listen: listen.clone(),
                certificate: args.cert.clone().zip(args.key.clone()),
                to,
                backend_ca: args.backend_ca.clone(),
                backend_certificate: args.backend_cert.clone().zip(args.backend_key.clone()),
                gate: args.gate.as_deref().map(from_here).transpose()?,
            };
            Config::sidecar(&sidecar).map_err(Failure::usage)?
        }
        // The argument parser asks for one of the two.
        (None, None) => return Err(anyhow::anyhow!("neither --config nor --listen").into()),
    };
    serve(config)
}

/// A path on the command line is relative to where the command was given.
fn from_here(path: &Path) -> Result<std::path::PathBuf, Failure> {
    Ok(absolute(path).with_context(|| format!("cannot resolve {}", path.display()))?)
}

fn serve(config: Config) -> Result<Exit, Failure> {
    logging::set_up(config.log(), config.log_format()).map_err(Failure::usage)?;
    // The control thread; the workers make their own.
    let control = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot make the control runtime")?;
    control.block_on(async {
        let drain_timeout = config.drain_timeout();
        let mut signals = Signals::new().context("cannot listen for signals")?;
        let proxy = Proxy::builder(config).on_worker_threads().bind().await;
        let proxy = proxy.map_err(|error| {
            let exit = if error.is_held_by_another() {
                Exit::Usage
            } else {
                Exit::Failed
            };
            Failure {
                error: error.into(),
                exit,
            }
        })?;
        let running = proxy.start();
        signals.end_is_asked().await;
        Ok(drain(running, drain_timeout, &mut signals).await)
    })
}

/// Lets connections end; a second signal or the time that is up cuts what is left.
async fn drain(running: Running, timeout: Option<Duration>, signals: &mut Signals) -> Exit {
    let open = running.statistics().open;
    match timeout {
        Some(timeout) => info!("draining: {open} open, cut in {timeout:?} or at a second signal"),
        None => info!("draining: {open} open, cut at a second signal"),
    }
    let drained = running.drain_until(timeout, signals.end_is_asked()).await;
    if drained.cut > 0 {
        warn!("drained: {} connections had to be cut", drained.cut);
        return Exit::Cut;
    }
    info!("drained");
    Exit::Clean
}

/// What the operator says while it runs.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user2: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits for SIGTERM or SIGINT. The signals of reload and upgrade, whose default is to kill,
    /// are answered with what to do in this version.
    async fn end_is_asked(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => {
                    warn!("SIGHUP: reloading is not supported in this version; restart to apply changes");
                }
                _ = self.user2.recv() => {
                    warn!("SIGUSR2: upgrading is not supported in this version; restart instead");
                }
            }
        }
    }
}

const IN_THE_CLEAR: &str = "--listen needs --cert and --key; without them clients would come in plaintext, \
                            which is for `--to tls:HOST:PORT` alone";
