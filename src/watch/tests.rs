//! Files that change in every possible way.

use std::fs::{File, create_dir, create_dir_all, remove_dir_all, rename, write};
use std::os::unix::fs::symlink;

use super::directories::directories;
use super::*;

/// Makes a change once the watch waits, and waits until the watch notices it.
async fn noticed(watch: &mut Watch, change: impl Future<Output = ()>) {
    let both = async { tokio::join!(biased; watch.changed(), change) };
    let both = timeout(Duration::from_secs(10), both).await;
    both.expect("it is noticed");
}

/// A directory whose own path has no links.
fn site() -> (tempfile::TempDir, PathBuf) {
    let site = tempfile::tempdir().unwrap();
    let path = site.path().canonicalize().unwrap();
    (site, path)
}

fn site_of(content: &str) -> (tempfile::TempDir, PathBuf) {
    let (site, path) = site();
    write(path.join("srv.pem"), content).unwrap();
    (site, path)
}

/// Makes a link and replaces the one that is there.
fn link(target: &str, at: &Path) {
    let beside = at.with_extension("new");
    symlink(target, &beside).unwrap();
    rename(beside, at).unwrap();
}

#[tokio::test]
async fn a_swapped_link_to_a_parent_directory_is_noticed() {
    let (_site, at) = site();
    for release in ["r1", "r2", "r3"] {
        create_dir_all(at.join(release).join("certs")).unwrap();
        write(at.join(release).join("certs/srv.pem"), release).unwrap();
    }
    link("r1", &at.join("cur"));
    let file = FileState::of(at.join("cur/certs/srv.pem"));
    let mut watch = Watch::new(&[file]);
    for release in ["r2", "r3"] {
        let swap = async { link(release, &at.join("cur")) };
        noticed(&mut watch, swap).await;
    }
}

#[tokio::test]
async fn a_file_is_noticed_after_its_directories_are_removed_and_made_again() {
    let (_site, at) = site();
    let (outer, inner) = (at.join("site"), at.join("site/certs"));
    let file = inner.join("srv.pem");
    create_dir_all(&inner).unwrap();
    write(&file, "").unwrap();
    let mut watch = Watch::new(&[FileState::of(&file)]);
    noticed(&mut watch, async { remove_dir_all(&outer).unwrap() }).await;
    // With pauses, so that the watch handles each step by itself.
    let again = async {
        create_dir(&outer).unwrap();
        sleep(3 * QUIET).await;
        create_dir(&inner).unwrap();
        sleep(3 * QUIET).await;
        write(&file, "").unwrap();
    };
    noticed(&mut watch, again).await;
}

#[tokio::test]
async fn a_file_written_in_place_with_its_size_and_time_kept_is_noticed() {
    let (_site, at) = site();
    let file = at.join("srv.pem");
    write(&file, "one").unwrap();
    let modified = metadata(&file).unwrap().modified().unwrap();
    let mut watch = Watch::new(&[FileState::of(&file)]);
    let keep = async {
        // The clock of a file system may be coarse.
        sleep(QUIET).await;
        write(&file, "two").unwrap();
        let file = File::options().write(true).open(&file).unwrap();
        file.set_modified(modified).unwrap();
    };
    noticed(&mut watch, keep).await;
}

/// A watch for directories where the kernel reports nothing, as on NFS.
fn deaf(file: &Path) -> Watch {
    let mut watch = Watch::new(&[FileState::of(file)]);
    watch.interval = Duration::from_millis(100);
    watch
}

#[tokio::test]
async fn a_change_that_the_kernel_does_not_report_is_noticed() {
    let (_site, at) = site();
    let (_other, elsewhere) = site_of("mounted by itself");
    // Written through a hard link in another directory, which is not watched.
    let file = at.join("srv.pem");
    std::fs::hard_link(elsewhere.join("srv.pem"), &file).unwrap();
    let mut watch = deaf(&file);
    let write_there = async {
        sleep(3 * QUIET).await;
        write(elsewhere.join("srv.pem"), "another").unwrap();
    };
    noticed(&mut watch, write_there).await;
}

#[tokio::test]
async fn a_watch_that_has_lost_the_kernel_goes_on() {
    let (_site, at) = site();
    let file = at.join("srv.pem");
    write(&file, "one").unwrap();
    let mut watch = deaf(&file);
    watch.say("cannot watch files", &rustix::io::Errno::MFILE.into());
    watch.inotify = None;
    assert!(timeout(QUIET, watch.event()).await.is_err(), "no event");
    noticed(&mut watch, async {
        write(&file, "two, and longer").unwrap()
    })
    .await;
}

#[test]
fn reading_a_file_does_not_change_its_state() {
    let (_site, at) = site();
    let file = at.join("srv.pem");
    write(&file, "one").unwrap();
    let before = FileState::of(&file);
    std::fs::read(&file).unwrap();
    assert_eq!(FileState::of(&file), before);
}

#[test]
fn each_link_on_the_way_is_watched_where_it_is_and_where_it_leads() {
    let (_site, at) = site();
    for directory in ["r1/certs", "far", "dir"] {
        create_dir_all(at.join(directory)).unwrap();
    }
    write(at.join("r1/certs/srv.pem"), "").unwrap();
    link("r1", &at.join("cur"));
    link(at.join("r1").to_str().unwrap(), &at.join("far/cur"));
    link("../cur/certs", &at.join("dir/up"));
    link("round", &at.join("round"));
    for (path, expected) in [
        ("r1/certs/srv.pem", &["r1/certs"][..]),
        ("cur/certs/srv.pem", &["", "r1/certs"]),
        ("far/cur/certs/srv.pem", &["far", "", "r1/certs"]),
        ("dir/up/srv.pem", &["dir", "", "r1", "r1/certs"]),
        ("dir/../r1/certs/srv.pem", &["r1/certs"]),
        ("round/srv.pem", &[""]),
        ("r1/certs/none.pem", &["r1/certs"]),
        ("r1/certs/srv.pem/none", &["r1/certs"]),
    ] {
        let expected: BTreeSet<PathBuf> = expected.iter().map(|it| at.join(it)).collect();
        // Paths that differ only in a slash at the end are equal.
        assert_eq!(directories(&at.join(path)), expected, "{path}");
    }
}

#[test]
fn a_relative_path_is_watched_from_the_working_directory() {
    let here = std::env::current_dir().unwrap();
    assert_eq!(directories(Path::new("Cargo.toml")), BTreeSet::from([here]));
}
