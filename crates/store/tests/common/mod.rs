//! What the store's tests share.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory of one test's own, removed at its end.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Scratch {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tug-{name}-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Whether this process may make device nodes and mounts. In CI it must.
pub fn privileged(test: &str) -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "{test} must run in CI");
    println!("ignored: {test} needs root");
    false
}

/// Runs a shell script in `dir`.
pub fn sh(dir: &Path, script: &str) {
    let status = Command::new("sh").arg("-ec").arg(script).current_dir(dir).status().unwrap();
    assert!(status.success(), "{script}");
}

/// A description of a whole tree: names, kinds, modes, owners, times, links and contents' digests.
pub fn listing(dir: &Path) -> String {
    let script = "find . -mindepth 1 -printf '%y %m %U:%G %T@ %n %s %p -> %l\\n' | grep -v '^d' | LC_ALL=C sort;
        find . -mindepth 1 -type d -printf '%y %m %U:%G %T@ %p\\n' | LC_ALL=C sort;
        find . -type f -print0 | LC_ALL=C sort -z | xargs -0 -r sha256sum;
        python3 -c 'import os
for d, ds, fs in sorted(os.walk(\".\")):
  for n in sorted(ds + fs):
    p = os.path.join(d, n)
    for x in os.listxattr(p, follow_symlinks=False):
      if not x.startswith(\"trusted.overlay\"): print(p, x, os.getxattr(p, x, follow_symlinks=False))'";
    let output = Command::new("sh").arg("-c").arg(script).current_dir(dir).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}
