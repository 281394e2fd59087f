//! Options that Tug's builder does only in part: what asks for nothing is taken, the rest is refused by
//! its name.
//!
//! Scripts pass `--provenance=false` and `--sbom=false` to every build; they say what is so anyway.

use crate::{args::Matches, create::sizes::csv_fields, failure::Failure};

/// Refuses what cannot be done.
///
/// # Errors
/// The first option that asks for it.
pub fn check(matches: &Matches) -> Result<(), Failure> {
    for (flag, value) in
        [("provenance", matches.find("provenance")), ("sbom", matches.find("sbom"))]
    {
        if let Some(value) = value
            && !is_off(value)?
        {
            return Err(no_attestations(&format!("--{flag}={value}"), flag));
        }
    }
    for value in matches.all("attest") {
        attestation(value)?;
    }
    if let Some(value) = matches.all("annotation").first() {
        return refuse("annotation", value, "images of the store have no manifest to hold it");
    }
    if let Some(value) = matches.all("cache-to").first() {
        return refuse("cache-to", value, "the cache stays with the daemon");
    }
    if let Some(value) = matches.all("policy").first() {
        return refuse("policy", value, "source policies are not evaluated");
    }
    if matches.all("platform").len() > 1 {
        let text = "multiple platforms are not supported: build one --platform at a time";
        return Err(Failure::new(text));
    }
    let call = matches.find("call").or_else(|| matches.find("print")).unwrap_or("build");
    let call = if matches.on("check") { "check" } else { call };
    if !matches!(call, "" | "build") {
        return refuse("call", call, "Dockerfiles are built, not examined");
    }
    match matches.text("builder") {
        "" | "default" => Ok(()),
        name => Err(Failure::new(format!("no builder {name:?} found"))),
    }
}

fn refuse(flag: &str, value: &str, reason: &str) -> Result<(), Failure> {
    Err(Failure::new(format!("--{flag} {value} is not supported by Tug's builder: {reason}")))
}

fn no_attestations(asked: &str, kind: &str) -> Failure {
    Failure::new(format!(
        "{asked} is not supported: Tug's builder makes no attestations. Use --{kind}=false"
    ))
}

/// `false`, or `disabled=true` among other fields.
fn is_off(value: &str) -> Result<bool, Failure> {
    match value {
        "0" | "f" | "F" | "false" | "FALSE" | "False" => return Ok(true),
        _ => {}
    }
    let fields = csv_fields(value).map_err(Failure::new)?;
    Ok(fields.iter().any(|field| field == "disabled=true"))
}

fn attestation(value: &str) -> Result<(), Failure> {
    let fields = csv_fields(value).map_err(Failure::new)?;
    let kind = fields.iter().find_map(|field| field.strip_prefix("type="));
    match kind {
        None => Err(Failure::new("attestation type not specified")),
        Some(_) if fields.iter().any(|field| field == "disabled=true") => Ok(()),
        Some(kind) => Err(no_attestations(&format!("--attest {value}"), kind)),
    }
}

/// The images that `--cache-from` names.
///
/// # Errors
/// For caches that are no images.
pub fn cache_sources(values: &[String]) -> Result<Vec<String>, Failure> {
    let mut found = Vec::new();
    for value in values {
        let fields = csv_fields(value).map_err(Failure::new)?;
        if fields.iter().all(|field| !field.contains('=')) {
            found.extend(fields);
            continue;
        }
        let field = |key: &str| fields.iter().find_map(|field| field.strip_prefix(key));
        match (field("type="), field("ref=")) {
            (None | Some("registry"), Some(image)) => found.push(image.to_owned()),
            (Some("registry"), None) => {
                return Err(Failure::new("registry cache importer requires ref"));
            }
            (None, None) => return Err(Failure::new(format!("type required form> {value:?}"))),
            (Some(kind), _) => {
                return Err(Failure::new(format!(
                    "--cache-from {value} is not supported by Tug's builder: type={kind} is no \
                     image. What the daemon built before is used anyway"
                )));
            }
        }
    }
    Ok(found)
}

/// The limits that `--resource` names, as the parameters of `POST /build`.
///
/// # Errors
/// For what is no limit.
pub fn resources(values: &[String]) -> Result<Vec<(&'static str, String)>, Failure> {
    const KEYS: [(&str, &str); 7] = [
        ("memory", "memory"),
        ("memory-swap", "memswap"),
        ("cpu-shares", "cpushares"),
        ("cpu-period", "cpuperiod"),
        ("cpu-quota", "cpuquota"),
        ("cpuset-cpus", "cpusetcpus"),
        ("cpuset-mems", "cpusetmems"),
    ];
    let mut found = Vec::new();
    for value in values {
        for field in csv_fields(value).map_err(Failure::new)? {
            let known = field.split_once('=').and_then(|(key, value)| {
                let (_, parameter) = KEYS.into_iter().find(|(own, _)| *own == key)?;
                Some((parameter, value.to_owned()))
            });
            let Some((parameter, value)) = known else {
                return Err(Failure::new(format!("invalid resource {field:?}")));
            };
            let value = match parameter {
                "memory" | "memswap" => crate::create::sizes::swap_in_bytes(&value)
                    .map_err(|error| Failure::new(format!("invalid resource {field:?}: {error}")))?
                    .to_string(),
                _ => value,
            };
            found.push((parameter, value));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attestations_may_only_be_turned_off() {
        for value in ["false", "0", "disabled=true", "mode=max,disabled=true"] {
            assert!(is_off(value).unwrap(), "{value}");
        }
        for value in ["true", "", "mode=max"] {
            assert!(!is_off(value).unwrap(), "{value}");
        }
        attestation("type=sbom,disabled=true").unwrap();
        let text = |value| attestation(value).unwrap_err().to_string();
        assert_eq!(text("mode=min"), "attestation type not specified");
        assert!(text("type=provenance,mode=max").ends_with("Use --provenance=false"));
    }

    #[test]
    fn sources_of_cache_are_images() {
        let sources = |values: &[&str]| {
            let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
            cache_sources(&values).map_err(|failure| failure.to_string())
        };
        let want = ["a:1", "b", "h/c:2"].map(str::to_owned).to_vec();
        assert_eq!(sources(&["a:1,b", "type=registry,ref=h/c:2"]), Ok(want));
        assert!(sources(&["type=local,src=x"]).unwrap_err().contains("type=local is no image"));
        assert!(sources(&["type=registry"]).is_err());
    }

    #[test]
    fn limits_have_their_parameters() {
        let values = ["memory=64m,cpu-shares=5".to_owned(), "cpuset-cpus=0".to_owned()];
        let found = resources(&values).unwrap();
        let want = [("memory", "67108864"), ("cpushares", "5"), ("cpusetcpus", "0")]
            .map(|(k, v)| (k, v.to_owned()));
        assert_eq!(found, want);
        assert!(resources(&["disk=1".to_owned()]).is_err());
    }
}
