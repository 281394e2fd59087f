//! Tug's own progress of a build: the `aux` of `{"id":"moby.tug.trace"}` lines, which the stream
//! of `POST /build?version=tug1` holds instead of text.
//!
//! A vertex is a line of the display. For each: `started`, any number of `status` and `log`, one
//! `done`; vertices interleave. The sender's half is in crate `build`.

use serde::{Deserialize, Serialize};

/// The `id` of the messages that carry a trace.
pub const ID: &str = "moby.tug.trace";
/// What `version=` asks for it.
pub const VERSION: &str = "tug1";
/// The secrets of RUN steps, `{"name":"base64"}` in base64. In a header, since
/// addresses are logged. With it come the parameters `contexts` (`{"name":"0"}`, the number of a
/// directory in `contextsdir` of the archive, or `{"name":"docker-image://x"}`), `ssh`
/// (`{"name":"/socket"}`), `allow` and `nocachefilter`.
pub const SECRETS_HEADER: &str = "x-tug-secrets";

/// The `id` of the messages that carry what a build hands to its client.
pub const EXPORT_ID: &str = "moby.tug.export";

/// The next bytes of the output of that number in the request's `outputs`, in base64.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportPiece {
    pub output: usize,
    pub data: String,
}

/// One element of `outputs`, as Docker's own parameter has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildOutput {
    #[serde(rename = "Type", default)]
    pub kind: String,
    #[serde(rename = "Attrs", default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<std::collections::BTreeMap<String, String>>,
}

/// One thing that happened. Times are Unix milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Trace {
    Started {
        vertex: u32,
        name: String,
        at_ms: u64,
    },
    Status {
        vertex: u32,
        text: String,
        is_done: bool,
        at_ms: u64,
    },
    /// `stream`: 1 is stdout, 2 stderr.
    Log {
        vertex: u32,
        stream: u8,
        data: String,
        at_ms: u64,
    },
    Done {
        vertex: u32,
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
    /// `excerpt`: the lines of the Dockerfile around the fault.
    Failed {
        message: String,
        excerpt: Option<String>,
    },
}
