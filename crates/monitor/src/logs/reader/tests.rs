//! Writer and reader together, in both formats.

use std::time::Duration;

use expect_test::{Expect, expect};

use super::super::{LINE_BYTES_MAX, LogWriter, Stream};
use super::*;

struct Log {
    directory: PathBuf,
    settings: LogSettings,
}

impl Log {
    fn new(name: &str, driver: LogDriver) -> Log {
        let directory =
            std::env::temp_dir().join(format!("tug-log-{}-{name}-{driver:?}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("json.log");
        Log { directory, settings: LogSettings { driver, path, ..LogSettings::default() } }
    }

    fn rotating(name: &str, driver: LogDriver, compress: bool) -> Log {
        let mut log = Log::new(name, driver);
        log.settings.file_bytes_max = Some(2000);
        log.settings.files_max = 4;
        log.settings.compress = compress;
        log
    }

    fn writer(&self) -> LogWriter {
        LogWriter::open(&self.settings).unwrap()
    }

    fn read(&self, options: ReadOptions) -> Vec<String> {
        LogReader::open(&self.settings, options)
            .unwrap()
            .map(|entry| text(&entry.unwrap()))
            .collect()
    }

    fn tail(&self, lines: u64) -> Vec<String> {
        self.read(ReadOptions { tail: Some(lines), ..ReadOptions::default() })
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.directory);
    }
}

fn text(entry: &Entry) -> String {
    String::from_utf8_lossy(&entry.bytes).into_owned()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

const DRIVERS: [LogDriver; 2] = [LogDriver::JsonFile, LogDriver::Local];

#[test]
fn lines_are_cut_wherever_the_reads_fall() {
    for driver in DRIVERS {
        let log = Log::new("cut", driver);
        let mut writer = log.writer();
        for piece in [&b"on"[..], b"e\ntwo\nth", b"", b"ree\n", b"\n", b"four"] {
            writer.output(Stream::Stdout, piece, at(0));
        }
        writer.output(Stream::Stderr, b"err\n", at(1));
        writer.end(Stream::Stdout, at(2));
        assert_eq!(
            log.read(ReadOptions::default()),
            ["one\n", "two\n", "three\n", "\n", "err\n", "four"]
        );
    }
}

#[test]
fn a_long_line_becomes_parts_of_one_time_that_join_to_the_same_bytes() {
    for driver in DRIVERS {
        let log = Log::new("long", driver);
        let mut writer = log.writer();
        let line = "ä".repeat(LINE_BYTES_MAX) + "x\n";
        for (second, piece) in line.as_bytes().chunks(9999).enumerate() {
            writer.output(Stream::Stdout, piece, at(second as i64));
        }
        writer.output(Stream::Stdout, b"next\n", at(9));
        let reader = LogReader::open(&log.settings, ReadOptions::default()).unwrap();
        let entries: Vec<Entry> = reader.map(Result::unwrap).collect();
        let parts: Vec<_> =
            entries.iter().map(|entry| (entry.starts_line, entry.bytes.len())).collect();
        assert_eq!(parts, [(true, 16384), (false, 16384), (false, 2), (true, 5)]);
        assert_eq!(entries[0].time, entries[2].time);
        assert_eq!(entries[..3].iter().map(text).collect::<String>(), line);
        assert_eq!(log.tail(2).concat(), line + "next\n");
        assert_eq!(log.tail(1), ["next\n"]);
    }
}

/// A generator good enough for choosing lengths (Knuth's MMIX).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}

#[test]
fn whatever_is_said_is_read_again_byte_for_byte() {
    let words = ["a", "\n", "\"\\", "ü", "\u{2028}", "<tag>&", "日本語", "\r\n", "\t\u{1}"];
    for seed in 0..40 {
        let mut dice = Dice(seed);
        let driver = DRIVERS[dice.roll(2)];
        let mut log = Log::new(&format!("dice-{seed}"), driver);
        if dice.roll(2) == 0 {
            log.settings.file_bytes_max = Some(20_000 + dice.roll(100_000) as u64);
            log.settings.files_max = 1000;
            log.settings.compress = dice.roll(2) == 0;
        }
        let mut said = String::new();
        for _ in 0..dice.roll(200) {
            said += &words[dice.roll(words.len())].repeat(dice.roll(300));
        }
        let mut writer = log.writer();
        let mut rest = said.as_bytes();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.len().min(1 + dice.roll(40_000)));
            writer.output(Stream::Stdout, piece, at(0));
            rest = after;
        }
        writer.end(Stream::Stdout, at(1));
        writer.finish_work();
        // Local's parts keep invalid bytes, json's cannot hold any: neither may cut a character.
        assert_eq!(log.read(ReadOptions::default()).concat(), said, "seed {seed}");
        let lines = said.split_inclusive('\n').count() as u64;
        let wanted = lines.min(dice.roll(50) as u64);
        let tail: String = said.split_inclusive('\n').skip((lines - wanted) as usize).collect();
        assert_eq!(log.tail(wanted).concat(), tail, "seed {seed}, tail {wanted} of {lines}");
    }
}

#[test]
fn the_file_is_what_docker_writes() {
    let log = Log::new("bytes", LogDriver::JsonFile);
    let mut writer = log.writer();
    writer.output(Stream::Stdout, b"hi \"you\"\n", "2026-01-02T03:04:05.600Z".parse().unwrap());
    writer.end(Stream::Stdout, at(0));
    check_file(
        &log,
        expect![[r#"
            {"log":"hi \"you\"\n","stream":"stdout","time":"2026-01-02T03:04:05.6Z"}
        "#]],
    );
}

#[track_caller]
fn check_file(log: &Log, want: Expect) {
    want.assert_eq(&std::fs::read_to_string(&log.settings.path).unwrap());
}

#[test]
fn tails_reach_over_rotated_and_compressed_files() {
    for (driver, compress) in
        DRIVERS.into_iter().flat_map(|driver| [(driver, false), (driver, true)])
    {
        let log = Log::rotating(&format!("tail-{compress}"), driver, compress);
        let mut writer = log.writer();
        for line in 0..100 {
            writer.output(Stream::Stdout, format!("line {line}\n").as_bytes(), at(line));
        }
        writer.finish_work();
        let all = log.read(ReadOptions::default());
        let count = all.len() as u64;
        assert!(count > 40 && all.last().unwrap() == "line 99\n", "{all:?}");
        assert_eq!(log.settings.path.with_extension("log.1.gz").exists(), compress);
        for lines in [0, 1, 7, 40, count, count + 1, 1000] {
            let want = &all[all.len() - lines.min(count) as usize..];
            assert_eq!(log.tail(lines), want, "{driver:?} {lines}");
        }
        let options =
            ReadOptions { since: Some(at(95)), until: Some(at(97)), ..Default::default() };
        assert_eq!(log.read(options), ["line 95\n", "line 96\n", "line 97\n"]);
    }
}

#[test]
fn a_long_file_is_searched_by_time_and_from_its_end() {
    let log = Log::new("search", LogDriver::JsonFile);
    let mut writer = log.writer();
    for line in 0..20_000 {
        writer.output(Stream::Stdout, format!("line {line}\n").as_bytes(), at(line));
    }
    let since = ReadOptions { since: Some(at(19_998)), ..Default::default() };
    assert_eq!(log.read(since), ["line 19998\n", "line 19999\n"]);
    assert_eq!(log.tail(3000)[0], "line 17000\n");
}

#[test]
fn a_follower_sees_every_line_once_over_rotations_and_ends_when_told() {
    for (driver, compress) in
        DRIVERS.into_iter().flat_map(|driver| [(driver, false), (driver, true)])
    {
        let mut log = Log::rotating(&format!("follow-{compress}"), driver, compress);
        log.settings.files_max = 1000;
        let mut writer = log.writer();
        let options = ReadOptions { follow: true, ..ReadOptions::default() };
        let reader = LogReader::open(&log.settings, options).unwrap();
        let stopper = reader.stopper();
        let thread = std::thread::spawn(move || -> Vec<String> {
            reader.map(|entry| text(&entry.unwrap())).collect()
        });
        let mut want = Vec::new();
        for line in 0..300 {
            want.push(format!("line {line}\n"));
            // Times repeat, as they do when many lines come in one read.
            writer.output(Stream::Stdout, want[line].as_bytes(), at(line as i64 / 7));
            writer.work();
            if line % 16 == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        writer.finish_work();
        stopper.stop();
        assert_eq!(thread.join().unwrap(), want, "{driver:?}");
    }
}

#[test]
fn a_torn_last_entry_costs_only_itself() {
    for driver in DRIVERS {
        let log = Log::new("torn", driver);
        log.writer().output(Stream::Stdout, b"one\ntwo\n", at(0));
        let bytes = std::fs::read(&log.settings.path).unwrap();
        std::fs::write(&log.settings.path, &bytes[..bytes.len() - 5]).unwrap();
        assert_eq!(log.read(ReadOptions::default()), ["one\n"]);
        log.writer().output(Stream::Stdout, b"three\n", at(0));
        assert_eq!(log.read(ReadOptions::default()), ["one\n", "three\n"]);
        assert_eq!(log.tail(1), ["three\n"]);
    }
}

#[test]
fn one_file_at_most_means_the_old_one_goes() {
    let mut log = Log::rotating("single", LogDriver::JsonFile, false);
    log.settings.files_max = 1;
    let mut writer = log.writer();
    for line in 0..100 {
        writer.output(Stream::Stdout, format!("line {line}\n").as_bytes(), at(line));
    }
    assert!(std::fs::metadata(&log.settings.path).unwrap().len() < 2200);
    assert_eq!(log.tail(1), ["line 99\n"]);
    assert_eq!(std::fs::read_dir(&log.directory).unwrap().count(), 1);
}

#[test]
fn a_full_disk_loses_lines_and_no_more() {
    let mut log = Log::new("full", LogDriver::JsonFile);
    log.settings.path = "/dev/full".into();
    let mut writer = log.writer();
    writer.output(Stream::Stdout, b"lost\n", at(0));
    writer.end(Stream::Stdout, at(0));
}

#[test]
fn a_log_that_is_not_kept_is_refused() {
    let settings = LogSettings::default();
    let refused = LogReader::open(&settings, ReadOptions::default());
    assert!(matches!(refused, Err(ReadError::NotKept)));
}
