//! `events`: what happens, as it happens.

use std::{collections::BTreeMap, rc::Rc};

use api::event::Message;

use super::{OBJECT_FORMAT_USAGE, logs::moment};
use crate::{
    args::{Arity, Command, Kind::*, Matches, Order, Outcome, flag},
    context::Session,
    failure::Failure,
    gotemplate::{schema, value::Value},
    render::template::{Format, typed},
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
        flag("format", Text, OBJECT_FORMAT_USAGE),
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
        "json" => Some(checked("{{json .}}")?),
        text => Some(checked(text)?),
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
            Some(format) => format.run(&typed(MESSAGE, &value)).map_err(Failure::new)?,
            None => {
                let message = api::golang::from_value(value)
                    .map_err(|error| Failure::new(error.to_string()))?;
                plain(&message)
            }
        };
        terminal::write(terminal::Output::Stdout, format!("{line}\n").as_bytes())?;
    }
    Ok(0)
}

const MESSAGE: &str = "events.Message";

/// A template that an empty message can be shown by.
fn checked(text: &str) -> Result<Format, Failure> {
    let wrong =
        |why: String| Failure::Said { text: format!("Error parsing format: {why}"), status: 64 };
    let format = Format::parse(text).map_err(wrong)?;
    let empty = Value::Pointer(
        Some(Rc::new(typed(MESSAGE, &serde_json::Value::Null))),
        schema::parse("*events.Message"),
    );
    format.run(&empty).map_err(wrong)?;
    Ok(format)
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
        let format =
            checked("{{.Action}} {{.Actor.ID}} {{.Time}} {{.Actor.Attributes.no}} {{json .}}")
                .unwrap();
        assert_eq!(
            format.run(&typed(MESSAGE, &value)).unwrap(),
            format!("start abc 1700000000 <no value> {value}")
        );
        assert!(checked("{{.Nope}}").is_err());
    }
}
