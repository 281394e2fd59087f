//! `login` and `logout`: credentials in the user's config file, or with the helper that it names.
//!
//! Without a name and a password those that are stored are tried first. Docker Hub's login by way of
//! a browser is not offered: a name and a token do the same.
//!
//! Source: docker/cli 28.2 `cli/command/registry/login.go`, `logout.go`, `cli/command/registry.go`.

use std::io::Read as _;

use api::system::{AuthConfig, AuthResponse};

use crate::{
    args::{Arity, Command, Kind::*, Matches, Order, Outcome, flag},
    context::Session,
    create::files::reason,
    credentials::{self, HUB},
    failure::Failure,
    terminal,
};

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

const HUB_HINT: &str = "Log in with your Docker ID or email address to push and pull images from Docker Hub. \
    If you don't have a Docker ID, head over to https://hub.docker.com/ to create one.\n\
    You can log in with your password or a Personal Access Token (PAT). Using a limited-scope PAT grants \
    better security and is required for organizations using SSO. Learn more at \
    https://docs.docker.com/go/access-tokens/\n\n";

/// The name under which a server's credentials are kept.
fn key_of(matches: &Matches) -> String {
    match matches.args.first().map(String::as_str) {
        None | Some("" | "docker.io") => HUB.to_owned(),
        Some(server) => credentials::host_of(server).to_owned(),
    }
}

async fn login(session: &Session, matches: &Matches) -> Outcome {
    let key = key_of(matches);
    let given = given(matches)?;
    let stored = match &given {
        Given { user: None, password: None } => Some(session.config.credentials(&key)?),
        _ => None,
    };
    let known =
        stored.as_ref().filter(|auth| !auth.username.is_empty() && !auth.password.is_empty());
    let mut status = None;
    if let Some(auth) = known {
        status = with_stored(session, auth).await;
    }
    let status = match status {
        Some(status) => status,
        None => {
            let user = stored.map(|auth| auth.username).unwrap_or_default();
            let auth = asked(given, &user, &key).await?;
            check(session, auth).await?
        }
    };
    if !status.is_empty() {
        terminal::out(&format!("{status}\n"));
    }
    Ok(0)
}

/// What the command line says of who somebody is.
struct Given {
    user: Option<String>,
    password: Option<String>,
}

fn given(matches: &Matches) -> Result<Given, Failure> {
    let user = matches.find("username").map(str::to_owned);
    if user.as_deref() == Some("") {
        return Err(Failure::new("username is empty"));
    }
    let mut password = matches.find("password").map(str::to_owned);
    if matches.on("password-stdin") {
        if password.is_some() {
            return Err(Failure::new(
                "conflicting options: cannot specify both --password and --password-stdin",
            ));
        }
        if user.is_none() {
            return Err(Failure::new("the --password-stdin option requires --username to be set"));
        }
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .map_err(|error| Failure::new(format!("read STDIN: {}", reason(&error))))?;
        password = Some(text.trim_end_matches(['\n', '\r']).to_owned());
    }
    if password.as_deref() == Some("") {
        return Err(Failure::new("password is empty"));
    }
    if matches.given("password") {
        terminal::error_text(
            "WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n",
        );
    }
    Ok(Given { user, password })
}

/// Tries stored credentials; None when they are not taken, of which the user was told.
async fn with_stored(session: &Session, auth: &AuthConfig) -> Option<String> {
    terminal::error_text(&format!(
        "Authenticating with existing credentials... [Username: {}]\n",
        auth.username
    ));
    note("To login with a different account, run 'docker logout' followed by 'docker login'");
    match check(session, auth.clone()).await {
        Ok(status) => Some(status),
        Err(failure) if failure.is_unauthorized() => {
            terminal::error_text("Stored credentials invalid or expired\n");
            None
        }
        Err(failure) => {
            let words = failure.words().unwrap_or_default();
            terminal::error_text(&format!("Login did not succeed, error: {words}\n"));
            None
        }
    }
}

/// A remark, in colour where that is wanted.
fn note(text: &str) {
    let (mark, indent) = if terminal::takes_colours(terminal::Output::Stderr) {
        ("\x1b[1;94mi Info → \x1b[0m", 9)
    } else {
        (" Info -> ", 9)
    };
    let text = text.replace('\n', &format!("\n{}", " ".repeat(indent)));
    terminal::error_text(&format!("\n{mark}{text}\n\n\n"));
}

/// Asks for what was not given.
async fn asked(given: Given, stored_user: &str, key: &str) -> Result<AuthConfig, Failure> {
    if (given.user.is_none() || given.password.is_none()) && !terminal::stdin_is_terminal() {
        return Err(Failure::new(
            "Error: Cannot perform an interactive login from a non TTY device",
        ));
    }
    let username = match given.user {
        Some(user) => user.trim().to_owned(),
        None => {
            if key == HUB {
                terminal::out(HUB_HINT);
            }
            let question = match stored_user {
                "" => "Username: ".to_owned(),
                user => format!("Username ({user}): "),
            };
            match terminal::ask(&question).await?.as_str() {
                "" if stored_user.is_empty() => {
                    return Err(Failure::new("Error: Non-null Username Required"));
                }
                "" => stored_user.to_owned(),
                user => user.to_owned(),
            }
        }
    };
    let password = match given.password {
        Some(password) => password,
        None => {
            if key == HUB {
                note(
                    "A Personal Access Token (PAT) can be used instead.\nTo create a PAT, visit https://app.docker.com/settings",
                );
            }
            let password = terminal::ask_secret("Password: ").await?;
            if password.is_empty() {
                return Err(Failure::new("Error: Password Required"));
            }
            password
        }
    };
    let server_address = key.to_owned();
    Ok(AuthConfig { username, password, server_address, ..AuthConfig::default() })
}

/// Has the daemon try credentials, and stores them when they are good.
async fn check(session: &Session, auth: AuthConfig) -> Result<String, Failure> {
    let answer: AuthResponse =
        session.client().await?.post("/auth").json(&auth).send().await?.json().await?;
    let auth = match answer.identity_token.as_str() {
        "" => auth,
        token => AuthConfig { password: String::new(), identity_token: token.to_owned(), ..auth },
    };
    credentials::store(&session.config, &auth)
        .map_err(|failure| Failure::new(format!("Error saving credentials: {failure}")))?;
    Ok(answer.status)
}

async fn logout(session: &Session, matches: &Matches) -> Outcome {
    let typed = matches.args.first().map(String::as_str).unwrap_or_default();
    let (shown, keys) = match typed {
        "" => (HUB.to_owned(), vec![HUB.to_owned()]),
        server => {
            let host = credentials::host_of(server);
            let mut keys =
                vec![host.to_owned(), format!("http://{host}"), format!("https://{host}")];
            if server != host {
                keys.push(server.to_owned());
            }
            // Logged in under this name, the credentials are kept under Docker Hub's own.
            if host == "docker.io" {
                keys.push(HUB.to_owned());
            }
            (host.to_owned(), keys)
        }
    };
    terminal::out(&format!("Removing login credentials for {shown}\n"));
    let failures = credentials::erase(&session.config, &keys);
    if failures.len() == keys.len() {
        let mut text = "WARNING: could not erase credentials:\n".to_owned();
        for (key, failure) in failures {
            text.push_str(&format!("{key}: {failure}\n"));
        }
        terminal::error_text(&text);
    }
    Ok(0)
}
