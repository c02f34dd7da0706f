//! `vestibule run` and the demo: from a configuration to the end of its last connection.

use std::path::{Path, PathBuf, absolute};
use std::time::Duration;

use anyhow::Context;
use tokio::runtime;
use tracing::{error, info, warn};
use vestibule::{
    Config, ConfigError, FileState, Problem, Proxy, Running, Sidecar, Watch, printable,
};

use super::args::RunArgs;
use super::signals::{Asked, Signals};
use super::{Exit, Failure, logging};

pub(super) fn demo() -> Result<Exit, Failure> {
    serve(Config::demo(), &Source::Demo)
}

pub(super) fn run(args: &RunArgs) -> Result<Exit, Failure> {
    let source = match (&args.config, &args.listen) {
        (Some(file), _) => Source::File(absolute_path(file)?, None),
        (None, Some(listen)) => {
            let to = args.to.clone();
            if args.cert.is_none() && !to.iter().any(|to| to.starts_with("tls:")) {
                return Err(Failure::usage(anyhow::anyhow!(IN_THE_CLEAR)));
            }
            Source::Flags(Box::new(Sidecar {
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
                log_format: args.log_format.unwrap_or_default(),
            }))
        }
        (None, None) => return Err(Failure::usage(anyhow::anyhow!(NOTHING_TO_RUN))),
    };
    let config = source.read().map_err(Failure::usage)?;
    let source = source.settled(&config);
    serve(config, &source)
}

/// Where the configuration comes from, again at each reload.
#[derive(Clone, Debug)]
enum Source {
    Demo,
    /// With what its relative paths are relative to, once that was found.
    File(PathBuf, Option<PathBuf>),
    Flags(Box<Sidecar>),
}

impl Source {
    fn read(&self) -> anyhow::Result<Config> {
        match self {
            Self::Demo => Ok(Config::demo()),
            Self::File(path, None) => Ok(Config::from_file(path)?),
            Self::File(path, Some(base)) => Ok(Config::from_file_in(path, base)?),
            Self::Flags(sidecar) => Ok(Config::sidecar(sidecar)?),
        }
    }

    /// Is read again as this configuration was.
    fn settled(self, config: &Config) -> Self {
        match self {
            Self::File(path, _) => Self::File(path, Some(config.base().to_owned())),
            other @ (Self::Demo | Self::Flags(_)) => other,
        }
    }

    fn warn(&self, config: &Config) {
        for problem in config.expired().iter().chain(config.warnings()) {
            let Problem {
                line,
                column,
                message,
                ..
            } = problem;
            match self {
                Self::File(path, _) => warn!("{}:{line}:{column}: {message}", path.display()),
                Self::Demo | Self::Flags(_) => warn!("{}", printable::line(message)),
            }
        }
    }
}

/// A path on the command line is relative to where the command was given.
fn absolute_path(path: &Path) -> Result<PathBuf, Failure> {
    Ok(absolute(path).with_context(|| format!("cannot resolve {}", path.display()))?)
}

fn serve(config: Config, source: &Source) -> Result<Exit, Failure> {
    logging::set_up(config.log(), config.log_format()).map_err(Failure::usage)?;
    control(async {
        let mut drain_timeout = config.drain_timeout();
        source.warn(&config);
        let mut followed = Followed::new(config.files());
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
        let mut running = proxy.start();
        loop {
            tokio::select! {
                biased;
                asked = signals.asked() => match asked {
                    Asked::End => break,
                    Asked::Reload => info!("SIGHUP: reloading"),
                },
                () = followed.changed() => info!("a file changed: reloading"),
            }
            // First, so that what comes between is a change.
            let served = followed.served();
            let Some(again) = signals.unless_end(read(source)).await else {
                break;
            };
            // Whole, since half of it in place would be neither configuration.
            match reload(&mut running, source, again, &mut followed, served).await {
                Ok(timeout) => drain_timeout = timeout,
                Err(error) => error!("reload failed, the old configuration stays: {error:#}"),
            }
        }
        Ok(drain(running, drain_timeout, &mut signals).await)
    })
}

/// Runs this on the control thread; the workers make their own runtimes.
pub(super) fn control<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot make the control runtime")?;
    let done = runtime.block_on(work);
    // Dropping it would wait for a read that was given up, on a disk or a network that hangs.
    runtime.shutdown_background();
    done
}

/// Thousands of certificates take their time, and the gate is served on this thread.
///
/// # Cancel safety
///
/// Safe: the reading goes on, for nobody.
async fn read(source: &Source) -> anyhow::Result<Config> {
    let source = source.clone();
    tokio::task::spawn_blocking(move || source.read()).await?
}

/// Puts in place what was read anew; how long a drain may take from now on.
async fn reload(
    running: &mut Running,
    source: &Source,
    again: anyhow::Result<Config>,
    followed: &mut Followed,
    served: Vec<FileState>,
) -> anyhow::Result<Option<Duration>> {
    let config = match again {
        Ok(config) => config,
        Err(error) => {
            followed.refuse(named(&error), served);
            return Err(error);
        }
    };
    let (drain_timeout, files) = (config.drain_timeout(), config.files().to_vec());
    source.warn(&config);
    if let Err(error) = running.reload(config).await {
        followed.refuse(&files, served);
        return Err(error.into());
    }
    followed.serve(&files);
    Ok(drain_timeout)
}

/// The files of a configuration that could not be read. Flags name the same ones each time.
fn named(error: &anyhow::Error) -> &[FileState] {
    let error = error.downcast_ref::<ConfigError>();
    error.map(ConfigError::files).unwrap_or_default()
}

/// The files whose change is worth a reload.
struct Followed {
    watch: Watch,
    /// Of the configuration that is served.
    served: Vec<PathBuf>,
}

impl Followed {
    fn new(files: &[FileState]) -> Self {
        let mut followed = Self {
            watch: Watch::new(&[]),
            served: Vec::new(),
        };
        followed.serve(files);
        followed
    }

    /// The files of the configuration that is served, as they are now.
    fn served(&self) -> Vec<FileState> {
        self.served.iter().map(FileState::of).collect()
    }

    /// These are the files of the configuration that is served now.
    fn serve(&mut self, files: &[FileState]) {
        self.served = files.iter().map(|file| file.path().to_owned()).collect();
        self.follow(files);
    }

    /// A configuration with these files was refused. What is wrong may be put right in one of them,
    /// or by going back to those of the one that is `served`.
    fn refuse(&mut self, files: &[FileState], served: Vec<FileState>) {
        let named = |path: &Path| files.iter().any(|file| file.path() == path);
        let others = served.into_iter().filter(|file| !named(file.path()));
        let all: Vec<FileState> = files.iter().cloned().chain(others).collect();
        self.follow(&all);
    }

    fn follow(&mut self, files: &[FileState]) {
        self.watch.follow(files);
    }

    async fn changed(&mut self) {
        self.watch.changed().await;
    }
}

/// Lets connections end; a second signal or the time that is up cuts what is left.
async fn drain(running: Running, timeout: Option<Duration>, signals: &mut Signals) -> Exit {
    let open = running.statistics().open;
    // Not before it is true: who reads it may rely on it that nothing new is taken.
    let say = async {
        match timeout {
            Some(it) => info!(
                "draining: {open} open connections, to be cut in {it:?} or at a \
             second signal"
            ),
            None => info!("draining: {open} open connections, to be cut at a second signal"),
        }
    };
    let drain = running.drain_until(timeout, signals.end_is_asked());
    let (drained, ()) = tokio::join!(biased; drain, say);
    if drained.cut > 0 {
        warn!("drained; connections cut: {}", drained.cut);
        return Exit::Cut;
    }
    info!("drained");
    Exit::Clean
}

const NOTHING_TO_RUN: &str = "run needs -c FILE, or --listen, --cert, --key and --to";

const IN_THE_CLEAR: &str = "--listen needs --cert and --key; clients may connect without TLS only \
 with `--to tls:HOST:PORT`";
