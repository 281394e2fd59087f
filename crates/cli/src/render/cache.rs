//! The build cache as a table: what a prune took. Elsewhere: `system df -v`, in [`crate::commands::usage`].

use std::collections::BTreeMap;

use api::system::BuildCache;
use jiff::Timestamp;

use super::units::{ago_at, human_size};

/// Empty for a time that is not known.
fn since(time: &str) -> String {
    match time.parse::<Timestamp>() {
        Ok(at) if at.as_second() > 0 => ago_at(at),
        Ok(_) | Err(_) => String::new(),
    }
}

/// What a prune took, as buildx lists it: `before` is what there was, `gone` the ids that went.
///
/// Source: docker buildx `commands/prune.go`, `commands/diskusage.go`.
pub fn pruned(before: &[BuildCache], gone: &[&str], reclaimed: u64) -> String {
    let known: BTreeMap<&str, &BuildCache> =
        before.iter().map(|cache| (cache.id.as_str(), cache)).collect();
    let mut lines = vec![["ID", "RECLAIMABLE", "SIZE", "LAST ACCESSED"].map(str::to_owned)];
    for id in gone {
        let cache = known.get(id);
        let shared = cache.is_some_and(|cache| cache.shared);
        let size = cache.map_or(0, |cache| cache.size);
        let used = cache.and_then(|cache| cache.last_used_at.as_deref());
        lines.push([
            (*id).to_owned(),
            "true".to_owned(),
            format!("{}{}", human_size(size as f64), if shared { "*" } else { "" }),
            used.map(since).unwrap_or_default(),
        ]);
    }
    let mut text = String::new();
    if lines.len() > 1 {
        let width = |at: usize| lines.iter().map(|line| line[at].len() + 1).max().unwrap_or(0);
        let widths = [0, 1, 2].map(|at| width(at).next_multiple_of(TAB));
        for line in &lines {
            for (cell, width) in line.iter().zip(widths) {
                text.push_str(cell);
                text.push_str(&"\t".repeat((width - cell.len()).div_ceil(TAB)));
            }
            text.push_str(&line[3]);
            text.push('\n');
        }
    }
    text.push_str(&format!("Total:\t{}\n", human_size(reclaimed as f64)));
    text
}

/// Columns are parted by tabs.
const TAB: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_is_listed_with_its_size() {
        let cache = |id: &str, size, shared| BuildCache {
            id: id.to_owned(),
            size,
            shared,
            ..BuildCache::default()
        };
        let before = [cache("aaaaaaaaaaaa", 1_210, false), cache("b", 0, true)];
        assert_eq!(
            pruned(&before, &["aaaaaaaaaaaa", "b"], 1_210),
            "ID\t\tRECLAIMABLE\tSIZE\tLAST ACCESSED\n\
             aaaaaaaaaaaa\ttrue\t\t1.21kB\t\n\
             b\t\ttrue\t\t0B*\t\n\
             Total:\t1.21kB\n"
        );
        assert_eq!(pruned(&before, &[], 0), "Total:\t0B\n");
    }

    #[test]
    fn times_that_are_not_known_are_left_out() {
        assert_eq!(since("0001-01-01T00:00:00Z"), "");
        assert_eq!(since(""), "");
        assert!(since("2020-01-01T00:00:00Z").ends_with("years ago"));
    }
}
