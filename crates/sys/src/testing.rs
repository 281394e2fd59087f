//! What privileged tests ask before they begin.
//!
//! A test that cannot run says so and counts as ignored; in CI, where the machine is ours, it fails.

/// Whether this process has the privileges of real root over this machine's namespaces. When not,
/// says why the test is ignored, or panics when the environment says that this is CI.
#[must_use]
pub fn privileged(why: &str) -> bool {
    let able = rustix::process::geteuid().is_root()
        && crate::capability::held()
            .is_ok_and(|held| held.effective.contains(crate::capability::SYS_ADMIN));
    if !able {
        ignored(why);
    }
    able
}

/// Reports a test as ignored because of `why`.
///
/// # Panics
/// In CI, which has to offer what the tests need.
pub fn ignored(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "cannot run in CI: {why}");
    println!("ignored: {why}");
}
