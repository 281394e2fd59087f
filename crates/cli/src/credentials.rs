//! The user's credentials: in the config file, or with the helper that it names.
//!
//! A helper is a program: `docker-credential-NAME ACTION` reads a server (or, for `store`, JSON) from
//! stdin and answers in JSON on stdout. `credHelpers` names one for a server, `credsStore` one for all
//! others. Without one, the config file has base64 of `user:password`; of that the user is warned.
//!
//! Source: docker-credential-helpers `client/client.go`, `credentials/credentials.go`; docker/cli 28.2
//! `cli/config/credentials/file_store.go`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use api::system::AuthConfig;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::context::Config;
use crate::failure::Failure;

/// The user name of what is no password but an identity token.
const TOKEN_USER: &str = "<token>";
const NOT_FOUND: &str = "credentials not found in native keychain";

/// The program that keeps a server's credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Helper {
    program: String,
}

impl Helper {
    /// The helper that the config file names for a server, if it names one.
    #[must_use]
    pub fn of(config: &Value, server: &str) -> Option<Helper> {
        let own = config["credHelpers"][server].as_str();
        let name = own.or_else(|| config["credsStore"].as_str()).filter(|name| !name.is_empty())?;
        // A name is part of a program's name and leads nowhere else.
        (!name.contains('/')).then(|| Helper { program: format!("docker-credential-{name}") })
    }

    /// What the helper has for a server; nothing is no failure.
    ///
    /// # Errors
    /// When the helper fails for another reason.
    pub fn get(&self, server: &str) -> Result<Option<AuthConfig>, Failure> {
        let text = match self.ask("get", server.as_bytes()) {
            Ok(text) => text,
            Err(failure) if failure.to_string().contains(NOT_FOUND) => return Ok(None),
            Err(failure) => return Err(failure),
        };
        let value: Value = serde_json::from_str(&text).map_err(|error| {
            Failure::new(format!("error getting credentials - err: {error}, out: `{text}`"))
        })?;
        let (user, secret) = (field(&value, "Username"), field(&value, "Secret"));
        let auth = AuthConfig { server_address: server.to_owned(), ..AuthConfig::default() };
        Ok(Some(match user.as_str() {
            TOKEN_USER => AuthConfig { identity_token: secret, ..auth },
            _ => AuthConfig { username: user, password: secret, ..auth },
        }))
    }

    /// Keeps credentials.
    ///
    /// # Errors
    /// When the helper fails.
    pub fn store(&self, auth: &AuthConfig) -> Result<(), Failure> {
        let (user, secret) = match auth.identity_token.as_str() {
            "" => (auth.username.as_str(), auth.password.as_str()),
            token => (TOKEN_USER, token),
        };
        let entry = serde_json::json!({"ServerURL": auth.server_address, "Username": user, "Secret": secret});
        self.ask("store", entry.to_string().as_bytes()).map(drop)
    }

    /// Forgets a server's credentials.
    ///
    /// # Errors
    /// When the helper fails.
    pub fn erase(&self, server: &str) -> Result<(), Failure> {
        self.ask("erase", server.as_bytes()).map(drop)
    }

    /// The servers that the helper knows; none where it cannot tell.
    #[must_use]
    pub fn servers(&self) -> Vec<String> {
        let known = self
            .ask("list", b"")
            .ok()
            .and_then(|text| serde_json::from_str::<BTreeMap<String, String>>(&text).ok());
        known.into_iter().flatten().map(|(server, _)| server).collect()
    }

    fn ask(&self, action: &str, input: &[u8]) -> Result<String, Failure> {
        let failed = |error: &dyn std::fmt::Display| {
            Failure::new(format!(
                "error {action} credentials - err: exec: {:?}: {error}",
                self.program
            ))
        };
        let mut child = Command::new(&self.program)
            .arg(action)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .map_err(|error| failed(&error))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A helper that does not read says by its answer what is wrong.
            let _ = stdin.write_all(input);
        }
        let output = child.wait_with_output().map_err(|error| failed(&error))?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if output.status.success() {
            return Ok(text);
        }
        let status = output.status.code().unwrap_or(-1);
        Err(Failure::new(format!(
            "error {action} credentials - err: exit status {status}, out: `{text}`"
        )))
    }
}

/// The name under which Docker Hub's credentials are kept.
pub const HUB: &str = "https://index.docker.io/v1/";

/// A server's host, of an address that may have a scheme and a path.
pub fn host_of(server: &str) -> &str {
    let bare = server.trim_start_matches("https://").trim_start_matches("http://");
    bare.split('/').next().unwrap_or_default()
}

/// What the config file itself has for a server, which may stand there by its address.
pub fn in_file(config: &Value, server: &str) -> AuthConfig {
    let entries = config["auths"].as_object();
    let named = entries.and_then(|entries| entries.get(server));
    let entry = named.or_else(|| {
        let mut others = entries.into_iter().flatten();
        others.find(|(name, _)| host_of(name) == server).map(|(_, entry)| entry)
    });
    let auth = AuthConfig { server_address: server.to_owned(), ..AuthConfig::default() };
    let Some(entry) = entry else { return auth };
    let decoded = STANDARD
        .decode(field(entry, "auth"))
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .unwrap_or_default();
    let (username, password) = match decoded.split_once(':') {
        Some((user, password)) => (user.to_owned(), password.trim_end_matches('\0').to_owned()),
        None => (field(entry, "username"), field(entry, "password")),
    };
    AuthConfig {
        username,
        password,
        identity_token: field(entry, "identitytoken"),
        registry_token: field(entry, "registrytoken"),
        ..auth
    }
}

/// Keeps what a login brought, under the address in it.
///
/// # Errors
/// When the helper fails, or the file cannot be written.
pub fn store(config: &Config, auth: &AuthConfig) -> Result<(), Failure> {
    let key = &auth.server_address;
    if let Some(helper) = config.credential_helper(key) {
        helper.store(auth)?;
        // The server is listed, its secret is not.
        return config.change(|root| drop(auths(root).insert(key.clone(), json!({}))));
    }
    let secret = match auth.identity_token.as_str() {
        "" => format!("{}:{}", auth.username, auth.password),
        _ => format!("{}:", auth.username),
    };
    let mut entry = json!({"auth": STANDARD.encode(secret)});
    if !auth.identity_token.is_empty() {
        entry["identitytoken"] = auth.identity_token.as_str().into();
    }
    if config.entry(key) == Some(&entry) {
        return Ok(());
    }
    config.change(|root| drop(auths(root).insert(key.clone(), entry)))?;
    if !auth.password.is_empty() {
        crate::terminal::error_text(&format!(
            "\nWARNING! Your credentials are stored unencrypted in '{}'.\n\
             Configure a credential helper to remove this warning. See\n\
             https://docs.docker.com/go/credential-store/\n\n",
            config.file().display()
        ));
    }
    Ok(())
}

/// Forgets servers' credentials; gives what went wrong, by server.
pub fn erase(config: &Config, keys: &[String]) -> Vec<(String, Failure)> {
    let mut failures = Vec::new();
    for key in keys {
        let from_helper = match config.credential_helper(key) {
            Some(helper) => helper.erase(key),
            None => Ok(()),
        };
        let listed = config.entry(key).is_some();
        let from_file = match listed {
            true => config.change(|root| drop(auths(root).remove(key))),
            false => Ok(()),
        };
        failures.extend(from_helper.and(from_file).err().map(|failure| (key.clone(), failure)));
    }
    failures
}

/// The servers in a config file, sorted as Docker's client writes them.
fn auths(root: &mut Map<String, Value>) -> &mut Map<String, Value> {
    let auths = root.entry("auths").or_insert_with(|| json!({}));
    if !auths.is_object() {
        *auths = json!({});
    }
    match auths {
        Value::Object(auths) => auths,
        _ => unreachable!("it was just made an object"),
    }
}

fn field(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(server: &str, want: Option<&str>) {
        let config = serde_json::json!({
            "credsStore": "all",
            "credHelpers": {"one.example": "one", "bad.example": "../bad"},
        });
        let want = want.map(|program| Helper { program: program.to_owned() });
        assert_eq!(Helper::of(&config, server), want);
    }

    #[test]
    fn a_servers_own_helper_comes_first() {
        check("one.example", Some("docker-credential-one"));
        check("two.example", Some("docker-credential-all"));
        check("bad.example", None);
        assert_eq!(Helper::of(&serde_json::json!({}), "one.example"), None);
    }

    #[test]
    fn a_server_may_stand_in_the_file_by_its_address() {
        let config = json!({"auths": {
            "https://old.example/v1/": {"auth": "bWU6c2VjcmV0"},
            "plain.example": {"username": "you", "password": "word"},
        }});
        let read = |server: &str| {
            let auth = in_file(&config, server);
            (auth.username, auth.password)
        };
        assert_eq!(read("old.example"), ("me".to_owned(), "secret".to_owned()));
        assert_eq!(read("plain.example"), ("you".to_owned(), "word".to_owned()));
        assert_eq!(read("other.example"), (String::new(), String::new()));
    }
}
