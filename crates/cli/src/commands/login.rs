//! `login` and `logout`: credentials in the user's config file, or with the helper that it names.

use std::{fs, io::Read as _};

use api::system::{AuthConfig, AuthResponse};
use base64::Engine as _;
use serde_json::{Value, json};

use crate::{
    args::{Arity, Command, Kind::*, Matches, Order, Outcome, flag},
    context::Session,
    create::files::reason,
    failure::Failure,
    terminal,
};

const HUB: &str = "https://index.docker.io/v1/";

pub static LOGIN: Command = Command {
    name: "login",
    aliases: &[],
    spellings: &[],
    usage: "[OPTIONS] [SERVER]",
    about: "Authenticate to a registry.\nThe default is Docker Hub.",
    flags: &[&[
        flag("password", Text, "Password or Personal Access Token (PAT)").s('p'),
        flag("password-stdin", Bool, "Take the password from STDIN"),
        flag("username", Text, "Username").s('u'),
    ]],
    arity: Arity::AtMost(1),
    order: Order::Mixed,
    run: |session, matches| Box::pin(login(session, matches)),
};

pub static LOGOUT: Command = Command {
    name: "logout",
    aliases: &[],
    spellings: &[],
    usage: "[SERVER]",
    about: "Log out from a registry.\nThe default is Docker Hub.",
    flags: &[],
    arity: Arity::AtMost(1),
    order: Order::Mixed,
    run: |session, matches| Box::pin(logout(session, matches)),
};

/// The name under which a server's credentials are kept.
fn key_of(matches: &Matches) -> String {
    match matches.args.first().map(String::as_str) {
        None | Some("docker.io" | "index.docker.io" | "registry-1.docker.io") => HUB.to_owned(),
        Some(server) => server
            .trim_start_matches("https://")
            .trim_start_matches("http://")
            .split('/')
            .next()
            .unwrap_or_default()
            .to_owned(),
    }
}

async fn login(session: &Session, matches: &Matches) -> Outcome {
    let key = key_of(matches);
    let mut user = matches.text("username").to_owned();
    let password = if matches.on("password-stdin") {
        if matches.given("password") {
            return Err(Failure::new("--password and --password-stdin are mutually exclusive"));
        }
        if user.is_empty() {
            return Err(Failure::new("Must provide --username with --password-stdin"));
        }
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .map_err(|error| Failure::new(format!("read STDIN: {}", reason(&error))))?;
        text.trim_end_matches(['\n', '\r']).to_owned()
    } else if let Some(password) = matches.find("password") {
        terminal::error_text(
            "WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n",
        );
        password.to_owned()
    } else {
        if !terminal::stdin_is_terminal() {
            return Err(Failure::new(
                "Error: Cannot perform an interactive login from a non TTY device",
            ));
        }
        if user.is_empty() {
            user = ask("Username: ")?;
        }
        ask_secret("Password: ")?
    };
    if user.is_empty() || password.is_empty() {
        return Err(Failure::new("Error: Non-null Username and Password required"));
    }
    let auth = AuthConfig {
        username: user.clone(),
        password: password.clone(),
        server_address: key.clone(),
        ..AuthConfig::default()
    };
    let answer: AuthResponse =
        session.client().await?.post("/auth").json(&auth).send().await?.json().await?;
    let status = if answer.status.is_empty() { "Login Succeeded" } else { &answer.status };
    if let Some(helper) = session.config.credential_helper(&key) {
        helper.store(&AuthConfig { identity_token: answer.identity_token.clone(), ..auth })?;
        // The server is listed, its secret is not.
        change_auths(session, |auths| drop(auths.insert(key.clone(), json!({}))))?;
        terminal::out(&format!("{status}\n"));
        return Ok(0);
    }
    let entry = if answer.identity_token.is_empty() {
        let text = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        json!({"auth": text})
    } else {
        let text = base64::engine::general_purpose::STANDARD.encode(format!("{user}:"));
        json!({"auth": text, "identitytoken": answer.identity_token})
    };
    change_auths(session, |auths| {
        auths.insert(key.clone(), entry);
    })?;
    let path = session.config.directory.join("config.json");
    terminal::error_text(&format!(
        "\nWARNING! Your credentials are stored unencrypted in '{}'.\n\n",
        path.display()
    ));
    terminal::out(&format!("{status}\n"));
    Ok(0)
}

async fn logout(session: &Session, matches: &Matches) -> Outcome {
    let key = key_of(matches);
    let mut known = false;
    change_auths(session, |auths| known = auths.remove(&key).is_some())?;
    if let Some(helper) = session.config.credential_helper(&key).filter(|_| known) {
        helper.erase(&key)?;
    }
    let shown = if key == HUB { HUB } else { &key };
    if known {
        terminal::out(&format!("Removing login credentials for {shown}\n"));
    } else {
        terminal::out(&format!("Not logged in to {shown}\n"));
    }
    Ok(0)
}

/// Rewrites the config file, readable by its owner alone, by way of a temporary one.
fn change_auths(
    session: &Session,
    change: impl FnOnce(&mut serde_json::Map<String, Value>),
) -> Result<(), Failure> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let directory = &session.config.directory;
    let path = directory.join("config.json");
    let failed = |error: std::io::Error| {
        Failure::new(format!("write {}: {}", path.display(), reason(&error)))
    };
    let mut root: Value = match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text)
            .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => json!({}),
        Err(error) => return Err(failed(error)),
    };
    if !root["auths"].is_object() {
        root["auths"] = json!({});
    }
    if let Some(auths) = root["auths"].as_object_mut() {
        change(auths);
    }
    let text = serde_json::to_vec_pretty(&root).unwrap_or_default();
    fs::create_dir_all(directory).map_err(failed)?;
    let temporary = directory.join(format!("config.json.{}", std::process::id()));
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(failed)?;
    std::io::Write::write_all(&mut file, &text).map_err(failed)?;
    fs::rename(&temporary, &path).map_err(failed)
}

fn ask(question: &str) -> Result<String, Failure> {
    terminal::out(question);
    let mut line = String::new();
    std::io::stdin()
        .read_line(&mut line)
        .map_err(|error| Failure::new(format!("read STDIN: {}", reason(&error))))?;
    Ok(line.trim().to_owned())
}

fn ask_secret(question: &str) -> Result<String, Failure> {
    let hidden = terminal::NoEcho::enter();
    let answer = ask(question);
    drop(hidden);
    terminal::out("\n");
    answer
}
