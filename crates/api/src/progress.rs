//! Messages of the progress streams: build, pull, push, load, import.
//!
//! One JSON object a line, each ended by `\r\n`. A failure after the first byte is a message
//! with `errorDetail` and `error`, never a status. Source: moby 28.2 `pkg/jsonmessage`,
//! `pkg/streamformatter`.

use serde::{Deserialize, Serialize};
use spec::units::human_size;

use crate::is_zero;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorDetail {
    #[serde(skip_serializing_if = "is_zero")]
    pub code: i64,
    pub message: String,
}

/// Bytes, unless `units` names something else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    #[serde(skip_serializing_if = "is_zero")]
    pub current: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub total: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub start: i64,
    #[serde(rename = "hidecounts", skip_serializing_if = "is_zero")]
    pub hide_counts: bool,
    #[serde(skip_serializing_if = "is_zero")]
    pub units: String,
}

impl Progress {
    /// The bar that goes along for clients that draw none; empty where nothing is known.
    ///
    /// Source: moby 28.2 `pkg/jsonmessage/jsonmessage.go`, `JSONProgress.String`.
    #[must_use]
    pub fn bar(&self) -> String {
        if self.current <= 0 && self.total <= 0 {
            return String::new();
        }
        let current = human_size(self.current as f64);
        if self.total <= 0 {
            return format!("{current:>8}");
        }
        let done = (self.current.saturating_mul(100) / self.total / 2).clamp(0, BAR_CELLS);
        let (full, free) = (usize::try_from(done), usize::try_from(BAR_CELLS - done));
        let (full, free) = ("=".repeat(full.unwrap_or(0)), " ".repeat(free.unwrap_or(0)));
        let total = match self.current > self.total {
            true => String::new(),
            false => format!("/{}", human_size(self.total as f64)),
        };
        format!("[{full}>{free}] {current:>8}{total}")
    }
}

const BAR_CELLS: i64 = 50;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Message {
    #[serde(skip_serializing_if = "is_zero")]
    pub stream: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub status: String,
    #[serde(rename = "progressDetail", skip_serializing_if = "Option::is_none")]
    pub progress_detail: Option<Progress>,
    /// The bar drawn by the server, for old clients.
    #[serde(skip_serializing_if = "is_zero")]
    pub progress: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub id: String,
    #[serde(rename = "errorDetail", skip_serializing_if = "Option::is_none")]
    pub error_detail: Option<ErrorDetail>,
    #[serde(skip_serializing_if = "is_zero")]
    pub error: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aux: Option<serde_json::Value>,
}

impl Message {
    /// Text for the user's screen as it is.
    #[must_use]
    pub fn stream(text: impl Into<String>) -> Self {
        Self { stream: text.into(), ..Self::default() }
    }

    #[must_use]
    pub fn status(text: impl Into<String>) -> Self {
        Self { status: text.into(), ..Self::default() }
    }

    /// How far the thing `id` is.
    #[must_use]
    pub fn progress(id: impl Into<String>, status: impl Into<String>, detail: Progress) -> Self {
        let (status, progress, id) = (status.into(), detail.bar(), id.into());
        Self { status, progress, id, progress_detail: Some(detail), ..Self::default() }
    }

    /// The last message of a failed stream.
    #[must_use]
    pub fn error(text: impl Into<String>, code: i64) -> Self {
        let error = text.into();
        Self {
            error_detail: Some(ErrorDetail { code, message: error.clone() }),
            error,
            ..Self::default()
        }
    }

    #[must_use]
    pub fn aux(value: serde_json::Value) -> Self {
        Self { aux: Some(value), ..Self::default() }
    }

    /// The message as its line on the wire.
    #[must_use]
    pub fn to_line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.extend_from_slice(b"\r\n");
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn a_bar_shows_how_far_it_is() {
        let bar = |current, total| Progress { current, total, ..Progress::default() }.bar();
        assert_eq!(bar(0, 0), "");
        assert_eq!(bar(0, 1000), format!("[>{}]       0B/1kB", " ".repeat(50)));
        assert_eq!(
            bar(1_234_567, 2_469_134),
            format!("[{}>{}]  1.235MB/2.469MB", "=".repeat(25), " ".repeat(25))
        );
        assert_eq!(bar(95_200_000, 95_200_000), format!("[{}>]   95.2MB/95.2MB", "=".repeat(50)));
        assert_eq!(bar(3000, 2000), format!("[{}>]      3kB", "=".repeat(50)));
        assert_eq!(bar(1500, 0), "   1.5kB");
    }

    #[test]
    fn an_error_has_both_of_its_fields() {
        expect![[r#"{"errorDetail":{"code":1,"message":"no"},"error":"no"}"#]]
            .assert_eq(String::from_utf8(Message::error("no", 1).to_line()).unwrap().trim_end());
    }
}
