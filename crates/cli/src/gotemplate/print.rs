//! Values as Go's `fmt` prints them.

use super::{
    schema::{self, Type},
    value::Value,
};
use spec::units::format_duration;

use crate::args::go::quote;

/// An address that no text can rely on, in the form of Go's.
const POINTER: &str = "0xc000000000";

/// `%v`.
pub fn plain(value: &Value) -> String {
    let mut out = String::new();
    write(&mut out, value, Verb { letter: 'v', plus: false, sharp: false }, 0);
    out
}

#[derive(Debug, Clone, Copy)]
struct Verb {
    letter: char,
    plus: bool,
    sharp: bool,
}

fn write(out: &mut String, value: &Value, verb: Verb, depth: usize) {
    if matches!(verb.letter, 'v' | 's' | 'q')
        && !verb.sharp
        && let Some(text) = own_text(value)
    {
        let text = if verb.letter == 'q' { quote(&text) } else { text };
        return out.push_str(&text);
    }
    match value {
        Value::Missing | Value::Nil if verb.letter == 'v' => out.push_str("<nil>"),
        Value::Missing | Value::Nil => out.push_str(&format!("%!{}(<nil>)", verb.letter)),
        Value::Pointer(target, kind) => pointer(out, target.as_deref(), *kind, verb, depth),
        Value::List(items, kind) => {
            if matches!(verb.letter, 's' | 'x')
                && let (Some(bytes), "[]uint8") = (bytes(value), kind.name().as_str())
            {
                return out.push_str(&String::from_utf8_lossy(&bytes));
            }
            out.push('[');
            for (at, item) in items.iter().flat_map(|items| items.iter()).enumerate() {
                if at > 0 {
                    out.push(' ');
                }
                write(out, item, verb, depth + 1);
            }
            out.push(']');
        }
        Value::Map(entries, _) => {
            out.push_str("map[");
            for (at, (key, entry)) in entries.iter().flat_map(|entries| entries.iter()).enumerate()
            {
                if at > 0 {
                    out.push(' ');
                }
                let key = if verb.letter == 'q' { quote(key) } else { key.clone() };
                out.push_str(&key);
                out.push(':');
                write(out, entry, verb, depth + 1);
            }
            out.push(']');
        }
        Value::Struct(one) => {
            out.push('{');
            for (at, (field, value)) in schema::fields(one.name).iter().zip(&one.fields).enumerate()
            {
                if at > 0 {
                    out.push(' ');
                }
                if verb.plus {
                    out.push_str(field.name);
                    out.push(':');
                }
                write(out, value, verb, depth + 1);
            }
            out.push('}');
        }
        Value::Row(row) => {
            let fields = row.fields.iter().map(|(_, value)| plain(value));
            out.push_str(&format!("{{{}}}", fields.collect::<Vec<_>>().join(" ")));
        }
        scalar => out.push_str(&self::scalar(scalar, verb)),
    }
}

fn pointer(out: &mut String, target: Option<&Value>, kind: Type, verb: Verb, depth: usize) {
    let letter = verb.letter;
    match target {
        None if letter == 'v' => out.push_str("<nil>"),
        None => out.push_str(&format!("%!{letter}({}=<nil>)", kind.name())),
        Some(inner @ (Value::Struct(_) | Value::List(..) | Value::Map(..))) if depth == 0 => {
            out.push('&');
            write(out, inner, verb, depth + 1);
        }
        // A verb that is none of a pointer's shows what it points to.
        Some(inner) if letter != 'v' => {
            let mut shown = String::new();
            pointer(&mut shown, Some(inner), kind, Verb { letter: 'v', ..verb }, 0);
            out.push_str(&format!("%!{letter}({}={shown})", kind.name()));
        }
        Some(_) => out.push_str(POINTER),
    }
}

fn bytes(value: &Value) -> Option<Vec<u8>> {
    let Value::List(Some(items), _) = value else { return None };
    items
        .iter()
        .map(|item| match item {
            Value::Uint(byte, _) => u8::try_from(*byte).ok(),
            _ => None,
        })
        .collect()
}

/// What a type says of itself: Go's `String` methods.
fn own_text(value: &Value) -> Option<String> {
    match value {
        Value::Time(text) => Some(go_time(text)),
        Value::Int(nanos, name) if name.starts_with("time.Duration") => {
            Some(format_duration(*nanos))
        }
        Value::Uint(mode, name) if name.starts_with("fs.FileMode") => Some(file_mode(*mode)),
        Value::Struct(one) if one.name == "registry.NetIPNet" => one.fields.first().map(plain),
        Value::Pointer(Some(inner), _) => match &**inner {
            Value::Struct(one) => {
                let field = |name| one.field(name).map(plain).unwrap_or_default();
                match one.name {
                    "registry.NetIPNet" => own_text(inner),
                    "units.Ulimit" => {
                        Some(format!("{}={}:{}", field("Name"), field("Soft"), field("Hard")))
                    }
                    "blkiodev.WeightDevice" => {
                        Some(format!("{}:{}", field("Path"), field("Weight")))
                    }
                    "blkiodev.ThrottleDevice" => {
                        Some(format!("{}:{}", field("Path"), field("Rate")))
                    }
                    _ => None,
                }
            }
            _ => None,
        },
        _ => None,
    }
}

/// `2025-01-02 03:04:05 +0000 UTC`.
pub fn go_time(text: &str) -> String {
    let (bare, zone) = match text.strip_suffix('Z') {
        Some(bare) => (bare, "+0000 UTC".to_owned()),
        None if text.len() > 6 && text.is_char_boundary(text.len() - 6) => {
            let (bare, offset) = text.split_at(text.len() - 6);
            let offset = offset.replace(':', "");
            (
                bare,
                if offset == "+0000" {
                    "+0000 UTC".to_owned()
                } else {
                    format!("{offset} {offset}")
                },
            )
        }
        None => return text.to_owned(),
    };
    format!("{} {zone}", bare.replacen('T', " ", 1))
}

/// Permissions alone. Source: Go `fs.FileMode.String`.
fn file_mode(mode: u64) -> String {
    let letters = "rwxrwxrwx".chars().enumerate();
    let shown = letters.map(|(at, letter)| if mode >> (8 - at) & 1 == 1 { letter } else { '-' });
    std::iter::once('-').chain(shown).collect()
}

fn scalar(value: &Value, verb: Verb) -> String {
    let wrong = |shown: String| format!("%!{}({}={shown})", verb.letter, value.type_name());
    match value {
        Value::Bool(truth) => match verb.letter {
            'v' | 't' => truth.to_string(),
            _ => wrong(truth.to_string()),
        },
        Value::Int(int, _) => match verb.letter {
            'x' if *int < 0 => format!("-{:x}", int.unsigned_abs()),
            'o' if *int < 0 => format!("-{:o}", int.unsigned_abs()),
            'b' if *int < 0 => format!("-{:b}", int.unsigned_abs()),
            _ => integer(int.to_string(), int.unsigned_abs(), verb)
                .unwrap_or_else(|| wrong(int.to_string())),
        },
        Value::Uint(uint, _) => {
            integer(uint.to_string(), *uint, verb).unwrap_or_else(|| wrong(uint.to_string()))
        }
        Value::Float(float) => match verb.letter {
            'v' | 'g' => general(*float),
            'f' | 'F' => format!("{float:.6}"),
            'e' => exponent(*float, 6),
            _ => wrong(general(*float)),
        },
        Value::Text(text, _) | Value::Number(text) => match verb.letter {
            'v' if verb.sharp => quote(text),
            'v' | 's' => text.to_string(),
            'q' => quote(text),
            'x' => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
            'X' => text.bytes().map(|byte| format!("{byte:02X}")).collect(),
            _ => wrong(text.to_string()),
        },
        other => plain(other),
    }
}

fn integer(decimal: String, magnitude: u64, verb: Verb) -> Option<String> {
    Some(match verb.letter {
        'v' | 'd' => decimal,
        'x' => format!("{magnitude:x}"),
        'X' => format!("{magnitude:X}"),
        'o' => format!("{magnitude:o}"),
        'b' => format!("{magnitude:b}"),
        'c' => char::from_u32(u32::try_from(magnitude).ok()?)?.to_string(),
        'q' => format!("'{}'", char::from_u32(u32::try_from(magnitude).ok()?)?),
        'U' => format!("U+{magnitude:04X}"),
        _ => return None,
    })
}

/// Go's `%v` of a float: the shortest digits, an exponent below 1e-4 and from 1e21 on.
fn general(float: f64) -> String {
    if float == 0.0 || (1e-4..1e21).contains(&float.abs()) {
        return format!("{float}");
    }
    if !float.is_finite() {
        return if float.is_nan() {
            "NaN"
        } else if float > 0.0 {
            "+Inf"
        } else {
            "-Inf"
        }
        .to_owned();
    }
    exponent_of(&format!("{float:e}"))
}

fn exponent(float: f64, digits: usize) -> String {
    exponent_of(&format!("{float:.digits$e}"))
}

fn exponent_of(text: &str) -> String {
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// Go's `fmt.Sprint`: a blank between two that are no texts.
pub fn sprint(args: &[Value]) -> String {
    let is_text = |value: &Value| matches!(value, Value::Text(..));
    let mut out = String::new();
    for (at, arg) in args.iter().enumerate() {
        if at > 0 && !is_text(arg) && !is_text(&args[at - 1]) {
            out.push(' ');
        }
        out.push_str(&plain(arg));
    }
    out
}

/// Go's `fmt.Sprintf`.
pub fn sprintf(format: &str, args: &[Value]) -> String {
    let mut out = String::new();
    let mut rest = args.iter();
    let mut letters = format.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        let flags: Vec<char> =
            std::iter::from_fn(|| letters.next_if(|c| matches!(c, '-' | '0' | '+' | '#' | ' ')))
                .collect();
        let has = |flag: char| flags.contains(&flag);
        let mut number = |letters: &mut std::iter::Peekable<std::str::Chars<'_>>| {
            let mut digits = String::new();
            if letters.next_if_eq(&'*').is_some() {
                return match rest.next() {
                    Some(Value::Int(int, _)) => usize::try_from(*int).ok(),
                    _ => None,
                };
            }
            while let Some(digit) = letters.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            digits.parse::<usize>().ok()
        };
        let width = number(&mut letters);
        let precision = letters.next_if_eq(&'.').map(|_| number(&mut letters).unwrap_or_default());
        let Some(verb) = letters.next() else {
            out.push_str("%!(NOVERB)");
            break;
        };
        if verb == '%' {
            out.push('%');
            continue;
        }
        let Some(arg) = rest.next() else {
            out.push_str(&format!("%!{verb}(MISSING)"));
            continue;
        };
        let mut text = one(arg, Verb { letter: verb, plus: has('+'), sharp: has('#') }, precision);
        let is_number = matches!(arg, Value::Int(..) | Value::Uint(..) | Value::Float(_));
        if is_number && !text.starts_with(['-', '%']) && verb != 'v' {
            if has('+') {
                text.insert(0, '+');
            } else if has(' ') {
                text.insert(0, ' ');
            }
        }
        let lack = width.unwrap_or_default().saturating_sub(text.chars().count());
        if has('-') {
            out.push_str(&text);
            out.push_str(&" ".repeat(lack));
        } else if has('0') && is_number {
            let sign = usize::from(text.starts_with(['-', '+', ' ']));
            out.push_str(&text[..sign]);
            out.push_str(&"0".repeat(lack));
            out.push_str(&text[sign..]);
        } else {
            out.push_str(&" ".repeat(lack));
            out.push_str(&text);
        }
    }
    let extra: Vec<String> =
        rest.map(|arg| format!("{}={}", arg.type_name(), plain(arg))).collect();
    if !extra.is_empty() {
        out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    out
}

fn one(arg: &Value, verb: Verb, precision: Option<usize>) -> String {
    if verb.letter == 'T' {
        return match arg {
            Value::Nil | Value::Missing => "<nil>".to_owned(),
            other => other.type_name(),
        };
    }
    if let (Value::Float(float), Some(digits)) = (arg, precision) {
        match verb.letter {
            'f' | 'F' => return format!("{float:.digits$}"),
            'e' => return exponent(*float, digits),
            _ => {}
        }
    }
    let mut text = String::new();
    write(&mut text, arg, verb, 0);
    match (arg, precision, verb.letter) {
        (Value::Text(..) | Value::Number(_), Some(most), 's' | 'v') => {
            text.chars().take(most).collect()
        }
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_are_gos() {
        let (text, int) = (Value::text("hi"), Value::int(-5));
        for (format, args, want) in [
            ("%s|%5s|%-5s|%q", vec![&text, &text, &text, &text], "hi|   hi|hi   |\"hi\""),
            ("%d|%5d|%05d|%x", vec![&int, &int, &int, &int], "-5|   -5|-0005|-5"),
            ("%d", vec![&text], "%!d(string=hi)"),
            ("%s", vec![&int], "%!s(int=-5)"),
            ("%d", vec![], "%!d(MISSING)"),
            ("x", vec![&int], "x%!(EXTRA int=-5)"),
            ("%v%%", vec![&int], "-5%"),
            ("%T", vec![&int], "int"),
            ("%.1s", vec![&text], "h"),
        ] {
            let args: Vec<Value> = args.into_iter().cloned().collect();
            assert_eq!(sprintf(format, &args), want);
        }
        assert_eq!(sprintf("%.2f %v", &[Value::Float(1.5), Value::Float(1e21)]), "1.50 1e+21");
    }
}
