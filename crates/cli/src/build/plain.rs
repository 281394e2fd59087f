//! A build's progress as lines that only ever append, for logs and pipes.

use api::trace::Trace;

use super::board::{Board, Vertex, seconds};

#[derive(Debug, Default)]
pub struct Plain {
    board: Board,
    /// The vertex whose lines are being printed.
    current: Option<u32>,
    /// How many of each vertex's lines are printed.
    printed: std::collections::HashMap<u32, usize>,
}

impl Plain {
    /// What to print for one event.
    pub fn draw(&mut self, trace: &Trace) -> String {
        self.board.apply(trace);
        let mut text = String::new();
        if !self.is_shown(trace) {
            return text;
        }
        match trace {
            Trace::Started { vertex, .. } => self.turn_to(*vertex, &mut text),
            Trace::Status { vertex, text: status, is_done, .. } => {
                if *is_done {
                    self.turn_to(*vertex, &mut text);
                    text.push_str(&format!("#{} {status} done\n", self.board.place(*vertex)));
                }
            }
            Trace::Log { vertex, .. } => self.log(*vertex, &mut text),
            Trace::Done { vertex, is_cached, error, .. } => {
                self.log(*vertex, &mut text);
                self.turn_to(*vertex, &mut text);
                let is_cancelled = self.board.find_known(*vertex).is_some_and(Vertex::is_cancelled);
                let outcome = match error {
                    Some(_) if is_cancelled => "CANCELED".to_owned(),
                    Some(error) => format!("ERROR: {error}"),
                    None if *is_cached => "CACHED".to_owned(),
                    None => format!("DONE {}", self.span(*vertex)),
                };
                text.push_str(&format!("#{} {outcome}\n\n", self.board.place(*vertex)));
                self.current = None;
            }
            Trace::Warning { text: warning } => text.push_str(&format!("WARNING: {warning}\n")),
            Trace::Image { .. } | Trace::Failed { .. } => {}
        }
        text
    }

    /// Steps that only change the image's configuration have no line of their own.
    fn is_shown(&self, trace: &Trace) -> bool {
        match trace {
            Trace::Started { vertex, .. }
            | Trace::Status { vertex, .. }
            | Trace::Log { vertex, .. }
            | Trace::Done { vertex, .. } => self.board.place(*vertex) > 0,
            Trace::Image { .. } | Trace::Warning { .. } | Trace::Failed { .. } => true,
        }
    }

    fn turn_to(&mut self, vertex: u32, text: &mut String) {
        if self.current == Some(vertex) {
            return;
        }
        if self.current.is_some() {
            text.push('\n');
        }
        self.current = Some(vertex);
        if let Some(found) = self.board.vertices.iter().find(|found| found.number == vertex) {
            text.push_str(&format!("#{} {}\n", self.board.place(vertex), found.name));
        }
    }

    fn log(&mut self, vertex: u32, text: &mut String) {
        let Some(found) = self.board.vertices.iter().find(|found| found.number == vertex) else {
            return;
        };
        let place = self.board.place(vertex);
        let printed = self.printed.get(&vertex).copied().unwrap_or_default().min(found.log.len());
        let lines: String = found.log[printed..]
            .iter()
            .map(|(at_ms, line)| {
                let since = at_ms.saturating_sub(found.began_ms) as f64 / 1000.0;
                format!("#{place} {since:.3} {line}\n")
            })
            .collect();
        self.printed.insert(vertex, found.log.len());
        if !lines.is_empty() {
            self.turn_to(vertex, text);
            text.push_str(&lines);
        }
    }

    fn span(&self, vertex: u32) -> String {
        self.board
            .vertices
            .iter()
            .find(|found| found.number == vertex)
            .map(|found| seconds(found.began_ms, found.ended_ms.unwrap_or(found.began_ms)))
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn each_vertex_has_its_number() {
        let mut plain = Plain::default();
        let mut text = String::new();
        for trace in [
            Trace::Started {
                vertex: 1,
                name: "[internal] load build definition from Dockerfile".into(),
                at_ms: 1000,
            },
            Trace::Status {
                vertex: 1,
                text: "transferring dockerfile: 73B".into(),
                is_done: true,
                at_ms: 1000,
            },
            Trace::Done { vertex: 1, is_cached: false, error: None, at_ms: 1010 },
            Trace::Started { vertex: 2, name: "[2/3] RUN echo hi".into(), at_ms: 1100 },
            Trace::Log { vertex: 2, stream: 1, data: "hi\nyo".into(), at_ms: 1300 },
            Trace::Done { vertex: 2, is_cached: false, error: None, at_ms: 1500 },
            Trace::Started { vertex: 3, name: "[3/3] COPY . .".into(), at_ms: 1500 },
            Trace::Done { vertex: 3, is_cached: true, error: None, at_ms: 1500 },
        ] {
            text.push_str(&plain.draw(&trace));
        }
        expect![[r#"
            #1 [internal] load build definition from Dockerfile
            #1 transferring dockerfile: 73B done
            #1 DONE 0.0s

            #2 [2/3] RUN echo hi
            #2 0.200 hi
            #2 0.400 yo
            #2 DONE 0.4s

            #3 [3/3] COPY . .
            #3 CACHED

        "#]]
        .assert_eq(&text);
    }
}
