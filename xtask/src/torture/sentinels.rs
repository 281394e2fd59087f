//! Containers that nothing may happen to, whatever happens to the daemon.
//!
//! `sentinel-web` serves a page on a published port and counts in its log; `sentinel-local` counts
//! in a log of the driver `local`; `sentinel-asker` asks the first one by its name, ten times a
//! second. A thread of the campaign asks for the page on the port all the time.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use super::field::{Field, Outcome};
use super::report::Report;

const PORT: u16 = 8099;
/// A loaded machine is slow; an answer after this is none.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const COUNT: &str = "i=0; while :; do echo $i; i=$((i+1)); usleep 50000; done";

pub struct Sentinels {
    ids: Vec<String>,
    started: Vec<String>,
    over: Arc<AtomicBool>,
    prober: Option<JoinHandle<()>>,
}

const NAMES: [&str; 3] = ["sentinel-web", "sentinel-local", "sentinel-asker"];

impl Sentinels {
    pub fn start(field: &Field, report: &Arc<Report>) -> Sentinels {
        let web =
            format!("mkdir /www; echo served > /www/index.html; httpd -p 80 -h /www; {COUNT}");
        let ask = "while :; do fetch http://sentinel-web/ | grep -q served && echo answered \
                   || echo lost; usleep 100000; done";
        let publish = format!("127.0.0.1:{PORT}:80");
        must(field, &["network", "create", "sentinels"]);
        let base = ["run", "-d", "--restart", "always", "--network", "sentinels", "--name"];
        let run = |name: &str, more: &[&str], script: &str| {
            let mut args = base.to_vec();
            args.push(name);
            args.extend(more);
            args.extend(["busybox", "sh", "-c", script]);
            must(field, &args)
        };
        let ids = vec![
            run(NAMES[0], &["-p", &publish], &web),
            run(NAMES[1], &["--log-driver", "local"], COUNT),
            run(NAMES[2], &[], ask),
        ];
        let started = NAMES.iter().map(|name| state(field, name)).collect();
        wait_for_page();
        // What was asked before the server listened is no loss.
        let over = Arc::new(AtomicBool::new(false));
        let prober = thread::spawn({
            let (over, report) = (Arc::clone(&over), Arc::clone(report));
            move || probe(&over, &report)
        });
        Sentinels { ids, started, over, prober: Some(prober) }
    }

    pub fn ids(&self) -> &[String] {
        &self.ids
    }

    /// Compares with the start, reads the logs, and removes the sentinels.
    pub fn check(mut self, field: &Field, report: &Report) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(prober) = self.prober.take() {
            let _ = prober.join();
        }
        for (name, before) in NAMES.iter().zip(&self.started) {
            let after = state(field, name);
            if after != *before {
                report.fault(format!("{name} was {before:?} and is {after:?}"));
            }
        }
        for name in &NAMES[..2] {
            if let Err(why) = check_count(&logs(field, name)) {
                report.fault(format!("the log of {name}: {why}"));
            }
        }
        let answers = logs(field, NAMES[2]);
        let known = answers.lines().skip_while(|line| *line == "lost");
        let lost = known.filter(|line| *line != "answered").count();
        if lost > 0 || !answers.contains("answered") {
            report.fault(format!("{lost} questions by name had no answer"));
        }
        for name in NAMES {
            if !matches!(field.call(&["rm", "-f", name]), Outcome::Done(_)) {
                report.fault(format!("{name} cannot be removed"));
            }
        }
        if !matches!(field.call(&["network", "rm", "sentinels"]), Outcome::Done(_)) {
            report.fault("the sentinels' network cannot be removed");
        }
    }
}

fn must(field: &Field, args: &[&str]) -> String {
    match field.call(args) {
        Outcome::Done(said) => said,
        other => panic!("{args:?}: {other:?}"),
    }
}

fn state(field: &Field, name: &str) -> String {
    let format = "{{.State.Status}} {{.State.Pid}} {{.State.StartedAt}} {{.RestartCount}}";
    match field.call(&["inspect", "-f", format, name]) {
        Outcome::Done(said) => said,
        other => format!("{other:?}"),
    }
}

fn logs(field: &Field, name: &str) -> String {
    match field.call(&["logs", name]) {
        Outcome::Done(said) => said,
        other => format!("{other:?}"),
    }
}

/// The lines must be 0, 1, 2 … without a gap, a double or a foreign line.
fn check_count(log: &str) -> Result<(), String> {
    if log.is_empty() {
        return Err("it is empty".to_owned());
    }
    for (at, line) in log.lines().enumerate() {
        if line.parse() != Ok(at) {
            return Err(format!("line {at} is {line:?}"));
        }
    }
    Ok(())
}

fn page() -> Result<String, std::io::Error> {
    let address = SocketAddr::from(([127, 0, 0, 1], PORT));
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_TIMEOUT)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn wait_for_page() {
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    while !page().is_ok_and(|page| page.contains("served")) {
        assert!(Instant::now() < deadline, "sentinel-web does not serve");
        sleep(Duration::from_millis(50));
    }
}

fn probe(over: &AtomicBool, report: &Report) {
    while !over.load(Ordering::Relaxed) {
        report.probe();
        match page() {
            Ok(answer) if answer.contains("served") => {}
            Ok(answer) => report.fault(format!("the published port answered {answer:?}")),
            Err(error) => report.fault(format!("the published port: {error}")),
        }
        sleep(Duration::from_millis(50));
    }
}
