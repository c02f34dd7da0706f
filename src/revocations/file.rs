//! Keeps the revocations in a file of the runtime directory, so that they survive a restart.
//!
//! Several processes may share a runtime directory. A change locks the directory, reads the file, and
//! replaces it: no process loses what another one has revoked.

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::table::{All, Revocation};
use super::target::Target;
use crate::sys::directory::PrivateDirectory;
use crate::sys::file;

/// Where a runtime directory keeps its revocations.
#[derive(Debug)]
pub(super) struct Store {
    directory: PathBuf,
}

/// The right to change the file, until it is dropped.
#[must_use]
pub(super) struct Locked<'a> {
    store: &'a Store,
    _directory: File,
}

#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    revocations: Vec<Row>,
}

#[derive(Serialize, Deserialize)]
struct Row {
    id: String,
    identity: String,
    created: String,
}

impl Store {
    pub(super) fn in_directory(directory: PathBuf) -> Self {
        Self { directory }
    }

    pub(super) fn path(&self) -> PathBuf {
        file_in(&self.directory)
    }

    /// What is stored. `None` if there is no file.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is damaged, or belongs to another user.
    pub(super) fn read(&self) -> io::Result<Option<All>> {
        let path = self.path();
        let found = match fs::symlink_metadata(&path) {
            Err(error) if is_absent(&error) => return Ok(None),
            found => found?,
        };
        if found.uid() != 0 && found.uid() != rustix::process::geteuid().as_raw() {
            let uid = found.uid();
            let message = format!("it belongs to another user ({uid})");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
        parse(&file::read(&path)?).map(Some)
    }

    /// Makes the directory if there is none, and locks it against other processes.
    ///
    /// # Errors
    ///
    /// The directory cannot be used, or another process does not release it.
    pub(super) fn lock(&self) -> io::Result<Locked<'_>> {
        drop(PrivateDirectory::named(&self.directory, 0o700)?);
        let directory = File::open(&self.directory)?;
        let began = Instant::now();
        loop {
            match directory.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) if began.elapsed() > PATIENCE => {
                    let message = "another process has locked the directory for seconds";
                    return Err(io::Error::new(io::ErrorKind::WouldBlock, message));
                }
                Err(TryLockError::WouldBlock) => pause(),
            }
        }
        Ok(Locked {
            store: self,
            _directory: directory,
        })
    }
}

impl Locked<'_> {
    pub(super) fn read(&self) -> io::Result<Option<All>> {
        self.store.read()
    }

    /// Replaces the file in one step. When this returns, the change survives a crash.
    pub(super) fn write(&self, all: &All) -> io::Result<()> {
        let rows = all.iter().map(|(revocation, _)| Row {
            id: revocation.id.to_string(),
            identity: revocation.identity.clone(),
            created: humantime::format_rfc3339_millis(revocation.created).to_string(),
        });
        let document = Document {
            version: VERSION,
            revocations: rows.collect(),
        };
        let mut text = serde_json::to_vec_pretty(&document)?;
        text.push(b'\n');
        file::replace(&self.store.path(), &text)
    }
}

/// The file of a runtime directory.
pub(crate) fn file_in(directory: &Path) -> PathBuf {
    directory.join(NAME)
}

fn parse(text: &[u8]) -> io::Result<All> {
    let damaged = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let document: Document =
        serde_json::from_slice(text).map_err(|error| damaged(format!("damaged: {error}")))?;
    if document.version != VERSION {
        let version = document.version;
        let message = format!("version {version} is of another Vestibule; this one has {VERSION}");
        return Err(damaged(message));
    }
    let mut seen = HashSet::new();
    let mut all = Vec::new();
    for row in document.revocations {
        let wrong = |what: &str| damaged(format!("damaged: {what} of {:?}", row.identity));
        let target = Target::parse(&row.identity);
        let target = target.map_err(|error| damaged(format!("{:?}: {error}", row.identity)))?;
        let id = row.id.parse().map_err(|_| wrong("wrong id"))?;
        let created = humantime::parse_rfc3339(&row.created).map_err(|_| wrong("wrong time"))?;
        if seen.insert(target.text().to_owned()) {
            let identity = target.text().to_owned();
            let revocation = Revocation {
                id,
                identity,
                created,
            };
            all.push((revocation, target));
        }
    }
    Ok(all)
}

/// No file can be there.
fn is_absent(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a blocking thread, which waits for another process"
)]
fn pause() {
    thread::sleep(Duration::from_millis(10));
}

const NAME: &str = "revocations.json";
const VERSION: u32 = 1;

/// A change takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);
