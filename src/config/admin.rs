//! `[admin]`: the address of the admin API, and what it allows.

use std::path::{Path, PathBuf};

use super::table::Table;
use super::value::{Expected, Value};
use crate::address::{Address, LONGEST_UNIX_PATH};

/// Where the admin API listens, and whether it takes writes over TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AdminSettings {
    pub address: AdminAddress,
    /// Whether `address` was given. If it was not, the start goes on without it.
    pub choice: Choice,
    pub writes_over_tcp: WritesOverTcp,
}

/// Where the admin API listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AdminAddress {
    /// Absolute, or relative to the runtime directory.
    Unix(PathBuf),
    /// The port 0 lets the system choose one.
    Tcp { host: String, port: u16 },
}

/// Who has chosen the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    Default,
    Given,
}

/// Whether kill, drain and reload are accepted over TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WritesOverTcp {
    Refused,
    Allowed,
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self {
            address: AdminAddress::Unix(PathBuf::from("admin.sock")),
            choice: Choice::Default,
            writes_over_tcp: WritesOverTcp::Refused,
        }
    }
}

impl AdminSettings {
    /// The admin API at an address of the command line: as in a file, or `none`, which is `None`.
    pub(super) fn at(text: &str) -> Result<Option<Self>, String> {
        let address = parse(text, Path::new(""))?;
        Ok(address.map(|address| Self {
            address,
            choice: Choice::Given,
            ..Self::default()
        }))
    }
}

/// `None` if the admin API is switched off.
pub(super) fn admin(table: Option<Table<'_>>, directory: Option<&Path>) -> Option<AdminSettings> {
    let default = AdminSettings::default();
    let Some(mut table) = table else {
        return Some(default);
    };
    let directory = directory.unwrap_or(Path::new(""));
    let given = table.place("address").is_some();
    let address = table.read("address", |value| read(value, directory));
    let writes = table.read("allow_writes_over_tcp", Value::boolean);
    table.finish();
    Some(AdminSettings {
        address: address.unwrap_or(Some(default.address))?,
        choice: match given {
            true => Choice::Given,
            false => Choice::Default,
        },
        writes_over_tcp: match writes {
            Some(true) => WritesOverTcp::Allowed,
            Some(false) | None => WritesOverTcp::Refused,
        },
    })
}

fn read(value: &Value<'_>, directory: &Path) -> Result<Option<AdminAddress>, Expected> {
    parse(value.string()?, directory)
}

/// `None` is the word `none`.
fn parse(text: &str, directory: &Path) -> Result<Option<AdminAddress>, Expected> {
    if text == "none" {
        return Ok(None);
    }
    if let Some(path) = text.strip_prefix("unix:") {
        return unix(path, directory).map(Some);
    }
    match text.parse::<Address>() {
        Ok(Address::Tcp { host, port }) => Ok(Some(AdminAddress::Tcp { host, port })),
        Ok(Address::Unix(path)) => Ok(Some(AdminAddress::Unix(path))),
        Err(error) => Err(format!(
            "{text:?}: {error}; write \"unix:admin.sock\", \"tcp:127.0.0.1:9901\" or \"none\""
        )),
    }
}

fn unix(path: &str, directory: &Path) -> Result<AdminAddress, Expected> {
    if path.is_empty() {
        return Err("expected a path after `unix:`, found none".into());
    }
    match directory.join(path).as_os_str().len() {
        ..=LONGEST_UNIX_PATH => Ok(AdminAddress::Unix(PathBuf::from(path))),
        length => Err(format!(
            "the path of a Unix socket is limited to {LONGEST_UNIX_PATH} bytes; with \
             `runtime.directory`, this one has {length}"
        )),
    }
}
