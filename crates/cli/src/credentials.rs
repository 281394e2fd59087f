//! Credential helpers: programs that keep passwords for the config file.
//!
//! `docker-credential-NAME ACTION` reads a server (or, for `store`, JSON) from stdin and answers in
//! JSON on stdout. `credHelpers` names one for a server, `credsStore` one for all others.
//!
//! Source: docker-credential-helpers `client/client.go`, `credentials/credentials.go`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use api::system::AuthConfig;
use serde_json::Value;

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
}
