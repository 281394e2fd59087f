//! `registry serve`: the daemon's registry for others than those who may use its socket.
//!
//! ```text
//! client ─ TCP [TLS] ─ gate: path, method, user ─ one connection to the socket for each request ─ daemon
//! ```
//! Only the registry's paths go through, whatever else the daemon serves on its socket: every
//! request is looked at by itself, also on a connection that is kept, and a new one is written for
//! the daemon, with the headers that the protocol knows and no others. Nothing can turn the
//! connection into another protocol.
//!
//! Bounds: [`CLIENTS_MAX`] connections, [`HEAD_TIMEOUT`] for a request's head. Bodies pass as they
//! come; how long they may take is the daemon's to say.

mod forward;
mod gate;
mod holder;
mod users;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use api::client::Client;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use crate::args::{Arity, Command, Kind::*, Matches, Order, Outcome, flag};
use crate::context::Session;
use crate::create::files::reason;
use crate::failure::Failure;
use crate::terminal;
use gate::{Gate, Writing};
use users::Users;

const PORT: u16 = 5000;
const CLIENTS_MAX: usize = 512;
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two tries to accept when the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

pub static SERVE: Command = Command {
    name: "serve",
    aliases: &[],
    spellings: &[],
    usage: "[OPTIONS]",
    about: "Serve the engine's images as a registry until Ctrl-C",
    flags: &[&[
        flag("addr", Text, "Address to listen on, IP:PORT").or("127.0.0.1:5000"),
        flag("htpasswd", Text, "Let in the users of this file only (made by \"htpasswd -B\")"),
        flag("read-only", Bool, "Refuse pushes and deletions"),
        flag("tls-cert", Text, "Path of the TLS certificate, PEM"),
        flag("tls-key", Text, "Path of the TLS key, PEM"),
    ]],
    arity: Arity::None,
    order: Order::Mixed,
    run: |session, matches| Box::pin(serve(session, matches)),
};

async fn serve(session: &Session, matches: &Matches) -> Outcome {
    let address = parse_address(matches.text("addr"))?;
    let tls = match (matches.text("tls-cert"), matches.text("tls-key")) {
        ("", "") => None,
        ("", _) => return Err(Failure::new("--tls-key needs --tls-cert as well")),
        (_, "") => return Err(Failure::new("--tls-cert needs --tls-key as well")),
        (certificate, key) => Some(acceptor(Path::new(certificate), Path::new(key))?),
    };
    let users = match matches.text("htpasswd") {
        "" => None,
        path => Some(Users::load(Path::new(path))?),
    };
    let client = session.client().await?.clone();
    check_registry(&client).await?;
    let listener = TcpListener::bind(address).await.map_err(|error| taken(address, &error))?;
    let address = listener.local_addr().unwrap_or(address);
    warn(address, tls.is_some(), users.is_some());
    let writing = if matches.on("read-only") { Writing::Refused } else { Writing::Allowed };
    tell(address, tls.is_some(), writing, &client);
    let front = Rc::new(Front { gate: Gate { users, writing }, client });
    let failed = |error: io::Error| Failure::new(format!("cannot catch signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    tokio::select! {
        () = accept(&listener, tls, front) => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(0)
}

/// What all connections share.
struct Front {
    gate: Gate,
    client: Client,
}

/// `IP:PORT`; without a port the default one, without an IP address loopback.
fn parse_address(text: &str) -> Result<SocketAddr, Failure> {
    let wrong = || {
        Failure::new(format!(
            "invalid value {text:?} for --addr: give IP:PORT, such as 127.0.0.1:5000"
        ))
    };
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    if let Ok(ip) = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, PORT));
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    if !matches!(host, "" | "localhost") {
        return Err(wrong());
    }
    let port = port.parse().map_err(|_| wrong())?;
    Ok(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port))
}

fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, Failure> {
    let unreadable = |path: &Path, error: &rustls::pki_types::pem::Error| {
        Failure::new(format!("cannot read {}: {error}", path.display()))
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable(certificate, &error))?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, &error))?;
    let unusable = |error: rustls::Error| {
        Failure::new(format!(
            "cannot use the certificate {} with the key {}: {error}",
            certificate.display(),
            key.display()
        ))
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(unusable)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Whether what is behind the socket is a registry at all: Docker's daemon is none.
async fn check_registry(client: &Client) -> Result<(), Failure> {
    match client.get("/v2/").unversioned().send().await {
        Ok(answer) if answer.header("docker-distribution-api-version").is_some() => Ok(()),
        Ok(_) => Err(no_registry(client)),
        Err(error) if error.status().is_some() => Err(no_registry(client)),
        Err(error) => Err(error.into()),
    }
}

fn no_registry(client: &Client) -> Failure {
    Failure::new(format!(
        "the daemon at {} has no registry: only Tug's has, see 'tug daemon --help'",
        client.host()
    ))
}

fn taken(address: SocketAddr, error: &io::Error) -> Failure {
    let mut text = format!("cannot listen on {address}: {}", reason(error));
    if error.kind() == io::ErrorKind::AddrInUse {
        match holder::find(address) {
            Some(holder) => text.push_str(&format!(": held by {holder}")),
            None => text.push_str(": held by a process that cannot be seen from here"),
        }
        text.push_str("; choose another address with --addr");
    }
    Failure::new(text)
}

fn warn(address: SocketAddr, has_tls: bool, has_users: bool) {
    if address.ip().is_loopback() {
        return;
    }
    if !has_users {
        terminal::error_text(&format!(
            "WARNING: whoever reaches {address} can read and change all images: use --htpasswd, or --read-only\n"
        ));
    }
    if !has_tls {
        terminal::error_text(&format!(
            "WARNING: everything goes over the network in the clear{}: use --tls-cert and --tls-key\n",
            if has_users { ", passwords too" } else { "" }
        ));
    }
}

/// Where it listens, and what to type.
fn tell(address: SocketAddr, has_tls: bool, writing: Writing, client: &Client) {
    let scheme = if has_tls { "https" } else { "http" };
    let place = match address.ip() {
        ip if ip.is_unspecified() => format!("HOST:{}", address.port()),
        _ => address.to_string(),
    };
    let mut text = format!(
        "Serving the images of {} at {scheme}://{address}\n  pull:  docker pull {place}/NAME[:TAG]\n",
        client.host()
    );
    if writing == Writing::Allowed {
        text.push_str(&format!(
            "  push:  docker tag NAME[:TAG] {place}/NAME[:TAG] && docker push {place}/NAME[:TAG]\n"
        ));
    }
    text.push_str("Press Ctrl-C to end it.\n");
    terminal::out(&text);
}

async fn accept(listener: &TcpListener, tls: Option<TlsAcceptor>, front: Rc<Front>) {
    let room = Arc::new(Semaphore::new(CLIENTS_MAX));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(_) => {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (tls, front) = (tls.clone(), Rc::clone(&front));
        tokio::task::spawn_local(async move {
            let _place = place;
            greet(stream, tls, front).await;
        });
    }
}

async fn greet(stream: TcpStream, tls: Option<TlsAcceptor>, front: Rc<Front>) {
    // Small answers must not wait for each other.
    let _ = stream.set_nodelay(true);
    match tls {
        None => attend(stream, front).await,
        Some(tls) => {
            // Who cannot agree on TLS has nothing to be told.
            if let Ok(Ok(stream)) = tokio::time::timeout(HEAD_TIMEOUT, tls.accept(stream)).await {
                attend(stream, front).await;
            }
        }
    }
}

/// One client's requests, one after the other.
async fn attend(stream: impl AsyncRead + AsyncWrite + Unpin + 'static, front: Rc<Front>) {
    let service = service_fn(move |request| {
        let front = Rc::clone(&front);
        async move { Ok::<_, std::convert::Infallible>(forward::answer(request, &front).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    // The client's connection broke; it knows.
    drop(served);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: &str) {
        let got = parse_address(text).map(|address| address.to_string());
        assert_eq!(got.unwrap_or_else(|failure| failure.to_string()), want);
    }

    #[test]
    fn addresses_are_loopback_unless_told_otherwise() {
        check("127.0.0.1:5000", "127.0.0.1:5000");
        check(":5001", "127.0.0.1:5001");
        check("localhost:1", "127.0.0.1:1");
        check("0.0.0.0:80", "0.0.0.0:80");
        check("10.0.0.1", "10.0.0.1:5000");
        check("[::1]:5000", "[::1]:5000");
        check("[::1]", "[::1]:5000");
    }

    #[test]
    fn names_are_no_addresses() {
        let wrong = |text: &str| {
            format!("invalid value {text:?} for --addr: give IP:PORT, such as 127.0.0.1:5000")
        };
        for text in ["", "there:5000", "127.0.0.1:x", "127.0.0.1:99999", "http://127.0.0.1:1"] {
            check(text, &wrong(text));
        }
    }
}
