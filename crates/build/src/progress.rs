//! What happens in a build, as events; and its two renderings.
//!
//! - [`Classic`] turns events into the text of Docker's classic builder, which the docker CLI
//!   prints as it comes (`Step 1/4 : FROM busybox`, ` ---> 3f57d9401f8d`, …).
//! - [`trace`] turns them into [`Trace`] lines, which `tug build` renders in BuildKit's style. On the
//!   wire each is the `aux` of `{"id":"moby.tug.trace","aux":{…}}` in the stream of `POST /build`,
//!   sent only when the query says `version=tug1`.
//!
//! A vertex is a numbered line of the display. Order on the wire for each vertex: `started`, any
//! number of `status` and `log`, then one `done`. Vertices of independent stages interleave.
//!
//! ```json
//! {"event":"started","vertex":3,"name":"[2/4] RUN pip install flask","at_ms":1700000000000}
//! {"event":"status","vertex":3,"text":"transferring context: 2B","at_ms":…,"is_done":true}
//! {"event":"log","vertex":3,"stream":1,"data":"Collecting flask\n","at_ms":…}
//! {"event":"done","vertex":3,"is_cached":false,"error":null,"at_ms":…}
//! {"event":"image","id":"sha256:…"}
//! {"event":"warning","text":"…"}
//! {"event":"failed","message":"process \"…\" did not complete successfully: exit code: 1","excerpt":"Dockerfile:3\n…"}
//! ```

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use spec::ImageId;

use crate::instruction::Span;
use crate::worker::Stream;

/// Names a line of the display, unique in its build; [`HIDDEN`] for a step that has none.
pub type Vertex = u32;

/// The vertex of instructions that only change the configuration: the trace leaves them out.
pub const HIDDEN: Vertex = 0;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A task that is no instruction: `[internal] load .dockerignore`, `exporting to image`.
    TaskStarted {
        vertex: Vertex,
        name: String,
        at: SystemTime,
    },
    /// A line below a task, `transferring context: 2B`; repeated as it advances.
    TaskStatus {
        vertex: Vertex,
        text: String,
        is_done: bool,
        at: SystemTime,
    },
    TaskDone {
        vertex: Vertex,
        error: Option<String>,
        at: SystemTime,
    },
    /// An instruction. `number` and `total` count as the classic builder does (triggers are not
    /// counted); `name` is BuildKit's, where
    /// it shows the instruction at all.
    StepStarted {
        vertex: Vertex,
        number: Option<usize>,
        total: usize,
        text: String,
        name: Option<String>,
        at: SystemTime,
    },
    /// Triggers of the base image come.
    Triggers {
        count: usize,
    },
    /// A command starts; the classic builder would make a container for it, of `image`. Both are
    /// whole ids; `image` is empty without a base.
    Running {
        vertex: Vertex,
        container: String,
        image: String,
    },
    Log {
        vertex: Vertex,
        stream: Stream,
        bytes: Vec<u8>,
        at: SystemTime,
    },
    /// The result's short id is what the classic builder prints behind the arrow.
    StepDone {
        vertex: Vertex,
        is_cached: bool,
        container: Option<String>,
        result: Option<String>,
        at: SystemTime,
    },
    StepFailed {
        vertex: Vertex,
        container: Option<String>,
        message: String,
        at: SystemTime,
    },
    Warning {
        text: String,
    },
    /// A remark that only the classic text has; its line break is its own.
    Note {
        stream: Stream,
        text: String,
    },
    /// A stage other than the target is done; the classic builder keeps its image.
    StageBuilt {
        image: ImageId,
    },
    Built {
        image: ImageId,
    },
    Tagged {
        name: String,
    },
}

/// What the classic stream carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Text to print as it is.
    Text(String),
    /// `{"aux":{"ID":"sha256:…"}}`.
    Image(ImageId),
}

/// Whether the classic builder would remove the containers it made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Containers {
    Removed,
    Kept,
}

/// Renders events as the classic builder's text.
#[derive(Debug, Clone, Copy)]
pub struct Classic {
    /// `--rm`.
    pub after_success: Containers,
    /// `--force-rm`.
    pub after_failure: Containers,
}

impl Classic {
    pub fn render(&self, event: &Event) -> Vec<Piece> {
        let text = match event {
            Event::StepStarted { number: Some(number), total, text, .. } => {
                format!("Step {number}/{total} : {text}\n")
            }
            Event::Triggers { count: 1 } => "# Executing 1 build trigger\n".to_owned(),
            Event::Triggers { count } => format!("# Executing {count} build triggers\n"),
            Event::Running { container, .. } => format!(" ---> Running in {}\n", short(container)),
            Event::Log { stream, bytes, .. } => in_colour(*stream, &String::from_utf8_lossy(bytes)),
            Event::Note { stream, text } => in_colour(*stream, text),
            Event::StepDone { is_cached, container, result, .. } => {
                self.done(*is_cached, container, result)
            }
            Event::StepFailed { container: Some(container), .. }
                if self.after_failure == Containers::Removed =>
            {
                format!(" ---> Removed intermediate container {}\n", short(container))
            }
            Event::Warning { text } => format!("[Warning] {text}\n"),
            Event::StageBuilt { image } => return vec![Piece::Image(*image)],
            Event::Built { image } => {
                return vec![
                    Piece::Image(*image),
                    Piece::Text(format!("Successfully built {}\n", image.short())),
                ];
            }
            Event::Tagged { name } => format!("Successfully tagged {name}\n"),
            Event::TaskStarted { .. }
            | Event::TaskStatus { .. }
            | Event::TaskDone { .. }
            | Event::StepStarted { number: None, .. }
            | Event::StepFailed { .. } => return Vec::new(),
        };
        match text.is_empty() {
            true => Vec::new(),
            false => vec![Piece::Text(text)],
        }
    }

    fn done(&self, is_cached: bool, container: &Option<String>, result: &Option<String>) -> String {
        let mut text = String::new();
        if is_cached {
            text.push_str(" ---> Using cache\n");
        }
        if let (Some(container), Containers::Removed) = (container, self.after_success) {
            let container = short(container);
            text.push_str(&format!(" ---> Removed intermediate container {container}\n"));
        }
        if let Some(result) = result {
            text.push_str(&format!(" ---> {result}\n"));
        }
        text
    }
}

/// One line of the trace; see the module's head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Trace {
    Started {
        vertex: Vertex,
        name: String,
        at_ms: u64,
    },
    Status {
        vertex: Vertex,
        text: String,
        is_done: bool,
        at_ms: u64,
    },
    /// `stream`: 1 is stdout, 2 stderr.
    Log {
        vertex: Vertex,
        stream: u8,
        data: String,
        at_ms: u64,
    },
    Done {
        vertex: Vertex,
        is_cached: bool,
        error: Option<String>,
        at_ms: u64,
    },
    Image {
        id: String,
    },
    Warning {
        text: String,
    },
    Failed {
        message: String,
        excerpt: Option<String>,
    },
}

/// The trace's line for an event, if it has one.
pub fn trace(event: &Event) -> Option<Trace> {
    match event {
        Event::TaskStarted { vertex, name, at }
        | Event::StepStarted { vertex, name: Some(name), at, .. } => {
            Some(Trace::Started { vertex: *vertex, name: name.clone(), at_ms: millis(*at) })
        }
        Event::TaskStatus { vertex, text, is_done, at } => Some(Trace::Status {
            vertex: *vertex,
            text: text.clone(),
            is_done: *is_done,
            at_ms: millis(*at),
        }),
        Event::TaskDone { vertex, error, at } => Some(Trace::Done {
            vertex: *vertex,
            is_cached: false,
            error: error.clone(),
            at_ms: millis(*at),
        }),
        Event::Log { vertex, stream, bytes, at } => Some(Trace::Log {
            vertex: *vertex,
            stream: match stream {
                Stream::Out => 1,
                Stream::Err => 2,
            },
            data: String::from_utf8_lossy(bytes).into_owned(),
            at_ms: millis(*at),
        }),
        Event::StepDone { vertex, is_cached, at, .. } => Some(Trace::Done {
            vertex: *vertex,
            is_cached: *is_cached,
            error: None,
            at_ms: millis(*at),
        }),
        Event::StepFailed { vertex, message, at, .. } => Some(Trace::Done {
            vertex: *vertex,
            is_cached: false,
            error: Some(message.clone()),
            at_ms: millis(*at),
        }),
        Event::Warning { text } => Some(Trace::Warning { text: text.clone() }),
        Event::Built { image } => Some(Trace::Image { id: image.to_string() }),
        Event::StepStarted { name: None, .. }
        | Event::Note { .. }
        | Event::Triggers { .. }
        | Event::Running { .. }
        | Event::StageBuilt { .. }
        | Event::Tagged { .. } => None,
    }
}

/// The digits of an id that Docker shows.
fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// Standard error is red in the classic text.
///
/// Source: moby 28.2 `pkg/streamformatter`, the writer for stderr.
fn in_colour(stream: Stream, text: &str) -> String {
    match stream {
        Stream::Out => text.to_owned(),
        Stream::Err => format!("\x1b[91m{text}\x1b[0m"),
    }
}

fn millis(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// UTC, to the nanosecond without the zeros at its end, as Docker writes `created`.
///
/// Source: Go `time.RFC3339Nano`.
pub fn rfc3339(at: SystemTime) -> String {
    jiff::Timestamp::try_from(at).unwrap_or_default().to_string()
}

/// The lines around `span`, the wrong ones marked, as BuildKit shows them.
pub fn excerpt(file: &str, source: &str, span: Span) -> String {
    const AROUND: usize = 2;
    let lines: Vec<&str> = source.lines().collect();
    let first = span.start.saturating_sub(AROUND).max(1);
    let last = (span.end + AROUND).min(lines.len().max(1));
    let rule = "-".repeat(20);
    let mut text = format!("{file}:{}\n{rule}\n", span.start);
    for number in first..=last {
        let mark = if (span.start..=span.end).contains(&number) { ">>>" } else { "   " };
        let line = lines.get(number - 1).copied().unwrap_or_default();
        text.push_str(&format!("{number:4} | {mark} {line}\n"));
    }
    text.push_str(&rule);
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use std::time::Duration;

    #[test]
    fn times_are_written_as_docker_does() {
        let at = |seconds, nanos| SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos);
        assert_eq!(rfc3339(at(0, 0)), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(at(0, 120_000_000)), "1970-01-01T00:00:00.12Z");
        assert_eq!(rfc3339(at(951_782_400, 5)), "2000-02-29T00:00:00.000000005Z");
        assert_eq!(rfc3339(at(1_767_225_599, 0)), "2025-12-31T23:59:59Z");
    }

    #[test]
    fn the_wrong_line_is_marked_among_its_neighbours() {
        let text =
            excerpt("Dockerfile", "FROM a\n\nRUN \\\n false\nRUN x\n", Span { start: 3, end: 4 });
        expect![[r#"
            Dockerfile:3
            --------------------
               1 |     FROM a
               2 |     
               3 | >>> RUN \
               4 | >>>  false
               5 |     RUN x
            --------------------
        "#]]
        .assert_eq(&text);
        excerpt("Dockerfile", "", Span { start: 9, end: 9 });
    }

    #[test]
    fn a_trace_line_survives_the_wire() {
        let line = Trace::Started { vertex: 1, name: "[1/2] FROM a".into(), at_ms: 5 };
        let wire = serde_json::to_string(&line).unwrap();
        expect![[r#"{"event":"started","vertex":1,"name":"[1/2] FROM a","at_ms":5}"#]]
            .assert_eq(&wire);
        assert_eq!(serde_json::from_str::<Trace>(&wire).unwrap(), line);
    }
}
