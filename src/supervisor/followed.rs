//! Which files are watched: those of the configuration that is served, and those of one that was refused.

use std::path::{Path, PathBuf};

use crate::watch::{FileState, Watch};

/// The files whose change is worth a reload.
#[derive(Debug)]
pub(super) struct Followed {
    watch: Watch,
    /// Of the configuration that is served.
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

    /// The files of the configuration that is served, as they are now.
    pub(super) fn served(&self) -> Vec<FileState> {
        self.served.iter().map(FileState::of).collect()
    }

    /// These are the files of the configuration that is served now.
    pub(super) fn serve(&mut self, files: &[FileState]) {
        self.served = files.iter().map(|file| file.path().to_owned()).collect();
        self.follow(files);
    }

    /// A configuration with these files was refused. What is wrong may be put right in one of them,
    /// or by going back to those of the one that is `served`.
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
