//! `[audit]`.

use std::path::PathBuf;

use super::section::Section;

/// `[audit]`: a file with one JSON object for each connection that opens or ends, and for each
/// administrative event. A reload applies changes.
///
/// ```
/// use vestibule::options::AuditOptions;
///
/// let audit = AuditOptions::new("/var/log/vestibule/audit.log").rotate(1 << 30).keep(20);
/// ```
#[derive(Clone, Debug)]
#[must_use = "options have an effect in a `ConfigBuilder`"]
pub struct AuditOptions(pub(super) Section);

impl AuditOptions {
    /// The path of the file: absolute, or relative to `runtime.directory`. It is created with mode 0600.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        // In a file, `none` means no audit log, so a file of that name needs a directory.
        let path = match path.to_str() {
            Some("none") => PathBuf::from("./none"),
            _ => path,
        };
        let mut section = Section::default();
        section.set("path", path);
        Self(section)
    }

    /// The size in bytes from which a new file is begun, above 0, or `None` for never. Default: 64 MiB.
    pub fn rotate(mut self, bytes: impl Into<Option<u64>>) -> Self {
        let word = match bytes.into() {
            Some(bytes) => format!("{bytes}B"),
            None => "unlimited".into(),
        };
        self.0.set("rotate", word);
        self
    }

    /// How many rotated files are kept beside the current one, from 1 to `u32::MAX`. Default: 10.
    pub fn keep(mut self, files: usize) -> Self {
        self.0.set("keep", files);
        self
    }
}
