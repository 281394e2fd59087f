//! Listings: rows, their columns, and the forms of `--format`.

use std::{collections::BTreeMap, rc::Rc};

use super::{
    table::{self, DOCKER},
    template::Format,
};
use crate::{
    failure::Failure,
    gotemplate::{
        Reads,
        value::{self, Value},
    },
    terminal,
};

/// One row: fields by name, in the listing's order, and the labels behind `.Label`.
#[derive(Debug, Clone, Default)]
pub struct Row {
    pub fields: Vec<(&'static str, String)>,
    /// Fields that are no text.
    pub others: Vec<(&'static str, Value)>,
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
    fn type_name(self) -> &'static str {
        match self {
            Listing::Containers => "*formatter.ContainerContext",
            Listing::Of(name) => name,
        }
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

/// The template that a `--format` stands for; `raw` is what this listing calls so.
pub fn resolve<'a>(asked: &'a str, table: &'a str, raw: &'a str) -> &'a str {
    match asked {
        "" | "table" => table,
        "json" => "{{json .}}",
        "raw" if !raw.is_empty() => raw,
        other => other,
    }
}

/// A row as its template sees it.
pub fn value(listing: Listing, row: Row) -> Value {
    let texts = row.fields.into_iter().map(|(name, text)| (name, Value::text(text)));
    let mut fields: Vec<_> = texts.chain(row.others).collect();
    fields.sort_unstable_by_key(|(name, _)| *name);
    let name = listing.type_name();
    Value::Row(Rc::new(value::Row { name, fields, labels: row.labels, is_header: false }))
}

fn header(headers: Headers) -> Value {
    let fields = headers.iter().map(|(field, name)| (*field, Value::text(*name))).collect();
    let labels = BTreeMap::new();
    Value::Row(Rc::new(value::Row { name: "", fields, labels, is_header: true }))
}

/// A listing that is being written, row by row.
pub struct Renderer {
    listing: Listing,
    format: Format,
    with_header: bool,
    text: String,
}

impl Renderer {
    /// `table …` is a table with a header.
    ///
    /// # Errors
    /// When the template is malformed.
    pub fn new(listing: Listing, template: &str, headers: Headers) -> Result<Renderer, Failure> {
        let (body, with_header) = match template.strip_prefix("table") {
            Some(rest) => (rest.trim_matches(' '), true),
            None => (template.trim_matches(' '), false),
        };
        let body = body.replace("\\t", "\t").replace("\\n", "\n");
        let broken = |why: String| listing.unparsed(&why);
        let format = Format::parse(&body).map_err(broken)?;
        let mut text = String::new();
        if with_header {
            let line = Format::parse_header(&body).map_err(broken)?.run(&header(headers));
            // What cannot be said of a header is left out of it, as by Docker's client.
            text.push_str(&line.unwrap_or_default());
            text.push('\n');
        }
        Ok(Renderer { listing, format, with_header, text })
    }

    /// The fields that a row needs to have.
    pub fn reads(&self) -> Reads {
        self.format.reads()
    }

    /// # Errors
    /// When the template names a field that is not there.
    pub fn row(&mut self, row: Row) -> Result<(), Failure> {
        let row = value(self.listing, row);
        let written = self.format.run_into(&row, &mut self.text);
        written.map_err(|why| self.listing.wrong_field(&why))?;
        self.text.push('\n');
        Ok(())
    }

    pub fn finish(self) -> String {
        if self.with_header { table::align(&self.text, DOCKER) } else { self.text }
    }
}

/// Renders rows by a template.
///
/// # Errors
/// When the template is malformed or names a field that is not there.
pub fn render(
    listing: Listing,
    template: &str,
    headers: Headers,
    rows: &[Row],
) -> Result<String, Failure> {
    let mut renderer = Renderer::new(listing, template, headers)?;
    for row in rows {
        renderer.row(row.clone())?;
    }
    Ok(renderer.finish())
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
                others: Vec::new(),
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
        .assert_eq(
            &render(Listing::Containers, resolve("json", "", ""), HEADERS, &rows()).unwrap(),
        );
    }
}
