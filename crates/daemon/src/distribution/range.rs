//! Ranges of bytes: which of a blob are asked for, and which of an upload come.
//!
//! Source: RFC 9110, 14; OCI distribution-spec 1.1, "Pushing a blob in chunks".

/// What of a blob to send. `start` and `end` count from zero, `end` is the first that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    Whole,
    Part {
        start: u64,
        end: u64,
    },
    /// Nothing of what was asked for is there.
    Unsatisfiable,
}

/// Reads a `Range` header for a blob of `size` bytes. What is not understood, and several ranges at
/// once, mean the whole blob (RFC 9110, 14.2).
pub fn wanted(header: &str, size: u64) -> Wanted {
    let Some(ranges) = header.trim().strip_prefix("bytes=") else { return Wanted::Whole };
    let Some((first, last)) = ranges.split_once('-') else { return Wanted::Whole };
    let (first, last) = (first.trim(), last.trim());
    let (start, end) = match (number(first), number(last)) {
        (Some(start), Some(last)) if start <= last => (start, last.saturating_add(1)),
        (Some(start), None) if last.is_empty() => (start, size),
        // The last so many bytes.
        (None, Some(length)) if first.is_empty() => {
            if length == 0 {
                return Wanted::Unsatisfiable;
            }
            (size.saturating_sub(length), size)
        }
        _ => return Wanted::Whole,
    };
    if start >= size {
        return Wanted::Unsatisfiable;
    }
    Wanted::Part { start, end: end.min(size) }
}

/// The bytes that a chunk holds, as its `Content-Range` tells: `first-last`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    pub start: u64,
    pub length: u64,
}

/// Reads a `Content-Range` of an upload. Besides the specification's form, that of RFC 9110 is
/// understood (`bytes 0-9/*`), which some clients send.
pub fn chunk(header: &str) -> Option<Chunk> {
    let text = header.trim();
    let text = text.strip_prefix("bytes ").unwrap_or(text);
    let text = text.split('/').next()?;
    let (first, last) = text.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    let length = last.checked_sub(first)?.checked_add(1)?;
    Some(Chunk { start: first, length })
}

/// Digits alone: `parse` would take a sign.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

/// What an upload has so far, as the header `Range` tells it. Docker's clients expect `0-0` also of
/// an empty one.
pub fn held(length: u64) -> String {
    format!("0-{}", length.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(header: &str, want: Wanted) {
        assert_eq!(wanted(header, 10), want, "{header}");
    }

    #[test]
    fn one_range_is_served() {
        check("bytes=2-4", Wanted::Part { start: 2, end: 5 });
        check("bytes=2-", Wanted::Part { start: 2, end: 10 });
        check("bytes=-3", Wanted::Part { start: 7, end: 10 });
        check("bytes=-30", Wanted::Part { start: 0, end: 10 });
        check("bytes=0-99", Wanted::Part { start: 0, end: 10 });
        check("bytes=9-18446744073709551615", Wanted::Part { start: 9, end: 10 });
    }

    #[test]
    fn what_is_not_there_cannot_be_served() {
        check("bytes=10-", Wanted::Unsatisfiable);
        check("bytes=-0", Wanted::Unsatisfiable);
        assert_eq!(wanted("bytes=0-", 0), Wanted::Unsatisfiable);
    }

    #[test]
    fn what_is_no_range_is_ignored() {
        check("", Wanted::Whole);
        check("items=0-1", Wanted::Whole);
        check("bytes=4-2", Wanted::Whole);
        check("bytes=0-1,3-4", Wanted::Whole);
        check("bytes=+1-2", Wanted::Whole);
        check("bytes=-", Wanted::Whole);
    }

    #[test]
    fn chunks_are_counted_inclusively() {
        assert_eq!(chunk("0-9"), Some(Chunk { start: 0, length: 10 }));
        assert_eq!(chunk("bytes 5-5/*"), Some(Chunk { start: 5, length: 1 }));
        for wrong in ["", "9-0", "a-b", "0", "-1", "0-18446744073709551615", "+1-2", "0-9-10"] {
            assert_eq!(chunk(wrong), None, "{wrong}");
        }
    }
}
