//! End-to-end tests: what users type, through both command lines, against a daemon of their own.
//!
//! The program starts itself again in new PID, mount and network namespaces, so that the host's
//! state is out of reach and everything dies with it. There it starts one daemon with its own roots,
//! socket and cgroup, and runs the cases one after another. After each case the census ([`census`])
//! must be what it was before: mounts, links, cgroups, processes, nftables objects, records.
//!
//! `cargo test --test e2e -- WORD…` runs the cases whose name has one of the words; `--list` lists them.
//! A host that cannot make namespaces reports the cases as ignored, and as failed where CI is set.

mod cases;
mod census;
mod fixtures;
mod harness;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use harness::Suite;

/// Set in the process that is inside the namespaces.
const INSIDE: &str = "TUG_E2E_INSIDE";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let chosen: Vec<&cases::Case> = cases::all()
        .filter(|case| words.is_empty() || words.iter().any(|word| case.name.contains(word)))
        .collect();
    if std::env::args().any(|arg| arg == "--list") {
        chosen.iter().for_each(|case| println!("{}: test", case.name));
        return ExitCode::SUCCESS;
    }
    if std::env::var_os(INSIDE).is_none() {
        return enter_namespaces(chosen.len());
    }
    run(&chosen)
}

/// Runs this program again inside new namespaces; they take everything with them when it ends.
fn enter_namespaces(cases: usize) -> ExitCode {
    const NAMESPACES: [&str; 7] = [
        "--fork",
        "--kill-child",
        "--pid",
        "--mount",
        "--mount-proc",
        "--net",
        "--propagation=private",
    ];
    let possible = Command::new("unshare")
        .args(NAMESPACES)
        .arg("true")
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !possible {
        let verdict = if std::env::var_os("CI").is_some() { "FAILED" } else { "ok" };
        println!(
            "ignored: {cases} end-to-end cases need root and namespaces, which are not to be had here"
        );
        println!("\ntest result: {verdict}. 0 passed; 0 failed; {cases} ignored");
        return ExitCode::from(u8::from(verdict == "FAILED"));
    }
    let this = std::env::current_exe().expect("this program has a path");
    // The first process of the PID namespace inherits every orphan; ours reaps them.
    let status = Command::new("unshare")
        .args(NAMESPACES)
        .args([harness::tug(), "__init", "--"])
        .arg(this)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .status()
        .expect("unshare just worked");
    ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

fn run(chosen: &[&cases::Case]) -> ExitCode {
    // A failed check is told by its place and words; a trace of the harness adds nothing.
    std::panic::set_hook(Box::new(|panic| println!("{panic}")));
    let suite = Suite::open();
    let (mut passed, mut ignored, mut failed) = (0, 0, Vec::new());
    println!("\nrunning {} tests", chosen.len());
    let mut before = suite.census_at_rest();
    for case in chosen {
        let began = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| (case.run)(&suite)));
        if outcome.is_err() {
            suite.report();
        }
        let clean = suite.clean_up();
        let after = suite.census_settled(&before);
        let seconds = began.elapsed().as_secs_f32();
        let left = before.difference(&after);
        match outcome {
            Ok(harness::Outcome::Ignored(why)) => {
                ignored += 1;
                println!("test {} ... ignored: {why}", case.name);
                if std::env::var_os("CI").is_some() {
                    failed.push(case.name);
                }
            }
            Ok(harness::Outcome::Passed) if left.is_empty() && clean => {
                passed += 1;
                println!("test {} ... ok ({seconds:.1} s)", case.name);
            }
            Ok(harness::Outcome::Passed) => {
                println!("left behind (- before, + after):\n{left}");
                println!("test {} ... FAILED: left something behind", case.name);
                failed.push(case.name);
            }
            Err(_) => {
                println!("test {} ... FAILED", case.name);
                failed.push(case.name);
            }
        }
        before = after;
    }
    if !failed.is_empty() {
        println!("\nfailures:\n    {}", failed.join("\n    "));
    }
    let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {passed} passed; {} failed; {ignored} ignored",
        failed.len()
    );
    suite.close();
    ExitCode::from(u8::from(!failed.is_empty()))
}
