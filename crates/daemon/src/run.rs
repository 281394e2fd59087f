//! The daemon's life: claim, open, listen, serve, stop.
//!
//! ```text
//! pidfile ─ engine ─ sockets ─ READY=1 ─ serve ─ SIGTERM ─ [stop containers] ─ sockets, pidfile away
//! ```
//! SIGTERM stops containers only when `live-restore` was set to false. SIGKILL never touches them; the
//! next daemon adopts them, or with `live-restore` set to false stops them and goes by their restart
//! policies.
//! SIGHUP reads the file again and applies what can change while running.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use engine::Engine;
use engine::containers::views::Grace;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{LogFormat, Settings};
use crate::http::conn;
use crate::instance::{self, Instance, InstanceError};
use crate::listen::{self, ListenError, Listener};
use crate::reload;
use crate::state::State;
use crate::tls::{Tls, TlsError};

/// Between two tries to accept when the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Instance(#[from] InstanceError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("invalid TLS configuration")]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Engine(#[from] engine::Error),
    #[error("cannot make the directory {path:?}")]
    Directory { path: PathBuf, source: io::Error },
    #[error("cannot start the runtime")]
    Runtime { source: io::Error },
    #[error("cannot catch signals")]
    Signals { source: io::Error },
}

impl RunError {
    /// The whole story in one line. The engine's own errors hold it already.
    pub fn story(&self) -> String {
        match self {
            Self::Engine(error) => error.message.clone(),
            Self::Instance(_)
            | Self::Listen(_)
            | Self::Tls(_)
            | Self::Directory { .. }
            | Self::Runtime { .. }
            | Self::Signals { .. } => engine::error::chain(self),
        }
    }
}

/// Changes the level of a running daemon's log.
pub type LevelHandle =
    tracing_subscriber::reload::Handle<LevelFilter, tracing_subscriber::Registry>;

fn start_log(settings: &Settings) -> LevelHandle {
    let (filter, handle) = tracing_subscriber::reload::Layer::new(settings.level);
    let registry = tracing_subscriber::registry().with(filter);
    let text = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    // A second call, as in tests, keeps the first log.
    let _ = match settings.format {
        LogFormat::Text => registry.with(text.with_ansi(false).with_target(false)).try_init(),
        LogFormat::Json => registry.with(text.json()).try_init(),
    };
    handle
}

/// Runs until told to stop. `args` are kept for reading the file again.
///
/// # Errors
/// When the daemon cannot start.
pub fn run(settings: Settings, args: Vec<String>) -> Result<(), RunError> {
    let level = start_log(&settings);
    raise_descriptor_limit();
    sys::heap::give_back();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|source| RunError::Runtime { source })?;
    let outcome = runtime.block_on(life(settings, &args, &level));
    // Requests still running are their clients' loss, not ours to wait for.
    runtime.shutdown_timeout(Duration::from_millis(100));
    outcome
}

/// Each container's attached clients cost descriptors for a moment, so take what we may have.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "cannot raise the limit of open files");
    }
}

fn make_directory(path: &Path, mode: u32) -> Result<(), RunError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let mut builder = std::fs::DirBuilder::new();
    builder
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(|source| RunError::Directory { path: path.to_owned(), source })
}

async fn life(settings: Settings, args: &[String], level: &LevelHandle) -> Result<(), RunError> {
    make_directory(&settings.engine.data_root, 0o710)?;
    make_directory(&settings.engine.exec_root, 0o711)?;
    let instance = Instance::take(&settings.pidfile)?;
    let mut signals = Signals::catch().map_err(|source| RunError::Signals { source })?;

    let tls = settings.tls.as_ref().map(Tls::load).transpose()?;
    let mut listeners = Vec::new();
    for host in &settings.hosts {
        listeners.extend(listen::open(host, &settings.group, tls.as_ref())?);
    }
    let warnings: Vec<_> = listeners.iter().filter_map(Listener::warning).collect();
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    let state = Arc::new(State {
        experimental: settings.experimental,
        cdi_spec_dirs: settings.cdi_spec_dirs.clone(),
        live_restore: AtomicBool::new(settings.live_restore),
        warnings,
    });
    let opened = Engine::open(settings.engine.clone()).await;
    let engine = match opened {
        Ok(engine) => engine,
        Err(error) => {
            listeners.into_iter().for_each(Listener::close);
            instance.give_back();
            return Err(error.into());
        }
    };
    if !settings.live_restore {
        engine.end_earlier_runs().await;
    }
    let accepting: Vec<_> = listeners
        .into_iter()
        .map(|listener| {
            tokio::spawn(accept(listener, engine.clone(), Arc::clone(&state), signals.stopping()))
        })
        .collect();
    tracing::info!(hosts = settings.hosts.join(" "), "API listen on the sockets");
    instance::notify("READY=1");

    let mut shutdown_timeout_s = settings.shutdown_timeout_s;
    loop {
        match signals.next().await {
            Asked::Stop => break,
            Asked::Reload => {
                if let Some(seconds) = reload::reload(args, &engine, &state, level) {
                    shutdown_timeout_s = seconds;
                }
            }
        }
    }
    tracing::info!("stopping");
    instance::notify("STOPPING=1");
    signals.stop();
    for listener in accepting {
        if let Err(error) = listener.await {
            tracing::warn!(%error, "a listener broke");
        }
    }
    if !state.live_restore.load(Ordering::Relaxed) {
        tokio::select! {
            () = stop_containers(&engine, shutdown_timeout_s) => {}
            // Asked once more: leave them.
            _ = signals.next() => {}
        }
    }
    engine.close().await;
    instance.give_back();
    Ok(())
}

async fn accept(
    listener: Listener,
    engine: Engine,
    state: Arc<State>,
    mut stopping: tokio::sync::watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopping.wait_for(|stopping| *stopping) => break,
        };
        match accepted {
            Ok(accepted) => {
                let (engine, state) = (engine.clone(), Arc::clone(&state));
                drop(tokio::spawn(async move {
                    match accepted.into_socket().await {
                        Ok(socket) => conn::serve(socket, engine, state).await,
                        Err(error) => tracing::debug!(%error, "TLS handshake failed"),
                    }
                }));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    listener.close();
}

enum Asked {
    Stop,
    Reload,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    stopping: tokio::sync::watch::Sender<bool>,
}

impl Signals {
    fn catch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            stopping: tokio::sync::watch::channel(false).0,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.hangup.recv() => Asked::Reload,
        }
    }

    fn stopping(&self) -> tokio::sync::watch::Receiver<bool> {
        self.stopping.subscribe()
    }

    fn stop(&self) {
        self.stopping.send_replace(true);
    }
}

/// Stops all containers at once, each with its own grace, and waits no longer than `timeout_s`
/// (for ever when negative).
async fn stop_containers(engine: &Engine, timeout_s: i64) {
    let all = engine.stop_all(Grace::Default);
    match u64::try_from(timeout_s) {
        Ok(seconds) => {
            if tokio::time::timeout(Duration::from_secs(seconds), all).await.is_err() {
                tracing::warn!("containers left running: the shutdown timeout is over");
            }
        }
        Err(_) => all.await,
    }
}
