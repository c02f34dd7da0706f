//! Prints events as they are written, also over rotations.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::sleep;

use super::backward::Backward;
use super::filter::{Filter, Judged};
use super::{Output, files, identity, rotated};

/// Prints the last events, and then new ones until stdout is closed.
pub(super) async fn follow(
    path: &Path,
    filter: &Filter,
    limit: Option<usize>,
    out: &mut Output,
) -> io::Result<()> {
    let mut follower = loop {
        match Follower::start(path, filter, limit.unwrap_or(LAST), out) {
            // Vestibule may not have started yet.
            Err(error) if error.kind() == ErrorKind::NotFound => sleep(INTERVAL).await,
            started => break started?,
        }
    };
    loop {
        out.flush()?;
        sleep(INTERVAL).await;
        follower.advance(filter, out)?;
    }
}

/// The file that is read, and how far it was read.
struct Follower {
    path: PathBuf,
    file: File,
    at: u64,
    /// The beginning of a line whose end is not written yet.
    unfinished: Vec<u8>,
}

impl Follower {
    /// Prints the last events, and continues after them.
    fn start(path: &Path, filter: &Filter, last: usize, out: &mut Output) -> io::Result<Self> {
        let file = File::open(path)?;
        let current = identity(&file.metadata()?);
        let mut printed = Vec::new();
        let mut begin = None;
        'files: for each in files(path)? {
            let is_current = identity(&each.metadata()?) == current;
            let mut lines = Backward::new(each)?;
            if is_current {
                begin = Some(lines.skip_unfinished()?);
            }
            // A rotation has made a newer one meanwhile; its turn comes.
            if begin.is_none() {
                continue;
            }
            while let Some(line) = lines.next_line()? {
                match filter.judge(line) {
                    _ if printed.len() == last => break 'files,
                    Judged::Good(event) => printed.push((line.to_owned(), event)),
                    Judged::Other => {}
                    Judged::TooOld => break 'files,
                }
            }
        }
        for (line, event) in printed.iter().rev() {
            out.print(line, event)?;
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            at: begin.unwrap_or_default(),
            unfinished: Vec::new(),
        })
    }

    /// Prints what was written since the last call.
    fn advance(&mut self, filter: &Filter, out: &mut Output) -> io::Result<()> {
        self.read(filter, out)?;
        let there = match File::open(&self.path) {
            Ok(there) => there,
            // It was moved away, and still grows.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let (next, ours) = (
            identity(&there.metadata()?),
            identity(&self.file.metadata()?),
        );
        if next == ours {
            return Ok(());
        }
        // What was written between the read and the rotation.
        self.read(filter, out)?;
        for between in self.between(ours, next)? {
            self.switch(between);
            self.read(filter, out)?;
        }
        self.switch(there);
        self.read(filter, out)
    }

    /// The files between ours and the current one, the oldest first: there was more than one rotation.
    fn between(&self, ours: (u64, u64), next: (u64, u64)) -> io::Result<Vec<File>> {
        let mut newer = Vec::new();
        for number in 1.. {
            let path = rotated(&self.path, number);
            match fs::metadata(&path) {
                Ok(there) if identity(&there) == ours => {
                    newer.reverse();
                    return Ok(newer);
                }
                Ok(there) if identity(&there) == next => {}
                Ok(_) => newer.push(File::open(&path)?),
                Err(_) => break,
            }
        }
        // Ours was moved or removed by another program, so nothing says what came after it.
        Ok(Vec::new())
    }

    fn switch(&mut self, file: File) {
        (self.file, self.at) = (file, 0);
        self.unfinished.clear();
    }

    /// Prints the lines up to the end of the file.
    fn read(&mut self, filter: &Filter, out: &mut Output) -> io::Result<()> {
        if self.file.metadata()?.len() < self.at {
            // Another program has emptied it.
            self.at = 0;
            self.unfinished.clear();
        }
        let mut block = vec![0; BLOCK];
        loop {
            let count = self.file.read_at(&mut block, self.at)?;
            if count == 0 {
                return Ok(());
            }
            self.at += count as u64;
            let mut parts = block[..count].split(|byte| *byte == b'\n');
            let first = parts.next().unwrap_or_default();
            self.unfinished.extend_from_slice(first);
            for part in parts {
                if let Judged::Good(event) = filter.judge(&self.unfinished) {
                    out.print(&self.unfinished, &event)?;
                }
                self.unfinished.clear();
                self.unfinished.extend_from_slice(part);
            }
        }
    }
}

/// How many events are printed at first, as by tail(1).
const LAST: usize = 10;

/// Unnoticed by a reader, and ten looks a second cost nothing.
const INTERVAL: Duration = Duration::from_millis(100);

const BLOCK: usize = 64 * 1024;
