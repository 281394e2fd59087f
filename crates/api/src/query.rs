//! Query strings with Docker's idea of a boolean.

use crate::filters::{Filters, FiltersError};

/// The decoded query of one request. Of a name given twice the first counts, as in Go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    #[must_use]
    pub fn parse(query: Option<&str>) -> Self {
        let query = query.unwrap_or_default().as_bytes();
        Self(form_urlencoded::parse(query).into_owned().collect())
    }

    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(key, _)| key == name)?;
        Some(value)
    }

    /// The value, empty when missing.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// "", 0, no, false and none are false, anything else is true.
    /// Source: moby 28.2 `api/server/httputils/form.go`.
    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        is_true(self.text(name))
    }

    /// As [`Self::flag`], but a missing name is `default`.
    #[must_use]
    pub fn flag_or(&self, name: &str, default: bool) -> bool {
        if self.has(name) { self.flag(name) } else { default }
    }

    /// # Errors
    /// When the value is there and is no integer.
    pub fn integer(&self, name: &str) -> Result<Option<i64>, BadInteger> {
        match self.text(name) {
            "" => Ok(None),
            text => match text.parse() {
                Ok(number) => Ok(Some(number)),
                Err(_) => Err(BadInteger { name: name.to_owned(), value: text.to_owned() }),
            },
        }
    }

    /// # Errors
    /// When the value is no filter document.
    pub fn filters(&self) -> Result<Filters, FiltersError> {
        Filters::parse(self.text("filters"))
    }
}

/// Go's own words for a failed `strconv.Atoi`, after the parameter's name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid value for {name}: strconv.Atoi: parsing {value:?}: invalid syntax")]
pub struct BadInteger {
    pub name: String,
    pub value: String,
}

/// Docker's booleans, also used in bodies of old clients.
#[must_use]
pub fn is_true(text: &str) -> bool {
    let text = text.trim().to_ascii_lowercase();
    !matches!(text.as_str(), "" | "0" | "no" | "false" | "none")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_are_dockers() {
        for no in ["", "0", "no", "False", "none", " 0 "] {
            assert!(!is_true(no), "{no:?}");
        }
        for yes in ["1", "true", "yes", "2", "x"] {
            assert!(is_true(yes), "{yes:?}");
        }
    }

    #[test]
    fn the_first_of_two_values_counts() {
        let query = Query::parse(Some("a=1&a=2&b=%2Fx+y&c"));
        assert_eq!(query.get("a"), Some("1"));
        assert_eq!(query.text("b"), "/x y");
        assert!(query.has("c"));
        assert!(query.flag_or("d", true));
        assert_eq!(query.integer("a"), Ok(Some(1)));
        assert!(query.integer("b").is_err());
    }
}
