//! The two sides of a relay: our own daemon, and where images go.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use api::client::Host;
use registry::dial::Stream;
use registry::{Access, Client, Credentials, Endpoint, Policy, Scheme, Transport};
use spec::{Reference, chain};

use crate::context::Session;
use crate::failure::Failure;
use crate::manifest::remote::{proxies, trusting};

/// Each is a process and a session at the other side.
const SSH_LANES: usize = 3;
const HTTP_LANES: usize = 5;
const HUB: &str = "docker.io";

type Dialing = Pin<Box<dyn Future<Output = io::Result<Pin<Box<dyn Stream>>>> + Send>>;

/// Our own daemon's registry.
pub struct Here {
    transport: Transport,
    policy: Arc<Policy>,
}

impl Here {
    /// # Errors
    /// When there is no daemon.
    pub async fn open(session: &Session) -> Result<Here, Failure> {
        let client = session.client().await?.clone();
        let dial = move || -> Dialing {
            let client = client.clone();
            Box::pin(async move {
                let stream = client.dial().await.map_err(io::Error::other)?;
                Ok(Box::pin(stream) as Pin<Box<dyn Stream>>)
            })
        };
        Ok(Here { transport: Transport::over(Arc::new(dial)), policy: policy("")? })
    }

    /// # Errors
    /// When the daemon does not answer.
    pub async fn client(&self, name: &Reference) -> Result<Client, Failure> {
        let endpoint = Endpoint::of_dialer("tug.localhost", namespace(name));
        open(&self.transport, endpoint, name, Credentials::default(), &self.policy).await.map_err(
            |error| Failure::new(format!("the registry of our own daemon: {}", chain(&error))),
        )
    }
}

/// Where images go.
pub struct There {
    text: String,
    kind: Kind,
    transport: Transport,
    policy: Arc<Policy>,
}

enum Kind {
    /// Another engine; its socket is reached through ssh.
    Ssh { target: String },
    /// A registry, or the front of another engine's.
    Http { scheme: Scheme, authority: String, credentials: Credentials },
}

impl There {
    /// Reads `ssh://[USER@]HOST[:PORT]` or `http[s]://HOST[:PORT]`.
    ///
    /// # Errors
    /// For anything else.
    pub fn parse(text: &str, session: &Session) -> Result<There, Failure> {
        let wrong = || {
            Failure::new(format!(
                "invalid value {text:?} for --to: give ssh://[USER@]HOST[:PORT], http://HOST[:PORT] or https://HOST[:PORT]"
            ))
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let scheme = match scheme {
            "ssh" => return There::ssh(text).ok_or_else(wrong),
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return Err(wrong()),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        // The characters of `user@host`, paths, queries and fragments.
        if authority.is_empty() || authority.contains(['@', '/', '?', '#', '\\', ' ']) {
            return Err(wrong());
        }
        let auth = session.config.registry_auth(authority);
        let credentials = Credentials {
            user: auth.username,
            password: auth.password,
            identity_token: auth.identity_token,
            registry_token: auth.registry_token,
        };
        // Whoever writes http:// means it.
        let policy = policy(if scheme == Scheme::Http { authority } else { "" })?;
        let authority = authority.to_owned();
        Ok(There {
            text: text.to_owned(),
            kind: Kind::Http { scheme, authority, credentials },
            transport: Transport::new(proxies()),
            policy,
        })
    }

    fn ssh(text: &str) -> Option<There> {
        let Ok(Host::Ssh { target, port }) = text.parse::<Host>() else { return None };
        let place = target.clone();
        let dial = move || -> Dialing {
            let target = place.clone();
            Box::pin(async move {
                let stream = api::client::dial_ssh(&target, port, "tug")?;
                Ok(Box::pin(stream) as Pin<Box<dyn Stream>>)
            })
        };
        Some(There {
            text: text.to_owned(),
            kind: Kind::Ssh { target },
            transport: Transport::over(Arc::new(dial)),
            policy: policy("").ok()?,
        })
    }

    /// How many blobs are sent at once.
    pub fn lanes(&self) -> usize {
        match self.kind {
            Kind::Ssh { .. } => SSH_LANES,
            Kind::Http { .. } => HTTP_LANES,
        }
    }

    /// # Errors
    /// When the other side does not answer.
    pub async fn client(&self, name: &Reference) -> Result<Client, Failure> {
        let (endpoint, credentials) = match &self.kind {
            Kind::Ssh { target } => {
                let host = target.rsplit('@').next().unwrap_or(target);
                (Endpoint::of_dialer(&bracketed(host), namespace(name)), Credentials::default())
            }
            Kind::Http { scheme, authority, credentials } => {
                let endpoints = self
                    .policy
                    .endpoints(authority, registry::Work::Push, &[], &registry::files::read)
                    .map_err(|error| Failure::new(chain(&error)))?;
                let fitting = endpoints.into_iter().find(|endpoint| endpoint.scheme == *scheme);
                let mut endpoint = fitting.ok_or_else(|| {
                    Failure::new(format!("the settings for {authority} allow no {}", self.text))
                })?;
                endpoint.namespace = namespace(name);
                (endpoint, credentials.clone())
            }
        };
        let opened = open(&self.transport, endpoint, name, credentials, &self.policy).await;
        opened.map_err(|error| Failure::new(format!("{self}: {}{}", chain(&error), self.hint())))
    }

    fn hint(&self) -> &'static str {
        match self.kind {
            Kind::Ssh { .. } => {
                "; it is reached by 'ssh HOST tug system dial-stdio': is tug installed there, and does its daemon run?"
            }
            Kind::Http { .. } => "",
        }
    }
}

impl fmt::Display for There {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// As hosts stand in addresses.
fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

fn policy(insecure: &str) -> Result<Arc<Policy>, Failure> {
    let listed: Vec<String> =
        if insecure.is_empty() { Vec::new() } else { vec![insecure.to_owned()] };
    let policy = Policy::parse(&listed, &[]).map_err(|error| Failure::new(chain(&error)))?;
    Ok(Arc::new(policy))
}

/// Whose repository is meant, for names that are not Docker Hub's.
fn namespace(name: &Reference) -> Option<String> {
    (name.domain() != HUB).then(|| name.domain().to_owned())
}

async fn open(
    transport: &Transport,
    endpoint: Endpoint,
    name: &Reference,
    credentials: Credentials,
    policy: &Arc<Policy>,
) -> Result<Client, registry::Error> {
    let trusting = trusting(Arc::clone(policy));
    Client::open(transport.clone(), endpoint, name.path(), credentials, Access::Push, trusting)
        .await
}
