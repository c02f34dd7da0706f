//! The identities that an operator has revoked: clients with one of them are refused, and their open
//! connections end.
//!
//! ```text
//! revoke:     file ─► table ─► the ledger: clients that are there end as `revoked`
//! admission:  the ledger has the client's identity ─► table: is it revoked?
//! ```
//!
//! A connection that shakes hands during a revocation cannot slip through: the table changes before
//! the ledger is searched, and the ledger knows the client before the table is asked. Each side holds
//! the lock of the connection's entry in between, so one of the two sees the other.

mod file;
mod table;
mod target;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use tokio_rustls::rustls::pki_types::CertificateDer;

use self::file::Store;
pub(crate) use self::file::file_in;
pub use self::table::Revocation;
use self::table::{All, Table};
use self::target::Kind;
use self::target::Target;
use crate::id::Id;
use crate::identity::Identity;
use crate::ledger::{ConnectionFilter, Entry, Ledger};
use crate::outcome::EndCause;

/// The revoked identities of a proxy.
#[derive(Debug, Default)]
pub(crate) struct Revocations {
    /// `None` if nothing is revoked: then an admission costs one load.
    table: ArcSwapOption<Table>,
    /// Held during a change.
    changing: Mutex<()>,
    /// `None`: revocations end with the process.
    store: Option<Store>,
}

/// The result of a revocation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Revoked {
    /// The revocation. If the identity was revoked before, that one.
    pub revocation: Revocation,
    /// Whether the identity was not revoked before.
    pub is_new: bool,
    /// Whether it survives a restart. False if there is no lasting runtime directory: set
    /// `runtime.directory`.
    pub is_stored: bool,
    /// The number of open connections that were told to end, without those that were ending already.
    pub ended: usize,
}

/// Why a revocation, or its removal, has changed nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RevokeError {
    /// The text is no identity.
    #[error("cannot revoke {identity:?}: {reason}")]
    Identity {
        /// The text.
        identity: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There are 10,000 revocations already, or 100 with wildcards.
    #[error(
        "{most} {what} are in force already; remove some, or use `crl` of the listener or a route with \
         `deny = true`"
    )]
    Full {
        /// The most that there may be.
        most: usize,
        /// What is counted.
        what: &'static str,
    },
    /// The file in the runtime directory cannot be read or written.
    #[error("cannot store revocations in {}: {source}", path.display())]
    Store {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

impl Revocations {
    /// The revocations that are stored in this directory, where later ones are stored too. `None`: those
    /// that are made end with the process. Blocks on the file system.
    ///
    /// # Errors
    ///
    /// [`file_in`] the directory cannot be read or is damaged. Then nobody knows who is revoked.
    pub(crate) fn stored(directory: Option<PathBuf>) -> io::Result<Self> {
        let revocations = Self {
            store: directory.map(Store::in_directory),
            ..Self::default()
        };
        revocations.refresh()?;
        Ok(revocations)
    }

    /// Reads the file again: another process that shares the directory may have changed it. Blocks on the
    /// file system.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is damaged, or is gone. What is in force stays so.
    pub(crate) fn refresh(&self) -> io::Result<()> {
        let Some(store) = &self.store else {
            return Ok(());
        };
        let _changing = self.changing();
        match store.read()? {
            Some(all) => self.put(all),
            None if self.in_force().is_empty() => {}
            // No Vestibule removes the file: something has emptied the directory.
            None => {
                let path = store.path();
                let message = format!(
                    "{} is gone; the next change of revocations writes all of them again",
                    path.display()
                );
                return Err(io::Error::new(io::ErrorKind::NotFound, message));
            }
        }
        Ok(())
    }

    /// The revoked identity that a client has, if it has one.
    pub(crate) fn find(&self, client: &Identity, chain: &[CertificateDer<'_>]) -> Option<String> {
        let table = self.table.load();
        table.as_ref()?.find(client, chain)
    }

    /// All revocations, the oldest first.
    pub(crate) fn list(&self) -> Vec<Revocation> {
        let table = self.table.load();
        let all = table.iter().flat_map(|it| it.all());
        all.map(|(revocation, _)| revocation.clone()).collect()
    }

    /// Refuses clients with this identity from now on, and ends their open connections. Blocks on the
    /// file system.
    ///
    /// # Errors
    ///
    /// [`RevokeError`]: nothing has changed.
    pub(crate) fn revoke(&self, ledger: &Ledger, identity: &str) -> Result<Revoked, RevokeError> {
        let target = Target::parse(identity).map_err(|error| RevokeError::Identity {
            identity: identity.to_owned(),
            reason: error.to_string(),
        })?;
        let (revocation, is_new) = self.change(|all| {
            let known = all.iter().find(|(it, _)| it.identity == target.text());
            if let Some((known, _)) = known {
                return Ok(Change::None((known.clone(), false)));
            }
            ensure_room(all, &target)?;
            let revocation = Revocation {
                id: Id::random(),
                identity: target.text().to_owned(),
                created: now(),
            };
            all.push((revocation.clone(), target.clone()));
            Ok(Change::Made((revocation, true)))
        })?;
        Ok(Revoked {
            revocation,
            is_new,
            is_stored: self.store.is_some(),
            ended: end(ledger, &target),
        })
    }

    /// Removes a revocation. Returns it, or `None` if there is none with this id. Blocks on the file
    /// system.
    ///
    /// # Errors
    ///
    /// [`RevokeError::Store`]: nothing has changed.
    pub(crate) fn remove(&self, id: Id) -> Result<Option<Revocation>, RevokeError> {
        self.change(|all| match all.iter().position(|(it, _)| it.id == id) {
            Some(at) => Ok(Change::Made(Some(all.remove(at).0))),
            None => Ok(Change::None(None)),
        })
    }

    /// Changes the stored revocations, and then those in force.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut All) -> Result<Change<T>, RevokeError>,
    ) -> Result<T, RevokeError> {
        let _changing = self.changing();
        let Some(store) = &self.store else {
            let mut all = self.in_force();
            let (Change::Made(result) | Change::None(result)) = change(&mut all)?;
            self.put(all);
            return Ok(result);
        };
        let failed = |source| RevokeError::Store {
            path: store.path(),
            source,
        };
        let locked = store.lock().map_err(failed)?;
        let stored = locked.read().map_err(failed)?;
        let is_gone = stored.is_none();
        let mut all = stored.unwrap_or_else(|| self.in_force());
        let (result, is_changed) = match change(&mut all)? {
            Change::Made(result) => (result, true),
            Change::None(result) => (result, is_gone && !all.is_empty()),
        };
        if is_changed {
            locked.write(&all).map_err(failed)?;
        }
        // Also without a change of ours: another process may have made one.
        self.put(all);
        Ok(result)
    }

    fn in_force(&self) -> All {
        let table = self.table.load();
        table.as_ref().map_or(All::new(), |it| it.all().clone())
    }

    fn put(&self, all: All) {
        let table = (!all.is_empty()).then(|| Arc::new(Table::of(all)));
        self.table.store(table);
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the list was changed, and what to return.
enum Change<T> {
    Made(T),
    None(T),
}

fn ensure_room(all: &All, target: &Target) -> Result<(), RevokeError> {
    let is_pattern = |it: &Target| matches!(it.kind(), Kind::Pattern(_));
    let patterns = || all.iter().filter(|(_, it)| is_pattern(it)).count();
    let full = |most, what| Err(RevokeError::Full { most, what });
    if all.len() >= MOST {
        return full(MOST, "revocations");
    }
    match is_pattern(target) && patterns() >= MOST_PATTERNS {
        true => full(MOST_PATTERNS, "revocations with wildcards"),
        false => Ok(()),
    }
}

/// Ends the open connections that a revocation is about. Returns how many were told to end now.
fn end(ledger: &Ledger, target: &Target) -> usize {
    let open = match target.indexed() {
        Some(name) => ledger.find(&ConnectionFilter::all().identity(name)),
        None => ledger.all(),
    };
    let is_meant = |entry: &Entry| {
        let (facts, chain) = (entry.facts(), entry.chain());
        let client = facts.identity.as_deref();
        client.is_some_and(|it| target.is_about(it, chain.as_deref().unwrap_or_default()))
    };
    let told = open.iter().filter(|entry| is_meant(entry));
    told.filter(|entry| entry.end(EndCause::Revoked)).count()
}

/// In whole milliseconds, as they are stored.
fn now() -> SystemTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let millis = since.unwrap_or_default().as_millis();
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).unwrap_or_default())
}

/// Bounds the file, and the memory of a list. For more, authorities have revocation lists.
const MOST: usize = 10_000;
/// An admission compares a client with each pattern.
const MOST_PATTERNS: usize = 100;

#[cfg(test)]
mod tests;
