//! The build context: the directory less what `.dockerignore` leaves out, as a tar.
//!
//! Owners become root and file times stay, as Docker's client sends it. A Dockerfile from
//! elsewhere (`-f` outside the context, or stdin) travels under a made-up name that is ignored
//! by `COPY`.

use std::{
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use api::client::BodySender;
use spec::ignore::Ignore;

use crate::{
    commands::copy::local::{Sink, permissions},
    create::{files::reason, mounts::clean},
    failure::Failure,
};

/// Where the context comes from.
#[derive(Debug)]
pub enum Source {
    /// A directory, its rules, and the Dockerfile when it is not in it.
    Directory { root: PathBuf, ignore: Ignore, extra: Option<Extra>, named: Named },
    /// A finished tar on stdin; the bytes already read from it.
    StdinTar { head: Vec<u8> },
    /// Only a Dockerfile.
    Lone(Extra, Named),
    /// Fetched by the daemon.
    Remote(String),
}

/// Directories of `--build-context`; they travel as `0`, `1`, … in a directory with a made-up name.
#[derive(Debug, Default)]
pub struct Named {
    pub directory: String,
    pub roots: Vec<PathBuf>,
}

impl Named {
    pub fn new(roots: Vec<PathBuf>) -> Named {
        let directory =
            if roots.is_empty() { String::new() } else { format!(".contexts.{}", random()) };
        Named { directory, roots }
    }
}

/// A Dockerfile that is not in the context.
#[derive(Debug)]
pub struct Extra {
    pub name: String,
    pub text: Vec<u8>,
}

impl Extra {
    fn new(text: Vec<u8>) -> Extra {
        Extra { name: format!(".dockerfile.{}", random()), text }
    }
}

/// Part of a name that no file has.
fn random() -> String {
    let mut random = [0u8; 10];
    let filled = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
    // Without randomness the process number keeps the name apart from real files as well.
    match filled {
        Ok(_) => random.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
        Err(_) => std::process::id().to_string(),
    }
}

/// A context ready to be sent, and the Dockerfile's name in it.
#[derive(Debug)]
pub struct Context {
    pub source: Source,
    pub dockerfile: String,
}

/// A context that cannot be sent.
#[derive(Debug)]
pub enum Unprepared {
    /// The Dockerfile cannot be read, which Docker's two builders word each in its own way.
    Dockerfile {
        classic: String,
        buildkit: String,
    },
    Other(Failure),
}

impl From<Failure> for Unprepared {
    fn from(failure: Failure) -> Unprepared {
        Unprepared::Other(failure)
    }
}

/// Finds the context named by `build`'s argument and `--file`.
///
/// # Errors
/// In Docker's words, when something is not there.
pub fn prepare(path: &str, file: &str, named: Named) -> Result<Context, Unprepared> {
    let alone = || match named.roots.is_empty() {
        true => Ok(()),
        false => Err(Failure::new("--build-context takes directories beside a local context only")),
    };
    if path == "-" {
        return Ok(from_stdin(file, named)?);
    }
    if is_remote(path) {
        alone()?;
        return Ok(Context {
            source: Source::Remote(path.to_owned()),
            dockerfile: file.to_owned(),
        });
    }
    let root = fs::canonicalize(path)
        .map_err(|_| Failure::new(format!("unable to prepare context: path {path:?} not found")))?;
    if !root.is_dir() {
        return Err(Unprepared::Other(Failure::new(format!(
            "unable to prepare context: context must be a directory: {}",
            root.display()
        ))));
    }
    let (dockerfile, extra) = locate(&root, file)?;
    let ignore = ignore_rules(&root, &dockerfile)?;
    Ok(Context { source: Source::Directory { root, ignore, extra, named }, dockerfile })
}

/// The Dockerfile's name in the context, and its text when it is not there.
fn locate(root: &Path, file: &str) -> Result<(String, Option<Extra>), Unprepared> {
    if file == "-" {
        let extra = Extra::new(read_stdin()?);
        return Ok((extra.name.clone(), Some(extra)));
    }
    let path = match file {
        "" => {
            let usual = root.join("Dockerfile");
            let lower = root.join("dockerfile");
            if !usual.exists() && lower.exists() { lower } else { usual }
        }
        file => clean(&std::path::absolute(file).unwrap_or_else(|_| PathBuf::from(file))),
    };
    let missing = |error: io::Error| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let reason = reason(&error);
        Unprepared::Dockerfile {
            classic: format!(
                "unable to prepare context: unable to evaluate symlinks in Dockerfile path: lstat {}: {reason}",
                path.display(),
            ),
            buildkit: format!("failed to solve: failed to read dockerfile: open {name}: {reason}"),
        }
    };
    let full = fs::canonicalize(&path).map_err(missing)?;
    if let Ok(inner) = full.strip_prefix(root) {
        return Ok((inner.to_string_lossy().into_owned(), None));
    }
    let text = fs::read(&full).map_err(missing)?;
    let extra = Extra::new(text);
    Ok((extra.name.clone(), Some(extra)))
}

/// `NAME.dockerignore` beside the Dockerfile goes before the context's `.dockerignore`.
fn ignore_rules(root: &Path, dockerfile: &str) -> Result<Ignore, Failure> {
    for name in [format!("{dockerfile}.dockerignore"), ".dockerignore".to_owned()] {
        let path = root.join(&name);
        match fs::read(&path) {
            Ok(text) => {
                return Ignore::parse(&String::from_utf8_lossy(&text))
                    .map_err(|error| Failure::new(format!("error checking context: {error}")));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(Failure::new(format!("open {}: {}", path.display(), reason(&error))));
            }
        }
    }
    Ok(Ignore::default())
}

fn is_remote(path: &str) -> bool {
    ["http://", "https://", "git://", "git@", "github.com/"]
        .iter()
        .any(|prefix| path.starts_with(prefix))
}

fn read_stdin() -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    io::stdin()
        .read_to_end(&mut text)
        .map_err(|error| Failure::new(format!("read stdin: {}", reason(&error))))?;
    Ok(text)
}

/// Stdin holds a tar, packed or not, or the Dockerfile of an empty context.
fn from_stdin(file: &str, named: Named) -> Result<Context, Failure> {
    if file == "-" {
        return Err(Failure::new(
            "invalid argument: can't use stdin for both build context and dockerfile",
        ));
    }
    let mut head = vec![0; 512];
    let mut filled = 0;
    while filled < head.len() {
        let count = io::stdin().read(&mut head[filled..]).map_err(|error| {
            Failure::new(format!("failed to peek context header from STDIN: {}", reason(&error)))
        })?;
        if count == 0 {
            break;
        }
        filled += count;
    }
    head.truncate(filled);
    if is_archive(&head) {
        if !named.roots.is_empty() {
            let text = "--build-context takes directories beside a local context only";
            return Err(Failure::new(text));
        }
        return Ok(Context { source: Source::StdinTar { head }, dockerfile: file.to_owned() });
    }
    if !file.is_empty() {
        return Err(Failure::new(
            "ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles",
        ));
    }
    head.extend(read_stdin()?);
    let extra = Extra { name: "Dockerfile".to_owned(), text: head };
    Ok(Context { source: Source::Lone(extra, named), dockerfile: "Dockerfile".to_owned() })
}

fn is_archive(head: &[u8]) -> bool {
    const PACKED: [&[u8]; 4] = [
        &[0x1f, 0x8b, 0x08],
        &[0x42, 0x5a, 0x68],
        &[0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00],
        &[0x28, 0xb5, 0x2f, 0xfd],
    ];
    PACKED.iter().any(|magic| head.starts_with(magic))
        || head.get(257..262).is_some_and(|magic| magic == b"ustar")
}

/// Whether the tar is compressed on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
}

/// Sends the context; blocking.
///
/// # Errors
/// When something of it cannot be read. A broken connection is the request's own error.
pub fn send(source: &Source, compression: Compression, sender: BodySender) -> Result<(), Failure> {
    let mut sink = Sink::new(sender);
    let result = match compression {
        Compression::None => write(source, &mut sink),
        Compression::Gzip => {
            let mut packed = flate2::write::GzEncoder::new(&mut sink, flate2::Compression::fast());
            write(source, &mut packed)
                .and_then(|()| packed.finish().map(drop).map_err(Broken::from))
        }
    };
    match result {
        Ok(()) => {
            // A daemon that has heard enough closes early; its answer says why.
            let _ = sink.finish();
            Ok(())
        }
        Err(Broken { path, error }) if error.kind() != io::ErrorKind::BrokenPipe => {
            let words = match path {
                Some(path) => {
                    format!("error from sender: open {}: {}", path.display(), reason(&error))
                }
                None => format!("error from sender: {}", reason(&error)),
            };
            sink.fail(error);
            Err(Failure::new(words))
        }
        Err(_) => Ok(()),
    }
}

/// What could not be read, or the sink's own failure.
struct Broken {
    path: Option<PathBuf>,
    error: io::Error,
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Broken {
        Broken { path: None, error }
    }
}

fn write(source: &Source, out: &mut dyn Write) -> Result<(), Broken> {
    match source {
        Source::Directory { root, ignore, extra, named } => {
            let mut builder = tar::Builder::new(out);
            builder.follow_symlinks(false);
            let whole =
                Walk { root, ignore, keep_all_rules: extra.is_some(), prefix: String::new() };
            add_directory(&mut builder, &whole, "", &mut Vec::new())?;
            if let Some(extra) = extra {
                add_text(&mut builder, extra)?;
            }
            add_named(&mut builder, named)?;
            builder.finish()?;
            Ok(())
        }
        Source::Lone(extra, named) => {
            let mut builder = tar::Builder::new(out);
            add_text(&mut builder, extra)?;
            add_named(&mut builder, named)?;
            builder.finish()?;
            Ok(())
        }
        Source::StdinTar { head } => {
            out.write_all(head)?;
            io::copy(&mut io::stdin(), out)?;
            Ok(())
        }
        Source::Remote(_) => Ok(()),
    }
}

type Tar<'a> = tar::Builder<&'a mut dyn Write>;

fn add_text(builder: &mut Tar<'_>, extra: &Extra) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o600);
    header.set_size(extra.text.len() as u64);
    header.set_entry_type(tar::EntryType::Regular);
    builder.append_data(&mut header, &extra.name, extra.text.as_slice())
}

/// A directory on its way into the archive.
struct Walk<'a> {
    root: &'a Path,
    ignore: &'a Ignore,
    keep_all_rules: bool,
    /// In front of every name in the archive.
    prefix: String,
}

fn add_named(builder: &mut Tar<'_>, named: &Named) -> Result<(), Broken> {
    for (index, root) in named.roots.iter().enumerate() {
        let broken = |error| Broken { path: Some(root.clone()), error };
        let ignore = fs::read(root.join(".dockerignore")).unwrap_or_default();
        let ignore = Ignore::parse(&String::from_utf8_lossy(&ignore)).unwrap_or_default();
        let prefix = format!("{}/{index}/", named.directory);
        let metadata = fs::metadata(root).map_err(broken)?;
        add_entry(builder, root, &prefix, &metadata)?;
        let walk = Walk { root, ignore: &ignore, keep_all_rules: true, prefix };
        add_directory(builder, &walk, "", &mut Vec::new())?;
    }
    Ok(())
}

/// A directory that is left out itself, on the way to what is let in below it.
type Passage = (PathBuf, String, fs::Metadata);

/// Adds what is in a directory. The directories of `passages` go in front of the first thing below
/// them that goes at all, so that they keep their modes.
fn add_directory(
    builder: &mut Tar<'_>,
    walk: &Walk<'_>,
    below: &str,
    passages: &mut Vec<Passage>,
) -> Result<(), Broken> {
    let Walk { root, ignore, keep_all_rules, prefix } = walk;
    let directory = root.join(below);
    let broken = |path: &Path| {
        let path = path.to_owned();
        move |error| Broken { path: Some(path), error }
    };
    let mut entries: Vec<_> = fs::read_dir(&directory)
        .and_then(|entries| entries.collect::<io::Result<_>>())
        .map_err(broken(&directory))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let file_name = entry.file_name();
        let name = match below {
            "" => file_name.to_string_lossy().into_owned(),
            below => format!("{below}/{}", file_name.to_string_lossy()),
        };
        let path = entry.path();
        let metadata = entry.metadata().map_err(broken(&path))?;
        // The builder reads these two itself, so they are sent whatever the rules say.
        let needed = !keep_all_rules && is_builders_own(&name);
        let archived = format!("{prefix}{name}");
        let excluded = !needed && !ignore.is_empty() && ignore.excludes(&name);
        if metadata.is_dir() {
            if excluded && !ignore.may_let_in_below(&name) {
                continue;
            }
            if excluded {
                passages.push((path, archived, metadata));
                add_directory(builder, walk, &name, passages)?;
                passages.pop();
                continue;
            }
            pass(builder, passages)?;
            add_entry(builder, &path, &archived, &metadata)?;
            add_directory(builder, walk, &name, passages)?;
        } else if !excluded {
            pass(builder, passages)?;
            add_entry(builder, &path, &archived, &metadata)?;
        }
    }
    Ok(())
}

fn pass(builder: &mut Tar<'_>, passages: &mut Vec<Passage>) -> Result<(), Broken> {
    for (path, archived, metadata) in passages.drain(..) {
        add_entry(builder, &path, &archived, &metadata)?;
    }
    Ok(())
}

fn is_builders_own(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    name == ".dockerignore"
        || file.eq_ignore_ascii_case("dockerfile")
        || file.ends_with(".dockerignore")
}

fn add_entry(
    builder: &mut Tar<'_>,
    path: &Path,
    name: &str,
    metadata: &fs::Metadata,
) -> Result<(), Broken> {
    let broken = |error| Broken { path: Some(path.to_owned()), error };
    let mut header = tar::Header::new_gnu();
    header.set_metadata(metadata);
    header.set_mode(permissions(metadata));
    header.set_uid(0);
    header.set_gid(0);
    let kind = metadata.file_type();
    if kind.is_symlink() {
        header.set_size(0);
        let target = fs::read_link(path).map_err(broken)?;
        builder.append_link(&mut header, name, target)?;
    } else if kind.is_file() {
        let file = fs::File::open(path).map_err(broken)?;
        // A file that grows meanwhile must not break the archive; one that shrinks is padded.
        let exact = file.take(metadata.len()).chain(io::repeat(0)).take(metadata.len());
        builder.append_data(&mut header, name, exact)?;
    } else if kind.is_dir() {
        header.set_size(0);
        builder.append_data(&mut header, name, io::empty())?;
    } else {
        use std::os::unix::fs::FileTypeExt as _;
        if !kind.is_socket() {
            header.set_size(0);
            builder.append_data(&mut header, name, io::empty())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Directory(PathBuf);

    impl Drop for Directory {
        fn drop(&mut self) {
            // A leftover in the temporary directory fails no test.
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn directory(name: &str, files: &[(&str, &str)]) -> Directory {
        let root = std::env::temp_dir().join(format!("tug-cli-{name}-{}", std::process::id()));
        for (file, text) in files {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Directory(root)
    }

    fn names(context: &Context) -> Vec<String> {
        let mut out = Vec::new();
        if write(&context.source, &mut out).is_err() {
            panic!("cannot pack");
        }
        let mut archive = tar::Archive::new(out.as_slice());
        archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn the_context_is_the_directory_less_what_is_ignored() {
        let root = directory(
            "ignore",
            &[
                ("Dockerfile", "FROM scratch"),
                (".dockerignore", "*.log\nsub\n!sub/keep\nDockerfile"),
                ("a.log", ""),
                ("app.py", ""),
                ("sub/drop", ""),
                ("sub/keep", ""),
            ],
        );
        let context = prepare(root.0.to_str().unwrap(), "", Named::default()).unwrap();
        let want = [".dockerignore", "Dockerfile", "app.py", "sub", "sub/keep"];
        assert_eq!(names(&context), want);
        assert_eq!(context.dockerfile, "Dockerfile");
    }

    #[test]
    fn a_dockerfile_from_elsewhere_travels_under_another_name() {
        let root = directory("outside", &[("context/a", ""), ("Other", "FROM scratch")]);
        let context = prepare(
            root.0.join("context").to_str().unwrap(),
            root.0.join("Other").to_str().unwrap(),
            Named::default(),
        )
        .unwrap();
        assert!(context.dockerfile.starts_with(".dockerfile."));
        assert_eq!(names(&context).len(), 2);
    }

    #[test]
    fn a_missing_context_is_told() {
        let refused = prepare("/no/such", "", Named::default()).unwrap_err();
        let Unprepared::Other(failure) = refused else { panic!() };
        assert_eq!(failure.to_string(), "unable to prepare context: path \"/no/such\" not found");
        let root = directory("empty", &[("a", "")]);
        let refused = prepare(root.0.to_str().unwrap(), "", Named::default()).unwrap_err();
        let Unprepared::Dockerfile { classic, buildkit } = refused else { panic!() };
        assert!(classic.starts_with("unable to prepare context: unable to evaluate symlinks"));
        assert_eq!(
            buildkit,
            "failed to solve: failed to read dockerfile: open Dockerfile: no such file or directory"
        );
    }

    #[test]
    fn an_exception_below_a_wildcard_is_sent_with_its_directories() {
        let root = directory(
            "wildcard",
            &[
                ("Dockerfile", "FROM scratch"),
                (".dockerignore", "*\n!*/*.txt\n"),
                ("a.txt", ""),
                ("d/a.txt", ""),
                ("d/b.md", ""),
                ("e/b.md", ""),
                ("f/g/a.txt", ""),
            ],
        );
        let context = prepare(root.0.to_str().unwrap(), "", Named::default()).unwrap();
        assert_eq!(names(&context), [".dockerignore", "Dockerfile", "d", "d/a.txt"]);
    }
}
