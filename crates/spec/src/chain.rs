//! Errors with their causes, for logs and for people.

use std::error::Error;

/// An error and its causes in one line, outermost first, parted by `: `.
///
/// STYLE.md rule 1 keeps causes out of an error's own text, so whoever shows an error calls this.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Layered {
        #[error("outer")]
        Outer { source: Box<Layered> },
        #[error("inner")]
        Inner,
    }

    #[test]
    fn causes_follow_the_error_they_caused() {
        let middle = Layered::Outer { source: Box::new(Layered::Inner) };
        let error = Layered::Outer { source: Box::new(middle) };
        assert_eq!(chain(&error), "outer: outer: inner");
        assert_eq!(chain(&Layered::Inner), "inner");
    }
}
