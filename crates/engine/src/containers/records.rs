//! Reading and writing what of a container survives the daemon, beside the async threads.
//!
//! Elsewhere: what is in these files, in [`super::record`].

use std::sync::Arc;

use runs::ExitRecord;
use spec::Id;
use store::records::Durability;
use tracing::warn;

use super::record::{EXIT_FILE, Life, Record};
use super::step::Run;
use crate::Inner;
use crate::blocking::blocking;
use crate::error::{Error, Kind, Result, chain};

pub(crate) async fn write_record(engine: &Arc<Inner>, record: &Arc<Record>) -> Result<()> {
    let (engine, record) = (Arc::clone(engine), Arc::clone(record));
    blocking(move || record.write(engine.store.records(), &engine.config))
        .await
        .map_err(|source| Error::caused(Kind::Internal, source))
}

pub(crate) async fn write_life(
    engine: &Arc<Inner>,
    record: &Record,
    life: Life,
    durability: Durability,
) -> Result<()> {
    let id = record.id;
    let written = match durability {
        // A few microseconds of page cache; a thread would cost more.
        Durability::Lazy => life.write(&id, engine.store.records(), &engine.config, durability),
        Durability::Durable => {
            let engine = Arc::clone(engine);
            blocking(move || life.write(&id, engine.store.records(), &engine.config, durability))
                .await
        }
    };
    written.map_err(|source| Error::caused(Kind::Internal, source))
}

/// The exit record of this very run, if its monitor wrote one.
pub(crate) fn exit_record(engine: &Inner, id: &Id, run: Option<&Run>) -> Option<ExitRecord> {
    let path = engine.config.container_dir(id).join(EXIT_FILE);
    match ExitRecord::find(&path) {
        Ok(found) => found.filter(|record| {
            run.is_none_or(|run| run.pid == record.pid && run.started_at == record.started_at)
        }),
        Err(error) => {
            warn!(container = %id, error = chain(&error), "exit record not readable");
            None
        }
    }
}
