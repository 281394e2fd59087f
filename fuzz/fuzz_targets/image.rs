//! Image configurations, manifests and indexes as registries and archives give them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spec::image::ImageConfig;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(config) = serde_json::from_slice::<ImageConfig>(bytes) {
        let written = serde_json::to_vec(&config).unwrap();
        let again: ImageConfig = serde_json::from_slice(&written).unwrap();
        assert_eq!(serde_json::to_vec(&again).unwrap(), written, "what we write we read");
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = text.parse::<spec::Digest>();
        let _ = text.parse::<spec::Platform>();
    }
});
