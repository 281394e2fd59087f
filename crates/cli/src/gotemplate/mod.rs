//! Go's templates over values with Go's types.
//!
//! ```text
//! answer ─ schema (types.txt) ─▶ value ┐
//! text ── lex ─▶ parse ────────▶ tree  ├─ exec (funcs, print) ─▶ output, or an error in Go's words
//! ```
//! What a template sees is the type that Docker's client decodes an answer into: absent fields have
//! their zero, fields stand in Go's order, and what is printed or written as JSON is that type's.

mod exec;
mod funcs;
mod lex;
mod parse;
pub mod print;
mod reads;
pub mod schema;
pub mod value;

pub use exec::Absent;
pub use funcs::Purpose;
pub use reads::Reads;

/// A parsed template.
pub struct Template {
    name: &'static str,
    source: String,
    tree: parse::Tree,
}

impl Template {
    /// # Errors
    /// In Go's words: `template: NAME:1: …`.
    pub fn parse(name: &'static str, text: &str) -> Result<Template, String> {
        let tree = parse::parse(name, text, &funcs::is_known)?;
        Ok(Template { name, source: text.to_owned(), tree })
    }

    /// # Errors
    /// In Go's words, with the place: `template: :1:2: executing "" at <.X>: …`.
    pub fn run(
        &self,
        purpose: Purpose,
        absent: Absent,
        data: &value::Value,
    ) -> Result<String, String> {
        let mut text = String::new();
        exec::run(self, purpose, absent, data, &mut text)?;
        Ok(text)
    }

    /// Writes a row behind others.
    ///
    /// # Errors
    /// As [`Template::run`].
    pub fn run_into(&self, data: &value::Value, out: &mut String) -> Result<(), String> {
        exec::run(self, Purpose::Row, Absent::NoValue, data, out)
    }

    /// What was written before something went wrong, and that.
    pub fn run_so_far(&self, data: &value::Value) -> (String, Option<String>) {
        let mut text = String::new();
        let failed = exec::run(self, Purpose::Row, Absent::NoValue, data, &mut text).err();
        (text, failed)
    }

    /// Which fields of its data it reads at most.
    pub fn reads(&self) -> Reads {
        self.tree.reads()
    }
}
