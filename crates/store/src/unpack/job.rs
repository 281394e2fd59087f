//! What a confined process does with its archive. Also run on a thread of the daemon's in tests, where
//! everything but the confinement is the same.

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::wire::{Bytes, Channel, Event, Failure, Form, Job, LayerFacts, ListedPlace};
use crate::archive::{ArchiveError, ExtractOptions};
use crate::compress::{Compression, bounded};
use crate::draft::{Draft, UnpackError};
use crate::limits::{Meter, UnpackLimits};
use crate::listing::{self, Piece};
use crate::load;
use crate::pipe::{CHUNK_BYTES, HashPlain, plain};
use crate::tar::read::Reader;
use crate::tar::{BLOCK, Entry, Kind, TarError};
use crate::tree::{clean, split};

/// Places of a listing that are told in one event.
const PLACES_AT_ONCE: usize = 256;

/// What a job works on.
pub(super) enum Ground {
    Nothing,
    File(File),
    Directory(PathBuf),
}

/// Whether the kernel grants all, or some has to be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rights {
    All,
    Confined,
}

/// A job at work.
struct Work {
    channel: Arc<Channel>,
    rights: Rights,
}

/// Does the job and says how it went.
pub(super) fn run(job: &Job, archive: File, channel: Channel, ground: Ground, rights: Rights) {
    let work = Work { channel: Arc::new(channel), rights };
    // Whoever is not there any more hears nothing of the rest either.
    let _ = work.channel.send(&Event::Begun);
    let done = work.perform(job, archive, ground);
    // Whoever gave up hears nothing.
    let _ = work.channel.send(&match done {
        Ok(()) => Event::Done,
        Err(failure) => Event::Failed(failure),
    });
    if rights == Rights::All {
        let _ = work.channel.send(&Event::Exited(super::wire::Ending::Code(0)));
    }
}

impl Work {
    fn perform(&self, job: &Job, archive: File, ground: Ground) -> Result<(), Failure> {
        match (job, ground) {
            (Job::Layer { limits }, Ground::Directory(place)) => {
                self.layer(archive, &place, limits).map_err(Failure::Unpack)
            }
            (Job::Extract(options), Ground::Directory(place)) => {
                self.extract(archive, &place, options).map_err(Failure::Archive)
            }
            (Job::List { limits, keep }, Ground::File(spool)) => {
                self.list(archive, spool, limits, keep).map_err(Failure::Tar)
            }
            (Job::Entries { limits }, Ground::Nothing) => {
                self.entries(archive, limits).map_err(Failure::Tar)
            }
            (Job::Load { limits }, Ground::Directory(place)) => {
                self.load(archive, &place, limits).map_err(Failure::Tar)
            }
            (
                Job::Layer { .. }
                | Job::Extract(_)
                | Job::List { .. }
                | Job::Load { .. }
                | Job::Entries { .. },
                Ground::Nothing | Ground::File(_) | Ground::Directory(_),
            ) => Err(Failure::Tar(TarError::Read(std::io::ErrorKind::Unsupported.into()))),
        }
    }

    /// What a tree asks for what the kernel does not grant.
    fn helper(&self) -> Option<Arc<Channel>> {
        match self.rights {
            Rights::All => None,
            Rights::Confined => Some(Arc::clone(&self.channel)),
        }
    }

    fn layer(&self, archive: File, place: &Path, limits: &UnpackLimits) -> Result<(), UnpackError> {
        self.layer_of(archive, place, limits, HashPlain::IfCompressed)
    }

    fn layer_of(
        &self,
        archive: impl Read + Send,
        place: &Path,
        limits: &UnpackLimits,
        hashing: HashPlain,
    ) -> Result<(), UnpackError> {
        let mut draft = Draft::inside(place.to_owned(), self.helper())?;
        let ((), passed) = plain(archive, limits, hashing, |input| draft.unpack(input, limits))?;
        let complete = draft.complete()?;
        for path in &complete.implied {
            self.say(&Event::Implied(Bytes::of(path)))?;
        }
        for (ordinal, path) in &complete.kept {
            self.say(&Event::Kept(*ordinal, Bytes::of(path)))?;
        }
        let facts = LayerFacts {
            plain: passed.plain,
            tar_size: passed.plain_size,
            size: complete.size,
            entries: complete.entries,
        };
        Ok(self.say(&Event::Layer(facts))?)
    }

    fn extract(
        &self,
        archive: File,
        place: &Path,
        options: &ExtractOptions,
    ) -> Result<(), ArchiveError> {
        let look = |source| ArchiveError::Look { path: "/".into(), source };
        let directory = sys::fs::open_dir(place).map_err(look)?;
        crate::archive::extract_into(directory, archive, options, self.helper())
    }

    fn list(
        &self,
        archive: File,
        spool: File,
        limits: &UnpackLimits,
        keep: &[Bytes],
    ) -> Result<(), TarError> {
        let keeps = |path: &[u8]| keep.iter().any(|kept| kept.0 == path);
        let mut places: Vec<ListedPlace> = Vec::new();
        let mut found = |piece: Piece| match piece {
            Piece::Place(place) => {
                places.push(place);
                match places.len() < PLACES_AT_ONCE {
                    true => Ok(()),
                    false => self.say(&Event::Listed(std::mem::take(&mut places))),
                }
            }
            Piece::Content(path, content) => {
                let size = content.len() as u64;
                self.say(&Event::File { path: Bytes(path), size })?;
                self.channel.send_data(&content).map_err(TarError::Read)
            }
            Piece::NotPlain => self.say(&Event::NotPlain),
        };
        listing::take_apart(archive, spool, limits, &keeps, &mut found)?;
        self.say(&Event::Listed(places))
    }

    fn entries(&self, archive: File, limits: &UnpackLimits) -> Result<(), TarError> {
        let (plain, _) = bounded(archive, limits).map_err(TarError::Read)?;
        let (mut reader, mut meter, mut raw) =
            (Reader::new(plain), Meter::start(limits), Vec::new());
        while let Some(entry) = reader.next(&mut raw)? {
            raw.clear();
            meter.entry(&entry)?;
            let mut left = entry.size;
            self.say(&Event::Entry(entry))?;
            while left > 0 {
                let chunk = reader.payload(left)?;
                let got = chunk.len();
                self.channel.send_data(chunk).map_err(TarError::Read)?;
                reader.consume(got);
                left -= got as u64;
            }
        }
        Ok(())
    }

    fn load(&self, archive: File, place: &Path, limits: &UnpackLimits) -> Result<(), TarError> {
        let (plain, _) = bounded(archive, limits).map_err(TarError::Read)?;
        let (mut reader, mut meter, mut raw) =
            (Reader::new(plain), Meter::start(limits), Vec::new());
        let mut layers = 0;
        while let Some(entry) = reader.next(&mut raw)? {
            raw.clear();
            meter.entry(&entry)?;
            self.load_entry(&entry, &mut reader, place, &mut layers)?;
        }
        Ok(())
    }

    /// Says what a file of a saved image is, by its content.
    fn load_entry<R: BufRead + Send>(
        &self,
        entry: &Entry,
        reader: &mut Reader<R>,
        place: &Path,
        layers: &mut u64,
    ) -> Result<(), TarError> {
        let Ok(path) = clean(&entry.path) else { return Ok(()) };
        let (name, size) = (Bytes::of(&path), entry.size);
        let link = |target: &[u8]| Event::Link { path: name.clone(), target: Bytes::of(target) };
        match entry.kind {
            Kind::File => {}
            Kind::Symlink => {
                return self.say(&link(&[split(&path).0, b"/", &entry.link].concat()));
            }
            Kind::HardLink => return self.say(&link(&entry.link)),
            Kind::CharDevice | Kind::BlockDevice | Kind::Dir | Kind::Fifo => return Ok(()),
        }
        let mut content = EntryRead(reader);
        let mut start = Vec::new();
        let read = (&mut content).take(BLOCK as u64).read_to_end(&mut start);
        read.map_err(TarError::Read)?;
        if load::may_be_document(&start, size) {
            self.say(&Event::File { path: name, size })?;
            return self.send_all(io::Cursor::new(start).chain(content));
        }
        let is_blob = load::blob_of(&String::from_utf8_lossy(&path)).is_some();
        if is_blob && self.ask(&Event::Known { path: name.clone(), size })? {
            return Ok(());
        }
        if load::may_be_layer(&start) {
            let form = match Compression::sniff(&start) {
                Compression::None => Form::Plain,
                Compression::Gzip | Compression::Zstd | Compression::Bzip2 | Compression::Xz => {
                    Form::Compressed
                }
            };
            let limits: UnpackLimits = self.ask(&Event::LayerBegins { path: name, size, form })?;
            let place = place.join(layers.to_string());
            *layers += 1;
            let input = io::Cursor::new(start).chain(content);
            return self.load_layer(input, &place, form, &limits);
        }
        if is_blob {
            self.say(&Event::Blob { path: name, size })?;
            return self.send_all(io::Cursor::new(start).chain(content));
        }
        Ok(())
    }

    /// Unpacks a layer of several; that it fails fails nothing else.
    fn load_layer(
        &self,
        input: impl Read + Send,
        place: &Path,
        form: Form,
        limits: &UnpackLimits,
    ) -> Result<(), TarError> {
        let failed = |source| UnpackError::Draft { path: place.to_owned(), source };
        let made = std::fs::create_dir(place).map_err(failed);
        let always = HashPlain::Always;
        let done = made.and_then(|()| match form {
            Form::Plain => self.layer_of(input, place, limits, always),
            Form::Compressed => {
                let tee = Tee { input, channel: &self.channel };
                self.layer_of(tee, place, limits, always)
            }
        });
        match done {
            Ok(()) => Ok(()),
            Err(error) => self.say(&Event::LayerFailed(error)),
        }
    }

    fn send_all(&self, mut content: impl Read) -> Result<(), TarError> {
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            match content.read(&mut buffer).map_err(TarError::Read)? {
                0 => return Ok(()),
                got => self.channel.send_data(&buffer[..got]).map_err(TarError::Read)?,
            }
        }
    }

    fn ask<A: serde::de::DeserializeOwned>(&self, event: &Event) -> Result<A, TarError> {
        self.channel.ask(event, None).map_err(TarError::Read)
    }

    fn say(&self, event: &Event) -> Result<(), TarError> {
        self.channel.send(event).map_err(TarError::Read)
    }
}

/// Sends what is read.
struct Tee<'c, R> {
    input: R,
    channel: &'c Channel,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.input.read(buffer)?;
        self.channel.send_data(&buffer[..got])?;
        Ok(got)
    }
}

/// Reads the current entry's payload.
struct EntryRead<'r, R>(&'r mut Reader<R>);

impl<R: BufRead> Read for EntryRead<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let chunk = self.0.payload(buffer.len() as u64).map_err(|error| match error {
            TarError::Truncated => io::Error::from(io::ErrorKind::UnexpectedEof),
            other => io::Error::other(other),
        })?;
        let got = chunk.len();
        buffer[..got].copy_from_slice(chunk);
        self.0.consume(got);
        Ok(got)
    }
}
