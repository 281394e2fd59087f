//! Search of Docker Hub and of registries that have kept its interface.
//!
//! Source: moby 28.2 `registry/search.go`; `api/server/router/image`.

use registry::Credentials;
use registry::search::{self, Found, Ping, Search};

use crate::Engine;
use crate::error::{Error, Kind, Result};
use crate::filters::Filters;

const LIMIT_DEFAULT: u8 = 25;
const LIMIT_MAX: i64 = 100;

impl Engine {
    /// Images that a registry knows under `term`, which may begin with the registry's host.
    ///
    /// # Errors
    /// `Invalid` for a limit or filters that mean nothing; the registry's own failure.
    pub async fn search_images(
        &self,
        term: &str,
        limit: Option<i64>,
        filters: &Filters,
        credentials: Credentials,
        headers: &[(String, String)],
    ) -> Result<Vec<Found>> {
        let wanted = Wanted::parse(filters)?;
        if wanted.nothing {
            return Ok(Vec::new());
        }
        if term.contains("://") {
            return Err(Error::invalid(format!(
                "invalid repository name: repository name ({term}) should not have a scheme"
            )));
        }
        let limit = limit_of(limit)?;
        let (host, rest) = search::split_term(term);
        let registries = &self.inner.registries;
        let endpoints = registries.search_endpoints(host).await?.into_iter();
        let endpoints = endpoints.map(|endpoint| endpoint.with_headers(headers)).collect();
        let search = Search {
            transport: registries.transport(),
            trusting: registries.trusting(),
            credentials,
            endpoints,
            ping: if host.is_some() { Ping::First } else { Ping::Never },
        };
        let found = search.run(rest, limit).await;
        let mut found = found.map_err(|error| Error::caused(kind_of(&error), error))?;
        found.retain(|found| wanted.has(found));
        Ok(found)
    }
}

fn kind_of(error: &search::SearchError) -> Kind {
    use search::SearchError::{Document, Endpoint, Neither, Request, Status, TooLarge};
    match error {
        Endpoint { .. } | Neither { .. } => Kind::Invalid,
        Document(_) | Request(_) | Status(_) | TooLarge => Kind::Upstream,
    }
}

/// Docker takes 0 for a limit that was not given.
fn limit_of(asked: Option<i64>) -> Result<u8> {
    match asked {
        None | Some(0) => Ok(LIMIT_DEFAULT),
        Some(limit) => {
            let fits = u8::try_from(limit).ok().filter(|_| (1..=LIMIT_MAX).contains(&limit));
            fits.ok_or_else(|| {
                Error::invalid(format!("limit {limit} is outside the range of [1, {LIMIT_MAX}]"))
            })
        }
    }
}

/// The filters.
struct Wanted {
    /// No image is built automatically any more.
    nothing: bool,
    official: Option<bool>,
    stars_min: i64,
}

impl Wanted {
    fn parse(filters: &Filters) -> Result<Wanted> {
        filters.only(&["is-automated", "is-official", "stars"])?;
        let mut stars_min = 0;
        for text in filters.values("stars") {
            let stars: i64 =
                text.parse().map_err(|_| crate::words::invalid_filter_value("stars", text))?;
            stars_min = stars.max(stars_min);
        }
        Ok(Wanted {
            nothing: filters.boolean("is-automated")? == Some(true),
            official: filters.boolean("is-official")?,
            stars_min,
        })
    }

    fn has(&self, found: &Found) -> bool {
        self.official.is_none_or(|official| official == found.is_official)
            && found.star_count >= self.stars_min
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(filters: &str, want: &[&str]) {
        let wanted = Wanted::parse(&Filters::parse(filters).unwrap()).unwrap();
        let all = [("a", 10, false), ("b", 20, true), ("c", 3, true)];
        let names = all.into_iter().filter(|(_, star_count, is_official)| {
            wanted.has(&Found {
                star_count: *star_count,
                is_official: *is_official,
                ..Found::default()
            })
        });
        assert_eq!(names.map(|(name, ..)| name).collect::<Vec<_>>(), want, "{filters}");
    }

    #[test]
    fn filters_are_official_and_stars() {
        check("", &["a", "b", "c"]);
        check(r#"{"is-official":["true"]}"#, &["b", "c"]);
        check(r#"{"is-official":["0"]}"#, &["a"]);
        check(r#"{"stars":["3","10"]}"#, &["a", "b"]);
        check(r#"{"stars":["4"],"is-official":["1"]}"#, &["b"]);
    }

    #[test]
    fn a_limit_is_between_one_and_a_hundred() {
        assert_eq!(limit_of(None).unwrap(), 25);
        assert_eq!(limit_of(Some(0)).unwrap(), 25);
        assert_eq!(limit_of(Some(100)).unwrap(), 100);
        for limit in [-1, 101, 1_000] {
            let text = limit_of(Some(limit)).unwrap_err().to_string();
            assert_eq!(text, format!("limit {limit} is outside the range of [1, 100]"));
        }
    }
}
