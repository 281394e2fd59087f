//! `image push --to`: images from this engine to another one, or to a registry, by their own names.
//!
//! ```text
//! our daemon's /v2/ ─ here ─┐                       ┌─ there ─ ssh HOST tug system dial-stdio ─ its daemon's /v2/
//!                           ├─ plan ─ blobs ─ manifests
//!                           └───────────────────────└─ there ─ http(s)://HOST:PORT/v2/
//! ```
//! The other side is asked for each blob, and gets the bytes of those that it lacks. Manifests go
//! last, so that nothing is visible there before it is whole. The other side makes an image of what
//! it got, which has the same name and digest.

mod place;
mod plan;
mod send;

use std::cell::RefCell;
use std::rc::Rc;

use registry::Client;
use spec::{Platform, Reference, chain};

use crate::args::{Matches, Outcome};
use crate::context::Session;
use crate::failure::Failure;
use crate::render::pull::Board;
use crate::render::units::human_size;
use crate::terminal;
use place::{Here, There};
use send::Sent;

/// Where progress goes.
type Shown = Rc<RefCell<Board>>;

/// Pushes the images that are named in `matches` to the place of its `--to`.
///
/// # Errors
/// When an image is not here, or the other side refuses or breaks off.
pub async fn push(session: &Session, matches: &Matches) -> Outcome {
    let there = There::parse(matches.text("to"), session)?;
    let here = Here::open(session).await?;
    let platform = match matches.text("platform") {
        "" => None,
        text => Some(
            text.parse::<Platform>()
                .map_err(|error| Failure::new(format!("invalid platform {text:?}: {error}")))?,
        ),
    };
    for name in &matches.args {
        for name in names(&here, name, matches.on("all-tags")).await? {
            let work =
                Work { here: &here, there: &there, name: &name, is_quiet: matches.on("quiet") };
            work.run(platform.as_ref()).await?;
        }
    }
    Ok(0)
}

/// What a name on the command line stands for.
async fn names(here: &Here, text: &str, all: bool) -> Result<Vec<Reference>, Failure> {
    let wrong = |error: spec::reference::ReferenceError| Failure::new(error.to_string());
    let written = Reference::parse_untagged(text).map_err(wrong)?;
    if written.digest().is_some() {
        return Err(Failure::new("cannot push a digest reference"));
    }
    if !all {
        return Ok(vec![Reference::parse(text).map_err(wrong)?]);
    }
    if written.tag().is_some() {
        return Err(Failure::new("tag can't be used with --all-tags/-a"));
    }
    let client = here.client(&written).await?;
    let tags = client.tags().await.map_err(|_| not_here(&written))?;
    tags.iter().map(|tag| written.with_tag(tag).map_err(wrong)).collect()
}

fn not_here(name: &Reference) -> Failure {
    Failure::new(format!("An image does not exist locally with the tag: {}", name.familiar()))
}

/// One image to send.
struct Work<'a> {
    here: &'a Here,
    there: &'a There,
    name: &'a Reference,
    is_quiet: bool,
}

impl Work<'_> {
    async fn run(&self, platform: Option<&Platform>) -> Result<(), Failure> {
        let said = |error: registry::Error| Failure::new(chain(&error));
        let here: Rc<Client> = Rc::new(self.here.client(self.name).await?);
        let tag = self.name.tag().unwrap_or("latest");
        let top = here.manifest(tag).await.map_err(|error| match error.refusal() {
            Some(refusal) if refusal.is("MANIFEST_UNKNOWN") || refusal.is("NAME_UNKNOWN") => {
                not_here(self.name)
            }
            _ => said(error),
        })?;
        let there: Rc<Client> = Rc::new(self.there.client(self.name).await?);
        self.say(&format!("Sending {} to {}\n", self.name.familiar(), self.there));
        let plan = plan::make(&here, top, platform).await?;
        if let Some(note) = &plan.note {
            self.say(&format!("{}: {note}\n", self.name.familiar()));
        }
        let shown = (!self.is_quiet).then(Shown::default);
        let sent = send::blobs(&here, &there, plan.blobs, self.there.lanes(), shown).await?;
        for child in &plan.children {
            let digest = child.digest.to_string();
            if there.find_manifest(&digest).await.ok().flatten().is_none() {
                let put = there.put_manifest(&digest, &child.media_type, child.bytes.clone());
                put.await.map_err(said)?;
            }
        }
        let put = there.put_manifest(tag, &plan.top.media_type, plan.top.bytes.clone());
        put.await.map_err(said)?;
        self.summarize(&plan.top.digest.to_string(), &sent);
        Ok(())
    }

    fn say(&self, text: &str) {
        if !self.is_quiet {
            terminal::out(text);
        }
    }

    fn summarize(&self, digest: &str, sent: &Sent) {
        let name = self.name.familiar();
        if self.is_quiet {
            terminal::out(&format!("{name}\n"));
            return;
        }
        let blobs =
            |count: usize| if count == 1 { "1 blob".into() } else { format!("{count} blobs") };
        terminal::out(&format!(
            "{name}: digest: {digest}: sent {} ({}), skipped {} ({})\n",
            blobs(sent.sent),
            human_size(sent.sent_bytes as f64),
            blobs(sent.skipped),
            human_size(sent.skipped_bytes as f64)
        ));
    }
}
