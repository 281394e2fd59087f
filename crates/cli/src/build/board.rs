//! What a build has done so far, from its trace; the displays draw it.

use api::trace::Trace;

/// Lines of a running command's output kept for the display.
const LOG_LINES_MAX: usize = 1000;

/// How BuildKit words the end of what was stopped.
const CANCELLED: &str = "context canceled";

#[derive(Debug, Default)]
pub struct Board {
    pub vertices: Vec<Vertex>,
    /// The first time seen; all others count from it.
    pub began_ms: Option<u64>,
    /// The last time seen.
    pub now_ms: u64,
    pub image: Option<String>,
    pub warnings: Vec<String>,
    pub excerpt: Option<String>,
}

#[derive(Debug)]
pub struct Vertex {
    pub number: u32,
    pub name: String,
    pub began_ms: u64,
    pub ended_ms: Option<u64>,
    pub is_cached: bool,
    pub error: Option<String>,
    pub statuses: Vec<Status>,
    /// Whole lines of output, with their time.
    pub log: Vec<(u64, String)>,
    /// Output whose line has not ended.
    pub partial: String,
}

#[derive(Debug)]
pub struct Status {
    pub text: String,
    pub began_ms: u64,
    pub ended_ms: Option<u64>,
}

impl Board {
    pub fn apply(&mut self, trace: &Trace) {
        match trace {
            Trace::Started { vertex, name, at_ms } => {
                self.seen(*at_ms);
                self.vertices.push(Vertex {
                    number: *vertex,
                    name: name.clone(),
                    began_ms: *at_ms,
                    ended_ms: None,
                    is_cached: false,
                    error: None,
                    statuses: Vec::new(),
                    log: Vec::new(),
                    partial: String::new(),
                });
            }
            Trace::Status { vertex, text, is_done, at_ms } => {
                self.seen(*at_ms);
                if let Some(vertex) = self.find(*vertex) {
                    vertex.status(text, *is_done, *at_ms);
                }
            }
            Trace::Log { vertex, stream: _, data, at_ms } => {
                self.seen(*at_ms);
                if let Some(vertex) = self.find(*vertex) {
                    vertex.append(data, *at_ms);
                }
            }
            Trace::Done { vertex, is_cached, error, at_ms } => {
                self.seen(*at_ms);
                if let Some(vertex) = self.find(*vertex) {
                    vertex.flush(*at_ms);
                    vertex.ended_ms = Some(*at_ms);
                    vertex.is_cached = *is_cached;
                    vertex.error = error.clone();
                }
            }
            Trace::Image { id } => self.image = Some(id.clone()),
            Trace::Warning { text } => self.warnings.push(text.clone()),
            Trace::Failed { message: _, excerpt } => self.excerpt = excerpt.clone(),
        }
    }

    fn seen(&mut self, at_ms: u64) {
        self.began_ms.get_or_insert(at_ms);
        self.now_ms = self.now_ms.max(at_ms);
    }

    fn find(&mut self, number: u32) -> Option<&mut Vertex> {
        self.vertices.iter_mut().rev().find(|vertex| vertex.number == number)
    }

    /// The vertex's number as shown: its place in the order of starting, from 1; 0 when it has no
    /// line.
    pub fn place(&self, number: u32) -> usize {
        self.vertices.iter().rposition(|vertex| vertex.number == number).map_or(0, |at| at + 1)
    }

    pub fn done_count(&self) -> usize {
        self.vertices.iter().filter(|vertex| vertex.ended_ms.is_some()).count()
    }

    /// The vertex that failed.
    pub fn failed(&self) -> Option<&Vertex> {
        self.vertices.iter().find(|vertex| vertex.error.is_some() && !vertex.is_cancelled())
    }

    pub fn find_known(&self, number: u32) -> Option<&Vertex> {
        self.vertices.iter().rev().find(|vertex| vertex.number == number)
    }

    /// Ends what still runs: the user has had enough. The traces that say so.
    pub fn cancelled(&self, at_ms: u64) -> Vec<Trace> {
        let running = self.vertices.iter().filter(|vertex| vertex.ended_ms.is_none());
        let end = |vertex: &Vertex| Trace::Done {
            vertex: vertex.number,
            is_cached: false,
            error: Some(CANCELLED.to_owned()),
            at_ms,
        };
        running.map(end).collect()
    }
}

impl Vertex {
    /// Not its own failure: it was stopped.
    pub fn is_cancelled(&self) -> bool {
        self.error.as_ref().is_some_and(|error| error.ends_with(CANCELLED))
    }

    /// A status of the same subject (its text up to the colon) takes the earlier one's place.
    fn status(&mut self, text: &str, is_done: bool, at_ms: u64) {
        let subject = |text: &str| text.split(':').next().unwrap_or_default().to_owned();
        let known = self
            .statuses
            .iter_mut()
            .find(|status| status.ended_ms.is_none() && subject(&status.text) == subject(text));
        let ended_ms = is_done.then_some(at_ms);
        match known {
            Some(status) => {
                status.text = text.to_owned();
                status.ended_ms = ended_ms;
            }
            None => self.statuses.push(Status { text: text.to_owned(), began_ms: at_ms, ended_ms }),
        }
    }

    fn append(&mut self, data: &str, at_ms: u64) {
        self.partial.push_str(data);
        while let Some(end) = self.partial.find('\n') {
            let line: String = self.partial.drain(..=end).collect();
            // A bar drawn with carriage returns shows its last state.
            let line = line.trim_end_matches(['\n', '\r']);
            let line = line.rsplit('\r').next().unwrap_or_default();
            self.log.push((at_ms, line.to_owned()));
        }
        if self.log.len() > LOG_LINES_MAX {
            self.log.drain(..self.log.len() - LOG_LINES_MAX);
        }
    }

    fn flush(&mut self, at_ms: u64) {
        if !self.partial.is_empty() {
            self.append("\n", at_ms);
        }
    }
}

/// Seconds with one decimal.
pub fn seconds(from_ms: u64, to_ms: u64) -> String {
    format!("{:.1}s", to_ms.saturating_sub(from_ms) as f64 / 1000.0)
}

/// The part of a failed build's report that shows what it printed and where it stands.
pub fn failure_report(board: &Board, with_log: bool) -> String {
    let mut text = String::new();
    if let Some(vertex) = board.failed()
        && with_log
    {
        text.push_str(&format!("------\n > {}:\n", vertex.name));
        for (at_ms, line) in &vertex.log {
            let since = at_ms.saturating_sub(vertex.began_ms) as f64 / 1000.0;
            text.push_str(&format!("{since:.3} {line}\n"));
        }
        text.push_str("------\n");
    }
    if let Some(excerpt) = &board.excerpt {
        text.push_str(excerpt);
        if !excerpt.ends_with('\n') {
            text.push('\n');
        }
    }
    text
}
