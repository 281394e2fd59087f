//! Writing a container's log: cutting output into lines, and rotation.
//!
//! Output comes in as it was read from a pipe and leaves in one write, however many lines it had.
//!
//! ```text
//! rotation, files_max 3:   NAME.2 is removed, NAME.1 → NAME.2, NAME → NAME.1, new NAME
//! with compression:        then NAME.1 → NAME.1.gz, in steps that the loop takes when idle
//! ```
//!
//! With a buffer (`mode=non-blocking`) entries are written without waiting for the disk; what the
//! kernel does not take at once waits in memory and is tried again, and what the buffer has no room
//! for is lost.
//!
//! Always true: an entry that cannot be written whole leaves nothing behind (the file is cut back),
//! and an error costs log lines, never the container.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use rustix::io::{Errno, ReadWriteFlags};

use super::local::Framed;
use super::segments::{gzipped, numbered};
use super::{LINE_BYTES_MAX, Stream, json, local};
use crate::complaints::complain;
use crate::settings::{LogDriver, LogSettings};

/// Encoded entries are written out when there are this many bytes of them.
const BATCH_BYTES: usize = 64 << 10;

/// Until entries that wait for the disk are tried again.
const RETRY: Duration = Duration::from_millis(50);
/// pwritev2(2): write at the file's own position.
const AT_POSITION: u64 = u64::MAX;

/// Read and compressed in one [`LogWriter::work`].
const WORK_BYTES: usize = 64 << 10;

/// The log of one container.
#[derive(Debug)]
pub struct LogWriter {
    settings: LogSettings,
    attrs: String,
    file: Option<File>,
    /// Of the current file, as far as it is known to be whole.
    file_bytes: u64,
    batch: Vec<u8>,
    /// Entries that wait for the disk, of which the first may be partly written.
    waiting: Vec<u8>,
    /// Bytes of `waiting`, and written before them, since the last time that the file was whole.
    torn_bytes: u64,
    lines: [LineBuffer; 2],
    compressing: Option<Compressing>,
    /// Entries lost to errors since the last success; told once each time.
    lost: u64,
}

/// What one stream said after its last newline.
#[derive(Debug, Default)]
struct LineBuffer {
    bytes: Vec<u8>,
    /// When the line began, once a part of it was written: all parts bear the same time.
    began: Option<Timestamp>,
}

#[derive(Debug)]
struct Compressing {
    from: PathBuf,
    input: File,
    temporary: PathBuf,
    encoder: GzEncoder<File>,
}

/// Why a log could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the log {path:?}")]
pub struct OpenError {
    path: PathBuf,
    source: io::Error,
}

impl LogWriter {
    /// Opens the log, creating it or continuing it; a torn last entry is closed off.
    ///
    /// # Errors
    /// When the file cannot be created or read.
    pub fn open(settings: &LogSettings) -> Result<LogWriter, OpenError> {
        let mut writer = LogWriter {
            attrs: json::encode_attrs(&settings.attrs),
            settings: settings.clone(),
            file: None,
            file_bytes: 0,
            batch: Vec::new(),
            waiting: Vec::new(),
            torn_bytes: 0,
            lines: Default::default(),
            compressing: None,
            lost: 0,
        };
        writer.reopen().map_err(|source| OpenError { path: settings.path.clone(), source })?;
        Ok(writer)
    }

    fn reopen(&mut self) -> io::Result<()> {
        match self.settings.driver {
            LogDriver::None => return Ok(()),
            LogDriver::JsonFile | LogDriver::Local => {}
        }
        // The local driver's files have a directory of their own.
        if let Some(parent) = self.settings.path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o640)
            .open(&self.settings.path)?;
        self.file_bytes = match self.settings.driver {
            LogDriver::JsonFile => close_torn_line(&mut file)?,
            LogDriver::Local | LogDriver::None => cut_torn_record(&mut file)?,
        };
        self.file = Some(file);
        Ok(())
    }

    /// Takes output just read from `stream` and writes the lines that are complete.
    pub fn output(&mut self, stream: Stream, mut bytes: &[u8], now: Timestamp) {
        if self.file.is_none() {
            return;
        }
        let time = now.to_string();
        while let Some(at) = bytes.iter().position(|&byte| byte == b'\n') {
            let line = std::mem::take(&mut self.lines[stream.index()]);
            if line.bytes.is_empty() && at <= LINE_BYTES_MAX {
                self.part(stream, &bytes[..at], true, line.began, (now, &time));
                // An empty buffer keeps its room.
                self.lines[stream.index()].bytes = line.bytes;
            } else {
                self.lines[stream.index()] = line;
                self.extend(stream, &bytes[..at], (now, &time));
                let mut line = std::mem::take(&mut self.lines[stream.index()]);
                self.part(stream, &line.bytes, true, line.began, (now, &time));
                line.bytes.clear();
                line.bytes.shrink_to(1024);
                self.lines[stream.index()].bytes = line.bytes;
            }
            bytes = &bytes[at + 1..];
        }
        self.extend(stream, bytes, (now, &time));
        self.flush();
    }

    /// The stream has ended: what it said after its last newline is an entry without newline.
    pub fn end(&mut self, stream: Stream, now: Timestamp) {
        let line = std::mem::take(&mut self.lines[stream.index()]);
        if !line.bytes.is_empty() && self.file.is_some() {
            self.part(stream, &line.bytes, false, line.began, (now, &now.to_string()));
        }
        self.flush();
    }

    /// Adds to a line that has no newline yet, writing full parts of it.
    fn extend(&mut self, stream: Stream, mut bytes: &[u8], now: (Timestamp, &str)) {
        while !bytes.is_empty() {
            let mut line = std::mem::take(&mut self.lines[stream.index()]);
            let room = LINE_BYTES_MAX - line.bytes.len();
            let (fits, rest) = bytes.split_at(room.min(bytes.len()));
            line.bytes.extend_from_slice(fits);
            bytes = rest;
            if line.bytes.len() == LINE_BYTES_MAX && !bytes.is_empty() {
                let whole = whole_characters(&line.bytes);
                self.part(stream, &line.bytes[..whole], false, line.began, now);
                line.bytes.drain(..whole);
                line.began.get_or_insert(now.0);
            }
            self.lines[stream.index()] = line;
        }
    }

    /// Encodes one entry into the batch, rotating before it when the file is full.
    fn part(
        &mut self,
        stream: Stream,
        line: &[u8],
        newline: bool,
        began: Option<Timestamp>,
        (now, now_text): (Timestamp, &str),
    ) {
        let full = self.settings.file_bytes_max;
        if full.is_some_and(|full| self.file_bytes + self.batch.len() as u64 >= full) {
            self.flush();
            // Entries that wait belong to the present file.
            if self.waiting.is_empty() {
                self.rotate();
            }
        } else if self.batch.len() >= BATCH_BYTES {
            self.flush();
        }
        let time = began.unwrap_or(now);
        let before = self.batch.len();
        match (self.settings.driver, began) {
            (LogDriver::JsonFile, None) => {
                json::encode(&mut self.batch, line, newline, stream, now_text, &self.attrs);
            }
            (LogDriver::JsonFile, Some(began)) => {
                let text = began.to_string();
                json::encode(&mut self.batch, line, newline, stream, &text, &self.attrs);
            }
            (LogDriver::Local, _) => local::encode(&mut self.batch, line, newline, stream, time),
            (LogDriver::None, _) => {}
        }
        let queued = (self.waiting.len() + self.batch.len()) as u64;
        if self.settings.buffer_bytes_max.is_some_and(|room| queued > room)
            && !self.waiting.is_empty()
        {
            self.batch.truncate(before);
            self.lost += 1;
        }
    }

    /// Writes the batch, or cuts the file back to what it was.
    fn flush(&mut self) {
        if self.settings.buffer_bytes_max.is_some() {
            self.waiting.append(&mut self.batch);
            self.write_waiting(ReadWriteFlags::NOWAIT);
            return;
        }
        let Some(file) = &mut self.file else { return };
        if self.batch.is_empty() {
            return;
        }
        match file.write_all(&self.batch) {
            Ok(()) => {
                self.file_bytes += self.batch.len() as u64;
                self.lost = 0;
            }
            Err(error) => {
                // Best effort: a torn entry that stays is skipped by readers.
                let _torn = file.set_len(self.file_bytes);
                if self.lost == 0 {
                    complain!("cannot write the log {:?}: {error}", self.settings.path);
                }
                self.lost += 1;
            }
        }
        self.batch.clear();
        self.batch.shrink_to(2 * BATCH_BYTES);
    }

    /// Writes what waits, as far as the kernel takes it without waiting itself.
    fn write_waiting(&mut self, flags: ReadWriteFlags) {
        let Some(file) = &self.file else { return };
        let (mut flags, mut done) = (flags, 0);
        let outcome = loop {
            let rest = &self.waiting[done..];
            if rest.is_empty() {
                break Ok(());
            }
            match rustix::io::pwritev2(file, &[io::IoSlice::new(rest)], AT_POSITION, flags) {
                Ok(count) => done += count,
                Err(Errno::AGAIN | Errno::INTR) => break Ok(()),
                // A file system that cannot say whether it would wait.
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) if !flags.is_empty() => {
                    flags = ReadWriteFlags::empty();
                }
                Err(error) => break Err(error),
            }
        };
        self.waiting.drain(..done);
        self.torn_bytes += done as u64;
        match outcome {
            Ok(()) if self.waiting.is_empty() => {
                self.file_bytes += self.torn_bytes;
                (self.torn_bytes, self.lost) = (0, 0);
                self.waiting.shrink_to(2 * BATCH_BYTES);
            }
            Ok(()) => {}
            Err(error) => {
                // Best effort: a torn entry that stays is skipped by readers.
                let _torn = file.set_len(self.file_bytes);
                if self.lost == 0 {
                    complain!("cannot write the log {:?}: {error}", self.settings.path);
                }
                self.lost += 1;
                self.torn_bytes = 0;
                self.waiting.clear();
            }
        }
    }

    /// When [`LogWriter::work`] should be called again though nothing happens.
    pub fn retry_after(&self) -> Option<Duration> {
        (!self.waiting.is_empty()).then_some(RETRY)
    }

    /// Writes all that waits for the disk: there will be no other time.
    pub fn finish_writing(&mut self) {
        self.write_waiting(ReadWriteFlags::empty());
    }

    fn rotate(&mut self) {
        self.finish_work();
        if let Err(error) = self.shift() {
            complain!("cannot rotate the log {:?}: {error}", self.settings.path);
            return;
        }
        match self.reopen() {
            Ok(()) => {}
            // The old file, now under another name, goes on taking the lines.
            Err(error) => complain!("cannot reopen the log {:?}: {error}", self.settings.path),
        }
    }

    /// Moves every file one further. A crash in between leaves a gap in the numbers, no loss.
    fn shift(&mut self) -> io::Result<()> {
        let path = self.settings.path.clone();
        let last = self.settings.files_max.saturating_sub(1);
        if last == 0 {
            return remove_if_there(&path);
        }
        let there = |number| numbered(&path, number).exists() || gzipped(&path, number).exists();
        let count = (1..last).take_while(|&number| there(number)).count() as u32;
        for variant in [numbered, gzipped] {
            remove_if_there(&variant(&path, last))?;
            for number in (1..=count).rev() {
                match fs::rename(variant(&path, number), variant(&path, number + 1)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    Ok(()) | Err(_) => {}
                }
            }
        }
        let rotated = numbered(&path, 1);
        fs::rename(&path, &rotated)?;
        if self.settings.compress {
            self.compressing = Some(Compressing::start(rotated, gzipped(&path, 1))?);
        }
        Ok(())
    }

    /// Does a piece of what can wait (compression). False when nothing is left to do.
    pub fn work(&mut self) -> bool {
        if !self.waiting.is_empty() {
            self.write_waiting(ReadWriteFlags::NOWAIT);
        }
        let Some(compressing) = &mut self.compressing else { return false };
        match compressing.step() {
            Ok(true) => true,
            Ok(false) => {
                self.compressing = None;
                false
            }
            Err(error) => {
                complain!("cannot compress the log {:?}: {error}", compressing.from);
                let _unfinished = fs::remove_file(&compressing.temporary);
                self.compressing = None;
                false
            }
        }
    }

    /// Gives up what can wait: a file that is not compressed yet stays as it is.
    pub fn abandon_work(&mut self) {
        if let Some(Compressing { temporary, .. }) = self.compressing.take() {
            let _gone = fs::remove_file(temporary);
        }
    }

    /// Does all that could have waited.
    pub fn finish_work(&mut self) {
        while self.work() {}
    }
}

impl Compressing {
    fn start(from: PathBuf, to: PathBuf) -> io::Result<Compressing> {
        let input = File::open(&from)?;
        let temporary = to.with_extension("gz.new");
        let output = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o640)
            .open(&temporary)?;
        let encoder = GzEncoder::new(output, Compression::fast());
        Ok(Compressing { from, input, temporary, encoder })
    }

    /// False once the compressed file stands in the place of the plain one.
    fn step(&mut self) -> io::Result<bool> {
        let mut bytes = vec![0; WORK_BYTES];
        let count = self.input.read(&mut bytes)?;
        if count > 0 {
            self.encoder.write_all(&bytes[..count])?;
            return Ok(true);
        }
        self.encoder.try_finish()?;
        fs::rename(&self.temporary, self.temporary.with_extension(""))?;
        fs::remove_file(&self.from)?;
        Ok(false)
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// How many of `bytes` are whole UTF-8 characters, so that a long line is never cut inside one.
/// All of them when they are no UTF-8 anyway.
fn whole_characters(bytes: &[u8]) -> usize {
    for back in 1..=3.min(bytes.len()) {
        let at = bytes.len() - back;
        let length = match bytes[at] {
            0x80..0xc0 => continue,
            0xc0..0xe0 => 2,
            0xe0..0xf0 => 3,
            0xf0.. => 4,
            0..0x80 => 1,
        };
        return if length > back { at } else { bytes.len() };
    }
    bytes.len()
}

/// Ends an unfinished last line; returns the file's size.
fn close_torn_line(file: &mut File) -> io::Result<u64> {
    let size = file.seek(SeekFrom::End(0))?;
    let mut last = [b'\n'];
    if size > 0 {
        file.read_exact_at(&mut last, size - 1)?;
    }
    if last == *b"\n" {
        return Ok(size);
    }
    file.write_all(b"\n")?;
    Ok(size + 1)
}

/// Cuts an unfinished last record off; returns the file's size.
fn cut_torn_record(file: &mut File) -> io::Result<u64> {
    let size = file.seek(SeekFrom::End(0))?;
    if ends_with_record(file, size)? {
        return Ok(size);
    }
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut bytes)?;
    let mut whole = 0;
    while let Framed::Record(length) = local::frame(&bytes[whole..]) {
        whole += length;
    }
    file.set_len(whole as u64)?;
    Ok(whole as u64)
}

fn ends_with_record(file: &File, size: u64) -> io::Result<bool> {
    let (mut end, mut start) = ([0; 4], [0; 4]);
    if size == 0 {
        return Ok(true);
    }
    if size < 8 {
        return Ok(false);
    }
    file.read_exact_at(&mut end, size - 4)?;
    let Some(at) = size.checked_sub(u64::from(u32::from_be_bytes(end)) + 8) else {
        return Ok(false);
    };
    file.read_exact_at(&mut start, at)?;
    Ok(start == end)
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;

    /// A log whose disk is a pipe: what nobody reads makes a writer wait.
    fn stalled(name: &str) -> (LogWriter, File, PathBuf) {
        let directory = std::env::temp_dir().join(format!("tug-log-{}-{name}", std::process::id()));
        let settings = LogSettings {
            driver: LogDriver::JsonFile,
            path: directory.join("deeper").join("json.log"),
            buffer_bytes_max: Some(100_000),
            ..LogSettings::default()
        };
        let mut writer = LogWriter::open(&settings).unwrap();
        let (reader, end) = std::io::pipe().unwrap();
        writer.file = Some(File::from(OwnedFd::from(end)));
        (writer, File::from(OwnedFd::from(reader)), directory)
    }

    #[test]
    fn a_disk_that_stalls_costs_entries_and_no_waiting() {
        let (mut writer, mut disk, directory) = stalled("stalled");
        let now = Timestamp::UNIX_EPOCH;
        for number in 0..5000 {
            let line = format!("{number:0100}\n");
            writer.output(Stream::Stdout, line.as_bytes(), now);
        }
        assert!(writer.lost > 0 && writer.waiting.len() <= 100_200, "{}", writer.waiting.len());
        assert_eq!(writer.retry_after(), Some(RETRY));

        let reading = std::thread::spawn(move || {
            let mut text = String::new();
            disk.read_to_string(&mut text).map(|_| text)
        });
        writer.finish_writing();
        assert!(writer.waiting.is_empty() && writer.retry_after().is_none());
        drop(writer);
        let text = reading.join().unwrap().unwrap();
        // What was taken is whole and in order, from the first on.
        let numbers: Vec<_> = text
            .lines()
            .map(|line| {
                let entry = json::decode(line.as_bytes()).expect("an entry");
                String::from_utf8(entry.bytes).unwrap().trim().parse::<usize>().unwrap()
            })
            .collect();
        assert!(numbers.len() > 100 && numbers.len() < 5000, "{}", numbers.len());
        assert!(numbers.iter().copied().eq(0..numbers.len()));
        fs::remove_dir_all(directory).unwrap();
    }
}
