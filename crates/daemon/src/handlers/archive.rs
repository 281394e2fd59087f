//! Files in and out of containers: `docker cp` and `docker export`.

use api::body::Body;
use api::container::{PATH_STAT_HEADER, PathStat, file_mode};
use engine::containers::views as view;
use hyper::StatusCode;

use crate::convert::time;
use crate::http::reply::{self, Reply, Result};
use crate::http::{Call, Failure};

pub async fn export(call: &Call, id: &str) -> Result {
    let tar = call.engine.export_container(id).await?;
    Ok(reply::stream("application/octet-stream", Body::from_receiver(tar)).into())
}

/// Source: moby 28.2 `api/server/httputils/form.go`, `ArchiveFormValues`.
fn path(call: &Call) -> std::result::Result<&str, Failure> {
    match call.query.text("path") {
        "" => Err(Failure::invalid("bad parameter: 'path' cannot be empty")),
        path => Ok(path),
    }
}

fn with_stat(mut reply: Reply, stat: view::PathStat) -> Reply {
    let stat = PathStat {
        name: stat.name,
        size: i64::try_from(stat.size).unwrap_or(i64::MAX),
        mode: file_mode::from_unix(stat.mode),
        mtime: time(Some(stat.modified)),
        link_target: stat.link_target,
    };
    reply::set(&mut reply, PATH_STAT_HEADER, &stat.encode());
    reply
}

pub async fn stat(call: &Call, id: &str) -> Result {
    let stat = call.engine.stat_path(id, path(call)?).await?;
    Ok(with_stat(reply::empty(StatusCode::OK), stat).into())
}

pub async fn get(call: &Call, id: &str) -> Result {
    let (stat, tar) = call.engine.read_archive(id, path(call)?).await?;
    let reply = reply::stream("application/x-tar", Body::from_receiver(tar));
    Ok(with_stat(reply, stat).into())
}

pub async fn put(mut call: Call, id: &str) -> Result {
    let target = path(&call)?.to_owned();
    let options = view::ExtractOptions {
        no_overwrite_dir_non_dir: call.query.flag("noOverwriteDirNonDir"),
        copy_uid_gid: call.query.flag("copyUIDGID"),
    };
    let tar = call.upload();
    call.engine.write_archive(id, &target, options, tar).await?;
    Ok(reply::empty(StatusCode::OK).into())
}
