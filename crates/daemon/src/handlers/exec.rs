//! Commands in running containers.

use api::exec as docker;
use api::version::v;
use engine::containers::views::{ExecSpec, ExecStart};
use hyper::StatusCode;

use super::streams;
use crate::convert::create::console_size;
use crate::http::reply::{self, Result};
use crate::http::{Answer, Call, Failure, TakeOver};

pub async fn create(mut call: Call, container: &str) -> Result {
    let body: docker::CreateRequest = call.json().await?.unwrap_or_default();
    if body.cmd.is_empty() {
        // Source: moby 28.2 `container_routes.go`, `execCommandError`.
        return Err(Failure::invalid("No exec command specified"));
    }
    let console =
        if call.version < v(42) { None } else { body.console_size.and_then(console_size) };
    let spec = ExecSpec {
        argv: body.cmd.0.unwrap_or_default(),
        env: body.env.unwrap_or_default(),
        user: body.user,
        working_dir: body.working_dir,
        tty: body.tty,
        privileged: body.privileged,
        attach_stdin: body.attach_stdin,
        attach_stdout: body.attach_stdout,
        attach_stderr: body.attach_stderr,
        detach_keys: (!body.detach_keys.is_empty()).then_some(body.detach_keys),
        console_size: console,
    };
    let id = call.engine.create_exec(container, spec).await?;
    reply::json(StatusCode::CREATED, &docker::CreateResponse { id: id.to_string() })
}

pub async fn start(mut call: Call, exec: &str) -> Result {
    let body: docker::StartRequest = call.json().await?.unwrap_or_default();
    if body.console_size.is_some() {
        // Source: moby 28.2 `api/server/router/container/exec.go`.
        if call.version < v(42) {
            return Err(Failure::invalid("consoleSize is only supported by API 1.42 and newer"));
        }
        if !body.tty {
            return Err(Failure::invalid("console size can only be specified with tty"));
        }
    }
    let options = ExecStart {
        detach: body.detach,
        tty: body.tty,
        console_size: body.console_size.and_then(console_size),
    };
    let starting = call.engine.start_exec(exec, options).await?;
    if body.detach {
        starting.detached().await?;
        return Ok(reply::empty(StatusCode::OK).into());
    }
    let content_type = streams::content_type(call.version, starting.tty);
    Ok(Answer::TakeOver(TakeOver::new(content_type, |client| async {
        // The engine has told the client in the stream.
        if let Err(error) = starting.connect(client).await {
            tracing::debug!(error = error.message, "exec did not start");
        }
    })))
}

pub async fn resize(call: &Call, exec: &str) -> Result {
    let (height, width) = super::containers::terminal_size(call)?;
    call.engine.resize_exec(exec, height, width).await?;
    Ok(reply::empty(StatusCode::OK).into())
}

pub async fn inspect(call: &Call, exec: &str) -> Result {
    let view = call.engine.inspect_exec(exec).await?;
    let mut argv = view.spec.argv.into_iter();
    reply::ok(&docker::Inspect {
        id: view.id.to_string(),
        running: view.running,
        exit_code: view.exit_code.map(i64::from),
        process_config: docker::ProcessConfig {
            tty: view.spec.tty,
            entrypoint: argv.next().unwrap_or_default(),
            arguments: argv.collect(),
            privileged: Some(view.spec.privileged),
            user: view.spec.user,
        },
        open_stdin: view.spec.attach_stdin,
        open_stderr: view.spec.attach_stderr,
        open_stdout: view.spec.attach_stdout,
        can_remove: view.can_remove,
        container_id: view.container.to_string(),
        detach_keys: view.spec.detach_keys.unwrap_or_default(),
        pid: view.pid.into(),
    })
}
