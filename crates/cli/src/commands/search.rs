//! `search`: what a registry knows under a term.
//!
//! Source: docker/cli 28.2 `cli/command/registry/search.go`, `formatter_search.go`.

use api::image::SearchResult;
use base64::Engine as _;

use super::filters;
use crate::{
    args::{Arity, Command, Kind::*, Matches, Order, Outcome, flag},
    context::Session,
    render::{
        format::{self, Headers, Listing, Row},
        units::ellipsis,
    },
    terminal,
};

pub static SEARCH: Command = Command {
    name: "search",
    aliases: &[],
    spellings: &[],
    usage: "[OPTIONS] TERM",
    about: "Search Docker Hub for images",
    flags: &[&[
        flag("filter", Filter, "Show only what meets these conditions").s('f'),
        flag(
            "format",
            Text,
            "Format output by a template:\n'json':             As JSON\n'TEMPLATE':         By the given Go template",
        ),
        flag("limit", Int, "Show at most this many images"),
        flag("no-trunc", Bool, "Do not shorten output"),
    ]],
    arity: Arity::Exactly(1),
    order: Order::Mixed,
    run: |session, matches| Box::pin(search(session, matches)),
};

const HEADERS: Headers = &[
    ("Description", "DESCRIPTION"),
    ("IsOfficial", "OFFICIAL"),
    ("Name", "NAME"),
    ("StarCount", "STARS"),
];

const TABLE: &str = "table {{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}";

/// Columns of a description that is shortened.
const DESCRIPTION_MAX: usize = 45;

async fn search(session: &Session, matches: &Matches) -> Outcome {
    let Some(term) = matches.args.first() else { return Ok(0) };
    if matches.all("filter").iter().any(|filter| filter.starts_with("is-automated=")) {
        terminal::error_text(
            "WARNING: the \"is-automated\" filter is deprecated, and searching for \
             \"is-automated=true\" will not yield any results in future.\n",
        );
    }
    let auth = session.config.registry_auth(domain_of(term));
    let auth = serde_json::to_vec(&auth).unwrap_or_default();
    let mut request = session
        .client()
        .await?
        .get("/images/search")
        .query("term", term)
        .header("x-registry-auth", &base64::engine::general_purpose::URL_SAFE.encode(auth));
    if matches.given("limit") {
        request = request.query("limit", matches.text("limit"));
    }
    if let Some(filters) = filters(matches) {
        request = request.query("filters", filters);
    }
    let found: Vec<SearchResult> = request.send().await?.json().await?;
    let template = format::resolve(matches.text("format"), TABLE, "");
    let truth = if template == "{{json .}}" { Truth::Words } else { Truth::Mark };
    let full = matches.on("no-trunc");
    let rows: Vec<Row> = found.iter().map(|found| row(found, full, truth)).collect();
    format::print(Listing::Of("*registry.searchContext"), template, HEADERS, &rows)?;
    Ok(0)
}

/// The registry that a term begins with, as credentials are kept for it.
fn domain_of(term: &str) -> &str {
    match term.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "docker.io",
    }
}

/// How a yes is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Truth {
    Words,
    Mark,
}

fn row(found: &SearchResult, full: bool, truth: Truth) -> Row {
    let description = found.description.replace(['\n', '\r'], " ");
    let official = match (truth, found.is_official) {
        (Truth::Words, official) => official.to_string(),
        (Truth::Mark, true) => "[OK]".to_owned(),
        (Truth::Mark, false) => String::new(),
    };
    Row {
        fields: vec![
            (
                "Description",
                if full { description } else { ellipsis(&description, DESCRIPTION_MAX) },
            ),
            ("IsOfficial", official),
            ("Name", found.name.clone()),
            ("StarCount", found.star_count.to_string()),
        ],
        ..Row::default()
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn official_images_are_marked() {
        let found = [
            SearchResult {
                name: "redis".to_owned(),
                description: "A description that is much too\nlong for its column".to_owned(),
                star_count: 13_000,
                is_official: true,
                is_automated: false,
            },
            SearchResult { name: "me/redis".to_owned(), ..SearchResult::default() },
        ];
        let rows: Vec<Row> = found.iter().map(|found| row(found, false, Truth::Mark)).collect();
        expect![[r#"
            NAME       DESCRIPTION                                     STARS     OFFICIAL
            redis      A description that is much too long for its …   13000     [OK]
            me/redis                                                   0         
        "#]]
        .assert_eq(&format::render(Listing::Of("*x"), TABLE, HEADERS, &rows).unwrap());
    }
}
