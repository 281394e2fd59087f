//! What privileged tests ask before they begin, and a heap that counts.
//!
//! A test that cannot run says so and counts as ignored; in CI, where the machine is ours, it fails.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

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

/// The heap with a count of what each thread takes of it, for tests that guard a cost by a number. A
/// crate's tests make it their own:
/// ```text
/// #[cfg(test)]
/// #[global_allocator]
/// static HEAP: sys::testing::CountedHeap = sys::testing::CountedHeap;
/// ```
pub struct CountedHeap;

thread_local! {
    static TAKEN: Cell<usize> = const { Cell::new(0) };
}

/// How often this thread has taken memory, growing included. Counts nothing where [`CountedHeap`] is not
/// the heap.
#[must_use]
pub fn allocations() -> usize {
    TAKEN.get()
}

// SAFETY: each call goes to the system's heap as it came, and what that answers is handed on. The count
// is a number of the thread's own, without a destructor, so it can be had at any time.
unsafe impl GlobalAlloc for CountedHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        TAKEN.set(TAKEN.get() + 1);
        // SAFETY: the caller keeps alloc's promise: the layout is not empty.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: `memory` came from `System` with this layout, since all of our memory does.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        TAKEN.set(TAKEN.get() + 1);
        // SAFETY: as for dealloc; the caller promises that the new size is not 0 and no overflow.
        unsafe { System.realloc(memory, layout, size) }
    }
}
