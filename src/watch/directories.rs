//! Finds the directories to watch for a change of the files at some paths.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsString;
use std::fs::read_link;
use std::path::{Path, PathBuf, absolute};

use super::FileState;

pub(super) fn wanted(files: &[FileState]) -> BTreeSet<PathBuf> {
    let mut parents = HashSet::new();
    let files = files.iter().map(|file| &file.path);
    // There may be thousands of files in one directory. They all have the same path to it, except
    // links.
    let files = files.filter(|file| parents.insert(file.parent()) || file.is_symlink());
    files.flat_map(|file| directories(file)).collect()
}

/// The directories where a change can put another file at this path: the file's own directory, and the
/// directory of each symbolic link on the path and of its target. If a part of the path does not exist,
/// the last directory that exists.
pub(super) fn directories(file: &Path) -> BTreeSet<PathBuf> {
    let mut directories = BTreeSet::new();
    // The path so far, with links resolved, so that `..` is its parent.
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

/// The steps of a path in reverse order, as a stack.
fn steps(path: &Path) -> Vec<Step> {
    let names = path.components().rev().enumerate();
    let steps = names.map(|(index, name)| Step {
        name: name.as_os_str().to_owned(),
        is_last: index == 0,
    });
    steps.collect()
}

/// The kernel's limit (path_resolution(7)).
const MOST_LINKS: usize = 40;
