//! `.dockerignore`: patterns in the first half, a path in the second.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spec::ignore::Ignore;

fuzz_target!(|input: (&str, &str)| {
    let (patterns, path) = input;
    let Ok(ignore) = Ignore::parse(patterns) else { return };
    let excluded = ignore.excludes(path);
    assert_eq!(excluded, ignore.excludes(path), "the same question has the same answer");
    let _ = ignore.may_let_in_below(path);
});
