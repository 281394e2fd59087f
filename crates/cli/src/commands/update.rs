//! `update`: limits and restart policy of containers that exist.

use api::{
    client::segment,
    container::{UpdateRequest, UpdateResponse},
};

use super::finish;
use crate::{
    args::{Arity, Command, Kind::*, Matches, Order, Outcome, flag, go},
    context::Session,
    create::{request::restart_policy, sizes},
    failure::{Failure, daemon_words},
    terminal,
};

pub static UPDATE: Command = Command {
    name: "update",
    aliases: &[],
    spellings: &["container update", "update"],
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Update configuration of one or more containers",
    flags: &[&[
        flag("blkio-weight", Uint16, "Relative block I/O weight, 10 to 1000, or 0 to turn it off")
            .or("0"),
        flag("cpu-period", Int, "Period of the CPU scheduler's (CFS) quota"),
        flag("cpu-quota", Int, "Quota of the CPU scheduler (CFS)"),
        flag("cpu-rt-period", Int, "CPU real-time period in microseconds"),
        flag("cpu-rt-runtime", Int, "CPU real-time runtime in microseconds"),
        flag("cpu-shares", Int, "CPU shares (relative weight)").s('c'),
        flag("cpus", Decimal, "Number of CPUs"),
        flag("cpuset-cpus", Text, "CPUs that may be used (0-3, 0,1)"),
        flag("cpuset-mems", Text, "Memory nodes that may be used (0-3, 0,1)"),
        flag("kernel-memory", Bytes, "Kernel memory limit").hidden(),
        flag("memory", Bytes, "Memory limit").s('m'),
        flag("memory-reservation", Bytes, "Memory soft limit"),
        flag("memory-swap", SwapBytes, "Limit of memory plus swap: '-1' for unlimited swap"),
        flag("pids-limit", Int, "Limit the number of processes (-1 for unlimited)"),
        flag("restart", Text, "When to restart the container after it exits"),
    ]],
    arity: Arity::AtLeast(1),
    order: Order::Mixed,
    run: |session, matches| Box::pin(update(session, matches)),
};

async fn update(session: &Session, matches: &Matches) -> Outcome {
    let names = [
        "blkio-weight",
        "cpu-period",
        "cpu-quota",
        "cpu-rt-period",
        "cpu-rt-runtime",
        "cpu-shares",
        "cpus",
        "cpuset-cpus",
        "cpuset-mems",
        "kernel-memory",
        "memory",
        "memory-reservation",
        "memory-swap",
        "pids-limit",
        "restart",
    ];
    if !names.iter().any(|name| matches.given(name)) {
        return Err(Failure::new("you must provide one or more flags when using this command"));
    }
    let request = request(matches)?;
    let client = session.client().await?;
    let mut errors = Vec::new();
    let mut warnings = Vec::new();
    for name in &matches.args {
        let path = format!("/containers/{}/update", segment(name));
        let answer = async {
            client.post(&path).json(&request).send().await?.json::<UpdateResponse>().await
        };
        match answer.await {
            Ok(answer) => {
                terminal::out(&format!("{name}\n"));
                warnings.extend(answer.warnings.unwrap_or_default());
            }
            Err(error) => errors.push(daemon_words(&error)),
        }
    }
    if !warnings.is_empty() {
        terminal::out(&format!("{}\n", warnings.join("\n")));
    }
    finish(errors)
}

fn request(matches: &Matches) -> Result<UpdateRequest, Failure> {
    let bytes = |name: &str| {
        matches.find(name).and_then(|text| sizes::ram_in_bytes(text).ok()).unwrap_or_default()
    };
    let weight =
        go::parse_uint(matches.text("blkio-weight"), u64::from(u16::MAX)).unwrap_or_default();
    Ok(UpdateRequest {
        restart_policy: restart_policy(matches.text("restart"))?,
        blkio_weight: u16::try_from(weight).unwrap_or_default(),
        cpu_period: matches.int("cpu-period"),
        cpu_quota: matches.int("cpu-quota"),
        cpu_realtime_period: matches.int("cpu-rt-period"),
        cpu_realtime_runtime: matches.int("cpu-rt-runtime"),
        cpu_shares: matches.int("cpu-shares"),
        nano_cpus: matches
            .find("cpus")
            .and_then(|text| sizes::nano_cpus(text).ok())
            .unwrap_or_default(),
        cpuset_cpus: matches.text("cpuset-cpus").to_owned(),
        cpuset_mems: matches.text("cpuset-mems").to_owned(),
        kernel_memory: bytes("kernel-memory"),
        memory: bytes("memory"),
        memory_reservation: bytes("memory-reservation"),
        memory_swap: match matches.find("memory-swap") {
            Some(text) => sizes::swap_in_bytes(text)?,
            None => 0,
        },
        pids_limit: matches.given("pids-limit").then(|| matches.int("pids-limit")),
        ..UpdateRequest::default()
    })
}
