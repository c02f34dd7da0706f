//! A file of whole lines, which is rotated by size.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use tracing::warn;

use super::AuditSettings;

/// The open file. Several processes may append to the same one.
#[derive(Debug)]
pub(super) struct LogFile {
    settings: AuditSettings,
    file: File,
    length: u64,
    /// Whether the file ends in the middle of a line.
    is_torn: bool,
    /// After a rotation failed: when to try again.
    rotate_again: Option<Instant>,
}

/// The lines up to byte `written` are in the file, and no part of those behind.
#[derive(Debug)]
pub(super) struct Unwritten {
    pub written: usize,
    pub error: io::Error,
}

impl LogFile {
    /// Opens the file, and creates it with mode 0600 if it is missing.
    ///
    /// # Errors
    ///
    /// As [`File::open`]; also if it is not a regular file.
    pub(super) fn open(settings: &AuditSettings) -> io::Result<Self> {
        let file = open(&settings.path, false)?;
        let mut opened = Self {
            settings: settings.clone(),
            file,
            length: 0,
            is_torn: false,
            rotate_again: None,
        };
        opened.look()?;
        Ok(opened)
    }

    pub(super) fn path(&self) -> &Path {
        &self.settings.path
    }

    /// Opens the path again. On an error, the old file stays in use.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        self.use_file(open(&self.settings.path, false)?)
    }

    /// Appends whole lines: with one write, unless a new file is due in between.
    pub(super) fn append(&mut self, lines: &[u8]) -> Result<(), Unwritten> {
        let mut written = 0;
        if lines.is_empty() {
            return Ok(());
        }
        self.follow_path()
            .map_err(|error| Unwritten { written, error })?;
        while written < lines.len() {
            let rest = &lines[written..];
            let part = match self.fitting(rest) {
                0 if self.length > 0 && self.rotates() => continue,
                // A line that is longer than a file may be has its own, and lines are not lost because
                // a rotation fails.
                0 if self.length > 0 => rest.len(),
                0 => rest
                    .iter()
                    .position(|byte| *byte == b'\n')
                    .map_or(rest.len(), |at| at + 1),
                part => part,
            };
            self.write(&rest[..part]).map_err(|unwritten| Unwritten {
                written: written + unwritten.written,
                ..unwritten
            })?;
            written += part;
        }
        Ok(())
    }

    /// The bytes of the lines that have room before the next rotation.
    fn fitting(&self, lines: &[u8]) -> usize {
        let most = self.settings.rotate.unwrap_or(u64::MAX);
        let room = usize::try_from(most.saturating_sub(self.length)).unwrap_or(usize::MAX);
        if lines.len() <= room {
            return lines.len();
        }
        whole(&lines[..room])
    }

    fn write(&mut self, lines: &[u8]) -> Result<(), Unwritten> {
        if self.is_torn {
            self.file
                .write_all(b"\n")
                .map_err(|error| Unwritten { written: 0, error })?;
            self.is_torn = false;
            self.length += 1;
        }
        let mut written = 0;
        while written < lines.len() {
            let error = match self.file.write(&lines[written..]) {
                Ok(0) => io::ErrorKind::WriteZero.into(),
                Ok(count) => {
                    written += count;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => error,
            };
            let whole = whole(&lines[..written]);
            self.cut_back(written, whole);
            return Err(Unwritten {
                written: whole,
                error,
            });
        }
        self.length += written as u64;
        Ok(())
    }

    /// Removes the part of a line from the end of the file. Of `written` bytes, `whole` are whole lines.
    fn cut_back(&mut self, written: usize, whole: usize) {
        let (end, last) = (self.length + written as u64, self.length + whole as u64);
        self.length = last;
        if written == whole {
            return;
        }
        // If another process has appended meanwhile, the part is not at the end.
        let is_at_the_end = self.file.metadata().is_ok_and(|it| it.len() == end);
        let is_cut = is_at_the_end && self.file.set_len(last).is_ok();
        if !is_cut {
            (self.is_torn, self.length) = (true, end);
        }
    }

    /// Opens the path again if the file was removed, or another one is there.
    fn follow_path(&mut self) -> io::Result<()> {
        let ours = self.file.metadata()?;
        self.length = ours.len();
        match fs::metadata(&self.settings.path) {
            Ok(there) if is_same(&there, &ours) => Ok(()),
            Ok(_) => self.reopen(),
            Err(error) if error.kind() == io::ErrorKind::NotFound && ours.nlink() == 0 => {
                self.reopen()
            }
            // It was moved away, and `reopen` will tell. Or the directory cannot be read any more, and
            // the open file still serves.
            Err(_) => Ok(()),
        }
    }

    /// Begins a new file if one may be tried now. Returns whether there is a new one.
    fn rotates(&mut self) -> bool {
        let now = Instant::now();
        if self.rotate_again.is_some_and(|time| now < time) {
            return false;
        }
        match self.rotate() {
            Ok(()) => {
                self.rotate_again = None;
                true
            }
            Err(error) => {
                if self.rotate_again.is_none() {
                    warn!(
                        path = %self.path().display(), %error,
                        "cannot rotate the audit log; it grows until this works again"
                    );
                }
                self.rotate_again = Some(now + ROTATE_AGAIN);
                false
            }
        }
    }

    /// audit.log becomes audit.log.1, and so on. The new file is made first: without it, lines go on in
    /// the old one.
    fn rotate(&mut self) -> io::Result<()> {
        let path = self.settings.path.clone();
        let next = with_suffix(&path, "new");
        let file = open(&next, true)?;
        let free = (1..self.settings.keep).find(|number| !numbered(&path, *number).exists());
        let last = free.unwrap_or(self.settings.keep);
        for number in (1..last).rev() {
            fs::rename(numbered(&path, number), numbered(&path, number + 1))?;
        }
        match fs::rename(&path, numbered(&path, 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::rename(&next, &path)?,
        }
        self.use_file(file)
    }

    fn use_file(&mut self, file: File) -> io::Result<()> {
        self.file = file;
        self.look()
    }

    /// Reads the length of the file, and whether its last line is whole.
    fn look(&mut self) -> io::Result<()> {
        self.length = self.file.metadata()?.len();
        let mut last = [b'\n'];
        if let Some(at) = self.length.checked_sub(1) {
            self.file.read_exact_at(&mut last, at)?;
        }
        self.is_torn = last != [b'\n'];
        Ok(())
    }
}

fn open(path: &Path, truncate: bool) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        // For a path that is no regular file.
        .custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed())
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    if truncate {
        file.set_len(0)?;
    }
    Ok(file)
}

/// The length of the whole lines at the beginning.
fn whole(lines: &[u8]) -> usize {
    lines
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1)
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

fn numbered(path: &Path, number: usize) -> PathBuf {
    with_suffix(path, &number.to_string())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".");
    name.push(suffix);
    name.into()
}

/// Each attempt makes a file, and most causes need an operator.
const ROTATE_AGAIN: Duration = Duration::from_secs(5);
