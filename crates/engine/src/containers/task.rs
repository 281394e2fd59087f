//! The task of one container: the only place where its phase changes.
//!
//! Callers put messages into its mailbox and may go away; the task steps, persists, publishes the
//! new view and performs the effects, in this order. What takes long (spawning, removing) runs
//! beside it and comes back as a message, so that a stop is heard at any time.
//!
//! Elsewhere: the decisions, in [`super::step`]; what touches the host, in [`super::start`],
//! [`super::cleanup`], [`super::cgroups`] and [`super::records`].

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use runs::{AttachOptions, DetachCause, ExitRecord, Notice, State, Target};
use store::records::Durability;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tracing::{debug, warn};

use super::health::{self, Check};
use super::links;
use super::record::{Life, Record};
use super::registry::ContainerHandle;
use super::start::{self, Started};
use super::step::{
    Effect, End, Exit, Input, Phase, Refusal, Run, StartFailure, Tell, Verdict, step,
};
use super::views::{HealthResult, HealthStatus, HealthView, Outcome};
use super::{cgroups, cleanup, events, records};
use crate::Inner;
use crate::blocking::blocking;
use crate::error::{Error, Result, chain};
use crate::events::EventType;
use crate::networks::{Attachment, NetworkRecord};

mod answers;
mod survival;

/// How long a monitor that did not answer to a KILL may take to tell of an end that was brought
/// about past it.
const END_MAX: Duration = Duration::from_secs(3);

/// What everybody may know of a container at one instant.
#[derive(Clone)]
pub(crate) struct View {
    pub record: Arc<Record>,
    pub phase: Phase,
    pub attachment: Option<Attachment>,
    /// The run, for as long as there is one.
    pub supervised: Option<Arc<runs::Run>>,
    /// How many runs have ended since this daemon started.
    pub exits: u64,
    /// The latest end that this daemon knows of.
    pub last: Option<Exit>,
    pub failure: Option<StartFailure>,
    pub health: Option<HealthView>,
}

/// When the sender of an input is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// The input was taken and its effects were performed.
    Taken,
    Started,
    Stopped,
    Gone,
}

/// Why an input led to nothing.
#[derive(Debug)]
pub(crate) enum Denied {
    Refused(Refusal),
    StartFailed(StartFailure),
    Failed(Error),
    /// Neither signals nor a direct kill ended the process.
    Stuck,
    Gone,
}

pub(crate) type Reply = oneshot::Sender<std::result::Result<Outcome, Denied>>;

pub(crate) enum Message {
    Input {
        input: Input,
        until: Until,
        reply: Reply,
    },
    /// From the task's own helpers.
    Timer {
        generation: u64,
        input: Input,
    },
    Spawned(Box<std::result::Result<Started, StartFailure>>),
    /// From a monitor that was silent when this daemon started.
    Known(State),
    Removed(Result<()>),
    Attach {
        client: PendingAttach,
        reply: oneshot::Sender<Result<()>>,
    },
    /// From the container's prober.
    Probed {
        result: HealthResult,
        check: Check,
        began: SystemTime,
        /// Health is what the result made of it.
        noted: oneshot::Sender<()>,
    },
    /// Changes the wish (rename, update, networks).
    Change {
        change: Change,
        reply: oneshot::Sender<Result<()>>,
    },
}

/// A change of the record and the attachment, made on the task's own copy. When it fails, nothing
/// changes.
pub(crate) type Change = Box<dyn FnOnce(&mut Record, &mut Option<Attachment>) -> Result<()> + Send>;

/// A client that attached before there was a process.
#[derive(Debug)]
pub(crate) struct PendingAttach {
    pub socket: OwnedFd,
    pub options: AttachOptions,
    /// The run that it wants to see, counted as [`View::exits`]; `None` is the next one.
    pub run: Option<u64>,
}

struct Waiting {
    until: Until,
    reply: Reply,
}

pub(crate) struct Task {
    engine: Arc<Inner>,
    record: Arc<Record>,
    phase: Phase,
    attachment: Option<Attachment>,
    supervised: Option<Arc<runs::Run>>,
    notices: Option<mpsc::UnboundedReceiver<Notice>>,
    exits: u64,
    last: Option<Exit>,
    failure: Option<StartFailure>,
    health: Option<HealthView>,
    prober: Option<tokio::task::AbortHandle>,
    pending: Vec<PendingAttach>,
    waiting: Vec<Waiting>,
    /// Timers of an older generation are void.
    generation: u64,
    /// Networks that the latest run has given back, until that is told.
    left: Vec<NetworkRecord>,
    /// The clean-up of the latest run, which a new one has to await.
    cleaning: Option<tokio::task::JoinHandle<()>>,
    /// Breaks the start under way off.
    abandoned: Arc<Notify>,
    inbox: mpsc::UnboundedSender<Message>,
    mailbox: mpsc::UnboundedReceiver<Message>,
    window: watch::Sender<Arc<View>>,
    container: Arc<ContainerHandle>,
}

/// What a daemon found alive.
pub(crate) struct Adopted {
    pub supervised: Arc<runs::Run>,
    pub notices: mpsc::UnboundedReceiver<Notice>,
}

/// Starts a container's task and enters it into the registry. `inputs` are stepped first.
pub(crate) fn launch(
    engine: &Arc<Inner>,
    record: Record,
    life: Life,
    adopted: Option<Adopted>,
    inputs: Vec<Input>,
) -> Arc<ContainerHandle> {
    let (inbox, mailbox) = mpsc::unbounded_channel();
    let (supervised, notices) = match adopted {
        Some(Adopted { supervised, notices }) => (Some(supervised), Some(notices)),
        None => (None, None),
    };
    let record = Arc::new(record);
    let view = View {
        record: Arc::clone(&record),
        phase: life.phase.clone(),
        attachment: life.attachment.clone(),
        supervised: supervised.clone(),
        exits: 0,
        last: life.phase.exit().cloned(),
        failure: None,
        health: None,
    };
    let last = view.last.clone();
    let (window, windows) = watch::channel(Arc::new(view));
    let container = Arc::new(ContainerHandle {
        id: record.id,
        inbox: inbox.clone(),
        view: windows,
        execs: super::execs::Execs::default(),
        arrivals: super::registry::Arrivals::default(),
        turn: tokio::sync::Mutex::default(),
    });
    engine.containers.insert(Arc::clone(&container));
    let task = Task {
        engine: Arc::clone(engine),
        record,
        phase: life.phase,
        attachment: life.attachment,
        supervised,
        notices,
        exits: 0,
        last,
        failure: None,
        health: None,
        prober: None,
        pending: Vec::new(),
        waiting: Vec::new(),
        generation: 0,
        left: Vec::new(),
        cleaning: None,
        abandoned: Arc::default(),
        inbox,
        mailbox,
        window,
        container: Arc::clone(&container),
    };
    tokio::spawn(task.live(inputs));
    container
}

enum Heard {
    Message(Message),
    Notice(Notice),
}

impl Task {
    async fn live(mut self, inputs: Vec<Input>) {
        if let Some(run) = self.phase.run() {
            self.watch_health(run.started_at.into());
            self.publish();
        }
        let mut inputs = inputs;
        while self.phase != Phase::Gone {
            let due = std::mem::take(&mut inputs);
            let turn = async {
                for input in due {
                    self.feed(input).await;
                }
                if self.phase != Phase::Gone {
                    match self.hear().await {
                        Heard::Message(message) => self.handle(message).await,
                        Heard::Notice(notice) => self.noticed(notice).await,
                    }
                }
            };
            if let Err(panic) = survival::caught(turn).await {
                inputs = self.recover(&panic).await;
            }
        }
        for waiting in self.waiting.drain(..) {
            let _ = waiting.reply.send(Err(Denied::Gone));
        }
    }

    /// The next thing to deal with. The task holds a sender of its own mailbox, so that never ends.
    async fn hear(&mut self) -> Heard {
        loop {
            let Some(notices) = &mut self.notices else {
                match self.mailbox.recv().await {
                    Some(message) => return Heard::Message(message),
                    None => continue,
                }
            };
            tokio::select! {
                // In order: what a run says comes before requests that were made later.
                biased;
                notice = notices.recv() => match notice {
                    Some(notice) => return Heard::Notice(notice),
                    None => self.notices = None,
                },
                Some(message) = self.mailbox.recv() => return Heard::Message(message),
            }
        }
    }

    async fn handle(&mut self, message: Message) {
        match message {
            Message::Input { input, until, reply } => match self.feed(input).await {
                Fed::Taken(Ok(())) => {
                    self.waiting.push(Waiting { until, reply });
                    self.answer_waiting();
                }
                Fed::Taken(Err(error)) => {
                    let _ = reply.send(Err(Denied::Failed(error)));
                }
                Fed::Unchanged => {
                    let _ = reply.send(Ok(Outcome::Unchanged));
                }
                Fed::Refused(refusal) => {
                    let _ = reply.send(Err(Denied::Refused(refusal)));
                }
            },
            Message::Timer { generation, input } => {
                if generation == self.generation {
                    self.feed(input).await;
                }
            }
            Message::Spawned(outcome) => self.spawned(*outcome).await,
            Message::Known(state) => self.known(&state).await,
            Message::Removed(outcome) => {
                let input = match outcome {
                    Ok(()) => Input::Removed,
                    Err(error) => {
                        warn!(container = %self.record.id, error = chain(&error), "container not removed");
                        Input::RemoveFailed(error.message)
                    }
                };
                self.feed(input).await;
            }
            Message::Attach { client, reply } => self.attach(client, reply),
            Message::Probed { result, check, began, noted } => {
                self.probed(result, &check, began);
                // A prober that was stopped meanwhile does not wait.
                let _ = noted.send(());
            }
            Message::Change { change, reply } => {
                let outcome = self.change(change).await;
                let _ = reply.send(outcome);
            }
        }
    }

    async fn spawned(&mut self, outcome: std::result::Result<Started, StartFailure>) {
        match outcome {
            Ok(started) => {
                self.supervised = Some(started.supervised);
                self.notices = Some(started.notices);
                self.attachment = started.attachment;
                self.failure = None;
                for client in started.left.into_iter().chain(std::mem::take(&mut self.pending)) {
                    let (reply, _) = oneshot::channel();
                    self.hand_over(client, reply);
                }
                self.watch_health(started.at.into());
                self.feed(Input::Started { pid: started.pid, at: started.at }).await;
                if links::is_target(&self.engine, &self.record.id) {
                    let (engine, record) = (Arc::clone(&self.engine), Arc::clone(&self.record));
                    blocking(move || links::tell_parents(&engine, &record)).await;
                }
            }
            Err(failure) => {
                debug!(container = %self.record.id, message = failure.message, "container not started");
                self.failure = Some(failure.clone());
                self.pending.clear();
                self.feed(Input::StartFailed(failure)).await;
            }
        }
    }

    /// A start that an earlier daemon ordered turns out to have succeeded. An end will be told.
    async fn known(&mut self, state: &State) {
        if let (Some(main), Phase::Starting { .. }) = (state.main, &self.phase) {
            self.watch_health(main.started_at.into());
            self.feed(Input::Started { pid: main.pid, at: main.started_at }).await;
        }
    }

    async fn noticed(&mut self, notice: Notice) {
        match notice {
            Notice::Exited(record) => self.exited(&record).await,
            Notice::Lost => {
                let found = records::exit_record(&self.engine, &self.record.id, self.phase.run());
                match found {
                    Some(record) => self.exited(&record).await,
                    None => self.lost().await,
                }
            }
            Notice::Oom => {
                self.feed(Input::Oom).await;
            }
            Notice::ExecExited { exec, code } => {
                if self.container.execs.ended(&exec, code) {
                    let more = [("execID", exec.to_string()), ("exitCode", code.to_string())];
                    events::publish(&self.engine, &self.record, "exec_die", &more);
                }
            }
            Notice::Detached { target, cause: DetachCause::Keys } => {
                let (action, more) = match target {
                    Target::Main => ("detach", Vec::new()),
                    Target::Exec(exec) => ("exec_detach", vec![("execID", exec.to_string())]),
                };
                events::publish(&self.engine, &self.record, action, &more);
            }
            Notice::Detached { cause: DetachCause::HungUp, .. } => {}
        }
    }

    async fn exited(&mut self, record: &ExitRecord) {
        let end = End {
            code: record.exit_code,
            oom: record.oom_killed,
            at: record.finished_at,
            error: record.error.clone().unwrap_or_default(),
        };
        self.feed(Input::Exited(end)).await;
    }

    /// The monitor is gone without a word. Whatever it left alive has no stdio and no log, so it is
    /// ended rather than adopted.
    async fn lost(&mut self) {
        warn!(container = %self.record.id, "the container's monitor was lost");
        cgroups::kill_group(&self.engine, &self.record).await;
        cgroups::remove_group(&self.engine, &self.record).await;
        let end = End {
            code: 137,
            oom: false,
            at: jiff::Timestamp::now(),
            error: "the container's monitor was lost".to_owned(),
        };
        self.feed(Input::Exited(end)).await;
    }

    /// Steps, persists, publishes, acts.
    async fn feed(&mut self, input: Input) -> Fed {
        let ending = matches!(input, Input::Exited(_));
        let (next, effects) = match step(&self.phase, input, self.record.policy()) {
            Verdict::Go(next, effects) => (next, effects),
            Verdict::Unchanged => return Fed::Unchanged,
            Verdict::Refused(refusal) => return Fed::Refused(refusal),
        };
        if let Err(error) = self.persist(&next).await {
            if effects.contains(&Effect::Spawn) && self.phase.run().is_none() {
                return Fed::Taken(Err(error));
            }
            // The process is what it is; the disk may be full.
            warn!(container = %self.record.id, error = chain(&error), "phase not recorded");
        }
        if std::mem::discriminant(&next) != std::mem::discriminant(&self.phase) {
            self.generation += 1;
        }
        let ended = if ending { self.supervised.clone() } else { None };
        if ending && self.phase.run().is_some() {
            self.note_exit(&next, &effects);
        }
        if matches!((&self.phase, &next), (Phase::Running { .. }, Phase::Paused { .. })) {
            self.health_unknown();
        }
        self.phase = next;
        if self.phase == Phase::Gone {
            self.engine.containers.remove(&self.record.id, &self.record.name);
        }
        if effects.contains(&Effect::CleanUp) {
            // Whoever sees the end may use what the run held: its addresses, its ports, its volumes.
            self.attachment = None;
            self.left = cleanup::take_back(&self.engine, &self.record).await;
        }
        self.publish();
        let mut outcome = Ok(());
        for effect in effects {
            if let Err(error) = self.perform(effect).await {
                outcome = Err(error);
            }
        }
        self.forget_signal().await;
        if let Some(run) = ended {
            // Only now do attached clients see the end.
            run.hang_up();
        }
        self.answer_waiting();
        Fed::Taken(outcome)
    }

    /// A signal that was sent need not be sent again by a later daemon.
    async fn forget_signal(&mut self) {
        if self.phase.run().is_none_or(|run| run.signal.is_none()) {
            return;
        }
        if let Verdict::Go(next, _) = step(&self.phase, Input::Signalled, self.record.policy()) {
            let life = Life::new(next.clone(), self.attachment.clone());
            if let Err(error) =
                records::write_life(&self.engine, &self.record, life, Durability::Lazy).await
            {
                debug!(container = %self.record.id, error = chain(&error), "signal not forgotten");
            }
            self.phase = next;
        }
    }

    /// Nobody probes any more. Source: moby `container/health.go`, `CloseMonitorChannel`.
    fn health_unknown(&mut self) {
        if let Some(health) = &mut self.health {
            health.status = HealthStatus::Unhealthy;
        }
    }

    /// Keeps the end for waiters, also where the next phase does not.
    fn note_exit(&mut self, next: &Phase, effects: &[Effect]) {
        self.exits += 1;
        self.supervised = None;
        self.notices = None;
        self.container.execs.run_ended();
        if let Some(prober) = self.prober.take() {
            prober.abort();
        }
        self.health_unknown();
        let code = effects.iter().find_map(|effect| match effect {
            Effect::Tell(Tell::Die { code, .. }) => Some(*code),
            _ => None,
        });
        self.last = next.exit().cloned().or_else(|| {
            let run: &Run = self.phase.run()?;
            Some(Exit {
                code: code.unwrap_or(0),
                oom: run.oom,
                started_at: run.started_at,
                finished_at: jiff::Timestamp::now(),
                error: String::new(),
                by_user: run.by_user,
                restarts: run.tally.restarts,
            })
        });
    }

    async fn persist(&self, next: &Phase) -> Result<()> {
        if *next == Phase::Gone {
            return Ok(());
        }
        let life = Life::new(next.clone(), self.attachment.clone());
        records::write_life(&self.engine, &self.record, life, self.record.durability(next)).await
    }

    /// Starts probing a run, if the container has a health check.
    fn watch_health(&mut self, began: SystemTime) {
        let Some(check) = Check::find(&self.record.spec.config) else { return };
        self.health = Some(health::resume(&self.engine, &self.record.id, began));
        let (engine, container) = (Arc::clone(&self.engine), Arc::clone(&self.container));
        let prober = tokio::spawn(health::probe_forever(engine, container, check, began));
        self.prober = Some(prober.abort_handle());
    }

    fn probed(&mut self, result: HealthResult, check: &Check, began: SystemTime) {
        let probes = matches!(self.phase, Phase::Running { .. } | Phase::Stopping { .. });
        let Some(health) = self.health.as_ref().filter(|_| probes) else { return };
        let next = health::judge(health, check, began, result);
        let changed = next.status != health.status;
        health::keep(&self.engine, &self.record.id, began, &next);
        self.health = Some(next);
        self.publish();
        if changed && let Some(health) = &self.health {
            events::publish(
                &self.engine,
                &self.record,
                &format!("health_status: {}", health.status.name()),
                &[],
            );
        }
    }

    fn publish(&self) {
        self.window.send_replace(Arc::new(View {
            record: Arc::clone(&self.record),
            phase: self.phase.clone(),
            attachment: self.attachment.clone(),
            supervised: self.supervised.clone(),
            exits: self.exits,
            last: self.last.clone(),
            failure: self.failure.clone(),
            health: self.health.clone(),
        }));
    }

    async fn perform(&mut self, effect: Effect) -> Result<()> {
        match effect {
            Effect::Spawn => self.spawn(),
            Effect::Signal(signal) => return self.signal(signal).await,
            Effect::KillDirectly => self.kill_directly().await,
            Effect::Freeze => return self.freeze(sys::cgroup::Freeze::Freeze).await,
            Effect::Thaw => return self.freeze(sys::cgroup::Freeze::Thaw).await,
            Effect::ArmKill(after) => self.arm(after, Input::GraceOver),
            Effect::ArmKillAt(at) => self.arm(until(at), Input::GraceOver),
            Effect::ArmRestart(after) => self.arm(after, Input::DelayOver),
            Effect::ArmRestartAt(at) => self.arm(until(at), Input::DelayOver),
            Effect::CleanUp => {
                let left = std::mem::take(&mut self.left);
                cleanup::publish_given_up(&self.engine, &self.record, &left);
                let (engine, record) = (Arc::clone(&self.engine), Arc::clone(&self.record));
                self.cleaning = Some(tokio::task::spawn_blocking(move || {
                    cleanup::remove_run(&engine, &record)
                }));
            }
            Effect::Remove { volumes } => self.remove(volumes),
            Effect::ReportStuck => self.fail_stops(),
            Effect::Tell(tell) => self.tell(tell),
        }
        Ok(())
    }

    fn spawn(&mut self) {
        let (engine, record) = (Arc::clone(&self.engine), Arc::clone(&self.record));
        let pending = std::mem::take(&mut self.pending);
        let (inbox, cleaning) = (self.inbox.clone(), self.cleaning.take());
        self.failure = None;
        self.abandoned = Arc::default();
        let abandoned = Arc::clone(&self.abandoned);
        tokio::spawn(async move {
            if let Some(cleaning) = cleaning {
                let _ = cleaning.await;
            }
            let outcome = start::start(&engine, &record, pending, &abandoned).await;
            // The task lives as long as the phase is not Gone, and Starting is not.
            let _ = inbox.send(Message::Spawned(Box::new(outcome)));
        });
    }

    fn remove(&mut self, volumes: bool) {
        let (engine, record) = (Arc::clone(&self.engine), Arc::clone(&self.record));
        let (inbox, cleaning) = (self.inbox.clone(), self.cleaning.take());
        self.pending.clear();
        tokio::spawn(async move {
            if let Some(cleaning) = cleaning {
                let _ = cleaning.await;
            }
            let outcome = cleanup::remove(&engine, record, volumes).await;
            let _ = inbox.send(Message::Removed(outcome));
        });
    }

    async fn signal(&self, signal: i32) -> Result<()> {
        let sent = match &self.supervised {
            Some(run) => run.signal(Target::Main, signal).await.map_err(Error::from),
            None => Err(Error::internal("the container has no monitor")),
        };
        if let Err(error) = sent {
            debug!(container = %self.record.id, error = chain(&error), "signal not sent");
            if signal == super::step::SIGKILL {
                cgroups::kill_group(&self.engine, &self.record).await;
            }
        }
        if signal == super::step::SIGKILL
            && let Some(run) = self.supervised.clone()
        {
            // The process ends at once; whether that will be told is another question.
            tokio::spawn(async move {
                if run.state().await.is_err() {
                    run.end_supervisor(END_MAX);
                }
            });
        }
        Ok(())
    }

    /// Ends what asking did not end: the processes, a supervisor that does not answer, a start that
    /// hangs.
    async fn kill_directly(&self) {
        cgroups::kill_group(&self.engine, &self.record).await;
        self.abandoned.notify_one();
        if let Some(run) = &self.supervised {
            // It may have let no request pass, since none was sent: a signal needs no supervisor.
            run.end_supervisor(if run.is_silent() { Duration::ZERO } else { END_MAX });
        }
    }

    async fn freeze(&mut self, wish: sys::cgroup::Freeze) -> Result<()> {
        let outcome = cgroups::freeze(&self.engine, &self.record, wish).await;
        if outcome.is_err() {
            // Back to what is so; without effects, so this cannot come round again.
            let input = match wish {
                sys::cgroup::Freeze::Freeze => Input::Thawed,
                sys::cgroup::Freeze::Thaw => Input::Frozen,
            };
            if let Verdict::Go(phase, _) = step(&self.phase, input, self.record.policy()) {
                self.phase = phase;
                self.publish();
            }
        }
        outcome
    }

    fn arm(&mut self, after: Duration, input: Input) {
        self.generation += 1;
        let (inbox, generation) = (self.inbox.clone(), self.generation);
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let _ = inbox.send(Message::Timer { generation, input });
        });
    }

    fn tell(&self, tell: Tell) {
        let none: Vec<(&str, String)> = Vec::new();
        let (action, more) = match tell {
            Tell::Start => ("start", none),
            Tell::Kill { signal } => ("kill", vec![("signal", signal.to_string())]),
            Tell::Stop => ("stop", none),
            Tell::Die { code, lasted } => (
                "die",
                vec![
                    ("exitCode", code.to_string()),
                    ("execDuration", lasted.as_secs().to_string()),
                ],
            ),
            Tell::Oom => ("oom", none),
            Tell::Pause => ("pause", none),
            Tell::Unpause => ("unpause", none),
            Tell::Destroy => ("destroy", none),
        };
        events::publish(&self.engine, &self.record, action, &more);
    }

    fn attach(&mut self, client: PendingAttach, reply: oneshot::Sender<Result<()>>) {
        if self.supervised.is_some() {
            self.hand_over(client, reply);
        } else if client.run.is_some_and(|run| run != self.exits) {
            // What it wanted to see ended on the way here; the next run is another.
            super::attach::end_stream(&client.socket);
            let _ = reply.send(Ok(()));
        } else {
            self.pending.push(client);
            let _ = reply.send(Ok(()));
        }
    }

    /// Gives a client to the monitor.
    fn hand_over(&self, client: PendingAttach, reply: oneshot::Sender<Result<()>>) {
        let Some(run) = self.supervised.clone() else { return };
        tokio::spawn(async move {
            use std::os::fd::AsFd;
            let PendingAttach { socket, options, .. } = client;
            let outcome = run.attach(Target::Main, options, socket.as_fd()).await;
            if outcome.is_err() {
                // The supervisor may get the socket yet.
                super::attach::end_stream(&socket);
            }
            let outcome = outcome.map_err(Error::from);
            let _ = reply.send(outcome);
        });
    }

    async fn change(&mut self, change: Change) -> Result<()> {
        let mut record = Record::clone(&self.record);
        let mut attachment = self.attachment.clone();
        change(&mut record, &mut attachment)?;
        let record = Arc::new(record);
        records::write_record(&self.engine, &record).await?;
        self.record = record;
        self.attachment = attachment;
        if self.attachment.is_some() {
            self.persist(&self.phase).await?;
        }
        self.publish();
        Ok(())
    }
}

/// How long it is until then, by a clock that may have been set meanwhile.
fn until(at: jiff::Timestamp) -> Duration {
    Duration::try_from(at.duration_since(jiff::Timestamp::now())).unwrap_or_default()
}

/// What became of an input.
enum Fed {
    /// Performed, maybe with a failing effect.
    Taken(Result<()>),
    Unchanged,
    Refused(Refusal),
}

/// The attributes that every event of a container bears: its labels, image and name.
pub(crate) fn event_attributes(record: &Record) -> std::collections::BTreeMap<String, String> {
    let mut attributes = record.spec.config.labels.clone();
    attributes.insert("image".to_owned(), record.spec.image.clone());
    attributes.insert("name".to_owned(), record.name.clone());
    attributes
}

/// The type of a container's events.
pub(crate) const EVENTS: EventType = EventType::Container;
