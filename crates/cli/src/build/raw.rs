//! A build's progress as BuildKit's `SolveStatus`, one JSON object a line: `--progress rawjson`.
//!
//! A vertex is named by a digest. Ours are of the vertex's number and name, since the trace has no
//! content behind it; they are unique in a build and the same when it is repeated.
//!
//! Source: buildkit `client/graph.go`, `util/progress/progressui`.

use api::trace::Trace;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use serde_json::{Value, json};
use spec::Digest;
use spec::units::from_human_size;

use super::board::{Board, Vertex};

#[derive(Debug, Default)]
pub struct Raw {
    board: Board,
}

impl Raw {
    /// The line for one event, if it has one.
    pub fn draw(&mut self, trace: &Trace) -> Option<String> {
        self.board.apply(trace);
        let object = match trace {
            Trace::Started { vertex, .. } | Trace::Done { vertex, .. } => {
                json!({ "vertexes": [vertex_of(self.board.find_known(*vertex)?)] })
            }
            Trace::Status { vertex, text, is_done, at_ms } => {
                let vertex = self.board.find_known(*vertex)?;
                let (id, current) = text.split_once(": ").unwrap_or((text, ""));
                let began = vertex.statuses.iter().rev().find(|status| status.text == *text);
                let mut status = json!({
                    "id": id,
                    "vertex": digest(vertex),
                    "name": text,
                    "current": from_human_size(current).unwrap_or(0),
                    "timestamp": time(*at_ms),
                    "started": time(began.map_or(*at_ms, |status| status.began_ms)),
                });
                if *is_done {
                    status["completed"] = time(*at_ms);
                }
                json!({ "statuses": [status] })
            }
            Trace::Log { vertex, stream, data, at_ms } => json!({ "logs": [{
                "vertex": digest(self.board.find_known(*vertex)?),
                "stream": stream,
                "data": BASE64_STANDARD.encode(data),
                "timestamp": time(*at_ms),
            }] }),
            Trace::Warning { text } => {
                let vertex = self.board.vertices.last()?;
                json!({ "warnings": [{
                    "vertex": digest(vertex),
                    "level": 1,
                    "short": BASE64_STANDARD.encode(text),
                }] })
            }
            Trace::Image { .. } | Trace::Failed { .. } => return None,
        };
        Some(format!("{object}\n"))
    }
}

fn digest(vertex: &Vertex) -> String {
    Digest::of(format!("{}:{}", vertex.number, vertex.name).as_bytes()).to_string()
}

fn time(ms: u64) -> Value {
    let at = Timestamp::from_millisecond(i64::try_from(ms).unwrap_or(i64::MAX));
    at.map_or(Value::Null, |at| Value::String(at.to_string()))
}

fn vertex_of(vertex: &Vertex) -> Value {
    let mut object = json!({
        "digest": digest(vertex),
        "name": vertex.name,
        "started": time(vertex.began_ms),
    });
    if let Some(ended) = vertex.ended_ms {
        object["completed"] = time(ended);
    }
    if vertex.is_cached {
        object["cached"] = Value::Bool(true);
    }
    if let Some(error) = &vertex.error {
        object["error"] = Value::String(error.clone());
    }
    object
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn a_build_is_told_in_buildkits_shape() {
        let mut raw = Raw::default();
        let lines: String = [
            Trace::Started { vertex: 4, name: "[1/1] RUN x".into(), at_ms: 1000 },
            Trace::Status {
                vertex: 4,
                text: "copying files: 1.21kB".into(),
                is_done: true,
                at_ms: 1100,
            },
            Trace::Log { vertex: 4, stream: 1, data: "hi\n".into(), at_ms: 1200 },
            Trace::Done { vertex: 4, is_cached: true, error: None, at_ms: 1500 },
            Trace::Warning { text: "w".into() },
            Trace::Image { id: "sha256:0".into() },
            Trace::Done { vertex: 0, is_cached: true, error: None, at_ms: 1500 },
        ]
        .iter()
        .filter_map(|trace| raw.draw(trace))
        .collect();
        let digest = digest(&raw.board.vertices[0]);
        expect![[r#"
            {"vertexes":[{"digest":"D","name":"[1/1] RUN x","started":"1970-01-01T00:00:01Z"}]}
            {"statuses":[{"id":"copying files","vertex":"D","name":"copying files: 1.21kB","current":1210,"timestamp":"1970-01-01T00:00:01.1Z","started":"1970-01-01T00:00:01.1Z","completed":"1970-01-01T00:00:01.1Z"}]}
            {"logs":[{"vertex":"D","stream":1,"data":"aGkK","timestamp":"1970-01-01T00:00:01.2Z"}]}
            {"vertexes":[{"digest":"D","name":"[1/1] RUN x","started":"1970-01-01T00:00:01Z","completed":"1970-01-01T00:00:01.5Z","cached":true}]}
            {"warnings":[{"vertex":"D","level":1,"short":"dw=="}]}
        "#]]
        .assert_eq(&lines.replace(&digest, "D"));
    }
}
