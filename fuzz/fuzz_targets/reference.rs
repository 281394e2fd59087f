//! Image references: what is read and written is read as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spec::Reference;

fuzz_target!(|text: &str| {
    let Ok(reference) = Reference::parse(text) else { return };
    for form in [reference.to_string(), reference.familiar()] {
        assert_eq!(Reference::parse(&form).as_ref(), Ok(&reference), "{form}");
    }
});
