//! What images cost on their way, counted: system calls and flushes. Figures in milliseconds come from
//! `benches/registries`.

use std::fs;

use super::registry::{ADDRESS, Registry, without};
use crate::harness::{Outcome, Suite, shell};

super::cases! {
    a_pull_of_many_layers_costs_one_flush,
    a_small_file_costs_five_calls,
}

const FLUSHES: &str = "fsync,fdatasync,syncfs,sync,sync_file_range,msync";
const LAYERS: usize = 6;

fn no_strace() -> Option<Outcome> {
    let missing = shell("command -v strace").code != 0;
    missing.then(|| Outcome::Ignored("strace is not installed".to_owned()))
}

/// One flush when the names are written; a second where this machine is so slow that layers had waited
/// for the first one too long. An image that is here already costs none.
fn a_pull_of_many_layers_costs_one_flush(suite: &Suite) -> Outcome {
    if let Some(ignored) = no_strace() {
        return ignored;
    }
    let Some(_registry) = Registry::start(suite) else { return without() };
    let name = format!("{ADDRESS}/counted/layers");
    let dir = suite.scratch().join("layers");
    fs::create_dir_all(&dir).unwrap();
    let mut file = "FROM scratch\nCMD [\"none\"]\n".to_owned();
    for layer in 0..LAYERS {
        fs::write(dir.join(format!("f{layer}")), format!("layer {layer}")).unwrap();
        file += &format!("COPY f{layer} /f{layer}\n");
    }
    fs::write(dir.join("Dockerfile"), file).unwrap();
    suite.tug(["build", "-q", "-t", &name, dir.to_str().unwrap()]).ok();
    suite.tug(["push", "-q", &name]).ok();
    suite.tug(["rmi", "-f", &name]).ok();
    suite.tug(["builder", "prune", "-af"]).ok();
    // What the removal left for later is flushed with the tag.
    suite.tug(["tag", "busybox", "counted-before"]).ok();
    let mut pulled = String::new();
    let calls = suite.system_calls_during(FLUSHES, || pulled = suite.tug(["pull", &name]).ok());
    assert_eq!(pulled.matches("Pull complete").count(), LAYERS, "{pulled}");
    assert!((1..=2).contains(&calls.len()), "{calls:#?}");
    assert!(calls[0].contains("syncfs("), "{calls:#?}");
    let calls = suite.system_calls_during(FLUSHES, || drop(suite.tug(["pull", &name]).ok()));
    assert!(calls.is_empty(), "{calls:#?}");
    suite.tug(["rmi", "-f", &name, "counted-before"]).ok();
    Outcome::Passed
}

/// Open, write, set the time, close: the mode and the owner come with the open.
fn a_small_file_costs_five_calls(suite: &Suite) -> Outcome {
    if let Some(ignored) = no_strace() {
        return ignored;
    }
    let files = 500;
    let dir = suite.scratch().join("small");
    fs::create_dir_all(dir.join("d")).unwrap();
    for file in 0..files {
        fs::write(dir.join(format!("d/{file}")), format!("file {file}")).unwrap();
    }
    let tar = suite.scratch().join("small.tar");
    let (from, to) = (dir.display(), tar.display());
    shell(&format!("chmod -R u=rwX,go=rX {from} && tar -C {from} --owner=0 --group=0 -cf {to} d"))
        .ok();
    let kinds = "openat,openat2,write,pwrite64,ftruncate,lseek,fstat,newfstatat,statx,fchown,fchownat,fchmod,fchmodat,fsetxattr,utimensat,linkat,renameat,close";
    let calls = suite.system_calls_during(kinds, || {
        suite.tug(["import", tar.to_str().unwrap(), "counted-small"]).ok();
    });
    // Open, write, stat (a replaced file is found again by its inode, so no names are kept), set the
    // time, close. The rest is the request, the layer's records and the flush.
    let most = 5 * files + 200;
    assert!(calls.len() <= most, "{} calls for {files} files", calls.len());
    suite.tug(["rmi", "-f", "counted-small"]).ok();
    Outcome::Passed
}
