//! Where a build's result goes: `--output`, `--load` and `--push`.
//!
//! The daemon keeps an image only when one is wanted. Files and archives come in the build's own answer,
//! piece by piece, and are written here while they come.
//!
//! Source: docs.docker.com "Exporters overview"; docker buildx `util/buildflags/export.go`.

use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use api::trace::{BuildOutput, ExportPiece};
use base64::{Engine as _, prelude::BASE64_STANDARD};

use crate::{
    create::{files::reason, sizes::csv_fields},
    failure::Failure,
    terminal,
};

/// Pieces that wait for a slow disk.
const PIECES_MAX: usize = 16;

/// One wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// An image under further names.
    Image { names: Vec<String>, push: bool },
    /// The files, below a directory.
    Local(String),
    /// The files as a tar; empty is stdout.
    Tar(String),
    /// The image as a tar; empty is stdout.
    Archive { kind: ArchiveKind, dest: String },
    /// Nothing but the cache.
    Nothing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveKind {
    Docker,
    Oci,
}

impl Output {
    /// Reads `type=…,dest=…`, a directory, or `-`.
    ///
    /// # Errors
    /// For types and keys that are not known, and what would write to a terminal.
    pub fn parse(text: &str) -> Result<Output, Failure> {
        let output = Output::read(text)?;
        let (dest, kind) = match &output {
            Output::Tar(dest) => (dest, "tar"),
            Output::Archive { dest, kind: ArchiveKind::Docker } => (dest, "docker"),
            Output::Archive { dest, kind: ArchiveKind::Oci } => (dest, "oci"),
            Output::Image { .. } | Output::Local(_) | Output::Nothing => return Ok(output),
        };
        if dest.is_empty() && terminal::stdout_is_terminal() {
            return Err(Failure::new(format!(
                "dest file is required for {kind} exporter. refusing to write to console"
            )));
        }
        if Path::new(dest).is_dir() {
            return Err(Failure::new(format!(
                "destination file {dest} is a directory, did you mean type=local?"
            )));
        }
        Ok(output)
    }

    fn read(text: &str) -> Result<Output, Failure> {
        if text == "-" {
            return Ok(Output::Tar(String::new()));
        }
        if !text.contains('=') {
            return Ok(Output::Local(text.to_owned()));
        }
        let (mut kind, mut dest, mut names, mut push) = (String::new(), None, Vec::new(), false);
        for field in csv_fields(text).map_err(Failure::new)? {
            let Some((key, value)) = field.split_once('=') else {
                return Err(Failure::new(format!("invalid value {field}")));
            };
            match key.trim().to_ascii_lowercase().as_str() {
                "type" => value.clone_into(&mut kind),
                "dest" => dest = Some(value.to_owned()),
                "name" => names.extend(value.split(',').map(|name| name.trim().to_owned())),
                "push" => push = truth(key, value)?,
                key => {
                    return Err(Failure::new(format!("unknown key {key:?} of --output {text}")));
                }
            }
        }
        let dest = dest.map(|dest| if dest == "-" { String::new() } else { dest });
        let archive = |kind, dest| Output::Archive { kind, dest };
        match (kind.as_str(), dest) {
            ("local", Some(dest)) if !dest.is_empty() => Ok(Output::Local(dest)),
            ("local", _) => Err(Failure::new("dest is required for local exporter")),
            ("tar", dest) => Ok(Output::Tar(dest.unwrap_or_default())),
            ("docker", Some(dest)) => Ok(archive(ArchiveKind::Docker, dest)),
            ("oci", dest) => Ok(archive(ArchiveKind::Oci, dest.unwrap_or_default())),
            ("docker" | "image", _) => Ok(Output::Image { names, push }),
            ("registry", _) => Ok(Output::Image { names, push: true }),
            ("cacheonly", _) => Ok(Output::Nothing),
            ("", _) => Err(Failure::new("type is required for output")),
            (other, _) => Err(Failure::new(format!("unsupported output type {other:?}"))),
        }
    }

    /// As the daemon is asked for it.
    fn kind(&self) -> Option<&'static str> {
        match self {
            Output::Image { .. } => Some("image"),
            Output::Local(_) => Some("local"),
            Output::Tar(_) => Some("tar"),
            Output::Archive { kind: ArchiveKind::Docker, .. } => Some("docker"),
            Output::Archive { kind: ArchiveKind::Oci, .. } => Some("oci"),
            Output::Nothing => None,
        }
    }
}

fn truth(key: &str, value: &str) -> Result<bool, Failure> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(Failure::new(format!("invalid boolean value {value:?} of {key}"))),
    }
}

/// All wishes of a build, in the order in which the daemon is told of them.
#[derive(Debug, Default)]
pub struct Outputs {
    list: Vec<Output>,
    /// Without any wish there is an image.
    is_default: bool,
}

impl Outputs {
    /// What `--output`, `--load` and `--push` say together.
    ///
    /// # Errors
    /// As [`Output::parse`].
    pub fn parse(values: &[String], load: bool, push: bool) -> Result<Outputs, Failure> {
        let mut all = Vec::new();
        for value in values {
            all.push(Output::parse(value)?);
        }
        if load || push {
            all.push(Output::Image { names: Vec::new(), push });
        }
        let is_default = all.is_empty();
        // One image serves all wishes for one.
        let (mut names, mut is_pushed, mut list) = (Vec::new(), false, Vec::new());
        for output in all {
            match output {
                Output::Image { names: more, push } => {
                    names.extend(more);
                    is_pushed |= push;
                    if !list.iter().any(|other| matches!(other, Output::Image { .. })) {
                        list.push(Output::Image { names: Vec::new(), push: false });
                    }
                }
                Output::Nothing => {}
                other => list.push(other),
            }
        }
        for output in &mut list {
            if matches!(output, Output::Image { .. }) {
                *output = Output::Image { names: names.clone(), push: is_pushed };
            }
        }
        Ok(Outputs { list, is_default })
    }

    /// Whether only Tug's own daemon can do it.
    pub fn is_more(&self) -> bool {
        !self.keeps_image() || self.list.len() > 1
    }

    /// The parameter `outputs`; none asks for the image alone.
    pub fn parameter(&self) -> Option<String> {
        let wish = |output: &Output| {
            let kind = output.kind()?.to_owned();
            Some(BuildOutput { kind, ..BuildOutput::default() })
        };
        let wishes: Vec<BuildOutput> = self.list.iter().filter_map(wish).collect();
        (!self.is_default).then(|| serde_json::json!(wishes).to_string())
    }

    /// The names that `type=image` gives, and whether the image is pushed.
    pub fn image(&self) -> (&[String], bool) {
        self.list
            .iter()
            .find_map(|output| match output {
                Output::Image { names, push } => Some((names.as_slice(), *push)),
                _ => None,
            })
            .unwrap_or((&[], false))
    }

    pub fn keeps_image(&self) -> bool {
        self.is_default || self.list.iter().any(|output| matches!(output, Output::Image { .. }))
    }

    /// Gets ready for what will come.
    pub fn takers(&self) -> Takers {
        Takers(self.list.iter().map(Taker::new).collect())
    }
}

/// Who writes each output down.
#[derive(Debug, Default)]
pub struct Takers(Vec<Taker>);

#[derive(Debug)]
struct Taker {
    sender: Option<SyncSender<Vec<u8>>>,
    writer: Option<JoinHandle<Result<(), Failure>>>,
}

impl Taker {
    fn new(output: &Output) -> Taker {
        let (sender, pieces) = sync_channel(PIECES_MAX);
        let pieces = Pieces { receiver: pieces, left: Vec::new(), at: 0 };
        let writer = match output.clone() {
            Output::Local(dest) => std::thread::spawn(move || unpack(&dest, pieces)),
            Output::Tar(dest) | Output::Archive { dest, .. } => {
                std::thread::spawn(move || copy(&dest, pieces))
            }
            Output::Image { .. } | Output::Nothing => return Taker { sender: None, writer: None },
        };
        Taker { sender: Some(sender), writer: Some(writer) }
    }

    fn end(&mut self) -> Result<(), Failure> {
        self.sender = None;
        match self.writer.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(outcome)) => outcome,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
        }
    }
}

impl Takers {
    /// Hands on what came.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn take(&mut self, piece: &ExportPiece) -> Result<(), Failure> {
        let unexpected = || Failure::new(format!("unexpected output {}", piece.output));
        let taker = self.0.get_mut(piece.output).ok_or_else(unexpected)?;
        let bytes = BASE64_STANDARD
            .decode(&piece.data)
            .map_err(|error| Failure::new(format!("cannot read the build's output: {error}")))?;
        match taker.sender.as_ref().ok_or_else(unexpected)?.send(bytes) {
            Ok(()) => Ok(()),
            // The writer tells why it ended.
            Err(_) => taker.end(),
        }
    }

    /// Waits until all is written. Without a whole build there is nothing to wait for.
    ///
    /// # Errors
    /// When something cannot be written.
    pub fn finish(&mut self) -> Result<(), Failure> {
        self.0.iter_mut().try_for_each(Taker::end)
    }
}

/// The pieces of one output, as a reader.
struct Pieces {
    receiver: Receiver<Vec<u8>>,
    left: Vec<u8>,
    at: usize,
}

impl Read for Pieces {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at == self.left.len() {
            match self.receiver.recv() {
                Ok(piece) => (self.left, self.at) = (piece, 0),
                Err(_) => return Ok(0),
            }
        }
        let count = out.len().min(self.left.len() - self.at);
        out[..count].copy_from_slice(&self.left[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

/// Writes the pieces as they are. Nothing is opened before the first one: a build that fails leaves
/// the file of an earlier one alone.
fn copy(dest: &str, pieces: Pieces) -> Result<(), Failure> {
    let shown = if dest.is_empty() { "/dev/stdout" } else { dest };
    let failed =
        |what: &str, error: io::Error| Failure::new(format!("{what} {shown}: {}", reason(&error)));
    let Ok(first) = pieces.receiver.recv() else { return Ok(()) };
    let mut out: Box<dyn Write> = match dest {
        "" => Box::new(io::stdout()),
        dest => Box::new(std::fs::File::create(dest).map_err(|error| failed("open", error))?),
    };
    out.write_all(&first).map_err(|error| failed("write", error))?;
    for piece in pieces.receiver {
        out.write_all(&piece).map_err(|error| failed("write", error))?;
    }
    out.flush().map_err(|error| failed("write", error))
}

fn unpack(dest: &str, pieces: Pieces) -> Result<(), Failure> {
    let failed = |error: io::Error| {
        // The archive's errors say the path; their cause says what is wrong with it.
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
        Failure::new(format!("error from receiver: {dest}: {}{cause}", reason(&error)))
    };
    let Ok(first) = pieces.receiver.recv() else { return Ok(()) };
    std::fs::create_dir_all(dest).map_err(failed)?;
    let mut archive =
        tar::Archive::new(crate::guarded::Guarded::new(Pieces { left: first, ..pieces }));
    archive.set_preserve_permissions(true);
    archive.set_preserve_mtime(true);
    let mut directories = Vec::new();
    for entry in archive.entries().map_err(failed)? {
        let mut entry = entry.map_err(failed)?;
        let path: PathBuf = (entry.path().map_err(failed)?.components())
            .filter(|part| matches!(part, Component::Normal(_)))
            .collect();
        if crate::files::is_device(&Path::new(dest).join(&path)) {
            let text = format!("cannot overwrite device {path:?}");
            return Err(failed(io::Error::other(text)));
        }
        // A directory's own mode and times come last, when nothing is to be put into it any more.
        if entry.header().entry_type().is_dir() {
            directories.push(entry);
        } else {
            entry.unpack_in(dest).map_err(failed)?;
        }
    }
    directories.sort_by(|one, other| other.path_bytes().cmp(&one.path_bytes()));
    for mut directory in directories {
        directory.unpack_in(dest).map_err(failed)?;
    }
    // What follows the archive's end mark is taken, so that its sender does not fail.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map(drop).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_are_read_in_their_short_and_long_form() {
        let archive = |kind, dest: &str| Output::Archive { kind, dest: dest.into() };
        for (text, want) in [
            ("out", Ok(Output::Local("out".into()))),
            ("-", Ok(Output::Tar(String::new()))),
            ("type=local,dest=x", Ok(Output::Local("x".into()))),
            ("type=tar,dest=-", Ok(Output::Tar(String::new()))),
            ("type=docker,dest=i.tar", Ok(archive(ArchiveKind::Docker, "i.tar"))),
            ("type=oci,dest=i.tar", Ok(archive(ArchiveKind::Oci, "i.tar"))),
            (
                "type=image,\"name=x,y\",push=true",
                Ok(Output::Image { names: vec!["x".into(), "y".into()], push: true }),
            ),
            ("type=cacheonly", Ok(Output::Nothing)),
            ("type=local", Err("dest is required for local exporter")),
            ("type=s3", Err("unsupported output type \"s3\"")),
            ("dest=x", Err("type is required for output")),
            ("type=image,push=maybe", Err("invalid boolean value \"maybe\" of push")),
            ("type=image,x=1", Err("unknown key \"x\" of --output type=image,x=1")),
        ] {
            let got = Output::read(text).map_err(|failure| failure.to_string());
            assert_eq!(got, want.map_err(str::to_owned), "{text}");
        }
    }

    #[test]
    fn the_daemon_is_told_of_each_wish_once() {
        let asked = |values: &[&str], load, push| {
            let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
            let outputs = Outputs::parse(&values, load, push).unwrap();
            (outputs.parameter().unwrap_or_default(), outputs.keeps_image(), outputs.image().1)
        };
        assert_eq!(asked(&[], false, false), (String::new(), true, false));
        assert_eq!(asked(&["type=cacheonly"], false, false), ("[]".to_owned(), false, false));
        let image = r#"[{"Type":"image"}]"#.to_owned();
        assert_eq!(asked(&["type=image,name=x"], true, true), (image, true, true));
        let both = r#"[{"Type":"local"},{"Type":"image"}]"#.to_owned();
        assert_eq!(asked(&["out"], true, false), (both, true, false));
    }
}
