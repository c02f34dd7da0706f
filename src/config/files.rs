//! The files that a configuration names.

use std::cell::RefCell;
use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};

use super::reader::Table;
use super::value::{Expected, Value};
use crate::watch::FileState;

/// Reads files, and remembers which.
pub(super) struct Files<'b> {
    base: &'b Path,
    read: RefCell<Vec<FileState>>,
}

/// A file that the configuration names, and where.
pub(super) struct File {
    pub content: Vec<u8>,
    path: PathBuf,
    offset: usize,
}

impl<'b> Files<'b> {
    /// Relative paths are relative to `base`.
    pub(super) fn new(base: &'b Path) -> Self {
        Self {
            base,
            read: RefCell::default(),
        }
    }

    pub(super) fn read(&self, value: &Value<'_>) -> Result<File, Expected> {
        let given = value.path()?;
        let beside = self.beside(given);
        // Beside the configuration, so that it can be used from anywhere; where nothing is there,
        // from here, as on a command line.
        let path = match beside.exists() || !given.exists() {
            true => beside,
            false => given.to_owned(),
        };
        // First, so that what comes between is a change; and also of one that is not there.
        self.read.borrow_mut().push(FileState::of(&path));
        match fs::read(&path) {
            Ok(content) => Ok(File {
                content,
                path,
                offset: value.offset,
            }),
            Err(error) => Err(format!("cannot read {}: {error}", path.display())),
        }
    }

    /// Where a relative path leads.
    pub(super) fn beside(&self, path: &Path) -> PathBuf {
        self.base.join(path)
    }

    /// What was read, as it was; also what was not there.
    pub(super) fn into_states(self) -> Vec<FileState> {
        self.read.into_inner()
    }
}

impl File {
    /// Reports what is wrong with the file, where the configuration names it.
    pub(super) fn problem(&self, table: &Table<'_>, error: &dyn Display) {
        table.problem_at(self.offset, format!("{}: {error}", self.path.display()));
    }

    /// As [`Self::problem`], for what is only going to be wrong.
    pub(super) fn warn(&self, table: &Table<'_>, warning: &dyn Display) {
        table.warn_at(self.offset, format!("{}: {warning}", self.path.display()));
    }

    /// As [`Self::problem`], for what is wrong because time has passed.
    pub(super) fn expired(&self, table: &Table<'_>, error: &dyn Display) {
        table.expired_at(self.offset, format!("{}: {error}", self.path.display()));
    }
}
