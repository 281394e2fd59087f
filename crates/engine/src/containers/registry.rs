//! Which containers there are: by id, by name, by prefix.
//!
//! A name is reserved before its container exists and freed with it. Lookup order: full id, exact
//! name, then the prefix of an id.
//!
//! Source: moby `daemon/container.go` `GetContainer`, `container/view.go`.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use spec::Id;
use tokio::sync::{mpsc, watch};

use super::execs::Execs;
use super::task::{Message, View};
use crate::error::Result;
use crate::networks::link_parts;
use crate::words;

/// One container as the rest of the engine sees it: a mailbox and a window.
pub(crate) struct ContainerHandle {
    pub id: Id,
    pub inbox: mpsc::UnboundedSender<Message>,
    pub view: watch::Receiver<Arc<View>>,
    pub execs: Execs,
    pub arrivals: Arrivals,
    /// Held by whoever changes the record and what goes with it: see [`super::turns`].
    pub turn: tokio::sync::Mutex<()>,
}

/// Attaches that were accepted and whose connections are still on their way. A client sends `start`
/// as soon as its attach is answered, over another connection, and must not miss what a short
/// program prints; so a start awaits them.
#[derive(Clone)]
pub(crate) struct Arrivals(watch::Sender<usize>);

/// One attach on its way, until dropped.
pub(crate) struct Arrival(Arrivals);

impl Default for Arrivals {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl Arrivals {
    pub(crate) fn announce(&self) -> Arrival {
        self.0.send_modify(|count| *count += 1);
        Arrival(self.clone())
    }

    /// Waits until none is on its way, but not for ever: a client may hang up at that very moment.
    pub(crate) async fn settle(&self) {
        const PATIENCE: Duration = Duration::from_secs(1);
        let mut count = self.0.subscribe();
        let none = count.wait_for(|count| *count == 0);
        // A client that never came gets nothing, the others should not wait longer.
        let _ = tokio::time::timeout(PATIENCE, none).await;
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}

impl ContainerHandle {
    /// The latest published state.
    pub(crate) fn now(&self) -> Arc<View> {
        Arc::clone(&self.view.borrow())
    }
}

#[derive(Default)]
pub(crate) struct Registry {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    by_id: BTreeMap<String, Arc<ContainerHandle>>,
    /// Also names of containers that are still being made.
    names: HashMap<String, Id>,
}

impl State {
    /// The container that a link of another one names: `PARENT/ALIAS`.
    fn linked(&self, parent: &str, alias: &str) -> Option<Arc<ContainerHandle>> {
        let parent = self.by_id.get(&self.names.get(parent)?.to_string())?.now();
        let mut links = parent.record.spec.host.links.iter().map(|link| link_parts(link));
        let (target, _) = links.find(|(_, known)| *known == alias)?;
        self.by_id.get(target).cloned()
    }
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a name for a container, or makes one up.
    pub(crate) fn reserve(&self, wanted: Option<&str>, id: &Id) -> Result<String> {
        let mut state = self.lock();
        let name = match wanted {
            Some(text) => {
                let name = text.strip_prefix('/').unwrap_or(text);
                if !crate::names::is_valid(name) {
                    return Err(words::invalid_name(text));
                }
                if let Some(holder) = state.names.get(name) {
                    return Err(words::name_in_use(name, holder));
                }
                name.to_owned()
            }
            None => crate::names::make_up(id, |name| state.names.contains_key(name)),
        };
        state.names.insert(name.clone(), *id);
        Ok(name)
    }

    /// Frees a name if it is this container's.
    pub(crate) fn free(&self, name: &str, id: &Id) {
        let mut state = self.lock();
        if state.names.get(name) == Some(id) {
            state.names.remove(name);
        }
    }

    pub(crate) fn insert(&self, container: Arc<ContainerHandle>) {
        self.lock().by_id.insert(container.id.to_string(), container);
    }

    pub(crate) fn remove(&self, id: &Id, name: &str) {
        self.lock().by_id.remove(&id.to_string());
        self.free(name, id);
    }

    pub(crate) fn all(&self) -> Vec<Arc<ContainerHandle>> {
        self.lock().by_id.values().cloned().collect()
    }

    /// The container that a text means.
    pub(crate) fn resolve(&self, asked: &str) -> Result<Arc<ContainerHandle>> {
        let state = self.lock();
        if let Some(container) = state.by_id.get(asked) {
            return Ok(Arc::clone(container));
        }
        let name = asked.strip_prefix('/').unwrap_or(asked);
        if let Some(id) = state.names.get(name)
            && let Some(container) = state.by_id.get(&id.to_string())
        {
            return Ok(Arc::clone(container));
        }
        if let Some((parent, alias)) = name.split_once('/') {
            let found = state.linked(parent, alias);
            return found.ok_or_else(|| words::no_such_container(asked));
        }
        if asked.is_empty() {
            return Err(words::no_such_container(asked));
        }
        let mut matches =
            state.by_id.range(asked.to_owned()..).take_while(|(id, _)| id.starts_with(asked));
        match (matches.next(), matches.next()) {
            (None, _) => Err(words::no_such_container(asked)),
            (Some((_, container)), None) => Ok(Arc::clone(container)),
            (Some(_), Some(_)) => Err(words::ambiguous_prefix(asked)),
        }
    }
}
