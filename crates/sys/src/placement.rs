//! Where a process runs and where its memory comes from: CPUs and NUMA nodes.
//!
//! Source: sched_setaffinity(2), set_mempolicy(2); cpuset(7), "List format".

use std::io;

use crate::process::check;

/// Numbers of CPUs or nodes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Numbers(Vec<u64>);

/// Above what any kernel is built for: 8192 CPUs, 1024 nodes.
const NUMBER_MAX: usize = 8192;

impl Numbers {
    /// Reads the list format: `0-3,7`. None when it is not one, or empty.
    #[must_use]
    pub fn parse(list: &str) -> Option<Numbers> {
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|number| digits && *number < NUMBER_MAX)
        };
        let mut words = Vec::new();
        for part in list.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (usize, usize) = (number(first)?, number(last)?);
            if first > last {
                return None;
            }
            if words.len() <= last / 64 {
                words.resize(last / 64 + 1, 0);
            }
            for one in first..=last {
                words[one / 64] |= 1_u64 << (one % 64);
            }
        }
        Some(Numbers(words))
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }
}

/// The CPUs that the calling thread may run on.
///
/// # Errors
/// As sched_getaffinity(2).
pub fn affinity() -> io::Result<Numbers> {
    let mut words = vec![0_u64; NUMBER_MAX / 64];
    // SAFETY: the kernel writes at most the given number of bytes to the pointer; the buffer has them.
    let bytes = check(unsafe {
        libc::syscall(
            libc::SYS_sched_getaffinity,
            0,
            size_of_val(words.as_slice()),
            words.as_mut_ptr(),
        )
    })?;
    words.truncate(usize::try_from(bytes).unwrap_or(0).div_ceil(8));
    Ok(Numbers(words))
}

/// Has the calling thread, and what it starts, run on these CPUs only.
///
/// # Errors
/// EINVAL when none of them is there, or allowed by the control group.
pub fn set_affinity(cpus: &Numbers) -> io::Result<()> {
    let words = cpus.0.as_slice();
    // SAFETY: the kernel reads the given number of bytes from the pointer; the buffer has them.
    check(unsafe {
        libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(words), words.as_ptr())
    })?;
    Ok(())
}

/// Sets the calling thread's memory policy, which what it executes keeps. `mode` is one of
/// linux/mempolicy.h with its flags; `nodes` are none for modes that take none.
///
/// # Errors
/// EINVAL when mode and nodes do not fit, or a node is not there.
pub fn set_memory_policy(mode: u32, nodes: &Numbers) -> io::Result<()> {
    let words = nodes.0.as_slice();
    // The kernel takes one bit less than it is told: mm/mempolicy.c, `get_nodes`.
    let bits = if nodes.is_empty() { 0 } else { words.len() * 64 + 1 };
    let pointer = if nodes.is_empty() { std::ptr::null() } else { words.as_ptr() };
    // SAFETY: the kernel reads `bits - 1` bits from the pointer, which the buffer has; none of a null one.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, pointer, bits) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_or_refused() {
        assert_eq!(Numbers::parse("0-2,64"), Some(Numbers(vec![7, 1])));
        assert_eq!(Numbers::parse("3"), Some(Numbers(vec![8])));
        for bad in ["", "a", "3-1", "1,", "-1", "+1", "1-", "8192", "0-99999999999999999999"] {
            assert_eq!(Numbers::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_thread_stays_where_it_is_put() {
        std::thread::spawn(|| {
            let all = affinity().unwrap();
            let first = all.0.iter().position(|word| *word != 0).unwrap();
            let bit = all.0[first].trailing_zeros();
            let one = Numbers::parse(&(first * 64 + bit as usize).to_string()).unwrap();
            set_affinity(&one).unwrap();
            assert_eq!(affinity().unwrap().0[first], 1 << bit);
            set_affinity(&all).unwrap();
            assert_eq!(affinity().unwrap(), all);
        })
        .join()
        .unwrap();
    }
}
