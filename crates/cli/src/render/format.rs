//! Listings: rows, their columns, and the forms of `--format`.

use std::collections::BTreeMap;

use super::{
    table::{self, DOCKER},
    template::{Format, Shape, Subject},
};
use crate::{failure::Failure, terminal};

/// One row: fields by name, in the listing's order, and the labels behind `.Label`.
#[derive(Debug, Clone, Default)]
pub struct Row {
    pub fields: Vec<(&'static str, String)>,
    pub labels: BTreeMap<String, String>,
}

/// A listing's column names by field.
pub type Headers = &'static [(&'static str, &'static str)];

/// Which listing a template is for, since Docker's words about a wrong one name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listing {
    /// Its template is tried before anything is asked.
    Containers,
    /// Any other, by what Go calls the type of a row.
    Of(&'static str),
}

impl Listing {
    fn row(self) -> Shape {
        Shape::Struct(match self {
            Listing::Containers => "*formatter.ContainerContext",
            Listing::Of(name) => name,
        })
    }

    fn unparsed(self, why: &str) -> Failure {
        Failure::new(match self {
            Listing::Containers => format!("failed to parse template: {why}"),
            Listing::Of(_) => format!("template parsing error: {why}"),
        })
    }

    fn wrong_field(self, why: &str) -> Failure {
        Failure::new(match self {
            Listing::Containers => format!("failed to execute template: {why}"),
            Listing::Of(_) => format!("template parsing error: {why}"),
        })
    }
}

/// The template that a `--format` stands for.
pub fn resolve<'a>(asked: &'a str, table: &'a str) -> &'a str {
    match asked {
        "" | "table" => table,
        "json" => "{{json .}}",
        other => other,
    }
}

/// Renders rows by a template, `table …` being a table with a header.
///
/// # Errors
/// When the template is malformed or names a field that is not there.
pub fn render(
    listing: Listing,
    template: &str,
    headers: Headers,
    rows: &[Row],
) -> Result<String, Failure> {
    let (body, with_header) = match template.strip_prefix("table") {
        Some(rest) => (rest.trim(), true),
        None => (template, false),
    };
    let body = body.replace("\\t", "\t").replace("\\n", "\n");
    let broken = |why: String| listing.unparsed(&why);
    let wrong_field = |why: String| listing.wrong_field(&why);
    let format = Format::parse(&body).map_err(broken)?;
    let mut text = String::new();
    if with_header {
        let names = headers.iter().map(|(field, name)| (*field, (*name).to_owned()));
        let line = Format::parse_header(&body)
            .map_err(broken)?
            .run(&Subject::row(names, &BTreeMap::new()), listing.row())
            .map_err(wrong_field)?;
        text.push_str(&line);
        text.push('\n');
    }
    for row in rows {
        let subject = Subject::row(row.fields.iter().cloned(), &row.labels);
        text.push_str(&format.run(&subject, listing.row()).map_err(wrong_field)?);
        text.push('\n');
    }
    Ok(if with_header { table::align(&text, DOCKER) } else { text })
}

/// Renders and prints.
///
/// # Errors
/// As [`render`].
pub fn print(
    listing: Listing,
    template: &str,
    headers: Headers,
    rows: &[Row],
) -> Result<(), Failure> {
    terminal::out(&render(listing, template, headers, rows)?);
    Ok(())
}

/// Labels as one text: `a=1,b=2`.
pub fn labels_text(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    const HEADERS: Headers = &[("ID", "CONTAINER ID"), ("Names", "NAMES")];

    fn rows() -> Vec<Row> {
        [("0123456789ab", "web"), ("ba9876543210", "db")]
            .into_iter()
            .map(|(id, name)| Row {
                fields: vec![("ID", id.to_owned()), ("Names", name.to_owned())],
                labels: BTreeMap::from([("tier".to_owned(), name.to_owned())]),
            })
            .collect()
    }

    #[test]
    fn a_table_has_its_header() {
        expect![[r#"
            CONTAINER ID   NAMES     tier
            0123456789ab   web       web
            ba9876543210   db        db
        "#]]
        .assert_eq(
            &render(
                Listing::Containers,
                r#"table {{.ID}}\t{{.Names}}\t{{.Label "tier"}}"#,
                HEADERS,
                &rows(),
            )
            .unwrap(),
        );
    }

    #[test]
    fn json_is_one_object_a_line() {
        expect![[r#"
            {"ID":"0123456789ab","Names":"web"}
            {"ID":"ba9876543210","Names":"db"}
        "#]]
        .assert_eq(&render(Listing::Containers, resolve("json", ""), HEADERS, &rows()).unwrap());
    }
}
