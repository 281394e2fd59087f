//! `builder` of `daemon.json`: how the build cache is kept small, and what builds may ask for.
//!
//! ```json
//! {"gc": {"enabled": true, "defaultReservedSpace": "10GB", "defaultMaxUsedSpace": "20GB",
//!         "defaultMinFreeSpace": "5GB",
//!         "policy": [{"all": true, "reservedSpace": "5GB", "filter": ["unused-for=48h"]}]},
//!  "entitlements": {"network-host": true, "security-insecure": false}}
//! ```
//!
//! Keys count in any case, as for Go. `keepStorage` and `defaultKeepStorage` are older names of the
//! reserved space. Source: moby 28.2 `daemon/config/builder.go`.

use engine::builds::{CacheBudget, CachePrune, Reach};
use engine::config::{Allowed, CacheKeeping, Entitlements};
use engine::filters::Filters;
use serde_json::{Map, Value};
use spec::units::ram_in_bytes;

use super::ConfigError;

type Result<T> = std::result::Result<T, ConfigError>;

const KEY: &str = "builder";

/// Reads the whole object; what is not in it is Docker's default.
pub fn read(value: Option<&Value>) -> Result<(CacheKeeping, Entitlements)> {
    let mut keeping = CacheKeeping::default();
    let mut entitlements = Entitlements::default();
    let Some(value) = value else { return Ok((keeping, entitlements)) };
    for (key, value) in fields(value)? {
        match key.to_ascii_lowercase().as_str() {
            "gc" => keeping = gc(value)?,
            "entitlements" => entitlements = allowed(value)?,
            // What builds leave to look at later is not kept.
            "history" if fields(value)?.is_empty() => {}
            _ => return Err(unknown(key)),
        }
    }
    Ok((keeping, entitlements))
}

fn gc(value: &Value) -> Result<CacheKeeping> {
    let mut keeping = CacheKeeping::default();
    for (key, value) in fields(value)? {
        match key.to_ascii_lowercase().as_str() {
            "enabled" => keeping.enabled = truth(key, value)?,
            "defaultkeepstorage" | "defaultreservedspace" => {
                keeping.budget.reserved = size(key, value)?;
            }
            "defaultmaxusedspace" => keeping.budget.used_max = size(key, value)?,
            "defaultminfreespace" => keeping.budget.free_min = size(key, value)?,
            "policy" => {
                let list = value.as_array().ok_or_else(|| wrong(key, "a list"))?;
                keeping.rules = list.iter().map(rule).collect::<Result<_>>()?;
            }
            _ => return Err(unknown(key)),
        }
    }
    Ok(keeping)
}

fn rule(value: &Value) -> Result<CachePrune> {
    let mut budget = CacheBudget::default();
    let (mut reach, mut filters) = (Reach::Dangling, Filters::default());
    for (key, value) in fields(value)? {
        match key.to_ascii_lowercase().as_str() {
            "all" if truth(key, value)? => reach = Reach::All,
            "all" => {}
            "keepstorage" | "reservedspace" => budget.reserved = size(key, value)?,
            "maxusedspace" => budget.used_max = size(key, value)?,
            "minfreespace" => budget.free_min = size(key, value)?,
            "filter" => add_filters(&mut filters, key, value)?,
            _ => return Err(unknown(key)),
        }
    }
    Ok(CachePrune { filters, reach, budget })
}

/// `["key=value"]`, or `{"key": ["value"]}` as Docker writes it.
fn add_filters(filters: &mut Filters, key: &str, value: &Value) -> Result<()> {
    let mut add = |text: &str| match text.split_once('=') {
        Some((name, value)) => {
            filters.insert(name.trim(), value.trim());
            Ok(())
        }
        None => Err(wrong(key, "a list of key=value")),
    };
    match value {
        Value::Array(list) => {
            list.iter().try_for_each(|item| add(item.as_str().unwrap_or_default()))
        }
        Value::Object(map) => {
            for (name, values) in map {
                for value in values.as_array().into_iter().flatten().filter_map(Value::as_str) {
                    filters.insert(name.as_str(), value);
                }
            }
            Ok(())
        }
        _ => Err(wrong(key, "a list of key=value")),
    }
}

fn allowed(value: &Value) -> Result<Entitlements> {
    let mut entitlements = Entitlements::default();
    for (key, value) in fields(value)? {
        let allowed = if truth(key, value)? { Allowed::Yes } else { Allowed::No };
        match key.as_str() {
            "network-host" => entitlements.network_host = allowed,
            "security-insecure" => entitlements.security_insecure = allowed,
            _ => return Err(unknown(key)),
        }
    }
    Ok(entitlements)
}

fn fields(value: &Value) -> Result<&Map<String, Value>> {
    value.as_object().ok_or_else(|| wrong(KEY, "an object"))
}

fn truth(key: &str, value: &Value) -> Result<bool> {
    value.as_bool().ok_or_else(|| wrong(key, "true or false"))
}

fn size(key: &str, value: &Value) -> Result<u64> {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    ram_in_bytes(&text)
        .map_err(|_| ConfigError::value(KEY, format!("invalid size of {key}: '{text}'")))
}

fn wrong(key: &str, want: &str) -> ConfigError {
    ConfigError::value(KEY, format!("{key} must be {want}"))
}

fn unknown(key: &str) -> ConfigError {
    ConfigError::value(KEY, format!("{key} is not known"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn dockers_documented_example_is_read() {
        let value = json!({"gc": {"enabled": true, "defaultKeepStorage": "10GB", "policy": [
            {"keepStorage": "1k", "filter": ["unused-for=2200h"]},
            {"keepStorage": "1.5g", "all": true},
        ]}});
        let (keeping, entitlements) = read(Some(&value)).unwrap();
        assert_eq!(keeping.budget.reserved, 10 << 30);
        assert_eq!(keeping.rules[0].budget.reserved, 1024);
        assert_eq!(keeping.rules[0].filters.values("unused-for").collect::<Vec<_>>(), ["2200h"]);
        assert_eq!(keeping.rules[1].budget.reserved, 3 << 29);
        assert_eq!(keeping.rules[1].reach, Reach::All);
        assert_eq!(entitlements, Entitlements::default());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (value, want) in [
            (json!({"gcc": {}}), "gcc is not known"),
            (json!({"gc": {"enabled": "x"}}), "enabled must be true or false"),
            (json!({"gc": {"defaultKeepStorage": "x"}}), "invalid size of defaultKeepStorage: 'x'"),
            (json!([]), "builder must be an object"),
        ] {
            let error = read(Some(&value)).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
    }
}
