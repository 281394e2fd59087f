//! What an archive of a stranger's may cost: entries, bytes, time.
//!
//! Every reader of archives has a [`Meter`] and reads through a [`Gauge`]; what is held in memory
//! meanwhile is bounded where it is held, in `tar::read`, [`crate::tree`] and [`crate::listing`].
//!
//! ```text
//! entries   UnpackLimits::entries_max
//! bytes     UnpackLimits::free_bytes, or ratio_max for each byte that came, whichever is more
//! work      the unpacking thread's own time, by entries and bytes: WORK_*
//! ```
//! A bomb is small for what it makes. So size alone is no offence, and a slow sender is none either:
//! the time that counts is what this process spends.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::tar::{Entry, TarError};

/// Bounds on what an archive may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnpackLimits {
    pub entries_max: u64,
    /// How much a stream may hold before its compression ratio matters.
    pub free_bytes: u64,
    /// Plain bytes for each compressed one. gzip reaches 1032 on zeros, real layers 20.
    pub ratio_max: u64,
}

impl Default for UnpackLimits {
    fn default() -> UnpackLimits {
        UnpackLimits { entries_max: 10_000_000, free_bytes: 2 << 30, ratio_max: 500 }
    }
}

/// Time that any archive may take.
const WORK_FREE: Duration = Duration::from_secs(60);
/// And more for each entry: a hundred times what making a file takes.
const WORK_ENTRY: Duration = Duration::from_millis(2);
/// And for each byte, a tenth of a slow machine's speed.
const WORK_BYTE_NANOS: u64 = 20;
/// How many entries go by between two looks at the clock.
const ENTRIES_BETWEEN: u64 = 64;

impl UnpackLimits {
    /// An archive may hold this much however small it came, and no more however large.
    #[must_use]
    pub fn of_size(bytes: u64) -> UnpackLimits {
        UnpackLimits { free_bytes: bytes, ratio_max: 0, ..UnpackLimits::default() }
    }

    /// # Errors
    /// When `plain` bytes are more than `compressed` ones justify.
    pub(crate) fn check(&self, plain: u64, compressed: u64) -> io::Result<()> {
        let allowed = self.free_bytes.max(compressed.saturating_mul(self.ratio_max));
        if plain <= allowed {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "the archive swells beyond reason: {compressed} bytes of it hold more than {allowed} \
             (max-unpacked-size)"
        )))
    }
}

/// Compares what came out of a stream with what went in.
#[derive(Debug, Clone)]
pub(crate) struct Gauge {
    limits: UnpackLimits,
    compressed: Arc<AtomicU64>,
}

impl Gauge {
    pub(crate) fn new(limits: &UnpackLimits) -> Gauge {
        Gauge { limits: *limits, compressed: Arc::default() }
    }

    /// Counts what is read of `input`, which is the stream as it came.
    pub(crate) fn count<R: Read>(&self, input: R) -> Counted<R> {
        Counted { input, bytes: Arc::clone(&self.compressed) }
    }

    /// Refuses to read more of `plain`, the stream's content, than came in justifies.
    pub(crate) fn bound<R: Read>(&self, plain: R) -> Bounded<R> {
        Bounded { plain, bytes: 0, gauge: self.clone() }
    }

    /// Bytes that came.
    pub(crate) fn compressed(&self) -> u64 {
        self.compressed.load(Ordering::Relaxed)
    }

    /// # Errors
    /// When `plain` bytes are more than what came justifies.
    pub(crate) fn check(&self, plain: u64) -> io::Result<()> {
        self.limits.check(plain, self.compressed())
    }
}

pub(crate) struct Counted<R> {
    input: R,
    bytes: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let got = self.input.read(out)?;
        self.bytes.fetch_add(got as u64, Ordering::Relaxed);
        Ok(got)
    }
}

pub(crate) struct Bounded<R> {
    plain: R,
    bytes: u64,
    gauge: Gauge,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let got = self.plain.read(out)?;
        self.bytes += got as u64;
        self.gauge.check(self.bytes)?;
        Ok(got)
    }
}

/// Counts the entries of one archive and the work that they make, on the thread that unpacks it.
pub(crate) struct Meter {
    entries_max: u64,
    entries: u64,
    bytes: u64,
    started: Duration,
}

impl Meter {
    pub(crate) fn start(limits: &UnpackLimits) -> Meter {
        Meter { entries_max: limits.entries_max, entries: 0, bytes: 0, started: own_time() }
    }

    /// # Errors
    /// When this entry is one too many, or those before took longer than they may.
    pub(crate) fn entry(&mut self, entry: &Entry) -> Result<(), TarError> {
        self.entries += 1;
        self.bytes += entry.size;
        if self.entries > self.entries_max {
            return Err(TarError::TooManyEntries(self.entries_max));
        }
        if !self.entries.is_multiple_of(ENTRIES_BETWEEN) {
            return Ok(());
        }
        self.check_work(own_time().saturating_sub(self.started))
    }

    fn check_work(&self, spent: Duration) -> Result<(), TarError> {
        let entries = u32::try_from(self.entries).unwrap_or(u32::MAX);
        let bytes = Duration::from_nanos(self.bytes.saturating_mul(WORK_BYTE_NANOS));
        let allowed = WORK_FREE + WORK_ENTRY * entries + bytes;
        if spent > allowed { Err(TarError::TooMuchWork) } else { Ok(()) }
    }
}

/// What this thread has run, in the kernel too.
fn own_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_may_swell_by_its_size_or_by_what_is_free() {
        let limits = UnpackLimits { free_bytes: 1000, ratio_max: 10, ..UnpackLimits::default() };
        assert!(limits.check(1000, 1).is_ok());
        assert!(limits.check(1001, 1).is_err());
        assert!(limits.check(2000, 200).is_ok());
        assert!(limits.check(2001, 200).is_err());
        assert!(UnpackLimits::of_size(10).check(11, 1 << 30).is_err());
    }

    #[test]
    fn work_is_measured_by_entries_and_bytes() {
        let meter =
            |entries, bytes| Meter { entries, bytes, ..Meter::start(&UnpackLimits::default()) };
        assert!(meter(1, 0).check_work(Duration::from_secs(59)).is_ok());
        assert!(meter(1, 0).check_work(Duration::from_secs(61)).is_err());
        assert!(meter(1_000_000, 0).check_work(Duration::from_secs(2000)).is_ok());
        assert!(meter(1, 100 << 30).check_work(Duration::from_secs(2000)).is_ok());
    }
}
