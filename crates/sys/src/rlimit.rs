//! Resource limits of processes, by their names.

use std::io;

/// The number of `RLIMIT_NOFILE` and its like.
#[must_use]
pub fn number(name: &str) -> Option<u32> {
    Some(match name.strip_prefix("RLIMIT_").unwrap_or(name) {
        "CPU" => 0,
        "FSIZE" => 1,
        "DATA" => 2,
        "STACK" => 3,
        "CORE" => 4,
        "RSS" => 5,
        "NPROC" => 6,
        "NOFILE" => 7,
        "MEMLOCK" => 8,
        "AS" => 9,
        "LOCKS" => 10,
        "SIGPENDING" => 11,
        "MSGQUEUE" => 12,
        "NICE" => 13,
        "RTPRIO" => 14,
        "RTTIME" => 15,
        _ => return None,
    })
}

/// What became of a wish for a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Set,
    /// The host may not raise limits: as much as its own hard limit allows was set.
    Lowered {
        hard: u64,
        soft: u64,
    },
}

/// Sets a limit of this process, as far as the host may.
///
/// # Errors
/// `EINVAL` for a soft limit above the hard one or an unknown number.
pub fn set(number: u32, soft: u64, hard: u64) -> io::Result<Outcome> {
    match apply(number, soft, hard) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {}
        other => return other.map(|()| Outcome::Set),
    }
    let ceiling = get(number)?.1;
    let (soft, hard) = (soft.min(ceiling), hard.min(ceiling));
    apply(number, soft, hard)?;
    Ok(Outcome::Lowered { hard, soft })
}

/// The soft and the hard limit of this process.
///
/// # Errors
/// `EINVAL` for an unknown number.
pub fn get(number: u32) -> io::Result<(u64, u64)> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the old limit is written to a live record of the right type; the new one is null.
    crate::process::check(unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            0,
            number,
            std::ptr::null::<libc::rlimit64>(),
            &raw mut limit,
        )
    })?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

fn apply(number: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the new limit is read from a live record of the right type; the old one is null.
    crate::process::check(unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            0,
            number,
            &raw const limit,
            std::ptr::null_mut::<libc::rlimit64>(),
        )
    })?;
    Ok(())
}
