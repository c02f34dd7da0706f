//! The files that a configuration names.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fmt::{self, Display};
use std::fs;
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::table::Table;
use super::validity::Validity;
use super::value::{Expected, Value};
use crate::sys::file;
use crate::watch::FileState;

/// Reads files, and records which.
pub(super) struct Files<'b> {
    pub base: &'b Path,
    /// Bytes that a program has in memory, by the path that represents them in the text.
    memory: HashMap<PathBuf, InMemory>,
    read: RefCell<Vec<FileState>>,
    /// The relative paths among them.
    relative: RefCell<Vec<PathBuf>>,
    /// Keys that a warning was reported for: thousands of certificates may share one.
    exposed: RefCell<HashSet<PathBuf>>,
}

/// A file that the configuration names, with its place in the text.
pub(super) struct File {
    pub content: Content,
    name: Name,
    offset: usize,
}

/// Bytes in memory instead of a file.
pub(super) struct InMemory {
    /// The dotted path of the key that names them.
    pub key: String,
    pub content: Arc<Zeroizing<Vec<u8>>>,
}

pub(super) enum Content {
    Read(Vec<u8>),
    /// Shared and not copied, because it may be a private key.
    InMemory(Arc<Zeroizing<Vec<u8>>>),
}

enum Name {
    Path(PathBuf),
    /// The key of bytes in memory.
    Key(String),
}

impl<'b> Files<'b> {
    /// Relative paths are resolved against `base`.
    pub(super) fn new(base: &'b Path) -> Self {
        Self {
            base,
            memory: HashMap::new(),
            read: RefCell::default(),
            relative: RefCell::default(),
            exposed: RefCell::default(),
        }
    }

    /// As [`Self::new`] with the working directory, for a program that has some of the files in memory.
    pub(super) fn in_memory(memory: HashMap<PathBuf, InMemory>) -> Self {
        Self {
            memory,
            ..Self::new(Path::new(""))
        }
    }

    pub(super) fn read(&self, value: &Value<'_>) -> Result<File, Expected> {
        let given = value.path()?;
        if let Some(InMemory { key, content }) = self.memory.get(given) {
            return Ok(File {
                content: Content::InMemory(Arc::clone(content)),
                name: Name::Key(key.clone()),
                offset: value.offset,
            });
        }
        let path = self.beside(given);
        if given.is_relative() {
            self.relative.borrow_mut().push(given.to_owned());
        }
        // Taken before the read, so that a change during the read is noticed; also if the file is
        // missing.
        self.read.borrow_mut().push(FileState::of(&path));
        match file::read(&path) {
            Ok(content) => Ok(File {
                content: Content::Read(content),
                name: Name::Path(path),
                offset: value.offset,
            }),
            Err(error) => Err(format!("cannot read {}: {error}", path.display())),
        }
    }

    /// Warns once about a private key that others can read.
    pub(super) fn warn_if_exposed(&self, key: &File, table: &Table<'_>) {
        if let Name::Path(path) = &key.name
            && let Some(warning) = file::exposed(path)
            && self.exposed.borrow_mut().insert(path.clone())
        {
            key.warn(table, &warning);
        }
    }

    /// Resolves a path against the base.
    pub(super) fn beside(&self, path: &Path) -> PathBuf {
        self.base.join(path)
    }

    /// Whether the relative paths were meant for the working directory: all of the files exist there,
    /// and none exists at the base.
    pub(super) fn are_here(&self) -> bool {
        let relative = self.relative.borrow();
        let is_here = |path: &PathBuf| is_missing(&self.beside(path)) && path.exists();
        !relative.is_empty() && relative.iter().all(is_here)
    }

    /// The files that were read, in their state at that time, including missing ones.
    pub(super) fn into_states(self) -> Vec<FileState> {
        self.read.into_inner()
    }
}

impl File {
    /// Reports a problem in the file, at the place where the configuration names it.
    pub(super) fn problem(&self, table: &Table<'_>, error: &dyn Display) {
        table.problem_at(self.offset, format!("{}: {error}", self.name));
    }

    /// As [`Self::problem`], for a statement that continues after the file's name.
    pub(super) fn states(&self, table: &Table<'_>, statement: &dyn Display) {
        table.problem_at(self.offset, format!("{} {statement}", self.name));
    }

    /// As [`Self::problem`], for a warning.
    pub(super) fn warn(&self, table: &Table<'_>, warning: &dyn Display) {
        table.warn_at(self.offset, format!("{}: {warning}", self.name));
    }

    /// Reports the result of a validity check.
    pub(super) fn say(&self, table: &Table<'_>, validity: Validity) {
        match validity {
            Validity::Good => {}
            Validity::Warning(warning) => self.warn(table, &warning),
            Validity::Invalid(error) => self.expired(table, &error),
        }
    }

    pub(super) fn say_all(&self, table: &Table<'_>, all: Vec<Validity>) {
        for validity in all {
            self.say(table, validity);
        }
    }

    /// As [`Self::problem`], for a certificate or list that is no longer valid.
    fn expired(&self, table: &Table<'_>, error: &dyn Display) {
        table.expired_at(self.offset, format!("{}: {error}", self.name));
    }
}

impl Deref for Content {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Read(content) => content,
            Self::InMemory(content) => content,
        }
    }
}

impl Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Key(key) => write!(f, "`{key}`"),
        }
    }
}

/// A link without a target is not missing, and neither is a file that may not be accessed.
fn is_missing(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}
