//! `--network`: a name, or `name=…,alias=…,ip=…,…`.

use std::collections::BTreeMap;

use super::sizes::csv_fields;

/// One network to join, and how.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attachment {
    pub network: String,
    pub aliases: Vec<String>,
    pub driver_options: BTreeMap<String, String>,
    pub ipv4: String,
    pub ipv6: String,
    pub link_local: Vec<String>,
    pub mac: String,
    pub gateway_priority: i64,
    pub links: Vec<String>,
}

/// Source of the forms and words: docker/cli `opts/network.go`.
pub fn parse(value: &str) -> Result<Attachment, String> {
    if !is_long_form(value) {
        return Ok(Attachment { network: value.to_owned(), ..Attachment::default() });
    }
    let mut attachment = Attachment::default();
    for field in csv_fields(value)? {
        let (key, text) = match field.split_once('=') {
            Some((key, text)) if !key.is_empty() => (key, text),
            Some(_) | None => return Err(format!("invalid field {field}")),
        };
        let key = key.trim().to_lowercase();
        let text = text.trim().to_lowercase();
        match key.as_str() {
            "name" => attachment.network = text,
            "alias" => attachment.aliases.push(text),
            "ip" => attachment.ipv4 = text,
            "ip6" => attachment.ipv6 = text,
            "link-local-ip" => attachment.link_local.push(text),
            "mac-address" => attachment.mac = text,
            "driver-opt" => {
                let (name, option) = text
                    .split_once('=')
                    .ok_or("invalid key value pair format in driver options")?;
                attachment.driver_options.insert(name.trim().to_owned(), option.trim().to_owned());
            }
            "gw-priority" => {
                attachment.gateway_priority = text
                    .parse()
                    .map_err(|_| format!("invalid gw-priority ({text}): invalid syntax"))?;
            }
            _ => return Err(format!("invalid field key {key}")),
        }
    }
    if attachment.network.is_empty() {
        return Err("network name/id is not specified".to_owned());
    }
    Ok(attachment)
}

/// Docker takes a value with a word on both sides of some `=` for the long form.
fn is_long_form(value: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    value.match_indices('=').any(|(at, _)| {
        value[..at].chars().next_back().is_some_and(word)
            && value[at + 1..].chars().next().is_some_and(word)
    })
}

/// Whether a network of this name was made by a user, so that aliases and addresses apply.
pub fn is_user_defined(network: &str) -> bool {
    !matches!(network, "" | "default" | "bridge" | "host" | "none")
        && !network.starts_with("container:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_is_a_network() {
        for name in ["host", "my-net", "container:abc", "name="] {
            assert_eq!(parse(name).unwrap().network, name);
        }
    }

    #[test]
    fn the_long_form_says_how_to_join() {
        let found = parse(
            "name=n,alias=a,alias=b,ip=10.0.0.2,ip6=fd00::2,mac-address=02:42:ac:11:00:02,driver-opt=k=v,gw-priority=3",
        )
        .unwrap();
        assert_eq!(found.network, "n");
        assert_eq!(found.aliases, ["a", "b"]);
        assert_eq!((found.ipv4.as_str(), found.gateway_priority), ("10.0.0.2", 3));
        assert_eq!(found.driver_options["k"], "v");
        assert_eq!(parse("foo=1").unwrap_err(), "invalid field key foo");
        assert_eq!(parse("alias=x").unwrap_err(), "network name/id is not specified");
    }
}
