//! Container names: the rule, and made-up ones.

use spec::Id;

/// Whether a text may name a container, a volume or a network: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`.
#[must_use]
pub fn is_valid(name: &str) -> bool {
    let mut letters = name.bytes();
    let first = letters.next().is_some_and(|letter| letter.is_ascii_alphanumeric());
    let rest = |letter: u8| letter.is_ascii_alphanumeric() || b"_.-".contains(&letter);
    first && name.len() >= 2 && letters.all(rest)
}

/// Makes up a name that `taken` does not have: six tries, from the second with a digit, then the
/// short id.
#[must_use]
pub fn make_up(id: &Id, taken: impl Fn(&str) -> bool) -> String {
    for attempt in 0..6_u8 {
        let mut raw = [0_u8; 4];
        // Without random numbers the id still gives a name.
        if rustix::rand::getrandom(&mut raw, rustix::rand::GetRandomFlags::empty()).is_err() {
            break;
        }
        let pick = |words: &[&'static str], at: usize| {
            words[usize::from(u16::from_le_bytes([raw[at], raw[at + 1]])) % words.len()]
        };
        let mut name = format!("{}_{}", pick(ADJECTIVES, 0), pick(SURNAMES, 2));
        if attempt > 0 {
            name.push(char::from(b'0' + raw[0] % 10));
        }
        if !taken(&name) {
            return name;
        }
    }
    id.short()
}

const ADJECTIVES: &[&str] = &[
    "able", "airy", "amber", "ample", "balmy", "bold", "brave", "breezy", "bright", "brisk",
    "bubbly", "calm", "candid", "careful", "cheery", "civil", "clear", "clever", "coastal", "cosy",
    "crisp", "curious", "dapper", "daring", "deft", "dewy", "direct", "eager", "early", "earnest",
    "easy", "even", "fair", "famous", "fancy", "fearless", "fleet", "floral", "fluent", "fond",
    "frank", "free", "fresh", "frosty", "gallant", "gentle", "gifted", "glad", "gleaming",
    "golden", "grand", "green", "handy", "happy", "hardy", "hearty", "helpful", "honest", "humble",
    "ideal", "jaunty", "jolly", "just", "keen", "kind", "lasting", "leafy", "level", "light",
    "lively", "loyal", "lucid", "lucky", "lunar", "mellow", "merry", "mighty", "mild", "mindful",
    "modest", "neat", "nimble", "noble", "open", "patient", "placid", "plucky", "polite", "prime",
    "proud", "prudent", "quick", "quiet", "rapid", "ready", "regal", "robust", "rosy", "sage",
    "sandy", "scenic", "serene", "sharp", "shiny", "silent", "silver", "simple", "sincere",
    "sleek", "smooth", "snug", "sober", "solar", "solid", "sound", "spry", "stable", "starry",
    "steady", "sterling", "stout", "sturdy", "subtle", "sunny", "sure", "swift", "tender", "tidal",
    "tidy", "tranquil", "trim", "true", "upbeat", "valiant", "vast", "velvet", "vivid", "warm",
    "wise", "witty", "woody", "worthy", "zesty",
];

const SURNAMES: &[&str] = &[
    "abel",
    "agnesi",
    "airy",
    "alhazen",
    "ampere",
    "anning",
    "apgar",
    "avogadro",
    "baird",
    "banneker",
    "becquerel",
    "bernoulli",
    "bessel",
    "boole",
    "borlaug",
    "bose",
    "brahe",
    "braille",
    "breguet",
    "brunel",
    "cannon",
    "cantor",
    "carnot",
    "carver",
    "cauchy",
    "cavendish",
    "cayley",
    "celsius",
    "cerf",
    "chandra",
    "cori",
    "coulomb",
    "crick",
    "curie",
    "dalton",
    "darwin",
    "davy",
    "descartes",
    "diesel",
    "dirac",
    "doppler",
    "edison",
    "eiffel",
    "erdos",
    "euclid",
    "euler",
    "fahrenheit",
    "faraday",
    "fermat",
    "fibonacci",
    "fizeau",
    "fleming",
    "foucault",
    "fourier",
    "franklin",
    "fresnel",
    "galilei",
    "galois",
    "galvani",
    "gauss",
    "germain",
    "gibbs",
    "goddard",
    "goodall",
    "gutenberg",
    "hadamard",
    "halley",
    "hamilton",
    "harvey",
    "heaviside",
    "helmholtz",
    "henry",
    "herschel",
    "hertz",
    "hilbert",
    "hooke",
    "hopper",
    "hubble",
    "humboldt",
    "huygens",
    "hypatia",
    "jacobi",
    "jacquard",
    "jenner",
    "joule",
    "kelvin",
    "kepler",
    "kirchhoff",
    "knuth",
    "koch",
    "kovalevskaya",
    "lagrange",
    "lamarr",
    "laplace",
    "lavoisier",
    "leavitt",
    "leibniz",
    "lorentz",
    "lovelace",
    "lyell",
    "marconi",
    "maxwell",
    "meitner",
    "mendel",
    "mendeleev",
    "mercator",
    "morse",
    "napier",
    "newcomen",
    "newton",
    "nobel",
    "noether",
    "oersted",
    "ohm",
    "pascal",
    "pasteur",
    "pauling",
    "planck",
    "poincare",
    "poisson",
    "priestley",
    "ptolemy",
    "ramanujan",
    "rankine",
    "rayleigh",
    "riemann",
    "ritchie",
    "roentgen",
    "rubin",
    "rutherford",
    "sagan",
    "shannon",
    "siemens",
    "snell",
    "somerville",
    "stephenson",
    "stevin",
    "stokes",
    "telford",
    "tesla",
    "torvalds",
    "torricelli",
    "turing",
    "volta",
    "wallace",
    "watt",
    "wegener",
    "whitworth",
    "wren",
    "wu",
    "yalow",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_two_letters_and_starts_with_a_letter_or_digit() {
        for (name, want) in [
            ("a", false),
            ("ab", true),
            ("a-b.c_d", true),
            ("-ab", false),
            ("a b", false),
            ("", false),
        ] {
            assert_eq!(is_valid(name), want, "{name}");
        }
    }

    #[test]
    fn a_made_up_name_is_valid_and_free() {
        let id = Id::random();
        assert!(is_valid(&make_up(&id, |_| false)));
        assert_eq!(make_up(&id, |_| true), id.short());
    }
}
