//! `vestibule log`: prints the audit log, newest first, or as it grows.

pub(super) mod args;
mod backward;
mod filter;
mod follow;
mod peer;
mod row;

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, StdoutLock, Write, stdout};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use vestibule::Config;

use self::args::LogArgs;
use self::backward::Backward;
use self::filter::{Filter, Judged};
use super::{Exit, Failure, run};

pub(super) fn log(args: &LogArgs) -> Result<Exit, Failure> {
    let path = place(args)?;
    let filter = Filter::new(args);
    let mut out = Output::new(args.json);
    let done = match args.follow {
        true => {
            run::control(async { Ok(follow::follow(&path, &filter, args.limit, &mut out).await) })?
        }
        false => newest_first(&path, &filter, args.limit, &mut out),
    };
    match done.and_then(|()| out.flush()) {
        // It has read as much as it wanted.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Exit::Clean),
        done => {
            let read =
                done.with_context(|| format!("cannot read the audit log {}", path.display()));
            Ok(read.map(|()| Exit::Clean)?)
        }
    }
}

/// The path of the audit log.
fn place(args: &LogArgs) -> Result<PathBuf, Failure> {
    match (&args.path, &args.config) {
        (Some(path), _) => Ok(path.clone()),
        (None, Some(file)) => {
            let config = Config::from_file(file).map_err(Failure::usage)?;
            let path = config.audit_log().map(Path::to_owned);
            path.ok_or_else(|| {
                let file = file.display();
                Failure::usage(anyhow!("{file} has no audit log; set `audit.path` in it"))
            })
        }
        (None, None) => only_known(),
    }
}

/// The audit log in a usual runtime directory, if there is exactly one.
fn only_known() -> Result<PathBuf, Failure> {
    let users = std::env::var_os("XDG_RUNTIME_DIR").filter(|path| !path.is_empty());
    let users = users.map(|path| Path::new(&path).join("vestibule"));
    let directories = users.into_iter().chain(["/run/vestibule".into()]);
    let mut found: Vec<PathBuf> = directories
        .map(|directory| directory.join("audit.log"))
        .filter(|path| path.exists())
        .collect();
    found.dedup();
    match <[PathBuf; 1]>::try_from(found) {
        Ok([path]) => Ok(path),
        Err(found) if found.is_empty() => Err(Failure::usage(anyhow!(
            "no audit log in the runtime directory; write `vestibule log PATH`, or `vestibule log -c FILE`"
        ))),
        Err(found) => {
            let found: Vec<String> = found
                .iter()
                .map(|path| path.display().to_string())
                .collect();
            Err(Failure::usage(anyhow!(
                "there are several audit logs; name one: {}",
                found.join(", ")
            )))
        }
    }
}

fn newest_first(
    path: &Path,
    filter: &Filter,
    limit: Option<usize>,
    out: &mut Output,
) -> io::Result<()> {
    let mut left = limit.unwrap_or(usize::MAX);
    for file in files(path)? {
        let mut lines = Backward::new(file)?;
        while let Some(line) = lines.next_line()? {
            if left == 0 {
                return Ok(());
            }
            match filter.judge(line) {
                Judged::Good(event) => {
                    out.print(line, &event)?;
                    left -= 1;
                }
                Judged::Other => {}
                Judged::TooOld => return Ok(()),
            }
        }
    }
    Ok(())
}

/// The current file and the rotated ones, the newest first. They are opened before any is read, so that
/// a rotation meanwhile changes nothing.
fn files(path: &Path) -> io::Result<Vec<File>> {
    let (mut files, mut known) = (Vec::new(), HashSet::new());
    let mut add = |path: &Path| -> io::Result<()> {
        let file = File::open(path)?;
        // Meanwhile the current one may have become the first rotated one.
        if known.insert(identity(&file.metadata()?)) {
            files.push(file);
        }
        Ok(())
    };
    let current = add(path);
    for number in 1.. {
        match add(&rotated(path, number)) {
            Err(error) if error.kind() == ErrorKind::NotFound => break,
            added => added?,
        }
    }
    match current {
        Err(error) if files.is_empty() || error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(files),
    }
}

fn rotated(path: &Path, number: usize) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// What distinguishes a file from every other.
fn identity(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Prints events to stdout.
struct Output {
    out: BufWriter<StdoutLock<'static>>,
    is_json: bool,
}

impl Output {
    fn new(is_json: bool) -> Self {
        Self {
            out: BufWriter::new(stdout().lock()),
            is_json,
        }
    }

    fn print(&mut self, line: &[u8], event: &serde_json::Value) -> io::Result<()> {
        match self.is_json {
            true => {
                self.out.write_all(line)?;
                self.out.write_all(b"\n")
            }
            false => writeln!(self.out, "{}", row::row(event)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
