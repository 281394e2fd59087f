//! What older API versions saw differently, put right on the finished JSON.
//!
//! Source: moby 28.2 `docs/api/version-history.md` and the version checks in
//! `api/server/router/*/*_routes.go`.

use serde_json::{Map, Value, json};

use crate::version::{ApiVersion, v};

/// The kinds of answers that differ between versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    ContainerInspect,
    ImageInspect,
    ImageList,
    Info,
    Network,
    NetworkList,
    DiskUsage,
}

/// Rewrites an answer of the newest version for `version`.
pub fn downgrade(answer: Answer, version: ApiVersion, value: &mut Value) {
    match answer {
        Answer::ContainerInspect => container_inspect(version, value),
        Answer::ImageInspect => image_inspect(version, value),
        Answer::ImageList => each(value, |image| image_summary(version, image)),
        Answer::Info => info(version, value),
        Answer::Network => network(version, value),
        Answer::NetworkList => each(value, |item| network(version, item)),
        Answer::DiskUsage => {
            if let Some(images) = value.get_mut("Images") {
                each(images, |image| image_summary(version, image));
            }
        }
    }
}

fn each(value: &mut Value, change: impl FnMut(&mut Value)) {
    value.as_array_mut().into_iter().flatten().for_each(change);
}

/// Before 1.44 `VirtualSize` repeated `Size`.
fn virtual_size(version: ApiVersion, image: &mut Map<String, Value>) {
    if version < v(44)
        && let Some(size) = image.get("Size").cloned()
    {
        image.insert("VirtualSize".to_owned(), size);
    }
}

fn image_summary(version: ApiVersion, image: &mut Value) {
    let Some(image) = image.as_object_mut() else {
        return;
    };
    virtual_size(version, image);
    if version < v(43) {
        // Then an image without a name was called <none>.
        let unnamed =
            |names: Option<&Value>| names.and_then(Value::as_array).is_some_and(Vec::is_empty);
        if unnamed(image.get("RepoTags")) && unnamed(image.get("RepoDigests")) {
            image.insert("RepoTags".to_owned(), json!(["<none>:<none>"]));
            image.insert("RepoDigests".to_owned(), json!(["<none>@<none>"]));
        }
    }
}

/// The fields of an image's config that were always there before 1.50, with their zero values.
const IMAGE_CONFIG_ZEROES: &[(&str, Zero)] = &[
    ("Hostname", Zero::Text),
    ("Domainname", Zero::Text),
    ("User", Zero::Text),
    ("AttachStdin", Zero::No),
    ("AttachStdout", Zero::No),
    ("AttachStderr", Zero::No),
    ("Tty", Zero::No),
    ("OpenStdin", Zero::No),
    ("StdinOnce", Zero::No),
    ("Env", Zero::Null),
    ("Cmd", Zero::Null),
    ("Image", Zero::Text),
    ("Volumes", Zero::Null),
    ("WorkingDir", Zero::Text),
    ("Entrypoint", Zero::Null),
    ("OnBuild", Zero::Null),
    ("Labels", Zero::Null),
];

#[derive(Clone, Copy)]
enum Zero {
    Text,
    No,
    Null,
}

impl Zero {
    fn value(self) -> Value {
        match self {
            Self::Text => json!(""),
            Self::No => json!(false),
            Self::Null => Value::Null,
        }
    }
}

fn image_inspect(version: ApiVersion, image: &mut Value) {
    let Some(image) = image.as_object_mut() else {
        return;
    };
    virtual_size(version, image);
    if version < v(50)
        && let Some(config) = image.get_mut("Config").and_then(Value::as_object_mut)
    {
        for (field, zero) in IMAGE_CONFIG_ZEROES {
            config.entry(*field).or_insert_with(|| zero.value());
        }
    }
    if version < v(45) {
        let config = image.get("Config").cloned().unwrap_or_else(|| json!({}));
        image.insert("Container".to_owned(), json!(""));
        image.insert("ContainerConfig".to_owned(), config);
    }
}

fn container_inspect(version: ApiVersion, container: &mut Value) {
    if version >= v(45) {
        return;
    }
    // Until 1.45 the short id was one of the aliases on every network of the user's own.
    let short: String =
        container.get("Id").and_then(Value::as_str).unwrap_or_default().chars().take(12).collect();
    let networks =
        container.pointer_mut("/NetworkSettings/Networks").and_then(Value::as_object_mut);
    for (name, endpoint) in networks.into_iter().flatten() {
        if matches!(name.as_str(), "bridge" | "host" | "none") {
            continue;
        }
        let Some(endpoint) = endpoint.as_object_mut() else {
            continue;
        };
        match endpoint.get_mut("Aliases").and_then(Value::as_array_mut) {
            Some(aliases) if aliases.iter().any(|alias| alias == &short) => {}
            Some(aliases) => aliases.push(json!(short)),
            None => drop(endpoint.insert("Aliases".to_owned(), json!([short]))),
        }
        if version < v(44) {
            endpoint.remove("DNSNames");
        }
    }
}

fn info(version: ApiVersion, info: &mut Value) {
    let Some(info) = info.as_object_mut() else {
        return;
    };
    if version < v(50) {
        info.insert("BridgeNfIptables".to_owned(), json!(false));
        info.insert("BridgeNfIp6tables".to_owned(), json!(false));
    }
    if version < v(49) {
        info.remove("FirewallBackend");
    }
    if version < v(44) {
        info.remove("CDISpecDirs");
    }
    if version < v(25) {
        // Then there was one list of plain names.
        let options: Vec<_> = info
            .get("SecurityOptions")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|option| option.as_str()?.strip_prefix("name="))
            .map(|option| json!(option.split(',').next().unwrap_or_default()))
            .collect();
        info.insert("SecurityOptions".to_owned(), Value::Array(options));
        info.insert("ExecutionDriver".to_owned(), json!("<not supported>"));
    }
}

fn network(version: ApiVersion, network: &mut Value) {
    if version < v(47)
        && let Some(network) = network.as_object_mut()
    {
        network.remove("EnableIPv4");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    #[track_caller]
    fn check(answer: Answer, minor: u32, mut value: Value, want: Expect) {
        downgrade(answer, v(minor), &mut value);
        want.assert_eq(&value.to_string());
    }

    #[test]
    fn the_newest_version_is_left_alone() {
        check(
            Answer::ImageList,
            50,
            json!([{"Size":1,"RepoTags":[],"RepoDigests":[]}]),
            expect![[r#"[{"Size":1,"RepoTags":[],"RepoDigests":[]}]"#]],
        );
        check(
            Answer::Info,
            50,
            json!({"FirewallBackend":{}}),
            expect![[r#"{"FirewallBackend":{}}"#]],
        );
    }

    #[test]
    fn old_clients_see_nameless_images_as_none() {
        check(
            Answer::ImageList,
            42,
            json!([{"Size":1,"RepoTags":[],"RepoDigests":[]}]),
            expect![[
                r#"[{"Size":1,"RepoTags":["<none>:<none>"],"RepoDigests":["<none>@<none>"],"VirtualSize":1}]"#
            ]],
        );
    }

    #[test]
    fn old_clients_see_an_images_config_in_full() {
        check(
            Answer::ImageInspect,
            49,
            json!({"Size":1,"Config":{"User":"me"}}),
            expect![[
                r#"{"Size":1,"Config":{"User":"me","Hostname":"","Domainname":"","AttachStdin":false,"AttachStdout":false,"AttachStderr":false,"Tty":false,"OpenStdin":false,"StdinOnce":false,"Env":null,"Cmd":null,"Image":"","Volumes":null,"WorkingDir":"","Entrypoint":null,"OnBuild":null,"Labels":null}}"#
            ]],
        );
    }

    #[test]
    fn old_clients_see_the_short_id_among_the_aliases() {
        let inspect = json!({"Id":"0123456789abcdef","NetworkSettings":{"Networks":{"bridge":{"Aliases":null},"n":{"Aliases":null,"DNSNames":[]}}}});
        check(
            Answer::ContainerInspect,
            43,
            inspect,
            expect![[
                r#"{"Id":"0123456789abcdef","NetworkSettings":{"Networks":{"bridge":{"Aliases":null},"n":{"Aliases":["0123456789ab"]}}}}"#
            ]],
        );
    }

    #[test]
    fn networks_had_no_switch_for_ipv4() {
        check(
            Answer::NetworkList,
            46,
            json!([{"Name":"n","EnableIPv4":true}]),
            expect![[r#"[{"Name":"n"}]"#]],
        );
    }
}
