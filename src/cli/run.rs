//! `vestibule run` and the demo: serves from a configuration until the last connection has ended.

use std::future::pending;
use std::path::{Path, PathBuf, absolute};

use anyhow::Context;
use tokio::runtime;
use vestibule::{BindError, Config, ConfigSource, Proxy, Sidecar, Supervisor};

use super::args::RunArgs;
use super::logging::{self, Logging};
use super::signals::Signals;
use super::{Exit, Failure};

pub(super) fn demo() -> Result<Exit, Failure> {
    serve(ConfigSource::code(|| Ok(Config::demo())))
}

pub(super) fn run(args: &RunArgs) -> Result<Exit, Failure> {
    let source = match (&args.config, &args.listen) {
        (Some(file), _) => ConfigSource::file(absolute_path(file)?),
        (None, Some(listen)) => {
            let to = args.to.clone();
            if args.cert.is_none() && !to.iter().any(|to| to.starts_with("tls:")) {
                return Err(Failure::usage(anyhow::anyhow!(NEEDS_CERTIFICATE)));
            }
            ConfigSource::sidecar(Sidecar {
                listen: listen.clone(),
                certificate: args.cert.clone().zip(args.key.clone()),
                client_ca: args.client_ca.clone(),
                allow: args.allow.clone(),
                alpn: args.alpn.clone(),
                to,
                backend_ca: args.backend_ca.clone(),
                backend_certificate: args.backend_cert.clone().zip(args.backend_key.clone()),
                proxy_protocol: args.proxy_protocol,
                gate: args.gate.as_deref().map(absolute_path).transpose()?,
                admin: args.admin.clone(),
                log_format: args.log_format.unwrap_or_default(),
            })
        }
        (None, None) => return Err(Failure::usage(anyhow::anyhow!(NOTHING_TO_RUN))),
    };
    serve(source)
}

/// A path on the command line is relative to the current directory.
pub(super) fn absolute_path(path: &Path) -> Result<PathBuf, Failure> {
    Ok(absolute(path).with_context(|| format!("cannot resolve {}", path.display()))?)
}

pub(super) fn serve(source: ConfigSource) -> Result<Exit, Failure> {
    let config = source.read().map_err(Failure::usage)?;
    let logging = logging::set_up(config.log(), config.log_format()).map_err(Failure::usage)?;
    control(async {
        source.warn(&config);
        let signals = Signals::new().context("cannot listen for signals")?;
        let builder = Proxy::builder(config).on_worker_threads().with_admin();
        let mut proxy = builder.bind().await.map_err(not_bound)?;
        let admin = proxy.take_admin();
        let supervisor = Supervisor::start(proxy, source);
        let handle = supervisor.handle();
        let Logging { configured, change } = logging;
        let admin = admin.map(|admin| admin.with_log_filter(configured, change));
        let admin = admin.map(|admin| admin.serve(handle.clone()));
        let admin = async {
            match admin {
                Some(admin) => admin.await,
                None => pending().await,
            }
        };
        let drained = tokio::select! {
            drained = supervisor.run() => drained,
            never = signals.steer(handle) => match never {},
            never = admin => match never {},
        };
        Ok(match drained.cut {
            0 => Exit::Clean,
            _ => Exit::Cut,
        })
    })
}

fn not_bound(error: BindError) -> Failure {
    let exit = match error {
        BindError::Revocations { .. } => Exit::Usage,
        _ if error.is_held_by_another() => Exit::Usage,
        _ => Exit::Failed,
    };
    Failure {
        error: error.into(),
        exit,
    }
}

/// Runs `work` on the control thread. The workers make their own runtimes.
pub(super) fn control<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot make the control runtime")?;
    let done = runtime.block_on(work);
    // Dropping the runtime would wait for reads that were given up because a disk or a network hangs.
    runtime.shutdown_background();
    done
}

const NOTHING_TO_RUN: &str = "run needs -c FILE, or --listen, --cert, --key and --to";

const NEEDS_CERTIFICATE: &str = "--listen needs --cert and --key; clients may connect without TLS only \
 with `--to tls:HOST:PORT`";
