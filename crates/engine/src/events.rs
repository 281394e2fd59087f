//! The event bus: what happened, to whoever listens.
//!
//! Events are facts that the engine's parts publish; the last [`PAST_MAX`] are kept for `since`.
//! A reader that falls more than its queue behind is dropped, so no reader can hold the engine up.
//!
//! Source: moby `daemon/events/events.go`, `filter.go`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tokio::sync::mpsc;

use crate::error::Result;
use crate::filters::Filters;

const PAST_MAX: usize = 256;
/// moby waits 100 ms for each event of a slow reader; a queue of this length stands for that time.
const QUEUE_MAX: usize = 4096;

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    Builder,
    Container,
    Daemon,
    Image,
    Network,
    Volume,
}

impl EventType {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Builder => "builder",
            Self::Container => "container",
            Self::Daemon => "daemon",
            Self::Image => "image",
            Self::Network => "network",
            Self::Volume => "volume",
        }
    }
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub kind: EventType,
    /// Docker's word, such as `start` or `exec_create: sh`.
    pub action: String,
    /// The object's id: container and network ids, volume names, image references or ids.
    pub actor: String,
    pub attributes: BTreeMap<String, String>,
    pub at: SystemTime,
}

/// What a reader wants: times select from the past and end the stream, filters select events.
#[derive(Debug, Clone, Default)]
pub struct EventQuery {
    pub since: Option<SystemTime>,
    pub until: Option<SystemTime>,
    pub filters: Filters,
}

/// Publishes to all readers and remembers the recent past. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Events {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    past: VecDeque<Arc<Event>>,
    readers: Vec<mpsc::Sender<Arc<Event>>>,
}

/// A reader's events in order; ends at `until`, or when the reader was too slow.
#[derive(Debug)]
pub struct EventStream {
    past: VecDeque<Arc<Event>>,
    live: Option<mpsc::Receiver<Arc<Event>>>,
    query: EventQuery,
}

impl Events {
    /// Publishes an event that happened now.
    pub fn publish(
        &self,
        kind: EventType,
        action: impl Into<String>,
        actor: impl Into<String>,
        attributes: BTreeMap<String, String>,
    ) {
        let at = SystemTime::now();
        let event =
            Arc::new(Event { kind, action: action.into(), actor: actor.into(), attributes, at });
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.past.len() == PAST_MAX {
            shared.past.pop_front();
        }
        shared.past.push_back(Arc::clone(&event));
        shared.readers.retain(|reader| reader.try_send(Arc::clone(&event)).is_ok());
    }

    /// How many read at this moment.
    #[must_use]
    pub fn listeners(&self) -> usize {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.readers.iter().filter(|reader| !reader.is_closed()).count()
    }

    /// Starts reading. With `since`, or an `until` in the past, remembered events come first.
    ///
    /// # Errors
    /// `Invalid` for a filter key that events do not have.
    pub fn subscribe(&self, query: EventQuery) -> Result<EventStream> {
        query.filters.only(&[
            "config",
            "container",
            "daemon",
            "event",
            "image",
            "label",
            "network",
            "node",
            "plugin",
            "scope",
            "secret",
            "service",
            "type",
            "volume",
        ])?;
        let over = query.until.is_some_and(|until| until <= SystemTime::now());
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let replay = query.since.is_some() || over;
        let past = if replay { shared.past.clone() } else { VecDeque::new() };
        let live = if over {
            None
        } else {
            let (sender, receiver) = mpsc::channel(QUEUE_MAX);
            shared.readers.push(sender);
            Some(receiver)
        };
        Ok(EventStream { past, live, query })
    }
}

impl EventStream {
    /// The next matching event; `None` when the stream is over.
    pub async fn next(&mut self) -> Option<Arc<Event>> {
        while let Some(event) = self.past.pop_front() {
            if self.query.selects(&event) {
                return Some(event);
            }
        }
        let live = self.live.as_mut()?;
        loop {
            let left = match self.query.until {
                Some(until) => Some(until.duration_since(SystemTime::now()).ok()?),
                None => None,
            };
            let event = match left {
                Some(left) => tokio::time::timeout(left, live.recv()).await.ok()??,
                None => live.recv().await?,
            };
            if self.query.selects(&event) {
                return Some(event);
            }
        }
    }
}

impl EventQuery {
    fn selects(&self, event: &Event) -> bool {
        self.since.is_none_or(|since| event.at >= since)
            && self.until.is_none_or(|until| event.at <= until)
            && self.filtered(event)
    }

    fn filtered(&self, event: &Event) -> bool {
        let filters = &self.filters;
        filters.exact("type", event.kind.name())
            && filters.exact("scope", "local")
            && filters.any("event", |wanted| action_matches(wanted, &event.action))
            && filters.labels(&event.attributes)
            && self.names(event, EventType::Container, "container")
            && self.names(event, EventType::Volume, "volume")
            && self.names(event, EventType::Network, "network")
            && self.names(event, EventType::Daemon, "daemon")
            && self.image(event)
            && ["config", "node", "plugin", "secret", "service"]
                .iter()
                .all(|key| !filters.contains(key))
    }

    /// `container=X` and the like: of that type, and id or name begins with the value.
    fn names(&self, event: &Event, kind: EventType, key: &str) -> bool {
        if !self.filters.contains(key) {
            return true;
        }
        let name = event.attributes.get("name").map_or("", String::as_str);
        event.kind == kind
            && (self.filters.prefix(key, &event.actor) || self.filters.prefix(key, name))
    }

    fn image(&self, event: &Event) -> bool {
        if !self.filters.contains("image") {
            return true;
        }
        let attribute = match event.kind {
            EventType::Image => "name",
            EventType::Container => "image",
            EventType::Builder | EventType::Daemon | EventType::Network | EventType::Volume => {
                return false;
            }
        };
        let name = event.attributes.get(attribute).map_or("", String::as_str);
        let bare = |text: &str| match text.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => name.to_owned(),
            Some(_) | None => text.to_owned(),
        };
        self.filters.any("image", |wanted| {
            wanted == event.actor
                || wanted == name
                || wanted == bare(&event.actor)
                || wanted == bare(name)
        })
    }
}

fn action_matches(wanted: &str, action: &str) -> bool {
    let open = ["health_status", "exec_create", "exec_start"];
    wanted == action
        || (open.iter().any(|prefix| wanted.starts_with(prefix)) && action.starts_with(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn publish(events: &Events, action: &str) {
        let attributes = BTreeMap::from([
            ("name".to_owned(), "web".to_owned()),
            ("image".to_owned(), "nginx:1".to_owned()),
        ]);
        events.publish(EventType::Container, action, "abc", attributes);
    }

    async fn check(filters: &str, want: &[&str]) {
        let events = Events::default();
        for action in ["create", "start", "exec_create: sh", "die"] {
            publish(&events, action);
        }
        let query = EventQuery {
            until: Some(SystemTime::now()),
            filters: Filters::parse(filters).unwrap(),
            since: None,
        };
        let mut stream = events.subscribe(query).unwrap();
        let mut got = Vec::new();
        while let Some(event) = stream.next().await {
            got.push(event.action.clone());
        }
        assert_eq!(got, want, "{filters}");
    }

    #[tokio::test]
    async fn the_past_is_replayed_through_the_filters() {
        check("", &["create", "start", "exec_create: sh", "die"]).await;
        check(r#"{"event":["start","die"]}"#, &["start", "die"]).await;
        check(r#"{"event":["exec_create"]}"#, &["exec_create: sh"]).await;
        check(r#"{"container":["we"],"event":["die"]}"#, &["die"]).await;
        check(r#"{"image":["nginx"],"event":["die"]}"#, &["die"]).await;
        check(r#"{"type":["image"]}"#, &[]).await;
        check(r#"{"network":["web"]}"#, &[]).await;
    }

    #[tokio::test]
    async fn a_stream_ends_at_until() {
        let events = Events::default();
        let until = SystemTime::now() + Duration::from_millis(30);
        let mut stream =
            events.subscribe(EventQuery { until: Some(until), ..EventQuery::default() }).unwrap();
        publish(&events, "start");
        assert_eq!(stream.next().await.unwrap().action, "start");
        assert!(stream.next().await.is_none());
    }

    #[tokio::test]
    async fn a_reader_that_does_not_read_is_dropped() {
        let events = Events::default();
        let mut stream = events.subscribe(EventQuery::default()).unwrap();
        for _ in 0..=QUEUE_MAX {
            publish(&events, "start");
        }
        for _ in 0..QUEUE_MAX {
            assert!(stream.next().await.is_some());
        }
        assert!(stream.next().await.is_none());
    }
}
