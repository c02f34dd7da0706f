//! Reads a file that an operator names, whatever turns out to be at the path.

use std::fs::{self, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// All of a regular file.
///
/// # Errors
///
/// As [`fs::read`]; and what is no regular file, since opening a FIFO waits for whoever writes and
/// a device may have no end; and more than 64 MiB.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    // First, since opening is itself felt by a device, and by who waits to write into a FIFO.
    regular(&fs::metadata(path)?)?;
    let file = OpenOptions::new()
        .read(true)
        // By now there may be a FIFO after all.
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

/// As [`read`], for a text.
pub(crate) fn read_to_string(path: &Path) -> io::Result<String> {
    let content = read(path)?;
    String::from_utf8(content).map_err(|_| refused("stream did not contain valid UTF-8"))
}

/// What to say of a private key that users can read who need not.
pub(crate) fn exposed(path: &Path) -> Option<String> {
    let found = fs::metadata(path).ok()?;
    let mode = found.mode() & 0o777;
    // Of another owner's file the group is how this process reads it.
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

// Without a limit a file that grows without end takes all memory. The largest that anybody has is a
// revocation list, of some 40 bytes an entry.
const LIMIT: u64 = 64 * 1024 * 1024;
