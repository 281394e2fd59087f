//! The colours of a build's display: `NO_COLOR` and `BUILDKIT_COLORS`.
//!
//! `BUILDKIT_COLORS` is `run=green:warning=yellow:error=255,0,0:cancel=cyan`, names or three numbers.
//! `NO_COLOR`, whatever it holds, takes all colours away, but not those that are named besides.
//!
//! Source: buildkit `util/progress/progressui/colors.go`, docs "Color output controls"; no-color.org.

/// The escape sequences that begin a colour; empty for none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Palette {
    pub run: String,
    pub cancel: String,
    pub error: String,
}

impl Default for Palette {
    fn default() -> Palette {
        Palette { run: escape("34"), cancel: escape("33"), error: escape("31") }
    }
}

fn escape(code: &str) -> String {
    format!("\x1b[{code}m")
}

impl Palette {
    pub fn from_environment() -> Palette {
        let colours = std::env::var("BUILDKIT_COLORS").ok();
        Palette::new(std::env::var_os("NO_COLOR").is_some(), colours.as_deref())
    }

    /// What is no colour is left as it is, as BuildKit does.
    pub fn new(is_plain: bool, colours: Option<&str>) -> Palette {
        let plain = Palette { run: String::new(), cancel: String::new(), error: String::new() };
        let mut palette = if is_plain { plain } else { Palette::default() };
        for field in colours.unwrap_or_default().split(':') {
            let Some((name, value)) = field.split_once('=') else { continue };
            let Some(colour) = colour(value) else { continue };
            match name.to_ascii_lowercase().as_str() {
                "run" => palette.run = colour,
                "cancel" => palette.cancel = colour,
                "error" => palette.error = colour,
                _ => {}
            }
        }
        palette
    }

    /// `text` in a colour.
    pub fn paint(colour: &str, text: &str) -> String {
        match colour.is_empty() {
            true => text.to_owned(),
            false => format!("{colour}{text}\x1b[0m"),
        }
    }
}

fn colour(text: &str) -> Option<String> {
    const NAMES: [&str; 8] =
        ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];
    let name = text.to_ascii_lowercase();
    if let Some(at) = NAMES.iter().position(|own| *own == name) {
        return Some(escape(&(30 + at).to_string()));
    }
    let light = name.strip_prefix("light-");
    if let Some(at) = NAMES.iter().position(|own| light == Some(*own)) {
        return Some(escape(&(90 + at).to_string()));
    }
    if name == "default" {
        return Some(escape("39"));
    }
    let numbers = text.split(',').map(|number| number.trim().parse::<u8>().ok());
    let [red, green, blue] = numbers.collect::<Option<Vec<u8>>>()?.try_into().ok()?;
    Some(escape(&format!("38;2;{red};{green};{blue}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_the_users() {
        assert_eq!(Palette::new(false, None).run, "\x1b[34m");
        assert_eq!(Palette::new(true, None).error, "");
        let own = Palette::new(true, Some("run=green:error=1,2,3:cancel=light-Red:warning=x"));
        assert_eq!(own.run, "\x1b[32m");
        assert_eq!(own.error, "\x1b[38;2;1;2;3m");
        assert_eq!(own.cancel, "\x1b[91m");
        for wrong in ["run=300,0,0", "run=1,2", "run=puce", "run", "=", ""] {
            assert_eq!(Palette::new(false, Some(wrong)), Palette::default(), "{wrong}");
        }
        assert_eq!(Palette::paint("", "x"), "x");
    }
}
