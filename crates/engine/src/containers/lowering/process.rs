//! A container's program.

use runs::workload::{OomScore, PathInside, Program, Stdin, Streams};
use spec::runtime::ConsoleSize;

use super::super::capabilities;
use super::super::spec::ContainerSpec;
use crate::apparmor;
use crate::config::EngineConfig;
use crate::error::{Error, Kind, Result};
use crate::workloads::{Host, environment, limits, security};

pub(super) fn program(
    spec: &ContainerSpec,
    config: &EngineConfig,
    host: &Host,
    (hostname, link_env): (&str, &[String]),
) -> Result<Program> {
    let options = &spec.host;
    let capabilities = capabilities::resolve(
        super::privileges(options),
        &options.cap_add,
        &options.cap_drop,
        host.last_capability,
    )?;
    let cwd = match spec.config.working_dir.as_str() {
        "" => "/",
        directory => directory,
    };
    Ok(Program {
        argv: spec.argv(),
        env: environment(spec, hostname, link_env),
        cwd: PathInside::new(super::super::mounts::clean(cwd)),
        user: runtime::UserRequest {
            user: spec.config.user.clone(),
            groups: options.group_add.clone(),
        },
        streams: match spec.tty {
            true => Streams::Terminal { size: console_size(options.console_size) },
            false => Streams::Pipes,
        },
        stdin: match (spec.open_stdin, spec.stdin_once) {
            (false, _) => Stdin::None,
            (true, false) => Stdin::Open,
            (true, true) => Stdin::Once,
        },
        capabilities: capabilities::set(&capabilities),
        rlimits: limits::rlimits(&config.default_ulimits, &options.resources.ulimits),
        new_privileges: security::new_privileges(&options.security_opt, config),
        apparmor: apparmor(spec, host),
        oom_score: oom_score(options.oom_score_adj)?,
    })
}

/// The AppArmor profile of the container's processes, which the start applies or fails.
pub(crate) fn apparmor(spec: &ContainerSpec, host: &Host) -> Option<String> {
    let wanted = spec.host.security_opt.apparmor.as_ref();
    apparmor::profile_of(wanted, super::privileges(&spec.host), host.apparmor)
}

/// Rows and columns of a terminal, unless both are nothing.
pub(crate) fn console_size(size: Option<(u16, u16)>) -> Option<ConsoleSize> {
    size.filter(|size| *size != (0, 0)).map(|(height, width)| ConsoleSize { height, width })
}

/// The environment: defaults, then what the spec says, replaced by key; a key without value takes one away.
pub(crate) fn environment(spec: &ContainerSpec, hostname: &str, links: &[String]) -> Vec<String> {
    let mut env = environment::defaults(hostname);
    if spec.tty {
        env.push("TERM=xterm".to_owned());
    }
    env.extend_from_slice(links);
    environment::replace(&mut env, &spec.config.env);
    env
}

fn oom_score(score: i32) -> Result<OomScore> {
    OomScore::try_from(score).map_err(|source| Error::caused(Kind::Invalid, source))
}
