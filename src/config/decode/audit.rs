//! The table `[audit]`.

use std::path::{Path, PathBuf};

use crate::audit::AuditSettings;
use crate::config::table::Table;
use crate::config::value::{Expected, Value};

/// `None` if there is no audit log. `directory` is `runtime.directory`.
pub(super) fn audit(mut table: Table<'_>, directory: Option<&Path>) -> Option<AuditSettings> {
    let path = table.read("path", |value| match value.string()? {
        "none" => Ok(None),
        _ => place(value, directory).map(Some),
    });
    let rotate = table.read("rotate", |value| value.or_off(Value::size));
    let keep = table.read("keep", Value::count);
    table.finish();
    let (path, directory) = path.flatten()?;
    Some(AuditSettings {
        path,
        directory,
        rotate: rotate.unwrap_or(Some(ROTATE)),
        keep: keep.unwrap_or(KEEP),
    })
}

/// The path, and the runtime directory if the path is relative to it.
fn place(
    value: &Value<'_>,
    directory: Option<&Path>,
) -> Result<(PathBuf, Option<PathBuf>), Expected> {
    let path = value.path()?;
    if path.is_absolute() {
        return Ok((path.to_owned(), None));
    }
    // Otherwise the runtime directory is a fresh one, which goes with the process.
    let users = || {
        let users = std::env::var_os("XDG_RUNTIME_DIR").filter(|path| !path.is_empty())?;
        Some(Path::new(&users).join("vestibule"))
    };
    match directory.map(Path::to_owned).or_else(users) {
        Some(directory) => Ok((directory.join(path), Some(directory))),
        None => Err(
            "a relative path is in `runtime.directory`, which is not set; set it, or write an \
             absolute path"
                .into(),
        ),
    }
}

const ROTATE: u64 = 64 * 1024 * 1024;
const KEEP: usize = 10;
