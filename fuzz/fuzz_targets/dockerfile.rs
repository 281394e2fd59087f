//! Dockerfiles: parsed, and built on a worker that touches nothing.
#![no_main]

use build::dry::Dry;
use build::solve::{Cache, Dialect, Options};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|source: &[u8]| {
    let Ok(file) = build::parse::parse(source) else { return };
    let mut dry = Dry::default();
    dry.images = [("busybox".to_owned(), Default::default())].into();
    dry.context = [("a".to_owned(), b"a".to_vec()), ("d/b".to_owned(), Vec::new())].into();
    for dialect in [Dialect::Classic, Dialect::BuildKit] {
        // Stages on threads would make coverage a matter of luck.
        if dialect == Dialect::BuildKit && file.stages.len() > 1 {
            continue;
        }
        let options = Options {
            arguments: Default::default(),
            labels: Default::default(),
            target: None,
            cache: Cache::Use,
            dialect,
            cache_from: Vec::new(),
            allowed: Vec::new(),
            secrets: Default::default(),
            agents: Default::default(),
            contexts: Default::default(),
            fresh_stages: Vec::new(),
            platform: None,
            names: Vec::new(),
        };
        let _ = build::solve::build(&dry, &file, &options);
    }
});
