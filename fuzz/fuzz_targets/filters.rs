//! `filters=` of lists, prunes and events.
#![no_main]

use engine::filters::Filters;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(filters) = Filters::parse(text) else { return };
    let labels = [("a".to_owned(), "1".to_owned())].into();
    let _ = filters.labels(&labels);
    for key in ["name", "id", "dangling", "status"] {
        let _ = (filters.pattern(key, "web"), filters.prefix(key, "web"), filters.boolean(key));
    }
});
