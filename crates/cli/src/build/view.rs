//! The answer of a build on its way to the screen, and what it brings to the disk.
//!
//! Tug's daemon sends a trace, drawn in BuildKit's style; any other sends the classic builder's text,
//! shown as it comes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api::{
    client::Response,
    image::BuildResult,
    progress::Message,
    trace::{self, Trace},
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};

use super::{
    board::{Board, failure_report},
    output::Takers,
    palette::Palette,
    plain::Plain,
    raw::Raw,
    tty::{Phase, Tty},
};
use crate::{failure::Failure, terminal};

/// Messages between the connection and the display.
const QUEUE_LENGTH: usize = 64;

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    Tty,
    Plain,
    Quiet,
    RawJson,
}

/// The wishes to stop that reach a build from outside.
pub struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    /// # Errors
    /// When signals cannot be caught.
    pub fn new() -> Result<Interrupts, Failure> {
        let caught = |kind| signal(kind).map_err(|error| Failure::new(error.to_string()));
        Ok(Interrupts {
            interrupt: caught(SignalKind::interrupt())?,
            terminate: caught(SignalKind::terminate())?,
        })
    }

    /// Waits for one; the exit status that follows.
    pub async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => 130,
            _ = self.terminate.recv() => 143,
        }
    }
}

/// How a build ends that the user stopped.
pub fn stopped(status: u8) -> Failure {
    let text = "ERROR: failed to build: failed to solve: Canceled: context canceled".to_owned();
    Failure::Said { text, status }
}

/// Shows the stream to its end; the image's ID, empty when none was made.
///
/// # Errors
/// What made the build fail, and what cannot be written.
pub async fn show(
    mut response: Response,
    style: Style,
    takers: Takers,
    interrupts: &mut Interrupts,
) -> Result<String, Failure> {
    let mut view = View::new(style, takers);
    let (sender, mut receiver) = mpsc::channel(QUEUE_LENGTH);
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    let outcome = {
        let mut messages = std::pin::pin!(forward(&mut response, &sender));
        loop {
            tokio::select! {
                biased;
                Some(message) = receiver.recv() => view.take(&message)?,
                done = &mut messages => break done,
                status = interrupts.next(), if view.traced => {
                    view.cancel();
                    break Err(stopped(status));
                }
                _ = ticks.tick(), if style == Style::Tty => view.tick(),
            }
        }
    };
    while let Ok(message) = receiver.try_recv() {
        view.take(&message)?;
    }
    view.finish(outcome)
}

/// Passes messages on, so that a redraw may happen between two without losing half of one.
async fn forward(response: &mut Response, sender: &mpsc::Sender<Message>) -> Result<(), Failure> {
    while let Some(message) = response.next_json::<Message>().await? {
        if let Some(error) = &message.error_detail {
            return Err(Failure::Said {
                text: error.message.clone(),
                status: u8::try_from(error.code).ok().filter(|code| *code != 0).unwrap_or(1),
            });
        }
        if !message.error.is_empty() {
            return Err(Failure::new(message.error));
        }
        if sender.send(message).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

struct View {
    style: Style,
    board: Board,
    plain: Plain,
    raw: Raw,
    tty: Tty,
    takers: Takers,
    image: String,
    traced: bool,
}

impl View {
    fn new(style: Style, takers: Takers) -> View {
        View {
            style,
            board: Board::default(),
            plain: Plain::default(),
            raw: Raw::default(),
            tty: Tty::new(Palette::from_environment()),
            takers,
            image: String::new(),
            traced: false,
        }
    }

    fn take(&mut self, message: &Message) -> Result<(), Failure> {
        if let Some(aux) = &message.aux {
            if message.id == trace::ID {
                let trace = serde_json::from_value::<Trace>(aux.clone()).map_err(|error| {
                    Failure::new(format!("cannot read the build's progress: {error}"))
                })?;
                self.trace(&trace);
            } else if message.id == trace::EXPORT_ID {
                let piece = serde_json::from_value(aux.clone()).map_err(|error| {
                    Failure::new(format!("cannot read the build's output: {error}"))
                })?;
                self.takers.take(&piece).map_err(not_taken)?;
            } else if let Ok(result) = serde_json::from_value::<BuildResult>(aux.clone())
                && !result.id.is_empty()
            {
                self.image = result.id;
            }
            return Ok(());
        }
        if self.style == Style::Quiet {
            let line = message.stream.trim();
            if line.starts_with("sha256:") {
                self.image = line.to_owned();
            }
        } else if !message.stream.is_empty() {
            terminal::out(&message.stream);
        } else if !message.status.is_empty() && message.progress_detail.is_none() {
            let id =
                if message.id.is_empty() { String::new() } else { format!("{}: ", message.id) };
            terminal::out(&format!("{id}{}\n", message.status));
        }
        Ok(())
    }

    fn trace(&mut self, trace: &Trace) {
        self.traced = true;
        if let Trace::Image { id } = trace {
            self.image = id.clone();
        }
        match self.style {
            Style::Plain => {
                let text = self.plain.draw(trace);
                terminal::error_text(&text);
            }
            Style::RawJson => {
                if let Some(line) = self.raw.draw(trace) {
                    terminal::error_text(&line);
                }
            }
            Style::Tty | Style::Quiet => {}
        }
        self.board.apply(trace);
    }

    /// The user stops the build: what runs ends with that.
    fn cancel(&mut self) {
        for trace in self.board.cancelled(self.board.now_ms.max(unix_ms())) {
            self.trace(&trace);
        }
    }

    fn tick(&mut self) {
        if self.traced {
            self.redraw(Phase::Running);
        }
    }

    fn redraw(&mut self, phase: Phase) {
        let rows = terminal::size().map_or(24, |(rows, _)| usize::from(rows));
        // The daemon's clock may be another's; what is drawn counts on from its last time.
        let now = unix_ms().max(self.board.now_ms);
        let now = if phase == Phase::Running { now } else { self.board.now_ms };
        let text = self.tty.redraw(&self.board, phase, now, (rows, terminal::columns()));
        terminal::error_text(&text);
    }

    fn finish(mut self, outcome: Result<(), Failure>) -> Result<String, Failure> {
        let phase = if outcome.is_ok() { Phase::Finished } else { Phase::Failed };
        if self.traced && self.style == Style::Tty {
            self.redraw(phase);
        }
        match outcome {
            Ok(()) => {
                self.takers.finish().map_err(not_taken)?;
                let warnings = &self.board.warnings;
                if self.style == Style::Tty && !warnings.is_empty() {
                    let plural = if warnings.len() == 1 { "" } else { "s" };
                    let list: String = warnings.iter().map(|one| format!(" - {one}\n")).collect();
                    terminal::error_text(&format!(
                        "\n {} warning{plural} found:\n{list}",
                        warnings.len()
                    ));
                }
                if self.style == Style::Quiet && !self.image.is_empty() {
                    terminal::out(&format!("{}\n", self.image));
                }
                Ok(self.image)
            }
            Err(failure) if self.traced && !is_stop(&failure) => {
                terminal::error_text(&failure_report(&self.board, true));
                Err(Failure::Said {
                    text: format!(
                        "ERROR: failed to build: {}",
                        failure.words().unwrap_or_default()
                    ),
                    status: 1,
                })
            }
            Err(failure) => Err(failure),
        }
    }
}

/// What came cannot be written.
fn not_taken(failure: Failure) -> Failure {
    let words = failure.words().unwrap_or_default();
    Failure::new(format!("ERROR: failed to build: failed to solve: {words}"))
}

/// Whether the user stopped it, which needs no report.
pub fn is_stop(failure: &Failure) -> bool {
    matches!(failure, Failure::Said { status: 130 | 143, text } if text.ends_with("context canceled"))
}

fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map(|since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
        .unwrap_or_default()
}
