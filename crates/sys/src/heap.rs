//! The C library's heap, in a process of many threads that pass megabytes between them.

/// Has large pieces given back to the kernel when they are freed, and small ones come from few arenas.
/// Else each thread that ever held a large piece keeps its room, and glibc takes ever larger ones for
/// small (mallopt(3), "M_MMAP_THRESHOLD", "M_ARENA_MAX"). Other C libraries do so by themselves.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [
        (libc::M_MMAP_THRESHOLD, LARGE_BYTES),
        (libc::M_TRIM_THRESHOLD, 2 * LARGE_BYTES),
        (libc::M_ARENA_MAX, ARENAS_MAX),
    ] {
        // SAFETY: takes two integers by value; glibc takes its own lock around the change. What it
        // refuses it leaves as it was.
        unsafe { libc::mallopt(parameter, value) };
    }
}

#[cfg(target_env = "gnu")]
const LARGE_BYTES: libc::c_int = 128 << 10;
#[cfg(target_env = "gnu")]
const ARENAS_MAX: libc::c_int = 2;
