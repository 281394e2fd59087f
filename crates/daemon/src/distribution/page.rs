//! Long lists in pages: `n` and `last` of a request, `Link` of the answer.
//!
//! Source: OCI distribution-spec 1.1, "Listing Tags"; RFC 8288.

use api::query::Query;

use super::refusal::{Code, Refusal, Result};

/// No answer has more entries, whatever was asked for.
const ENTRIES_MAX: usize = 10_000;

/// What part of a list is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    count: Option<usize>,
    last: String,
}

impl Page {
    /// # Errors
    /// When `n` is no number.
    pub fn of(query: &Query) -> Result<Page> {
        let count = match query.get("n").unwrap_or_default() {
            "" => None,
            text if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(text.parse().unwrap_or(ENTRIES_MAX))
            }
            text => {
                let words = format!("the number of entries n is no number: {text:?}");
                return Err(Refusal::new(Code::PaginationNumberInvalid, words));
            }
        };
        Ok(Page { count, last: query.get("last").unwrap_or_default().to_owned() })
    }

    /// Cuts the page out of the sorted list; gives the `Link` to the next one, if there is one.
    pub fn cut(&self, all: &mut Vec<String>, path: &str, registry: Option<&str>) -> Option<String> {
        if !self.last.is_empty() {
            all.retain(|entry| *entry > self.last);
        }
        let count = self.count.unwrap_or(ENTRIES_MAX).min(ENTRIES_MAX);
        let more = all.len() > count;
        all.truncate(count);
        let last = all.last().filter(|_| more)?;
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("last", last).append_pair("n", &count.to_string());
        if let Some(registry) = registry {
            query.append_pair("ns", registry);
        }
        Some(format!("<{path}?{}>; rel=\"next\"", query.finish()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    #[track_caller]
    fn check(query: &str, want: Expect) {
        let mut all: Vec<String> = ["a", "b", "c"].map(str::to_owned).to_vec();
        want.assert_eq(&match Page::of(&Query::parse(Some(query))) {
            Ok(page) => {
                let link = page.cut(&mut all, "/v2/x/tags/list", None);
                format!("{} {}", all.join(","), link.unwrap_or_default())
            }
            Err(refusal) => format!("{refusal:?}").split(',').next().unwrap().to_owned(),
        });
    }

    #[test]
    fn a_page_begins_after_the_last_one() {
        check("", expect!["a,b,c "]);
        check("n=2", expect![[r#"a,b </v2/x/tags/list?last=b&n=2>; rel="next""#]]);
        check("n=2&last=b", expect!["c "]);
        check("last=a", expect!["b,c "]);
        check("last=zz", expect![" "]);
        check("n=3", expect!["a,b,c "]);
        check("n=99999999999999999999", expect!["a,b,c "]);
    }

    #[test]
    fn none_asked_for_is_none_given() {
        check("n=0", expect![" "]);
    }

    #[test]
    fn a_count_is_a_number() {
        check("n=-1", expect!["Refusal { status: 400"]);
        check("n=x", expect!["Refusal { status: 400"]);
    }
}
