//! From launcher to supervisor: starting the container, then giving up every right.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use jiff::Timestamp;
use spec::runtime::Spec;
use sys::epoll::Interest;

use super::attached::Attached;
use super::container::{self, Failure, Started};
use super::process::{self, OurEnds, Process};
use super::watch::{Kind, token};
use super::{MAIN, Monitor, Phase};
use crate::complaints::complain;
use crate::confine::{self, Places};
use crate::logs::LogWriter;
use crate::resolver::{Resolver, Sockets};
use crate::wire::{AttachOptions, Event, Launch, Place, Streams, Target};

/// Fills in by what path this process, or another runtime that it starts, reaches what it was given.
fn name_descriptors(
    document: &mut Spec,
    places: &[Place],
    named: &[OwnedFd],
) -> Result<(), Failure> {
    let nowhere = || Failure {
        exit_code: 128,
        message: "the document has no place for a descriptor".to_owned(),
    };
    if named.len() != places.len() {
        return Err(nowhere());
    }
    for (place, descriptor) in places.iter().zip(named) {
        let path = format!("/proc/{}/fd/{}", std::process::id(), descriptor.as_raw_fd());
        let namespaces = document.linux.iter_mut().flat_map(|linux| &mut linux.namespaces);
        let text = match place {
            Place::Mount(index) => document.mounts.get_mut(*index).map(|mount| &mut mount.source),
            Place::Namespace(kind) => {
                let mut found = namespaces.filter(|namespace| namespace.kind == *kind);
                found.next().map(|namespace| &mut namespace.path)
            }
        };
        *text.ok_or_else(nowhere)? = path;
    }
    Ok(())
}

impl Monitor<'_> {
    /// Makes and starts the container; afterwards this process has no rights any more.
    pub(super) fn launch(&mut self, launch: Launch, fds: Vec<OwnedFd>) -> (Event, Vec<OwnedFd>) {
        if self.phase != Phase::Waiting {
            let message = "the container was started already".to_owned();
            return (Event::Failed { message }, Vec::new());
        }
        match self.try_launch(launch, fds) {
            Ok((event, pidfd)) => (event, vec![pidfd]),
            Err(Failure { exit_code, message }) => {
                (Event::StartFailed { exit_code, message }, Vec::new())
            }
        }
    }

    fn try_launch(
        &mut self,
        mut launch: Launch,
        fds: Vec<OwnedFd>,
    ) -> Result<(Event, OwnedFd), Failure> {
        let other = |message: String| Failure { exit_code: 128, message };
        let mut fds = fds.into_iter();
        let missing = || other("a descriptor is missing".to_owned());
        let netns = if launch.netns { Some(fds.next().ok_or_else(missing)?) } else { None };
        let seccomp = if launch.seccomp { Some(fds.next().ok_or_else(missing)?) } else { None };
        let seccomp = seccomp.map(|file| container::read_program(&file)).transpose()?;
        let named: Vec<OwnedFd> = fds.by_ref().take(launch.places.len()).collect();
        name_descriptors(&mut launch.document, &launch.places, &named)?;
        for (options, socket) in launch.attach.iter().cloned().zip(fds) {
            self.add_client(MAIN, options, socket);
        }
        self.settle(&launch.bundle)?;
        self.open_services(&launch, netns.as_ref())?;
        let settings = &launch.settings;
        let (ours, theirs) = if settings.tty {
            (OurEnds::default(), None)
        } else {
            let (ours, theirs) = process::pipes(settings.open_stdin)
                .map_err(|error| other(format!("cannot make pipes: {error}")))?;
            (ours, Some(theirs))
        };
        let netns = netns.as_ref().map(AsFd::as_fd);
        let (container, started) =
            container::start(&launch, netns, seccomp.as_ref(), theirs.as_ref())?;
        drop((theirs, named));
        let pidfd = started.pidfd.try_clone().map_err(|error| other(error.to_string()))?;
        let kept = self.keep(&launch, started, ours, &container).and_then(|event| {
            drop(container);
            self.confine(&launch).map(|()| event)
        });
        match kept {
            Ok(event) => Ok((event, pidfd)),
            Err(failure) => {
                // Nothing runs under a supervisor that kept its rights.
                let _gone = sys::process::signal_process(&pidfd, super::SIGKILL);
                Err(failure)
            }
        }
    }

    /// Takes its place beside the container: the control socket, where complaints go, how it is called.
    fn settle(&mut self, bundle: &Path) -> Result<(), Failure> {
        let other = |message: String| Failure { exit_code: 128, message };
        self.bundle = bundle.to_owned();
        let path = bundle.join(crate::client::STDERR_NAME);
        let log = std::fs::File::options().create(true).append(true).open(&path);
        let log = log.map_err(|error| other(format!("cannot open {path:?}: {error}")))?;
        rustix::stdio::dup2_stderr(&log)
            .map_err(|error| other(format!("cannot use {path:?}: {error}")))?;
        let words = [std::ffi::OsStr::new("tug"), "monitor".as_ref(), bundle.as_os_str()];
        self.heirloom.show(&words);
        sys::process::set_subreaper()
            .map_err(|error| other(format!("cannot become a reaper: {error}")))?;
        let listener = super::listen(bundle)
            .map_err(|error| other(format!("cannot listen on the control socket: {error}")))?;
        self.poller
            .add(&listener, token(Kind::Listener, 0), Interest::Read)
            .map_err(|error| other(format!("cannot watch the control socket: {error}")))?;
        self.listener = Some(listener);
        Ok(())
    }

    fn open_services(&mut self, launch: &Launch, netns: Option<&OwnedFd>) -> Result<(), Failure> {
        let other = |message: String| Failure { exit_code: 128, message };
        let log = LogWriter::open(&launch.settings.log)
            // Source of the words: moby `container/container.go`, `StartLogger`'s callers.
            .map_err(|error| {
                other(format!("failed to initialize logging driver: {}", spec::chain(&error)))
            })?;
        self.log = Some(log);
        let resolver = launch.settings.resolver.as_ref().filter(|path| path.exists());
        if let (Some(path), Some(netns)) = (resolver, netns) {
            let resolver = Sockets::open(netns.as_fd())
                .and_then(|sockets| Resolver::open(path, sockets, &self.poller))
                .map_err(|error| other(spec::chain(&error)))?;
            self.resolver = Some(resolver);
        }
        self.settings = Some(launch.settings.clone());
        Ok(())
    }

    /// Begins to serve the process that was started.
    fn keep(
        &mut self,
        launch: &Launch,
        started: Started,
        ours: OurEnds,
        container: &container::ControlGroup,
    ) -> Result<Event, Failure> {
        let settings = &launch.settings;
        let started_at = Timestamp::now();
        self.oom = container.watch_oom();
        if let Some(oom) = &self.oom
            && let Err(error) = self.poller.add(oom, token(Kind::Oom, 0), Interest::Read)
        {
            complain!("cannot watch for want of memory: {error}");
        }
        let pid = started.pid;
        let mut main = self.process(MAIN, Target::Main, started, ours)?;
        main.stdin_once = settings.stdin_once;
        if !settings.open_stdin {
            // A terminal's input is nobody's then.
            self.clients.values_mut().for_each(Attached::end_stdin);
        }
        self.processes.insert(MAIN, main);
        self.phase = Phase::Running { pid, started_at };
        let clients: Vec<u32> = self.clients.keys().copied().collect();
        for client in clients {
            self.prelude(client);
        }
        self.watch_process(MAIN);
        Ok(Event::Started { pid: pid.as_raw_nonzero().get(), started_at })
    }

    /// Gives up every right, but for the container's own two directories and the names it may ask for.
    fn confine(&mut self, launch: &Launch) -> Result<(), Failure> {
        let settings = &launch.settings;
        let mut places = Places { writable: vec![&launch.bundle], readable: Vec::new() };
        let data = [settings.exit_record.parent(), settings.log.path.parent()];
        for directory in data.into_iter().flatten().filter(|path| path.is_absolute()) {
            let known = |place: &&Path| directory.starts_with(place);
            if !places.writable.iter().any(known) {
                places.writable.push(directory);
            }
        }
        places.readable.extend(settings.zones.as_deref().filter(|path| path.is_dir()));
        confine::confine(&places, &self.heirloom.calls)
            .map_err(|error| Failure { exit_code: 128, message: spec::chain(&error) })
    }

    fn process(
        &self,
        id: u32,
        target: Target,
        started: Started,
        ours: OurEnds,
    ) -> Result<Process, Failure> {
        let Started { pid, pidfd, terminal } = started;
        match terminal {
            None => Ok(Process::new(id, target, pid, Some(pidfd), ours)),
            Some(master) => {
                Process::with_terminal(id, target, pid, Some(pidfd), master).map_err(|error| {
                    Failure {
                        exit_code: 128,
                        message: format!("cannot keep the terminal: {error}"),
                    }
                })
            }
        }
    }

    /// Serves an exec that a launcher has started.
    pub(super) fn adopt(
        &mut self,
        (exec, pid): (spec::id::Id, i32),
        streams: Streams,
        attach: Option<AttachOptions>,
        fds: Vec<OwnedFd>,
    ) -> Result<(), String> {
        let Phase::Running { .. } = self.phase else {
            return Err("the container is not running".to_owned());
        };
        let pid = sys::process::Pid::from_raw(pid).ok_or("no process has this number")?;
        let mut fds = fds.into_iter();
        let missing = "a descriptor is missing";
        let (pidfd, status) = (fds.next().ok_or(missing)?, fds.next().ok_or(missing)?);
        let (mut ours, mut terminal) = (OurEnds::default(), None);
        match streams {
            Streams::Nothing => {}
            Streams::Terminal => terminal = Some(fds.next().ok_or(missing)?),
            Streams::Pipes { stdin } => {
                if stdin {
                    ours.stdin = Some(fds.next().ok_or(missing)?);
                }
                (ours.stdout, ours.stderr) = (fds.next(), fds.next());
            }
        }
        let id = self.take_id();
        let started = Started { pid, pidfd, terminal };
        let mut process = self
            .process(id, Target::Exec(exec), started, ours)
            .map_err(|failure| failure.message)?;
        // Docker's execs always end with their client's input: moby `daemon/exec.go`.
        process.stdin_once = true;
        process
            .watch_status(status, &self.poller)
            .map_err(|error| format!("cannot watch for the end: {error}"))?;
        self.processes.insert(id, process);
        if let (Some(options), Some(socket)) = (attach, fds.next()) {
            let client = self.add_client(id, options, socket);
            self.prelude(client);
        }
        self.watch_process(id);
        Ok(())
    }

    /// Starts the resolver on sockets that the daemon has made.
    pub(super) fn resolve(&mut self, fds: Vec<OwnedFd>) -> Result<(), String> {
        if self.resolver.is_some() {
            return Ok(());
        }
        let settings = self.settings.as_ref().and_then(|settings| settings.resolver.clone());
        let Some(settings) = settings else {
            return Err("the container has no network of its own".to_owned());
        };
        let sockets = Sockets::received(fds).map_err(|error| error.to_string())?;
        let resolver = Resolver::open(&settings, sockets, &self.poller)
            .map_err(|error| spec::chain(&error))?;
        self.resolver = Some(resolver);
        Ok(())
    }
}
