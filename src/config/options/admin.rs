//! `[admin]`.

use std::path::PathBuf;

use super::section::Section;
use crate::address::Address;

/// `[admin]`: the address of the admin API.
///
/// It is opened if the program asks for it with [`Builder::with_admin`](crate::Builder::with_admin). A
/// change needs a new [`Proxy`](crate::Proxy); a reload refuses it.
///
/// ```
/// use vestibule::options::AdminOptions;
///
/// let admin = AdminOptions::default().address("127.0.0.1:9901".parse()?);
/// # let _ = admin;
/// # Ok::<(), vestibule::ParseAddressError>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "options have an effect in a `ConfigBuilder`"]
pub struct AdminOptions(pub(super) Section);

impl AdminOptions {
    /// No admin API.
    pub fn none() -> Self {
        let mut section = Section::default();
        section.set("address", "none");
        Self(section)
    }

    /// The address: a Unix socket, or TCP. Default: `admin.sock` in `runtime.directory`.
    pub fn address(mut self, address: Address) -> Self {
        self.0.set("address", address);
        self
    }

    /// The path of a Unix socket: absolute, or relative to `runtime.directory`. The whole path has at
    /// most 107 bytes.
    pub fn unix(mut self, path: impl Into<PathBuf>) -> Self {
        self.0.set_unix_address("address", path.into());
        self
    }

    /// Whether kill, drain and reload are accepted over TCP. Default: `false`. If it is true, every
    /// local user can do that.
    pub fn allow_writes_over_tcp(mut self, allowed: bool) -> Self {
        self.0.set("allow_writes_over_tcp", allowed);
        self
    }
}
