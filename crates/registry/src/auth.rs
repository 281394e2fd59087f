//! Who we are to a registry: challenges, Basic, and Bearer tokens.
//!
//! A registry answers 401 with challenges. For Basic the name and password go along with each
//! request. For Bearer a token is fetched from the realm, with the password (GET) or an identity
//! token (POST, OAuth 2), for the scopes that the work needs, and kept for as long as it says.
//! Without credentials the token is an anonymous one. A registry that refuses a token and names a
//! scope gets one for that scope, too.
//!
//! Source: RFC 9110, 11; distribution `docs/spec/auth/token.md`, `oauth.md`,
//! `registry/client/auth/session.go`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Method, Uri};

use crate::address;
use crate::dial::Verify;
use crate::error::{REFUSAL_BYTES_MAX, Refusal, RequestError, TransportError};
use crate::json::{self, Fields, JsonError};
use crate::transport::{Payload, Transport, TrustOf};

/// Of a token that says nothing of it.
///
/// Source: distribution `docs/spec/auth/token.md`.
const TOKEN_LIFE_DEFAULT: Duration = Duration::from_secs(60);
const TOKEN_LIFE_MAX: Duration = Duration::from_secs(24 * 3600);
/// A token is renewed this long before its end, or when a quarter of its life is left.
const TOKEN_MARGIN_MAX: Duration = Duration::from_secs(15);
/// How many scopes a registry may ask for besides those that the work needs.
const SCOPES_MAX: usize = 8;
const TOKEN_BYTES_MAX: usize = 1 << 20;
const CLIENT_ID: &str = "docker";

/// What a user gave for a registry. Empty fields were not given.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Credentials {
    pub user: String,
    pub password: String,
    /// A refresh token that a login gave instead of the password.
    pub identity_token: String,
    /// Sent as it is.
    pub registry_token: String,
}

impl Credentials {
    pub fn is_anonymous(&self) -> bool {
        *self == Credentials::default()
    }
}

/// Secrets stay out of logs.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// One challenge of a `WWW-Authenticate` header. Scheme and names are lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    pub scheme: String,
    pub parameters: Vec<(String, String)>,
}

impl Challenge {
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// All challenges of an answer, whether in one header or several.
pub fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    let texts = headers.get_all("www-authenticate").iter().filter_map(|value| value.to_str().ok());
    texts.flat_map(parse_challenges).collect()
}

/// Reads `Bearer realm="…",service="…", Basic realm=…`.
pub fn parse_challenges(text: &str) -> Vec<Challenge> {
    let mut found: Vec<Challenge> = Vec::new();
    let mut rest = text.trim_start_matches([' ', ',', '\t']);
    while !rest.is_empty() {
        let end = rest.find([' ', '=', ',', '\t']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let after_blank = after.trim_start();
        match (after_blank.strip_prefix('='), found.last_mut()) {
            (Some(value), Some(challenge)) => {
                let (value, after) = value_of(value.trim_start());
                challenge.parameters.push((word.to_ascii_lowercase(), value));
                rest = after;
            }
            // A parameter of nothing.
            (Some(_), None) => return found,
            (None, _) => {
                found.push(Challenge { scheme: word.to_ascii_lowercase(), parameters: Vec::new() });
                rest = after_blank;
            }
        }
        rest = rest.trim_start_matches([' ', ',', '\t']);
    }
    found
}

/// A token or a quoted string, and what follows.
fn value_of(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    while let Some((place, letter)) = letters.next() {
        match letter {
            '"' => return (value, &quoted[place + 1..]),
            '\\' => value.extend(letters.next().map(|(_, letter)| letter)),
            other => value.push(other),
        }
    }
    (value, "")
}

struct Token {
    text: String,
    until: Instant,
}

/// What is known of one registry's demands, and the tokens got so far.
#[derive(Default)]
pub(crate) struct Session {
    challenges: Vec<Challenge>,
    /// By scopes.
    tokens: HashMap<String, Token>,
    /// Scopes that the registry asked for by itself.
    more: Vec<String>,
    realms: Realms,
}

/// To which realms credentials may go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Realms {
    #[default]
    Any,
    /// To those behind TLS, and to insecure hosts.
    Guarded,
}

impl Session {
    pub(crate) fn new(realms: Realms) -> Session {
        Session { realms, ..Session::default() }
    }

    pub(crate) fn learn(&mut self, challenges: Vec<Challenge>) {
        if !challenges.is_empty() {
            self.challenges = challenges;
        }
    }

    /// Forgets the token that was refused, and learns what was wrong with it.
    pub(crate) fn refused(&mut self, scope: &str, challenges: Vec<Challenge>) {
        self.tokens.remove(&self.wanted(scope));
        let asked = challenges.iter().filter_map(|challenge| challenge.parameter("scope"));
        let asked: Vec<String> = asked.flat_map(str::split_whitespace).map(str::to_owned).collect();
        for one in asked {
            let is_new = scope.split(' ').all(|known| known != one) && !self.more.contains(&one);
            if is_new && self.more.len() < SCOPES_MAX {
                self.more.push(one);
            }
        }
        self.learn(challenges);
    }

    /// What a login brings: an identity token where the registry gives one.
    ///
    /// # Errors
    /// When the registry does not take the credentials, or cannot be asked.
    pub(crate) async fn refresh_token(
        &self,
        transport: &Transport,
        credentials: &Credentials,
        challenge: &Challenge,
        trust_of: TrustOf<'_>,
    ) -> Result<Option<String>, TransportError> {
        let wish = Wish { scope: "", offline: Offline::Yes, realms: self.realms };
        let answered = ask(transport, credentials, challenge, wish, trust_of).await?;
        Ok(Some(answered.refresh_token).filter(|text| !text.is_empty()))
    }

    /// All scopes for work that needs `scope`.
    fn wanted(&self, scope: &str) -> String {
        let all = scope.split(' ').chain(self.more.iter().map(String::as_str));
        all.filter(|one| !one.is_empty()).collect::<Vec<_>>().join(" ")
    }

    /// The challenge that asks for a token.
    pub(crate) fn bearer(&self) -> Option<Challenge> {
        self.challenge("bearer").cloned()
    }

    fn challenge(&self, scheme: &str) -> Option<&Challenge> {
        self.challenges.iter().find(|challenge| challenge.scheme == scheme)
    }

    /// The value of `Authorization` for work that needs `scope`; None where nothing is asked.
    pub(crate) async fn authorization(
        &mut self,
        transport: &Transport,
        credentials: &Credentials,
        scope: &str,
        trust_of: TrustOf<'_>,
    ) -> Result<Option<HeaderValue>, TransportError> {
        if let Some(bearer) = self.bearer() {
            let scope = self.wanted(scope);
            let kept = self.tokens.get(&scope).filter(|token| token.until > Instant::now());
            if let Some(token) = kept {
                return secret(format!("Bearer {}", token.text)).map(Some);
            }
            let token =
                fetch(transport, credentials, &bearer, &scope, self.realms, trust_of).await?;
            let header = secret(format!("Bearer {}", token.text))?;
            self.tokens.insert(scope, token);
            return Ok(Some(header));
        }
        if self.challenge("basic").is_some() {
            if credentials.user.is_empty() && credentials.password.is_empty() {
                return Err(TransportError::Auth("no basic auth credentials".to_owned()));
            }
            return basic(credentials).map(Some);
        }
        Ok(None)
    }
}

pub(crate) fn basic(credentials: &Credentials) -> Result<HeaderValue, TransportError> {
    secret(format!(
        "Basic {}",
        STANDARD.encode(format!("{}:{}", credentials.user, credentials.password))
    ))
}

fn secret(text: String) -> Result<HeaderValue, TransportError> {
    let mut value = HeaderValue::from_str(&text).map_err(|_| {
        TransportError::Auth("credentials have characters that no header may have".to_owned())
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// What token servers answer; both names are in use. What was not said is empty.
struct Answered {
    token: String,
    refresh_token: String,
    expires_in_secs: u64,
}

impl Answered {
    /// Source: distribution 2.8 `registry/client/auth/session.go`, `getTokenResponse`.
    fn read(body: &[u8]) -> Result<Answered, JsonError> {
        let kind = "getTokenResponse";
        let body = json::first(body)?;
        let Some(fields) = Fields::of(&body, kind, "auth.getTokenResponse")? else {
            return Ok(Answered {
                token: String::new(),
                refresh_token: String::new(),
                expires_in_secs: 0,
            });
        };
        let token = [fields.text("access_token")?, fields.text("token")?];
        Ok(Answered {
            token: token.into_iter().find(|text| !text.is_empty()).unwrap_or_default().to_owned(),
            refresh_token: fields.text("refresh_token")?.to_owned(),
            expires_in_secs: u64::try_from(fields.number("expires_in")?).unwrap_or(0),
        })
    }
}

async fn fetch(
    transport: &Transport,
    credentials: &Credentials,
    challenge: &Challenge,
    scope: &str,
    realms: Realms,
    trust_of: TrustOf<'_>,
) -> Result<Token, TransportError> {
    if !credentials.registry_token.is_empty() {
        let until = Instant::now() + Duration::from_secs(3600);
        return Ok(Token { text: credentials.registry_token.clone(), until });
    }
    let wish = Wish { scope, offline: Offline::No, realms };
    let answered = ask(transport, credentials, challenge, wish, trust_of).await?;
    if answered.token.is_empty() {
        return Err(TransportError::Auth(
            "authorization server did not include a token in the response".to_owned(),
        ));
    }
    let life = match answered.expires_in_secs {
        0 => TOKEN_LIFE_DEFAULT,
        seconds => Duration::from_secs(seconds).min(TOKEN_LIFE_MAX),
    };
    let text = answered.token;
    Ok(Token { text, until: Instant::now() + life - (life / 4).min(TOKEN_MARGIN_MAX) })
}

/// Whether a refresh token is wanted too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Offline {
    No,
    Yes,
}

/// What a token is to be good for.
#[derive(Clone, Copy)]
struct Wish<'a> {
    scope: &'a str,
    offline: Offline,
    realms: Realms,
}

async fn ask(
    transport: &Transport,
    credentials: &Credentials,
    challenge: &Challenge,
    wish: Wish<'_>,
    trust_of: TrustOf<'_>,
) -> Result<Answered, TransportError> {
    let realm = challenge.parameter("realm").unwrap_or_default();
    let service = challenge.parameter("service").unwrap_or_default();
    let mut headers = HeaderMap::new();
    let with_identity = !credentials.identity_token.is_empty();
    if !with_identity && !credentials.user.is_empty() {
        headers.insert(AUTHORIZATION, basic(credentials)?);
    }
    let query = token_query(credentials, service, wish);
    let address = address::parse(realm).map_err(|why| {
        let verb = if with_identity { "Post" } else { "Get" };
        TransportError::Auth(format!("{verb} {realm:?}: {why}"))
    })?;
    let (method, address, payload) = if with_identity {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        (Method::POST, address, Payload::Bytes(Bytes::from(query)))
    } else {
        // What the realm asks itself is kept.
        let own = address.query().filter(|own| !own.is_empty());
        let query = own.map_or(query.clone(), |own| format!("{own}&{query}"));
        let address = address::resolve(&address, &format!("?{query}"));
        let address =
            address.map_err(|why| TransportError::Auth(format!("realm {realm:?}: {why}")))?;
        (Method::GET, address, Payload::empty())
    };
    if with_identity || !credentials.user.is_empty() {
        may_be_told(&address, wish.realms, trust_of)?;
    }
    let sent = transport.send(method, &address, &headers, payload, trust_of).await;
    let mut answer = sent.map_err(flat)?;
    let broken = |error: std::io::Error| TransportError::Auth(format!("token answer: {error}"));
    if !answer.status.is_success() {
        let body = answer.start(REFUSAL_BYTES_MAX).await;
        let refusal = Refusal::read(answer.status, &answer.headers, &body);
        return Err(TransportError::Refused(Box::new(refusal)));
    }
    let body = answer.bytes(TOKEN_BYTES_MAX).await.map_err(broken)?;
    let body = body.ok_or_else(|| {
        TransportError::Auth(format!("token response is larger than {TOKEN_BYTES_MAX} bytes"))
    })?;
    Answered::read(&body)
        .map_err(|error| TransportError::Auth(format!("unable to decode token response: {error}")))
}

/// A registry behind TLS may not have our password sent in the clear.
fn may_be_told(realm: &Uri, realms: Realms, trust_of: TrustOf<'_>) -> Result<(), TransportError> {
    let is_plain = realm.scheme_str() != Some("https");
    let host = address::host_of(realm);
    if realms == Realms::Guarded && is_plain && trust_of(host).verify == Verify::Yes {
        return Err(TransportError::Auth(format!(
            "refused to send credentials to {host:?} without TLS"
        )));
    }
    Ok(())
}

fn token_query(credentials: &Credentials, service: &str, wish: Wish<'_>) -> String {
    let Wish { scope, offline, .. } = wish;
    let mut query = form_urlencoded::Serializer::new(String::new());
    if !service.is_empty() {
        query.append_pair("service", service);
    }
    if !credentials.identity_token.is_empty() {
        query.append_pair("client_id", CLIENT_ID);
        query.append_pair("grant_type", "refresh_token");
        query.append_pair("refresh_token", &credentials.identity_token);
        query.append_pair("scope", scope);
        return query.finish();
    }
    for one in scope.split(' ').filter(|one| !one.is_empty()) {
        query.append_pair("scope", one);
    }
    if offline == Offline::Yes {
        query.append_pair("offline_token", "true");
        query.append_pair("client_id", CLIENT_ID);
    }
    if !credentials.user.is_empty() {
        query.append_pair("account", &credentials.user);
    }
    query.finish()
}

/// A failed request within a request, as Go prints the two.
fn flat(error: RequestError) -> TransportError {
    TransportError::Auth(format!("{error}: {}", error.source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    #[track_caller]
    fn check(text: &str, want: Expect) {
        let shown = parse_challenges(text).into_iter().map(|challenge| {
            let parameters: Vec<String> = challenge
                .parameters
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            format!("{}[{}]", challenge.scheme, parameters.join(" | "))
        });
        want.assert_eq(&shown.collect::<Vec<_>>().join(" "));
    }

    #[test]
    fn challenges_are_read_one_after_another() {
        check(
            r#"Bearer realm="https://auth.example/token",service="reg, \"the\" one",scope="repository:a/b:pull,push""#,
            expect![[
                r#"bearer[realm=https://auth.example/token | service=reg, "the" one | scope=repository:a/b:pull,push]"#
            ]],
        );
        check(
            r#"Basic realm="Registry Realm", Bearer realm=x , error = "invalid_token""#,
            expect!["basic[realm=Registry Realm] bearer[realm=x | error=invalid_token]"],
        );
        check("Negotiate", expect!["negotiate[]"]);
        check("", expect![""]);
        check("=x", expect![""]);
        check(r#"Basic realm="never ends"#, expect!["basic[realm=never ends]"]);
    }
}
