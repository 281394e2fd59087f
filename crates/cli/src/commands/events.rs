//! `events`: what happens, as it happens.

use std::collections::BTreeMap;

use api::event::Message;

use super::{FORMAT_USAGE, logs::moment};
use crate::{
    args::{Arity, Command, Kind::*, Matches, Order, Outcome, flag},
    context::Session,
    failure::Failure,
    render::template::{Format, Shape, Subject},
    terminal,
};

pub static EVENTS: Command = Command {
    name: "events",
    aliases: &[],
    spellings: &["system events", "events"],
    usage: "[OPTIONS]",
    about: "Get real time events from the server",
    flags: &[&[
        flag("filter", Filter, "Show only what meets these conditions").s('f'),
        flag("format", Text, FORMAT_USAGE),
        flag("since", Text, "Show what happened since a time or for a span"),
        flag("until", Text, "Stop at this time"),
    ]],
    arity: Arity::None,
    order: Order::Mixed,
    run: |session, matches| Box::pin(events(session, matches)),
};

async fn events(session: &Session, matches: &Matches) -> Outcome {
    let format = match matches.text("format") {
        "" => None,
        "json" => Some(Format::of_object("{{json .}}")?),
        text => Some(Format::of_object(text)?),
    };
    let mut request = session.client().await?.get("/events");
    for name in ["since", "until"] {
        if let Some(text) = matches.find(name).filter(|text| !text.is_empty()) {
            request = request.query(name, moment(text)?);
        }
    }
    if let Some(filters) = super::filters(matches) {
        request = request.query("filters", filters);
    }
    let mut response = request.send().await?;
    while let Some(value) = response.next_json::<serde_json::Value>().await? {
        let line = match &format {
            Some(format) => format
                .run(&subject(&value), Shape::Map)
                .map_err(|error| Failure::new(format!("template error: {error}")))?,
            None => {
                let message = api::golang::from_value(value)
                    .map_err(|error| Failure::new(error.to_string()))?;
                plain(&message)
            }
        };
        terminal::out(&format!("{line}\n"));
    }
    Ok(0)
}

/// Docker's templates call the fields by their Go names.
fn subject(value: &serde_json::Value) -> Subject {
    let mut named = value.clone();
    if let Some(fields) = named.as_object_mut() {
        for (wire, name) in [
            ("status", "Status"),
            ("id", "ID"),
            ("from", "From"),
            ("scope", "Scope"),
            ("time", "Time"),
            ("timeNano", "TimeNano"),
        ] {
            let missing = match name {
                "Time" | "TimeNano" => serde_json::Value::from(0),
                _ => serde_json::Value::from(""),
            };
            let field = fields.get(wire).cloned().unwrap_or(missing);
            fields.insert(name.to_owned(), field);
        }
    }
    Subject::with_names(value, &named)
}

fn plain(message: &Message) -> String {
    let at = jiff::Timestamp::from_nanosecond(i128::from(message.time_nano))
        .or_else(|_| jiff::Timestamp::from_second(message.time))
        .map(|at| {
            at.to_zoned(jiff::tz::TimeZone::system())
                .strftime("%Y-%m-%dT%H:%M:%S.%9f%:z")
                .to_string()
                .replace("+00:00", "Z")
        })
        .unwrap_or_default();
    let mut line = format!("{at} {} {} {}", message.kind, message.action, message.actor.id);
    let attributes: &BTreeMap<_, _> = &message.actor.attributes;
    if !attributes.is_empty() {
        let pairs: Vec<_> =
            attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
        line.push_str(&format!(" ({})", pairs.join(", ")));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line() {
        let value = serde_json::json!({"Type":"container","Action":"start","Actor":{"ID":"abc","Attributes":{"image":"b","name":"n"}},"time":1700000000,"timeNano":1700000000000000000i64});
        let message: Message = api::golang::from_value(value.clone()).unwrap();
        assert!(plain(&message).ends_with(" container start abc (image=b, name=n)"));
        let format = Format::of_object("{{.Action}} {{.Actor.ID}} {{.Time}} {{json .}}").unwrap();
        assert_eq!(
            format.run(&subject(&value), Shape::Map).unwrap(),
            format!("start abc 1700000000 {}", value)
        );
    }
}
