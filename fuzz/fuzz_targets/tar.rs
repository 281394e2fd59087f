//! Archives: listed, and what is listed is what unpacking makes.
#![no_main]

use std::os::fd::AsFd;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use store::UnpackLimits;
use store::listing::{Directory, Listed, list};

fuzz_target!(|archive: &[u8]| {
    let limits = UnpackLimits::default();
    let spool = tempfile::tempfile().unwrap();
    let Ok(listing) = list(archive, spool, &limits, &|_| true) else { return };
    let Some(tree) = listing.tree else { return };
    let directory = tempfile::tempdir().unwrap();
    let top = std::fs::File::open(directory.path()).unwrap();
    let owner = Some(own_ids());
    let overwrite = store::Overwrite::Anything;
    let options = store::archive::ExtractOptions { overwrite, owner, limits };
    if store::archive::extract(top.as_fd(), Path::new("/"), listing.archive, &options).is_ok() {
        compare(&tree, directory.path());
    }
});

/// Nobody but root may give files away.
fn own_ids() -> (u32, u32) {
    use std::os::unix::fs::MetadataExt;
    let own = std::fs::metadata("/proc/self").unwrap();
    (own.uid(), own.gid())
}

fn compare(tree: &Directory, path: &Path) {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut names: Vec<Vec<u8>> =
        std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_vec()).collect();
    names.sort();
    assert!(names.iter().eq(tree.children.keys()), "the same names in {path:?}");
    for (name, child) in &tree.children {
        let path = path.join(std::ffi::OsStr::from_bytes(name));
        let found = std::fs::symlink_metadata(&path).unwrap();
        match child {
            Listed::Directory(child) if found.is_dir() => compare(child, &path),
            Listed::File { size, .. } if found.is_file() => assert_eq!(found.len(), *size),
            Listed::Link(target) if found.is_symlink() => {
                assert_eq!(std::fs::read_link(&path).unwrap().as_os_str().as_bytes(), target);
            }
            other => panic!("{path:?} is {found:?}, listed as {other:?}"),
        }
    }
}
