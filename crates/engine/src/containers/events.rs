//! Events of containers.

use std::collections::BTreeMap;

use super::record::Record;
use super::task::{EVENTS, event_attributes};
use crate::Inner;

/// Publishes an event of a container.
pub(crate) fn publish(engine: &Inner, record: &Record, action: &str, more: &[(&str, String)]) {
    // A label of the same name wins, as in Docker.
    let more = more.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
    let mut attributes: BTreeMap<String, String> = more.collect();
    attributes.extend(event_attributes(record));
    engine.events.publish(EVENTS, action, record.id.to_string(), attributes);
}
