//! Reads a file that an operator has named, and refuses what is not a regular file. Replaces our own.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, Timespec, Timestamps, UTIME_NOW, futimens};

/// Reads a regular file completely. Blocks on the file system.
///
/// # Errors
///
/// As [`fs::read`]. Also if it is not a regular file (opening a FIFO waits for a writer, and a device
/// may have no end), or if it is larger than 64 MiB.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    // Checked before the open, because an open has an effect on a device, and on a program that waits
    // to write into a FIFO.
    regular(&fs::metadata(path)?)?;
    let file = OpenOptions::new()
        .read(true)
        // Meanwhile the file may have been replaced by a FIFO.
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)?;
    regular(&file.metadata()?)?;
    let mut content = Vec::new();
    file.take(LIMIT + 1).read_to_end(&mut content)?;
    if content.len() as u64 > LIMIT {
        return Err(refused("it is larger than 64 MiB"));
    }
    Ok(content)
}

/// As [`read`], for UTF-8 text.
pub(crate) fn read_to_string(path: &Path) -> io::Result<String> {
    let content = read(path)?;
    String::from_utf8(content).map_err(|_| refused("stream did not contain valid UTF-8"))
}

/// Sets the times of a file to now, and creates an empty one if there is none. Blocks on the file system.
pub(crate) fn touch(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        // The open of a FIFO would wait for a reader.
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .mode(0o644)
        .open(path)?;
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_NOW,
    };
    let times = Timestamps {
        last_access: now,
        last_modification: now,
    };
    Ok(futimens(&file, &times)?)
}

/// Replaces a file in one step, with mode 0600: after a crash there is the old content or the new one.
/// When this returns, it is the new one. No other user may change the directory. Blocks on the file system.
///
/// # Errors
///
/// The old file is there as before. But if only the last step fails, which is to write the directory to
/// the disk, it is the new one, and a crash may bring the old one back.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", crate::id::Id::random()));
    let beside = PathBuf::from(name);
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    if let Err(error) = write() {
        // There is none if the first step has failed.
        let _ = fs::remove_file(&beside);
        return Err(error);
    }
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// A warning about a private key that too many users can read.
pub(crate) fn exposed(path: &Path) -> Option<String> {
    let found = fs::metadata(path).ok()?;
    let mode = found.mode() & 0o777;
    // If the file has another owner, this process may be able to read it only through the group.
    let is_ours = found.uid() == rustix::process::geteuid().as_raw();
    let who = match mode {
        mode if mode & 0o004 != 0 => "every user of this machine",
        mode if mode & 0o040 != 0 && is_ours => "its group",
        _ => return None,
    };
    let file = path.display();
    Some(format!(
        "{who} can read the private key (mode {mode:04o}); run `chmod go= {file}`"
    ))
}

fn regular(found: &Metadata) -> io::Result<()> {
    if found.is_file() {
        Ok(())
    } else {
        Err(refused("it is not a regular file"))
    }
}

fn refused(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

// Without a limit, a file that grows without end would use all memory. The largest files in use are
// revocation lists, with about 40 bytes for each entry.
const LIMIT: u64 = 64 * 1024 * 1024;
