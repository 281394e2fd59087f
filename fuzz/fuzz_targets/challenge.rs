//! `WWW-Authenticate`, as any registry may say it.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = registry::auth::parse_challenges(text);
});
