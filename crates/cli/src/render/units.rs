//! Sizes, ages and shortened identifiers as Docker prints them.
//!
//! Source: docker/go-units; behaviours.md section 6.

use super::width;
use std::time::{SystemTime, UNIX_EPOCH};

use spec::units::human_duration;
pub use spec::units::{binary_size, human_size, table_size};

/// How long ago a Unix time was: `2 minutes ago`; `N/A` for no time.
pub fn ago(unix_seconds: i64) -> String {
    format!("{} ago", human_duration(now() - unix_seconds))
}

/// The same for a moment with its fraction: a second counts once it is whole.
pub fn ago_at(moment: jiff::Timestamp) -> String {
    format!("{} ago", human_duration(jiff::Timestamp::now().duration_since(moment).as_secs()))
}

pub fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map(|since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
        .unwrap_or_default()
}

/// Twelve digits of an identifier, without `sha256:`.
pub fn short_id(id: &str) -> &str {
    let bare = id.split_once(':').map_or(id, |(_, digits)| digits);
    bare.get(..12).unwrap_or(bare)
}

/// At most `width` columns, the last an ellipsis when shortened.
pub fn ellipsis(text: &str, width: usize) -> String {
    if width <= 1 {
        return text.chars().take(width).collect();
    }
    let total = match text.is_ascii() {
        true => text.len(),
        false => text.chars().map(width::of_letter).sum(),
    };
    if total <= width {
        return text.to_owned();
    }
    let mut taken = 0;
    let fits = |letter: &char| {
        taken += width::of_letter(*letter);
        taken < width
    };
    text.chars().take_while(fits).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_shortened() {
        assert_eq!(ellipsis("/bin/sh -c 'sleep 1000'", 18), "/bin/sh -c 'sleep…");
        assert_eq!(ellipsis("echo '日本語 ü and more'", 20), "echo '日本語 ü and …");
        assert_eq!(ellipsis("日本語", 4), "日…");
        assert_eq!(short_id("sha256:0123456789abcdef"), "0123456789ab");
    }
}
