//! How much a run may take.

use std::collections::BTreeSet;
use std::fmt;
use std::num::{NonZeroU16, NonZeroU64};
use std::str::FromStr;

use super::DeviceNumber;

/// Limits of a run's control group. What is `None` is left as the kernel makes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    pub memory: MemoryLimits,
    pub cpu: CpuLimits,
    /// How many tasks there may be.
    pub pids: Option<Amount>,
    pub block_io: BlockIoLimits,
}

/// A number, or that there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    Unlimited,
    Max(NonZeroU64),
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryLimits {
    pub max_bytes: Option<NonZeroU64>,
    pub reservation_bytes: Option<NonZeroU64>,
    /// Memory and swap together.
    pub swap_bytes: Option<Amount>,
    pub kernel_tcp_bytes: Option<Amount>,
    /// Percent; only version 1 has it.
    pub swappiness: Option<u8>,
    pub oom_killer: OomKiller,
}

/// What happens to a run that takes more memory than it may.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OomKiller {
    #[default]
    Kills,
    /// Processes wait until there is memory; only version 1 has it.
    Waits,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuLimits {
    pub shares: Option<NonZeroU64>,
    pub quota_us: Option<Amount>,
    pub period_us: Option<NonZeroU64>,
    pub realtime_runtime_us: Option<Amount>,
    pub realtime_period_us: Option<NonZeroU64>,
    pub cpus: Option<NumberList>,
    pub mems: Option<NumberList>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockIoLimits {
    pub weight: Option<NonZeroU16>,
    pub weights: Vec<Weight>,
    /// Bytes a second.
    pub read_bps: Vec<Throttle>,
    pub write_bps: Vec<Throttle>,
    /// Operations a second.
    pub read_iops: Vec<Throttle>,
    pub write_iops: Vec<Throttle>,
}

/// A share of one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weight {
    pub device: DeviceNumber,
    pub weight: NonZeroU16,
}

/// A rate of one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttle {
    pub device: DeviceNumber,
    pub rate: NonZeroU64,
}

/// Processors or memory nodes in the list format of cpuset(7), such as `0-2,5`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumberList(BTreeSet<u32>);

/// Why a text is no list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a list of processors or nodes has numbers and ranges, such as \"0-2,5\"")]
pub struct NumberListError;

/// Beyond this no host has processors: moby `pkg/parsers/parsers.go`.
const NUMBER_MAX: u32 = 8192;

impl NumberList {
    #[must_use]
    pub fn is_subset(&self, other: &NumberList) -> bool {
        self.0.is_subset(&other.0)
    }
}

impl FromStr for NumberList {
    type Err = NumberListError;

    fn from_str(text: &str) -> Result<NumberList, NumberListError> {
        let mut numbers = BTreeSet::new();
        for part in text.split(',').map(str::trim) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |text: &str| text.parse::<u32>().map_err(|_| NumberListError);
            let (first, last) = (number(first)?, number(last)?);
            if first > last || last > NUMBER_MAX {
                return Err(NumberListError);
            }
            numbers.extend(first..=last);
        }
        Ok(NumberList(numbers))
    }
}

impl fmt::Display for NumberList {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut numbers = self.0.iter().copied().peekable();
        let mut separator = "";
        while let Some(first) = numbers.next() {
            let mut last = first;
            while let Some(next) = numbers.next_if_eq(&(last + 1)) {
                last = next;
            }
            match first == last {
                true => write!(out, "{separator}{first}")?,
                false => write!(out, "{separator}{first}-{last}")?,
            }
            separator = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_shown_in_its_shortest_form() {
        let shown = |text: &str| text.parse::<NumberList>().map(|list| list.to_string());
        assert_eq!(shown("0").unwrap(), "0");
        assert_eq!(shown("6, 0-2,3").unwrap(), "0-3,6");
        for bad in ["", "a", "1-", "2-1", "0-99999999", ",", "-1"] {
            assert!(shown(bad).is_err(), "{bad}");
        }
    }
}
