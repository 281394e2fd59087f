//! Networks for front doors: the same operations as methods of the engine, off the async threads.

use std::time::{Duration, SystemTime};

use crate::error::{Error, Result};
use crate::filters::Filters;

/// The `until` filter of prune: a moment, or how long ago.
pub(super) fn until(filters: &Filters) -> Result<Option<SystemTime>> {
    let mut values = filters.values("until");
    let (Some(text), None) = (values.next(), values.next()) else {
        return match filters.values("until").count() {
            0 => Ok(None),
            _ => Err(Error::invalid("more than one until filter specified")),
        };
    };
    let wrong = || Error::invalid(format!("invalid filter 'until={text}'"));
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)));
    }
    if let Ok(moment) = text.parse::<jiff::Timestamp>() {
        return Ok(Some(moment.into()));
    }
    let span: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
    let ago = Duration::try_from(span).map_err(|_| wrong())?;
    SystemTime::now().checked_sub(ago).map(Some).ok_or_else(wrong)
}
