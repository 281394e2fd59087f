//! The types of what templates show, read from `types.txt`.

use std::{collections::HashMap, sync::LazyLock};

/// A type in Go's sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Bool(&'static str),
    Int(&'static str),
    Uint(&'static str),
    Float(&'static str),
    Text(&'static str),
    /// Named as written, and what it holds.
    List(&'static str, &'static Type),
    Map(&'static str, &'static Type),
    Pointer(&'static str, &'static Type),
    Struct(&'static str),
    Any,
    Time,
}

impl Type {
    /// The written type of a map's keys.
    pub fn key(self) -> &'static str {
        let Type::Map(written, _) = self else { return "string" };
        let start = written.find("map[").map_or(0, |at| at + 4);
        written[start..].split(']').next().unwrap_or("string")
    }

    /// As Go names it in its errors.
    pub fn name(self) -> String {
        match self {
            Type::Bool(name)
            | Type::Int(name)
            | Type::Uint(name)
            | Type::Float(name)
            | Type::Text(name)
            | Type::Struct(name)
            | Type::List(name, _)
            | Type::Map(name, _)
            | Type::Pointer(name, _) => plain(name),
            Type::Any => "interface {}".to_owned(),
            Type::Time => "time.Time".to_owned(),
        }
    }
}

/// A type's name without our signs.
fn plain(written: &str) -> String {
    let named = written.split_once('=').map_or(written, |(name, _)| name);
    named.replace('!', "").replace("struct{}", "struct {}").replace("any", "interface {}")
}

/// How an array of two begins.
pub const PAIR: &str = "[2]";

/// One field of a struct.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    pub name: &'static str,
    /// Its name in JSON; none where it is not written.
    pub json: Option<&'static str>,
    pub omits_empty: bool,
    pub is_embedded: bool,
    pub kind: Type,
}

static STRUCTS: LazyLock<HashMap<&'static str, Vec<Field>>> = LazyLock::new(|| {
    let mut structs: HashMap<&'static str, Vec<Field>> = HashMap::new();
    let mut current = "";
    for line in include_str!("types.txt").lines().filter(|line| !line.starts_with('#')) {
        match line.strip_prefix("  ") {
            None => {
                current = line;
                structs.entry(current).or_default();
            }
            Some(line) => {
                let mut words = line.splitn(3, ' ');
                let (Some(name), Some(json), Some(kind)) =
                    (words.next(), words.next(), words.next())
                else {
                    continue;
                };
                let (json, option) = json.split_once(',').unwrap_or((json, ""));
                structs.entry(current).or_default().push(Field {
                    name,
                    json: (json != "-" && json != "&").then_some(json),
                    omits_empty: option == "omitempty",
                    is_embedded: json == "&",
                    kind: parse(kind),
                });
            }
        }
    }
    structs
});

/// The fields of a struct.
pub fn fields(name: &str) -> &'static [Field] {
    STRUCTS.get(name).map(Vec::as_slice).unwrap_or_default()
}

/// A type as `types.txt` writes it. Types live as long as the program.
pub fn parse(written: &'static str) -> Type {
    let bare = written.strip_prefix('!').unwrap_or(written);
    if let Some(inner) = bare.strip_prefix('*') {
        return Type::Pointer(written, leak(parse(inner)));
    }
    // The arrays of these types hold two.
    if let Some(inner) = bare.strip_prefix("[]").or_else(|| bare.strip_prefix(PAIR)) {
        return Type::List(written, leak(parse(inner)));
    }
    if let Some(inner) = bare.strip_prefix("map[") {
        // No key holds a bracket.
        let inner = inner.split_once(']').map_or(inner, |(_, inner)| inner);
        return Type::Map(written, leak(parse(inner)));
    }
    if let Some((_, underlying)) = bare.split_once('=') {
        return match parse(underlying) {
            Type::Bool(_) => Type::Bool(written),
            Type::Int(_) => Type::Int(written),
            Type::Uint(_) => Type::Uint(written),
            Type::Float(_) => Type::Float(written),
            Type::Text(_) => Type::Text(written),
            Type::List(_, inner) => Type::List(written, inner),
            Type::Map(_, inner) => Type::Map(written, inner),
            other => other,
        };
    }
    match bare {
        "bool" => Type::Bool("bool"),
        "string" => Type::Text("string"),
        "any" => Type::Any,
        "time" => Type::Time,
        "float64" => Type::Float("float64"),
        int if int.starts_with("int") => Type::Int(int),
        uint if uint.starts_with("uint") => Type::Uint(uint),
        name => Type::Struct(name),
    }
}

fn leak(kind: Type) -> &'static Type {
    Box::leak(Box::new(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_that_is_named_is_there() {
        fn check(kind: Type, of: &str) {
            match kind {
                Type::Struct("struct{}") => {}
                Type::Struct(name) => assert!(STRUCTS.contains_key(name), "{name} in {of}"),
                Type::List(_, inner) | Type::Map(_, inner) | Type::Pointer(_, inner) => {
                    check(*inner, of);
                }
                _ => {}
            }
        }
        assert!(STRUCTS.len() > 90);
        for (name, fields) in STRUCTS.iter() {
            fields.iter().for_each(|field| check(field.kind, name));
        }
        assert_eq!(parse("[]*!units.Ulimit").name(), "[]*units.Ulimit");
        let ports = parse("nat.PortMap=map[nat.Port=string][]nat.PortBinding");
        assert_eq!(ports.name(), "nat.PortMap");
    }
}
