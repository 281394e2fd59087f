//! The events of steps: what Docker's classic builder would run as containers is told as such.
//!
//! A step that runs has the events of a container from its creation to its end. None is ever listed
//! or kept: its `destroy` follows at once, whatever `--rm` says.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use spec::Id;

use crate::Inner;
use crate::events::EventType;

/// The steps that began and have not ended: what their events say of them.
#[derive(Default)]
pub(super) struct Steps {
    open: Mutex<HashMap<String, BTreeMap<String, String>>>,
}

impl Steps {
    pub(super) fn begin(&self, engine: &Inner, id: &str, image: &str) {
        let name = id.parse::<Id>().map(|id| crate::names::make_up(&id, |_| false));
        let attributes = BTreeMap::from([
            ("image".to_owned(), image.to_owned()),
            ("name".to_owned(), name.unwrap_or_else(|_| id.to_owned())),
        ]);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(id.to_owned(), attributes);
        drop(open);
        self.tell(engine, id, "create", &[]);
    }

    /// Publishes an event of a step that is open; others have none.
    pub(super) fn tell(&self, engine: &Inner, id: &str, action: &str, more: &[(&str, String)]) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mut attributes) = open.get(id).cloned() else { return };
        drop(open);
        let more = more.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
        attributes.extend(more);
        engine.events.publish(EventType::Container, action, id.to_owned(), attributes);
    }

    pub(super) fn end(&self, engine: &Inner, id: &str) {
        self.tell(engine, id, "destroy", &[]);
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}
