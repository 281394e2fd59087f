//! Answers that go on: attach, logs, wait, stats, events.
//!
//! Each feeds a bounded body from a task of its own. When the client goes, hyper drops the body,
//! the task's next send fails or its `closed()` resolves, and the engine's side is dropped.

use std::future::Future;
use std::time::Duration;

use api::body::{Body, BodySender};
use api::framing::{self, MULTIPLEXED_STREAM, RAW_STREAM};
use api::version::{ApiVersion, v};
use api::{container as docker, stats as docker_stats};
use engine::containers::views::{
    AttachRequest, ClientSocket, LogLine, LogSource, LogsQuery, Stats, WaitCondition,
};
use engine::{Event, EventQuery};
use tokio::net::UnixStream;

use super::websocket;
use crate::convert::{log_time, moment, time, unix_nanoseconds};
use crate::http::reply::{self, Protocol, Result};
use crate::http::{Answer, Call, Failure, TakeOver};

/// What Go's `url.QueryEscape` escapes, but for the space, which it makes a plus.
const QUERY: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Between two samples of stats, as Docker takes them.
const STATS_INTERVAL: Duration = Duration::from_secs(1);

/// Source: moby 28.2 `container_routes.go`: the framed type was introduced with 1.42.
pub fn content_type(version: ApiVersion, tty: bool) -> &'static str {
    if tty || version < v(42) { RAW_STREAM } else { MULTIPLEXED_STREAM }
}

/// Runs `feed` until it ends or the client goes.
pub fn spawn_feed<F>(feed: impl FnOnce(BodySender) -> F) -> Body
where
    F: Future<Output = ()> + Send + 'static,
{
    let (sender, body) = Body::channel();
    let watch = sender.clone();
    let feed = feed(sender);
    tokio::spawn(async move {
        tokio::select! {
            () = feed => {}
            () = watch.closed() => {}
        }
    });
    body
}

fn attach_request(call: &Call) -> AttachRequest {
    let query = &call.query;
    let keys = query.text("detachKeys");
    AttachRequest {
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        stream: query.flag("stream"),
        logs: query.flag("logs"),
        detach_keys: (!keys.is_empty()).then(|| keys.to_owned()),
    }
}

pub async fn attach(call: &Call, id: &str) -> Result {
    let attaching = call.engine.attach_container(id, attach_request(call)).await?;
    let content_type = content_type(call.version, attaching.tty);
    Ok(Answer::TakeOver(TakeOver::new(content_type, |client| async {
        if let Err(error) = attaching.connect(client).await {
            tracing::debug!(error = error.message, "attach failed");
        }
    })))
}

pub async fn attach_websocket(call: &Call, id: &str) -> Result {
    let key = call.header("sec-websocket-key");
    if key.is_empty() || !call.header("upgrade").eq_ignore_ascii_case("websocket") {
        return Err(Failure::invalid("not a websocket handshake"));
    }
    let accept = websocket::accept_key(key);
    let attaching = call.engine.attach_container(id, attach_request(call)).await?;
    let output = if attaching.tty { websocket::Output::Raw } else { websocket::Output::Framed };
    let payload =
        if call.version < v(28) { websocket::Payload::Text } else { websocket::Payload::Binary };
    let (ours, theirs) =
        UnixStream::pair().map_err(|error| Failure::internal(error.to_string()))?;
    let theirs = theirs.into_std().map_err(|error| Failure::internal(error.to_string()))?;
    let mut take_over = TakeOver::new(RAW_STREAM, move |client| async move {
        let container = ClientSocket { socket: theirs.into(), prelude: Vec::new() };
        if let Err(error) = attaching.connect(container).await {
            tracing::debug!(error = error.message, "attach failed");
            return;
        }
        if let Err(error) = websocket::pump(client, ours, output, payload).await {
            tracing::debug!(%error, "websocket lost");
        }
    });
    take_over.protocol = Protocol::WebSocket { accept };
    Ok(Answer::TakeOver(take_over))
}

/// The head goes out at once, so that the client knows that waiting has begun.
pub fn wait(call: &Call, id: &str) -> Result {
    let condition = match call.query.text("condition") {
        // Before 1.30 there was no condition.
        _ if call.version < v(30) => WaitCondition::NotRunning,
        "" | "not-running" => WaitCondition::NotRunning,
        "next-exit" => WaitCondition::NextExit,
        "removed" => WaitCondition::Removed,
        other => return Err(Failure::invalid(format!("invalid condition: {other:?}"))),
    };
    let waiter = call.engine.wait_container(id, condition)?;
    let body = spawn_feed(|sender| async move {
        let result = waiter.finished().await;
        let answer = docker::WaitResponse {
            error: result.error.map(|message| docker::WaitError { message }),
            status_code: result.exit_code.into(),
        };
        sender.send(line(&answer)).await;
    });
    Ok(reply::stream("application/json", body).into())
}

fn line<T: serde::Serialize>(value: &T) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line
}

/// In logs, unlike in events, 0 is no time. Source: moby 28.2 `daemon/logs.go`.
fn log_moment(
    call: &Call,
    name: &str,
) -> std::result::Result<Option<std::time::SystemTime>, Failure> {
    match call.query.text(name) {
        "0" => Ok(None),
        text => moment(name, text),
    }
}

pub async fn logs(call: &Call, id: &str) -> Result {
    let query = &call.query;
    let (stdout, stderr) = (query.flag("stdout"), query.flag("stderr"));
    if !stdout && !stderr {
        return Err(engine::words::no_stream_chosen().into());
    }
    let request = LogsQuery {
        stdout,
        stderr,
        follow: query.flag("follow"),
        // "all" and whatever else is no number mean all; so does a negative one.
        tail: query.text("tail").parse().ok(),
        since: log_moment(call, "since")?,
        until: log_moment(call, "until")?,
    };
    let (timestamps, details) = (query.flag("timestamps"), query.flag("details"));
    let mut logs = call.engine.container_logs(id, request).await?;
    let framed = !logs.tty;
    let content_type = content_type(call.version, logs.tty);
    let body = spawn_feed(|sender| async move {
        while let Some(next) = logs.lines.recv().await {
            let mut out = Vec::new();
            match next {
                Ok(line) => append_line(&line, framed, timestamps, details, &mut out),
                Err(error) => {
                    // The head is out; only the stream can tell.
                    let text = format!("Error grabbing logs: {error}\n");
                    append_framed(framing::Stream::SystemError, framed, text.as_bytes(), &mut out);
                }
            }
            // Lines that are ready go out together.
            while out.len() < 64 << 10 {
                match logs.lines.try_recv() {
                    Ok(Ok(line)) => append_line(&line, framed, timestamps, details, &mut out),
                    Ok(Err(_)) | Err(_) => break,
                }
            }
            if !sender.send(out).await {
                return;
            }
        }
    });
    Ok(reply::stream(content_type, body).into())
}

fn append_framed(stream: framing::Stream, framed: bool, bytes: &[u8], out: &mut Vec<u8>) {
    if framed {
        framing::encode(stream, bytes, out);
    } else {
        out.extend_from_slice(bytes);
    }
}

/// `[time ][details ]text`. Source: moby 28.2 `api/server/httputils/write_log_stream.go`.
fn append_line(line: &LogLine, framed: bool, timestamps: bool, details: bool, out: &mut Vec<u8>) {
    let stream = match line.source {
        LogSource::Stdout => framing::Stream::Stdout,
        LogSource::Stderr => framing::Stream::Stderr,
    };
    if !line.begins_line || !(timestamps || details) {
        return append_framed(stream, framed, &line.bytes, out);
    }
    let mut text = Vec::with_capacity(line.bytes.len() + 64);
    if timestamps {
        text.extend_from_slice(log_time(line.at).as_bytes());
        text.push(b' ');
    }
    if details {
        let escape = |text: &str| {
            percent_encoding::utf8_percent_encode(text, QUERY).to_string().replace("%20", "+")
        };
        let pairs: Vec<_> = line
            .attributes
            .iter()
            .map(|(key, value)| format!("{}={}", escape(key), escape(value)))
            .collect();
        text.extend_from_slice(pairs.join(",").as_bytes());
        text.push(b' ');
    }
    text.extend_from_slice(&line.bytes);
    append_framed(stream, framed, &text, out);
}

pub async fn stats(call: &Call, id: &str) -> Result {
    let stream = call.query.flag_or("stream", true);
    let one_shot = call.query.flag("one-shot");
    if stream && one_shot {
        // Source: moby 28.2 `container_routes.go`.
        return Err(Failure::invalid("cannot have stream=true and one-shot=true"));
    }
    let engine = call.engine.clone();
    let first = engine.container_stats(id).await?;
    if !stream {
        let stopped = first.read_at.is_none();
        if one_shot || stopped {
            return reply::ok(&sample(&first, None));
        }
        tokio::time::sleep(STATS_INTERVAL).await;
        let second = engine.container_stats(id).await?;
        return reply::ok(&sample(&second, Some(&first)));
    }
    let id = id.to_owned();
    let body = spawn_feed(|sender| async move {
        let mut last = None;
        let mut current = first;
        let mut ticks = tokio::time::interval(STATS_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        ticks.tick().await;
        while sender.send(line(&sample(&current, last.as_ref()))).await {
            ticks.tick().await;
            let Ok(next) = engine.container_stats(&id).await else {
                return;
            };
            last = Some(std::mem::replace(&mut current, next));
        }
    });
    Ok(reply::stream("application/json", body).into())
}

fn sample(now: &Stats, before: Option<&Stats>) -> docker_stats::Stats {
    let block_io = |wanted: bool| {
        let entries = now.block_io.iter().map(|entry| docker_stats::BlkioEntry {
            major: entry.major,
            minor: entry.minor,
            op: entry.operation.clone(),
            value: entry.bytes,
        });
        (wanted && !now.block_io.is_empty()).then(|| entries.collect())
    };
    docker_stats::Stats {
        name: format!("/{}", now.name.trim_start_matches('/')),
        id: now.id.clone(),
        read: time(now.read_at),
        preread: time(before.and_then(|before| before.read_at)),
        pids_stats: docker_stats::PidsStats { current: now.pids.current, limit: now.pids.limit },
        blkio_stats: docker_stats::BlkioStats {
            io_service_bytes_recursive: block_io(true),
            ..docker_stats::BlkioStats::default()
        },
        num_procs: 0,
        storage_stats: docker_stats::StorageStats {},
        cpu_stats: cpu(&now.cpu),
        precpu_stats: before.map(|before| cpu(&before.cpu)).unwrap_or_default(),
        memory_stats: docker_stats::MemoryStats {
            usage: now.memory.usage,
            max_usage: now.memory.usage_max,
            stats: now.memory.details.clone(),
            failcnt: now.memory.fail_count,
            limit: now.memory.limit,
        },
        networks: (!now.networks.is_empty()).then(|| {
            let interfaces = now.networks.iter();
            interfaces
                .map(|(name, seen)| {
                    let counters = docker_stats::NetworkStats {
                        rx_bytes: seen.rx_bytes,
                        rx_packets: seen.rx_packets,
                        rx_errors: seen.rx_errors,
                        rx_dropped: seen.rx_dropped,
                        tx_bytes: seen.tx_bytes,
                        tx_packets: seen.tx_packets,
                        tx_errors: seen.tx_errors,
                        tx_dropped: seen.tx_dropped,
                    };
                    (name.clone(), counters)
                })
                .collect()
        }),
    }
}

fn cpu(cpu: &engine::containers::views::CpuStats) -> docker_stats::CpuStats {
    docker_stats::CpuStats {
        cpu_usage: docker_stats::CpuUsage {
            total_usage: cpu.total,
            percpu_usage: cpu.per_cpu.clone(),
            usage_in_kernelmode: cpu.kernel,
            usage_in_usermode: cpu.user,
        },
        system_cpu_usage: cpu.system,
        online_cpus: cpu.online,
        throttling_data: docker_stats::Throttling {
            periods: cpu.periods,
            throttled_periods: cpu.throttled_periods,
            throttled_time: cpu.throttled,
        },
    }
}

pub fn events(call: &Call) -> Result {
    let since = moment("since", call.query.text("since"))?;
    let until = moment("until", call.query.text("until"))?;
    if let (Some(since), Some(until)) = (since, until)
        && since > until
    {
        // Source: moby 28.2 `api/server/router/system/system_routes.go`.
        return Err(Failure::invalid(format!(
            "`since` time ({}) cannot be after `until` time ({})",
            call.query.text("since"),
            call.query.text("until")
        )));
    }
    let query = EventQuery { since, until, filters: call.filters()? };
    let mut events = call.engine.events().subscribe(query)?;
    let body = spawn_feed(|sender| async move {
        while let Some(event) = events.next().await {
            if !sender.send(line(&message(&event))).await {
                return;
            }
        }
    });
    Ok(reply::stream("application/json", body).into())
}

fn message(event: &Event) -> api::event::Message {
    let attribute = |name: &str| event.attributes.get(name).cloned().unwrap_or_default();
    // The fields of before 1.22, which only containers and images have.
    let (status, id, from) = match event.kind {
        engine::EventType::Container => {
            (event.action.clone(), event.actor.clone(), attribute("image"))
        }
        engine::EventType::Image => (event.action.clone(), event.actor.clone(), String::new()),
        engine::EventType::Builder
        | engine::EventType::Daemon
        | engine::EventType::Network
        | engine::EventType::Volume => Default::default(),
    };
    let nanoseconds = unix_nanoseconds(event.at);
    api::event::Message {
        status,
        id,
        from,
        kind: event.kind.name().to_owned(),
        action: event.action.clone(),
        actor: api::event::Actor { id: event.actor.clone(), attributes: event.attributes.clone() },
        scope: "local".to_owned(),
        time: nanoseconds / 1_000_000_000,
        time_nano: nanoseconds,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use std::collections::BTreeMap;
    use std::time::SystemTime;

    fn log(begins_line: bool) -> LogLine {
        LogLine {
            source: LogSource::Stderr,
            at: SystemTime::UNIX_EPOCH,
            bytes: b"text\n".to_vec(),
            attributes: BTreeMap::from([("a b".to_owned(), "c".to_owned())]),
            begins_line,
        }
    }

    #[track_caller]
    fn check(begins_line: bool, framed: bool, timestamps: bool, details: bool, want: Expect) {
        let mut out = Vec::new();
        append_line(&log(begins_line), framed, timestamps, details, &mut out);
        want.assert_eq(&out.escape_ascii().to_string());
    }

    #[test]
    fn only_the_first_part_of_a_line_is_stamped() {
        check(true, false, true, false, expect!["1970-01-01T00:00:00.000000000Z text\\n"]);
        check(false, false, true, false, expect!["text\\n"]);
    }

    #[test]
    fn details_stand_before_the_text_in_the_same_frame() {
        check(
            true,
            true,
            false,
            true,
            expect!["\\x02\\x00\\x00\\x00\\x00\\x00\\x00\\x0ba+b=c text\\n"],
        );
    }

    #[test]
    fn framed_streams_have_their_own_type_from_1_42_on() {
        assert_eq!(content_type(v(41), false), RAW_STREAM);
        assert_eq!(content_type(v(42), false), MULTIPLEXED_STREAM);
        assert_eq!(content_type(v(42), true), RAW_STREAM);
    }
}
