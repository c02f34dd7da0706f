//! Loads the identities that were revoked before this start.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::Runtime;
use crate::proxy::error::BindError;
use crate::revocations::{Revocations, file_in};

/// The revocations in the runtime directory. A fresh directory keeps none: the next start has another one.
///
/// # Errors
///
/// The file cannot be read. A start without it would admit those who are revoked.
pub(super) fn stored(runtime: &Runtime) -> Result<Revocations, BindError> {
    let directory = runtime.directory.clone().or_else(users);
    let path = directory.as_deref().map(file_in);
    Revocations::stored(directory).map_err(|error| {
        let what_to_do = match error.kind() {
            io::ErrorKind::PermissionDenied => {
                "give it to the user of this process, or set another `runtime.directory`"
            }
            _ => "restore the file, or remove it: then every revoked identity is admitted again",
        };
        let message = format!("{error}; {what_to_do}");
        BindError::Revocations {
            path: path.unwrap_or_default(),
            source: io::Error::new(error.kind(), message),
        }
    })
}

/// The directory of this user. After `su`, the variable may name that of another user: this process
/// cannot have stored anything there.
fn users() -> Option<PathBuf> {
    let users = std::env::var_os("XDG_RUNTIME_DIR").filter(|path| !path.is_empty())?;
    let directory = Path::new(&users).join("vestibule");
    let looked = fs::symlink_metadata(file_in(&directory));
    let is_closed = looked.is_err_and(|it| it.kind() == io::ErrorKind::PermissionDenied);
    (!is_closed).then_some(directory)
}
