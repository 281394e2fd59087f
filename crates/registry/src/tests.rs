//! The client against small servers on loopback, honest ones and hostile ones.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use spec::Digest;
use tokio::net::TcpListener;

use crate::client::{Access, Client, Mount, Trusting, login};
use crate::dial::Trust;
use crate::policy::{HostFiles, Policy, Work};
use crate::{Credentials, Endpoint, Error, Transport};

/// What a server saw of a request.
#[derive(Debug, Clone)]
struct Seen {
    method: Method,
    path: String,
    authorization: String,
    range: String,
    body: Bytes,
}

type Reply = Response<Full<Bytes>>;
type Log = Arc<Mutex<Vec<Seen>>>;

/// Serves `answer` until the test's runtime ends; gives the address and what was asked.
async fn serve(answer: impl Fn(&Seen, &str) -> Reply + Send + Sync + 'static) -> (String, Log) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (answer, log, own) = (Arc::new(answer), Log::default(), address.clone());
    let seen = Arc::clone(&log);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (answer, seen, own) = (Arc::clone(&answer), Arc::clone(&seen), own.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                let (answer, seen, own) = (Arc::clone(&answer), Arc::clone(&seen), own.clone());
                async move {
                    let text = |name: &str| {
                        let value =
                            request.headers().get(name).and_then(|value| value.to_str().ok());
                        value.unwrap_or_default().to_owned()
                    };
                    let mut one = Seen {
                        method: request.method().clone(),
                        path: request.uri().to_string(),
                        authorization: text("authorization"),
                        range: text("range"),
                        body: Bytes::new(),
                    };
                    one.body = request
                        .into_body()
                        .collect()
                        .await
                        .map(|body| body.to_bytes())
                        .unwrap_or_default();
                    seen.lock().unwrap().push(one.clone());
                    Ok::<_, Infallible>(answer(&one, &own))
                }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection);
        }
    });
    (address, log)
}

fn reply(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Reply {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(Full::new(body.into())).unwrap()
}

fn trusting() -> Trusting {
    Arc::new(|_| Arc::new(Trust::default()))
}

/// The plain endpoint, which is the last one of loopback.
fn endpoint(address: &str) -> Endpoint {
    endpoints(address).pop().unwrap()
}

fn endpoints(address: &str) -> Vec<Endpoint> {
    let none = |_: &str| Ok::<_, Infallible>(HostFiles::default());
    Policy::default().endpoints(address, Work::Pull, &[], &none).unwrap()
}

async fn open(address: &str, credentials: Credentials, access: Access) -> Result<Client, Error> {
    Client::open(Transport::default(), endpoint(address), "a/b", credentials, access, trusting())
        .await
}

fn credentials() -> Credentials {
    Credentials { user: "me".to_owned(), password: "secret".to_owned(), ..Credentials::default() }
}

/// An error and its causes, as users see it.
fn words(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

fn paths(log: &Log) -> Vec<String> {
    log.lock().unwrap().iter().map(|seen| format!("{} {}", seen.method, seen.path)).collect()
}

#[tokio::test]
async fn a_name_that_was_judged_by_its_address_is_not_looked_up_again() {
    let (address, log) = serve(|_, _| reply(200, &[("content-type", "x/y")], "{}")).await;
    let (_, port) = address.rsplit_once(':').unwrap();
    // Nobody knows this name: RFC 6761, 6.4.
    let authority = format!("registry.invalid:{port}");
    let none = |_: &str| Ok::<_, Infallible>(HostFiles::default());
    let judged = [std::net::IpAddr::from([127, 0, 0, 1])];
    let mut endpoints =
        Policy::default().endpoints(&authority, Work::Pull, &judged, &none).unwrap();
    let plain = endpoints.pop().unwrap();
    let (nobody, access) = (Credentials::default(), Access::Pull);
    let opened = Client::open(Transport::default(), plain, "a/b", nobody, access, trusting()).await;
    opened.unwrap().manifest("latest").await.unwrap();
    assert!(!log.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_token_is_fetched_once_and_sent_to_the_registry() {
    let (address, log) = serve(|seen, own| match seen.path.split('?').next().unwrap() {
        "/token" if seen.authorization == "Basic bWU6c2VjcmV0" => {
            reply(200, &[], r#"{"token":"t1","expires_in":300}"#)
        }
        "/token" => reply(401, &[], r#"{"details":"incorrect username or password"}"#),
        _ if seen.authorization == "Bearer t1" => reply(200, &[("content-type", "x/y")], "{}"),
        _ => reply(
            401,
            &[("www-authenticate", &format!("Bearer realm=\"http://{own}/token\",service=\"s\""))],
            "",
        ),
    })
    .await;
    let client = open(&address, credentials(), Access::Pull).await.unwrap();
    client.manifest("latest").await.unwrap();
    client.manifest("other").await.unwrap();
    assert_eq!(
        paths(&log),
        [
            "GET /v2/",
            "GET /token?service=s&scope=repository%3Aa%2Fb%3Apull&account=me",
            "GET /v2/a/b/manifests/latest",
            "GET /v2/a/b/manifests/other",
        ]
    );
    let client = open(&address, Credentials::default(), Access::Pull).await.unwrap();
    let error = client.manifest("latest").await.unwrap_err();
    assert_eq!(
        words(&error),
        format!(
            "Get \"http://{address}/v2/a/b/manifests/latest\": unauthorized: incorrect username or password"
        )
    );
}

/// A token server, and a registry that takes each token `uses` times.
async fn forgetful(uses: usize) -> (String, Log) {
    let used = Mutex::new(std::collections::HashMap::<String, usize>::new());
    serve(move |seen, own| {
        let mut used = used.lock().unwrap();
        if seen.path.starts_with("/token") {
            let token = format!(r#"{{"token":"t{}","expires_in":300}}"#, used.len());
            return reply(200, &[], token);
        }
        let count = used.entry(seen.authorization.clone()).or_default();
        *count += 1;
        let asks = format!("Bearer realm=\"http://{own}/token\",service=\"s\"");
        match (&seen.method, seen.authorization.as_str()) {
            (_, "") => reply(401, &[("www-authenticate", &asks)], ""),
            _ if *count > uses => reply(401, &[("www-authenticate", &asks)], ""),
            (&Method::POST | &Method::PATCH, _) => reply(202, &[("location", "/v2/a/b/u")], ""),
            _ => reply(200, &[], "{}"),
        }
    })
    .await
}

#[tokio::test]
async fn a_token_that_ends_is_renewed() {
    let (address, log) = forgetful(1).await;
    let client = open(&address, credentials(), Access::Push).await.unwrap();
    client.manifest("latest").await.unwrap();
    client.manifest("latest").await.unwrap();
    let upload = client.begin_upload().await.unwrap();
    // Of a body that was on its way nothing can be sent again; the next try has a new token.
    let stream = || {
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        sender.try_send(Ok(Bytes::from("x"))).unwrap();
        receiver
    };
    let error = client.send_upload(upload.clone(), stream()).await.unwrap_err();
    assert!(matches!(error, Error::Expired(_)) && error.is_transient(), "{error}");
    client.send_upload(upload, stream()).await.unwrap();
    let tokens = paths(&log).iter().filter(|path| path.starts_with("GET /token")).count();
    assert_eq!(tokens, 4);
}

#[tokio::test]
async fn a_scope_that_the_registry_names_is_asked_for_too() {
    let (address, log) = serve(|seen, own| match seen.path.split('?').next().unwrap() {
        "/token" => {
            let token = if seen.path.contains("delete") { "wide" } else { "narrow" };
            reply(200, &[], format!(r#"{{"access_token":"{token}"}}"#))
        }
        "/v2/" => {
            let asks = format!("Bearer realm=\"http://{own}/token\",service=\"s\"");
            reply(401, &[("www-authenticate", &asks)], "")
        }
        _ if seen.authorization == "Bearer wide" => reply(200, &[], "{}"),
        _ => {
            let scope = "repository:a/b:pull repository:a/b:delete";
            let asks = format!(
                "Bearer realm=\"http://{own}/token\",scope=\"{scope}\",error=\"insufficient_scope\""
            );
            reply(403, &[("www-authenticate", &asks)], "")
        }
    })
    .await;
    let client = open(&address, Credentials::default(), Access::Pull).await.unwrap();
    client.manifest("latest").await.unwrap();
    let asked = paths(&log).into_iter().rfind(|path| path.starts_with("GET /token")).unwrap();
    let want = "scope=repository%3Aa%2Fb%3Apull&scope=repository%3Aa%2Fb%3Adelete";
    assert!(asked.ends_with(want), "{asked}");
}

#[tokio::test]
async fn a_password_is_not_sent_in_the_clear_for_a_registry_behind_tls() {
    use crate::auth::{Realms, Session, parse_challenges};
    let (address, log) = serve(|_, _| reply(200, &[], r#"{"token":"t"}"#)).await;
    let ask = async |credentials: Credentials, realms| {
        let mut session = Session::new(realms);
        session.learn(parse_challenges(&format!("Bearer realm=\"http://{address}/token\"")));
        let transport = Transport::default();
        let answer = session.authorization(&transport, &credentials, "", &*trusting()).await;
        answer.map(drop).map_err(|error| error.to_string())
    };
    let refused = format!("refused to send credentials to {address:?} without TLS");
    assert_eq!(ask(credentials(), Realms::Guarded).await, Err(refused));
    assert!(log.lock().unwrap().is_empty());
    assert_eq!(ask(Credentials::default(), Realms::Guarded).await, Ok(()));
    assert_eq!(ask(credentials(), Realms::Any).await, Ok(()));
}

/// Sends `pieces`, one every ten seconds, to whoever comes.
async fn trickle(head: &'static str, pieces: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let got = stream.read(&mut request).await.unwrap_or(0);
            if request[..got].starts_with(b"GET /v2/ ") {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
                continue;
            }
            let _ = stream.write_all(head.as_bytes()).await;
            for _ in 0..pieces {
                tokio::time::sleep(std::time::Duration::from_secs(10)).await;
                if stream.write_all(b"x").await.is_err() {
                    break;
                }
            }
        }
    });
    address
}

#[tokio::test(start_paused = true)]
async fn a_body_that_trickles_ends_after_a_minute() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n";
    let address = trickle(head, 1000).await;
    let client = open(&address, Credentials::default(), Access::Pull).await.unwrap();
    let began = tokio::time::Instant::now();
    let mut stream = client.blob(&Digest::of(b""), 0).await.unwrap();
    let error = loop {
        match stream.chunk().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it has ended"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.to_string(), "i/o timeout");
    assert!(began.elapsed() < std::time::Duration::from_secs(130), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_an_end_of_its_head_is_not_waited_for() {
    let address = trickle("HTTP/1.1 200 OK\r\nX: ", 1_000_000).await;
    let client = open(&address, Credentials::default(), Access::Pull).await.unwrap();
    let Err(error) = client.blob(&Digest::of(b""), 0).await else { panic!("answered") };
    let want = "net/http: timeout awaiting response headers";
    assert!(words(&error).ends_with(want), "{}", words(&error));
}

#[tokio::test]
async fn a_login_is_checked_by_the_registry() {
    let (address, _) = serve(|seen, _| match seen.authorization.as_str() {
        "Basic bWU6c2VjcmV0" => reply(200, &[], "{}"),
        _ => reply(401, &[("www-authenticate", "Basic realm=\"r\"")], ""),
    })
    .await;
    let good = login(Transport::default(), endpoint(&address), credentials(), trusting()).await;
    assert_eq!(good.unwrap(), None);
    let wrong = Credentials { password: "wrong".to_owned(), ..credentials() };
    let error =
        login(Transport::default(), endpoint(&address), wrong, trusting()).await.unwrap_err();
    assert_eq!(words(&error), "unauthorized: authentication required");
    let nobody = open(&address, Credentials::default(), Access::Pull).await.unwrap();
    let error = nobody.find_manifest("latest").await.unwrap_err();
    assert_eq!(
        words(&error),
        format!("Head \"http://{address}/v2/a/b/manifests/latest\": no basic auth credentials")
    );
}

#[tokio::test]
async fn credentials_do_not_follow_a_redirect_to_another_host() {
    let (other, seen_there) = serve(|_, _| reply(200, &[], "blob")).await;
    let location = format!("http://{other}/elsewhere");
    let (address, _) = serve(move |seen, _| match seen.authorization.is_empty() {
        true => reply(401, &[("www-authenticate", "Basic realm=\"r\"")], ""),
        false => reply(307, &[("location", &location)], ""),
    })
    .await;
    let client = open(&address, credentials(), Access::Pull).await.unwrap();
    let blob = client.small_blob(&Digest::of(b"blob"), 100).await.unwrap();
    assert_eq!(&blob[..], b"blob");
    assert_eq!(seen_there.lock().unwrap()[0].authorization, "");
}

#[tokio::test]
async fn a_blob_goes_on_where_it_broke_off() {
    for honours_ranges in [true, false] {
        let (address, log) = serve(move |seen, _| match seen.range.as_str() {
            "bytes=3-" if honours_ranges => reply(206, &[("content-range", "bytes 3-5/6")], "def"),
            _ => reply(200, &[], "abcdef"),
        })
        .await;
        let client = open(&address, Credentials::default(), Access::Pull).await.unwrap();
        let mut stream = client.blob(&Digest::of(b"abcdef"), 3).await.unwrap();
        let mut got = Vec::new();
        while let Some(chunk) = stream.chunk().await.unwrap() {
            got.extend_from_slice(&chunk);
        }
        assert_eq!(got, b"def");
        assert_eq!(log.lock().unwrap().last().unwrap().range, "bytes=3-");
    }
}

#[tokio::test]
async fn lies_about_manifests_are_found() {
    let right = Digest::of(b"{}").to_string();
    let stated = right.clone();
    let (address, _) = serve(move |seen, _| match seen.path.rsplit('/').next().unwrap() {
        "large" => reply(200, &[], vec![b' '; 5 << 20]),
        "mislabelled" => reply(200, &[("docker-content-digest", &stated)], "{} "),
        "around" => reply(302, &[("location", "around")], ""),
        "denied" => reply(403, &[], r#"{"errors":[{"code":"DENIED","message":"no"}]}"#),
        _ => reply(200, &[], "other"),
    })
    .await;
    let client = open(&address, Credentials::default(), Access::Pull).await.unwrap();
    let refused = async |reference: &str| words(&client.manifest(reference).await.unwrap_err());
    assert_eq!(refused("large").await, "manifest large is larger than 4194304 bytes");
    let unfit = format!("manifest verification failed for digest {right}");
    assert_eq!(refused("mislabelled").await, unfit);
    assert_eq!(refused(&right).await, unfit);
    let around =
        format!("Get \"http://{address}/v2/a/b/manifests/around\": stopped after 10 redirects");
    assert_eq!(refused("around").await, around);
    assert_eq!(refused("denied").await, "denied: no");
}

#[tokio::test]
async fn an_upload_follows_its_locations() {
    let (address, log) = serve(|seen, _| match (&seen.method, seen.path.as_str()) {
        (&Method::POST, path) if path.contains("from=c") => reply(201, &[], ""),
        (&Method::POST, _) => reply(202, &[("location", "/v2/a/b/blobs/uploads/1?state=x")], ""),
        (&Method::PATCH, _) => reply(202, &[("location", "/v2/a/b/blobs/uploads/1?state=y")], ""),
        _ => reply(201, &[], ""),
    })
    .await;
    let client = open(&address, Credentials::default(), Access::Push).await.unwrap();
    let digest = Digest::of(b"abc");
    assert_eq!(client.mount(&digest, "c").await.unwrap(), Mount::Mounted);
    assert!(matches!(client.mount(&digest, "d").await.unwrap(), Mount::Wanted(_)));
    let upload = client.begin_upload().await.unwrap();
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    for piece in ["a", "bc"] {
        sender.send(Ok(Bytes::from(piece))).await.unwrap();
    }
    drop(sender);
    let upload = client.send_upload(upload, receiver).await.unwrap();
    client.finish_upload(upload, &digest, Bytes::new()).await.unwrap();
    let all = log.lock().unwrap().clone();
    let patch = all.iter().find(|seen| seen.method == Method::PATCH).unwrap();
    assert_eq!(&patch.body[..], b"abc");
    let put = all.last().unwrap();
    let want = format!("/v2/a/b/blobs/uploads/1?state=y&digest=sha256%3A{}", digest.hex());
    assert_eq!((put.method.clone(), put.path.clone()), (Method::PUT, want));
}

/// Whatever a `Location` or a `Link` lacks is the request's own.
#[tokio::test]
async fn references_of_every_form_are_followed() {
    for (first, second, want) in [
        ("./1?state=x", "?state=y", "/v2/a/b/blobs/uploads/1?state=y"),
        ("../uploads/1", "2", "/v2/a/b/blobs/uploads/2"),
        ("../../../../u/1", "../v/./2#part", "/v2/v/2"),
        ("/u?x", "", ""),
    ] {
        let (address, log) = serve(move |seen, own| match seen.method {
            Method::POST => reply(202, &[("location", first)], ""),
            Method::PATCH if second.starts_with("//") => {
                reply(202, &[("location", &format!("//{own}{}", &second[1..]))], "")
            }
            Method::PATCH => reply(202, &[("location", second)], ""),
            _ => reply(200, &[], "{}"),
        })
        .await;
        let client = open(&address, Credentials::default(), Access::Push).await.unwrap();
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        sender.send(Ok(Bytes::from("x"))).await.unwrap();
        drop(sender);
        let upload = client.begin_upload().await.unwrap();
        let sent = client.send_upload(upload, receiver).await;
        if second.is_empty() {
            assert_eq!(words(&sent.unwrap_err()), "the registry sent no usable Location header");
            continue;
        }
        let digest = Digest::of(b"x");
        client.finish_upload(sent.unwrap(), &digest, Bytes::new()).await.unwrap();
        let last = log.lock().unwrap().last().unwrap().path.clone();
        let mark = if want.contains('?') { '&' } else { '?' };
        assert_eq!(last, format!("{want}{mark}digest=sha256%3A{}", digest.hex()));
    }
    let (address, _) = serve(|seen, own| match seen.path.as_str() {
        "/v2/a/b/tags/list" => {
            let links = format!("</>; rel=\"prev\", <//{own}/v2/a/b/tags/list?last=x>; rel=next");
            reply(200, &[("link", &links)], r#"{"tags":["x"]}"#)
        }
        "/v2/a/b/tags/list?last=x" => {
            reply(200, &[("link", "<?last=y>; rel=\"next\"")], r#"{"tags":["y"]}"#)
        }
        "/v2/a/b/tags/list?last=y" => reply(302, &[("location", "./other")], ""),
        "/v2/a/b/tags/other" => reply(200, &[], r#"{"tags":["z"]}"#),
        _ => reply(200, &[], "{}"),
    })
    .await;
    let client = open(&address, Credentials::default(), Access::Pull).await.unwrap();
    assert_eq!(client.tags().await.unwrap(), ["x", "y", "z"]);
}

/// What token servers answer, and the words for it. Source: moby `integration-cli`,
/// `TestPushMisconfiguredTokenService…`.
#[tokio::test]
async fn what_a_token_server_says_is_told() {
    for (status, body, want) in [
        (
            401,
            r#"{"errors":[{"Code":"UNAUTHORIZED","message":"a message","detail":null}]}"#,
            "unauthorized: a message",
        ),
        (
            429,
            r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"out of tokens"}]}"#,
            "toomanyrequests: out of tokens",
        ),
        (
            403,
            "no way",
            "error parsing HTTP 403 response body: invalid character 'o' in literal null (expecting 'u'): \"no way\"",
        ),
        (
            500,
            r#"{"errors":[{"code":"UNAUTHORIZED"}]}"#,
            "received unexpected HTTP status: 500 Internal Server Error",
        ),
        (200, "{}", "authorization server did not include a token in the response"),
        (200, r#"{"token":""}"#, "authorization server did not include a token in the response"),
        (200, "", "unable to decode token response: EOF"),
        (
            200,
            "<html>",
            "unable to decode token response: invalid character '<' looking for beginning of value",
        ),
        (
            200,
            "[]",
            "unable to decode token response: json: cannot unmarshal array into Go value of type auth.getTokenResponse",
        ),
        (
            200,
            r#"{"token":"t","expires_in":"1"}"#,
            "unable to decode token response: json: cannot unmarshal string into Go struct field getTokenResponse.expires_in of type int",
        ),
    ] {
        let (address, _) = serve(move |seen, own| match seen.path.starts_with("/v2/") {
            true => {
                let asks = format!("Bearer realm=\"http://{own}\",service=\"s\"");
                reply(401, &[("www-authenticate", &asks)], "")
            }
            false => reply(status, &[], body),
        })
        .await;
        let client = open(&address, credentials(), Access::Pull).await.unwrap();
        let error = client.manifest("latest").await.unwrap_err();
        let want = format!("Get \"http://{address}/v2/a/b/manifests/latest\": {want}");
        assert_eq!(words(&error), want);
    }
    let (address, _) = serve(|seen, own| match seen.path.starts_with("/v2/") {
        true => {
            let asks = format!("Bearer realm=\"http://{own}\",service=\"s\"");
            reply(401, &[("www-authenticate", &asks)], "")
        }
        false => reply(200, &[], vec![b' '; (1 << 20) + 1]),
    })
    .await;
    let client = open(&address, credentials(), Access::Pull).await.unwrap();
    let error = words(&client.manifest("latest").await.unwrap_err());
    assert!(error.ends_with("token response is larger than 1048576 bytes"), "{error}");
}

/// The realm is asked as it is written, with what we ask for behind its own query.
#[tokio::test]
async fn token_realms_of_every_form_are_asked() {
    for (realm, want) in [
        ("http://OWN", "GET /?service=s&scope=repository%3Aa%2Fb%3Apull&account=me"),
        ("HTTP://OWN/", "GET /?service=s&scope=repository%3Aa%2Fb%3Apull&account=me"),
        ("http://OWN?x=y", "GET /?x=y&service=s&scope=repository%3Aa%2Fb%3Apull&account=me"),
        ("http://OWN/t/k?", "GET /t/k?service=s&scope=repository%3Aa%2Fb%3Apull&account=me"),
        ("http://OWN/t#f", "GET /t?service=s&scope=repository%3Aa%2Fb%3Apull&account=me"),
        ("/token", "Get \"/token\": unsupported protocol scheme \"\""),
        ("", "Get \"\": unsupported protocol scheme \"\""),
        ("ftp://OWN/", "Get \"ftp://OWN/\": unsupported protocol scheme \"ftp\""),
        ("http://", "Get \"http://\": http: no Host in request URL"),
    ] {
        let (address, log) = serve(move |seen, own| {
            let asks = format!("Bearer realm=\"{}\",service=\"s\"", realm.replace("OWN", own));
            match (seen.path.starts_with("/v2/"), seen.authorization.as_str()) {
                (true, "Bearer t") => reply(200, &[], "{}"),
                (true, _) => reply(401, &[("www-authenticate", &asks)], ""),
                (false, _) => reply(200, &[], r#"{"ACCESS_TOKEN":"t"}"#),
            }
        })
        .await;
        let client = open(&address, credentials(), Access::Pull).await.unwrap();
        let got = match client.manifest("latest").await {
            Ok(_) => paths(&log)[1].clone(),
            Err(error) => {
                let all = words(&error);
                let (_, cause) = all.split_once("latest\": ").unwrap();
                cause.replace(&address, "OWN")
            }
        };
        assert_eq!(got, want, "{realm}");
    }
}

/// Refusals of manifests, blobs and uploads, with bodies of every kind.
#[tokio::test]
async fn what_a_registry_refuses_with_is_told() {
    let empty = "unexpected end of JSON input: \"\"";
    let html = "<html>\n";
    let html_words = "invalid character '<' looking for beginning of value: \"<html>\\n\"";
    for (status, body, want) in [
        (403, "", format!("error parsing HTTP 403 response body: {empty}")),
        (404, "", format!("error parsing HTTP 404 response body: {empty}")),
        (404, html, format!("error parsing HTTP 404 response body: {html_words}")),
        (401, html, "unauthorized: authentication required".to_owned()),
        (400, r#"{"ERRORS":[{"CODE":"NAME_INVALID","MESSAGE":"no"}]}"#, "name invalid: no".to_owned()),
        (405, r#"{"message":"no"}"#, "error parsing HTTP 405 response body: no error details found in HTTP response body: \"{\\\"message\\\":\\\"no\\\"}\"".to_owned()),
        (501, html, "received unexpected HTTP status: 501 Not Implemented".to_owned()),
    ] {
        let (address, _) = serve(move |seen, _| match seen.path.as_str() {
            "/v2/" => reply(200, &[], "{}"),
            _ => reply(status, &[], body),
        })
        .await;
        let client = open(&address, Credentials::default(), Access::Push).await.unwrap();
        let digest = Digest::of(b"");
        assert_eq!(words(&client.manifest("latest").await.unwrap_err()), want);
        assert_eq!(words(&client.small_blob(&digest, 1).await.unwrap_err()), want);
        assert_eq!(words(&client.begin_upload().await.unwrap_err()), want);
        let put = client.put_manifest("latest", "x/y", Bytes::from("{}")).await;
        assert_eq!(words(&put.unwrap_err()), want);
    }
}

#[tokio::test]
async fn tags_come_in_pages() {
    let (address, _) = serve(|seen, _| match seen.path.as_str() {
        "/v2/a/b/tags/list" => {
            reply(200, &[("link", "</v2/a/b/tags/list?last=x>; rel=\"next\"")], r#"{"tags":["x"]}"#)
        }
        "/v2/a/b/tags/list?last=x" => reply(200, &[], r#"{"tags":["y"]}"#),
        _ => reply(200, &[], "{}"),
    })
    .await;
    let client = open(&address, Credentials::default(), Access::Pull).await.unwrap();
    assert_eq!(client.tags().await.unwrap(), ["x", "y"]);
}

#[tokio::test]
async fn who_is_not_there_is_named_in_gos_words() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let Err(error) = open(&address, Credentials::default(), Access::Pull).await else {
        panic!("answered")
    };
    assert_eq!(
        words(&error),
        format!("Get \"http://{address}/v2/\": dial tcp {address}: connect: connection refused")
    );
}

#[tokio::test]
async fn plain_http_on_a_tls_port_is_told() {
    let (address, _) = serve(|_, _| reply(200, &[], "")).await;
    let tls = endpoints(&address).swap_remove(0);
    let opened = Client::open(
        Transport::default(),
        tls,
        "a",
        Credentials::default(),
        Access::Pull,
        trusting(),
    )
    .await;
    let Err(error) = opened else { panic!("answered") };
    assert_eq!(
        words(&error),
        format!("Get \"https://{address}/v2/\": http: server gave HTTP response to HTTPS client")
    );
}
