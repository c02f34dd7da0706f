//! Decides which files are watched: those of the active configuration, and those of one that was
//! refused.

use std::path::{Path, PathBuf};

use crate::watch::{FileState, Watch};

/// The files whose change causes a reload.
#[derive(Debug)]
pub(super) struct Followed {
    watch: Watch,
    /// The files of the active configuration.
    served: Vec<PathBuf>,
}

impl Followed {
    pub(super) fn new(files: &[FileState]) -> Self {
        let mut followed = Self {
            watch: Watch::new(&[]),
            served: Vec::new(),
        };
        followed.serve(files);
        followed
    }

    /// The files of the active configuration, in their current state.
    pub(super) fn served(&self) -> Vec<FileState> {
        self.served.iter().map(FileState::of).collect()
    }

    /// Watches the files of a configuration that is active now.
    pub(super) fn serve(&mut self, files: &[FileState]) {
        self.served = files.iter().map(|file| file.path().to_owned()).collect();
        self.follow(files);
    }

    /// Watches the files of a configuration that was refused, too: the operator may correct one of
    /// them, or restore a file of the active configuration. `served` are the files of the active one.
    pub(super) fn refuse(&mut self, files: &[FileState], served: Vec<FileState>) {
        let named = |path: &Path| files.iter().any(|file| file.path() == path);
        let others = served.into_iter().filter(|file| !named(file.path()));
        let all: Vec<FileState> = files.iter().cloned().chain(others).collect();
        self.follow(&all);
    }

    fn follow(&mut self, files: &[FileState]) {
        self.watch.follow(files);
    }

    pub(super) async fn changed(&mut self) {
        self.watch.changed().await;
    }
}
