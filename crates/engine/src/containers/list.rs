//! Lists of containers: which ones a query selects, and their rows.
//!
//! A list may have a thousand rows and is asked for every second by some clients. So a row borrows from
//! its container's record, which the list holds, and what several rows need (networks' ids by name,
//! whether an image is still called what the user typed) is looked up once. Guarded by a count of what a
//! row allocates, in `daemon::convert::rows`.
//!
//! Source: moby 28.2 `daemon/list.go`, `container/view.go`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use jiff::Timestamp;
use spec::{Id, ImageId};

use super::create::image_shown;
use super::inspect::{Brief, brief, measure, mount_row, network_by, status_text};
use super::links;
use super::record::Record;
use super::spec::Protocol;
use super::step::Phase;
use super::task::View;
use super::views::{CommandLine, ContainerSummary, ListQuery, NetworkView, Place, Size};
use crate::error::{Error, Result};
use crate::filters::Filters;
use crate::{Engine, Inner, networks, words};

impl Engine {
    /// The containers that a query selects, newest first.
    ///
    /// # Errors
    /// `Invalid` for filters that do not exist.
    pub async fn list_containers(&self, query: ListQuery) -> Result<ContainerList> {
        let selection = Selection::parse(self, &query)?;
        let mut list = ContainerList::new(&self.inner);
        let all = self.inner.containers.all();
        let mut found: Vec<Arc<View>> = all.iter().map(|container| container.now()).collect();
        found.retain(|view| selection.takes(&list, view, &brief(view)));
        found.sort_by_cached_key(|view| std::cmp::Reverse(view.record.created_at));
        found.truncate(query.limit.unwrap_or(usize::MAX));
        list.rows.reserve_exact(found.len());
        for view in found {
            let size = if query.size { Some(measure(&self.inner, &view).await) } else { None };
            list.push(view, size);
        }
        Ok(list)
    }
}

/// Containers at one moment, newest first.
pub struct ContainerList {
    engine: Arc<Inner>,
    now: SystemTime,
    rows: Vec<Row>,
    networks: HashMap<String, Id>,
    /// By what it meant when it was typed and what was typed: what to show instead, if anything.
    images: HashMap<(ImageId, String), Option<Arc<str>>>,
    links: HashMap<Id, Vec<String>>,
}

struct Row {
    view: Arc<View>,
    size: Option<Size>,
    /// What to show for its image, unless that is what was typed.
    image: Option<Arc<str>>,
}

impl ContainerList {
    fn new(engine: &Arc<Inner>) -> Self {
        Self {
            engine: Arc::clone(engine),
            now: SystemTime::now(),
            rows: Vec::new(),
            networks: engine.networks.ids(),
            images: HashMap::new(),
            links: links::names(engine),
        }
    }

    fn push(&mut self, view: Arc<View>, size: Option<Size>) {
        let (typed, image) = (&view.record.spec.image, view.record.image);
        // Most have the image of their neighbour.
        let neighbour = self
            .rows
            .last()
            .filter(|row| row.view.record.image == image && row.view.record.spec.image == *typed);
        let image = match neighbour {
            Some(row) => row.image.clone(),
            None => {
                let shown = || Some(image_shown(&self.engine, typed, &image));
                let shown = || shown().filter(|shown| shown != typed).map(Arc::from);
                self.images.entry((image, typed.clone())).or_insert_with(shown).clone()
            }
        };
        self.rows.push(Row { view, size, image });
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub fn rows(&self) -> impl Iterator<Item = ContainerSummary<'_>> {
        self.rows.iter().map(|row| self.row(row))
    }

    fn row<'a>(&'a self, row: &'a Row) -> ContainerSummary<'a> {
        let view = &*row.view;
        let record = &*view.record;
        let state = brief(view);
        let running = view.attachment.as_ref().filter(|_| view.phase.run().is_some());
        let mounts = record.mounts.iter().filter_map(|mount| mount_row(&self.engine, mount));
        ContainerSummary {
            record,
            links: self.links_of(&record.id),
            image: row.image.as_deref().unwrap_or(&record.spec.image),
            command: CommandLine(record),
            status: state.status,
            status_text: status_text(&state, self.now),
            ports: running.map(|running| running.shown_ports(&record.spec)).unwrap_or_default(),
            size: row.size,
            endpoints: match running {
                Some(running) => running.places(&record.spec),
                None => self.stopped_places(record),
            },
            mounts: mounts.collect(),
        }
    }

    fn links_of(&self, id: &Id) -> &[String] {
        // Hashed only where anybody has links at all.
        let known = if self.links.is_empty() { None } else { self.links.get(id) };
        known.map(Vec::as_slice).unwrap_or_default()
    }

    fn stopped_places<'a>(&self, record: &'a Record) -> Vec<Place<'a>> {
        networks::stopped_places(&record.spec, |name| self.network_id(name))
    }

    /// A network may also have been asked for by its id.
    fn network_id(&self, name: &str) -> Option<Id> {
        let known = self.networks.get(name).copied();
        known.or_else(|| self.engine.networks.resolve(name).ok())
    }

    fn network(&self, view: &View) -> NetworkView {
        network_by(view, |name| self.network_id(name))
    }
}

/// Ports of one protocol, as `publish` and `expose` name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ports {
    low: u16,
    high: u16,
    protocol: Protocol,
}

impl Ports {
    /// `80`, `80/udp`, `8000-8080/tcp`.
    fn parse(key: &str, text: &str) -> Result<Self> {
        if text.contains(':') {
            return Err(Error::invalid(format!(
                "filter for '{key}' should not contain ':': {text}"
            )));
        }
        let bad =
            |why: String| Error::invalid(format!("error while looking up for {key} {text}: {why}"));
        let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        if range.is_empty() {
            return Err(bad("empty string specified for ports".to_owned()));
        }
        let number = |text: &str| {
            text.parse::<u16>().map_err(|_| {
                let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                let why = if digits { "value out of range" } else { "invalid syntax" };
                bad(format!("strconv.ParseUint: parsing {text:?}: {why}"))
            })
        };
        let (low, high) = range.split_once('-').unwrap_or((range, range));
        let (low, high) = (number(low)?, number(high)?);
        if high < low {
            return Err(bad(format!("invalid range specified for port: {range}")));
        }
        let protocol = protocol.parse().map_err(|error: Error| bad(error.message))?;
        Ok(Self { low, high, protocol })
    }

    fn has(&self, number: u16, protocol: Protocol) -> bool {
        protocol == self.protocol && (self.low..=self.high).contains(&number)
    }
}

/// A list's filters, checked once.
#[derive(Debug)]
struct Selection {
    filters: Filters,
    all: bool,
    before: Option<Timestamp>,
    since: Option<Timestamp>,
    exited: Vec<i32>,
    ancestors: Option<Vec<ImageId>>,
    publish: Vec<Ports>,
    expose: Vec<Ports>,
    task: Option<bool>,
}

/// Source: moby `daemon/list.go`.
const FILTERS: &[&str] = &[
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];

const STATUSES: [&str; 7] =
    ["created", "running", "paused", "restarting", "removing", "exited", "dead"];
const HEALTHS: [&str; 4] = ["none", "starting", "healthy", "unhealthy"];

impl Selection {
    fn parse(engine: &Engine, query: &ListQuery) -> Result<Self> {
        let created = |key: &str| match query.filters.values(key).next() {
            Some(asked) => engine.container(asked).map(|found| Some(found.now().record.created_at)),
            None => Ok(None),
        };
        let mut selection = Self::parse_alone(query)?;
        (selection.before, selection.since) = (created("before")?, created("since")?);
        if selection.filters.contains("ancestor") {
            selection.ancestors = Some(ancestors(&engine.inner, &selection.filters));
        }
        Ok(selection)
    }

    /// All but what other containers and images decide.
    fn parse_alone(query: &ListQuery) -> Result<Self> {
        let filters = query.filters.clone();
        filters.only(FILTERS)?;
        for (key, known) in [("status", &STATUSES[..]), ("health", &HEALTHS)] {
            if let Some(bad) = filters.values(key).find(|value| !known.contains(value)) {
                return Err(words::invalid_filter_value(key, bad));
            }
        }
        let exited = filters
            .values("exited")
            .map(|value| value.parse().map_err(|_| words::invalid_filter_value("exited", value)))
            .collect::<Result<Vec<i32>>>()?;
        let ports = |key: &str| {
            filters.values(key).map(|value| Ports::parse(key, value)).collect::<Result<Vec<_>>>()
        };
        Ok(Self {
            all: query.all || query.limit.is_some() || filters.contains("status"),
            before: None,
            since: None,
            exited,
            ancestors: None,
            publish: ports("publish")?,
            expose: ports("expose")?,
            task: filters.boolean("is-task")?,
            filters,
        })
    }

    fn takes(&self, list: &ContainerList, view: &View, state: &Brief) -> bool {
        let record = &view.record;
        if view.phase == Phase::Gone || (!self.all && !state.running) {
            return false;
        }
        if self.filters.is_empty() {
            return true;
        }
        self.takes_record(record)
            && self.takes_state(state)
            && self.ancestors.as_ref().is_none_or(|images| images.contains(&record.image))
            && self.takes_network(list, view)
    }

    fn takes_record(&self, record: &Record) -> bool {
        let filters = &self.filters;
        let named = !filters.contains("name")
            || filters.pattern("name", &record.name)
            || filters.pattern("name", &format!("/{}", record.name));
        let identified = !filters.contains("id") || {
            let id = record.id.to_string();
            filters.any("id", |wanted| id.starts_with(wanted) || regex(wanted, &id))
        };
        named
            && identified
            && filters.labels(&record.spec.config.labels)
            // None is a task of a swarm's.
            && self.task != Some(true)
            && self.before.is_none_or(|before| record.created_at < before)
            && self.since.is_none_or(|since| record.created_at > since)
            && filters.any("volume", |wanted| {
                record.mounts.iter().any(|mount| {
                    mount.name == wanted || mount.source == wanted || mount.destination == wanted
                })
            })
    }

    fn takes_state(&self, state: &Brief) -> bool {
        let ended = !state.running && state.started_at.is_some();
        let health = state.health.map_or("none", |health| health.name());
        self.filters.exact("status", state.status.name())
            && self.filters.exact("health", health)
            && (self.exited.is_empty() || (ended && self.exited.contains(&state.exit_code)))
    }

    fn takes_network(&self, list: &ContainerList, view: &View) -> bool {
        let by_port = !self.publish.is_empty() || !self.expose.is_empty();
        if !by_port && !self.filters.contains("network") {
            return true;
        }
        let network = list.network(view);
        let on_it = self.filters.any("network", |wanted| {
            network.endpoints.iter().any(|(name, endpoint)| {
                name == wanted
                    || (!endpoint.network_id.is_empty() && endpoint.network_id.starts_with(wanted))
            })
        });
        if !on_it || !by_port {
            return on_it;
        }
        // The two are alternatives: a port that was asked for either way is enough.
        let exposed = || {
            let exposed = view.record.spec.exposed_ports();
            self.expose
                .iter()
                .any(|wanted| exposed.iter().any(|port| wanted.has(port.number, port.protocol)))
        };
        let published = || {
            network.ports.iter().any(|(port, places)| {
                let places = places.iter().flatten();
                let mut numbers = places.map(|place| place.port);
                numbers.any(|number| {
                    self.publish.iter().any(|wanted| wanted.has(number, port.protocol))
                })
            })
        };
        published() || exposed()
    }
}

fn regex(pattern: &str, text: &str) -> bool {
    regex_lite::Regex::new(pattern).is_ok_and(|expression| expression.is_match(text))
}

/// The images that the filter names, and all that were made from them: more layers on the same
/// ones, or none more but further steps.
fn ancestors(engine: &Inner, filters: &Filters) -> Vec<ImageId> {
    let mut found = Vec::new();
    for asked in filters.values("ancestor") {
        let Ok(root) = super::create::find_image(engine, asked) else { continue };
        for image in engine.store.images() {
            let further = image.layers.len() > root.layers.len()
                || image.config.history.len() > root.config.history.len();
            let upon = image.layers.starts_with(&root.layers)
                && image.config.history.starts_with(&root.config.history);
            if image.id == root.id || (upon && further) {
                found.push(image.id);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn query(filters: &[(&str, &str)]) -> ListQuery {
        let mut query = ListQuery::default();
        for (key, value) in filters {
            query.filters.insert(*key, *value);
        }
        query
    }

    #[track_caller]
    fn check(filters: &[(&str, &str)], want: Expect) {
        let outcome = Selection::parse_alone(&query(filters));
        want.assert_eq(&outcome.map_or_else(|error| error.message, |_| "ok".to_owned()));
    }

    #[test]
    fn filters_that_cannot_be_are_refused_in_dockers_words() {
        check(&[("publish", "80-81/udp"), ("expose", "53")], expect!["ok"]);
        check(&[("nope", "x")], expect!["invalid filter 'nope'"]);
        check(&[("label!", "x")], expect!["invalid filter 'label!'"]);
        check(&[("status", "up")], expect!["invalid filter 'status=up'"]);
        check(&[("health", "well")], expect!["invalid filter 'health=well'"]);
        check(&[("exited", "x")], expect!["invalid filter 'exited=x'"]);
        check(&[("is-task", "x")], expect!["invalid filter 'is-task=x'"]);
        check(
            &[("publish", "80:80")],
            expect!["filter for 'publish' should not contain ':': 80:80"],
        );
        check(
            &[("expose", "x")],
            expect![[
                r#"error while looking up for expose x: strconv.ParseUint: parsing "x": invalid syntax"#
            ]],
        );
        check(
            &[("expose", "90-80")],
            expect![
                "error while looking up for expose 90-80: invalid range specified for port: 90-80"
            ],
        );
    }

    #[test]
    fn only_a_status_lists_stopped_ones_unasked() {
        let all = |filters: &[(&str, &str)]| Selection::parse_alone(&query(filters)).unwrap().all;
        assert!(all(&[("status", "exited")]));
        for key in ["before", "since", "name", "exited"] {
            assert!(!all(&[(key, "0")]), "{key}");
        }
        let limited = ListQuery { limit: Some(1), ..ListQuery::default() };
        assert!(Selection::parse_alone(&limited).unwrap().all);
    }

    #[test]
    fn a_command_line_is_shown_as_docker_shows_it() {
        let mut spec = super::super::spec::ContainerSpec::default();
        spec.config.entrypoint = Some(vec!["my sh".to_owned(), "-c".to_owned()]);
        spec.config.cmd = Some(vec!["echo hi".to_owned(), String::new()]);
        let image = ImageId(spec::Digest::of(b""));
        let record = Record::new(Id::from_raw([0; 32]), String::new(), image, spec);
        assert_eq!(CommandLine(&record).to_string(), "my sh -c 'echo hi' ");
    }
}
