//! COPY, ADD and WORKDIR: layers of files, written without a container.

use build::worker::{Failure, FailureKind, WriteStep};
use spec::DiffId;

use super::worker::EngineWorker;

pub(super) fn write(
    _worker: &EngineWorker,
    _below: &[DiffId],
    _step: &WriteStep,
) -> Result<Option<DiffId>, Failure> {
    Err(Failure::new(FailureKind::Unsupported, "waiting for the layer writer"))
}

pub(super) fn make_directory(
    _worker: &EngineWorker,
    _below: &[DiffId],
    _path: &str,
    _user: &str,
) -> Result<Option<DiffId>, Failure> {
    Err(Failure::new(FailureKind::Unsupported, "waiting for the layer writer"))
}
