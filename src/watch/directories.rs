//! In which directories something has to happen for other files to be at some paths.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsString;
use std::fs::read_link;
use std::path::{Path, PathBuf, absolute};

use super::FileState;

pub(super) fn wanted(files: &[FileState]) -> BTreeSet<PathBuf> {
    let mut parents = HashSet::new();
    let files = files.iter().map(|file| &file.path);
    // There may be thousands in one directory, and to all that are no links it is the same way.
    let files = files.filter(|file| parents.insert(file.parent()) || file.is_symlink());
    files.flat_map(|file| directories(file)).collect()
}

/// Where something has to happen for another file to be at this path: in the directory that the file
/// is in, and in those of each link on the way and of what it leads to. If the way ends early, where
/// it ends.
pub(super) fn directories(file: &Path) -> BTreeSet<PathBuf> {
    let mut directories = BTreeSet::new();
    // The way so far, without links; so that what is above it is its parent.
    let mut at = PathBuf::new();
    let mut ahead = steps(&absolute(file).unwrap_or_else(|_| file.to_owned()));
    let mut links = 0;
    while let Some(Step { name, is_last }) = ahead.pop() {
        if name == ".." {
            at.pop();
            continue;
        }
        let next = at.join(name);
        let target = read_link(&next);
        let leads_on = target.is_err() && next.is_dir();
        if is_last || !leads_on {
            directories.insert(at.clone());
        }
        match target {
            Ok(target) if links < MOST_LINKS => {
                links += 1;
                ahead.extend(steps(&target));
            }
            Err(_) if leads_on => at = next,
            _ => break,
        }
    }
    directories
}

/// One name of a path.
struct Step {
    name: OsString,
    is_last: bool,
}

/// The last comes first, as on a stack.
fn steps(path: &Path) -> Vec<Step> {
    let names = path.components().rev().enumerate();
    let steps = names.map(|(index, name)| Step {
        name: name.as_os_str().to_owned(),
        is_last: index == 0,
    });
    steps.collect()
}

/// As the kernel follows them (path_resolution(7)).
const MOST_LINKS: usize = 40;
