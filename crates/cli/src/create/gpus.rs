//! `--gpus`: `all`, a count, or `driver=…,count=…,"device=0,1",capabilities=…,options=…`.

use std::collections::BTreeMap;

use super::sizes::csv_fields;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GpuRequest {
    pub driver: String,
    /// -1 is all.
    pub count: i64,
    pub devices: Vec<String>,
    pub capabilities: Vec<String>,
    pub options: BTreeMap<String, String>,
}

/// Source of the words: docker/cli `opts/gpus.go`.
pub fn parse(value: &str) -> Result<GpuRequest, String> {
    let mut request = GpuRequest::default();
    let mut seen: Vec<String> = Vec::new();
    for field in csv_fields(value)? {
        let (key, text) = match field.split_once('=') {
            Some((key, text)) => (key, text),
            None => ("count", field.as_str()),
        };
        if seen.iter().any(|name| name == key) {
            return Err(format!("gpu request key '{key}' can be specified only once"));
        }
        seen.push(key.to_owned());
        match key {
            "driver" => request.driver = text.to_owned(),
            "count" => request.count = parse_count(text)?,
            "device" => request.devices = text.split(',').map(str::to_owned).collect(),
            "capabilities" => request.capabilities = text.split(',').map(str::to_owned).collect(),
            "options" => {
                for pair in csv_fields(text)? {
                    let (name, option) = pair.split_once('=').unwrap_or((&pair, ""));
                    request.options.insert(name.to_owned(), option.to_owned());
                }
            }
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    if request.devices.is_empty() && !seen.iter().any(|name| name == "count") {
        request.count = 1;
    }
    if !request.capabilities.iter().any(|capability| capability == "gpu") {
        request.capabilities.push("gpu".to_owned());
    }
    Ok(request)
}

fn parse_count(text: &str) -> Result<i64, String> {
    if text == "all" {
        return Ok(-1);
    }
    text.parse().map_err(|_| {
        format!(
            "invalid count ({text}): value must be either \"all\" or an integer: invalid syntax"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_asked_for_by_count_or_by_name() {
        assert_eq!(parse("all").unwrap().count, -1);
        assert_eq!(parse("2").unwrap().count, 2);
        let by_name = parse("\"device=0,1\",capabilities=utility").unwrap();
        assert_eq!(by_name.devices, ["0", "1"]);
        assert_eq!((by_name.count, by_name.capabilities.len()), (0, 2));
        assert_eq!(parse("foo=1").unwrap_err(), "unexpected key 'foo' in 'foo=1'");
        assert!(parse("x").unwrap_err().starts_with("invalid count (x)"));
    }
}
