//! `manifest`: look into images at their registries, and make lists of them.
//!
//! No daemon has a part in it. Source: docker/cli 28.2 `cli/command/manifest`.

use spec::Reference;

use super::finish;
use crate::{
    args::{Arity, Command, Flag, Kind::*, Matches, Order, Outcome, flag},
    context::Session,
    failure::Failure,
    manifest::{
        entry::{self, Entry},
        remote::{Found, Insecure, Remote},
        store::Store,
    },
    render::json,
    terminal,
};

const INSECURE: Flag = flag("insecure", Bool, "Allow a registry without a trusted certificate");
const PUSH_INSECURE: Flag =
    flag("insecure", Bool, "Allow a registry without a trusted certificate");

const BASE: Command = Command {
    name: "inspect",
    aliases: &[],
    spellings: &[],
    usage: "[OPTIONS] [MANIFEST_LIST] MANIFEST",
    about: "Display an image manifest, or manifest list",
    flags: &[&[INSECURE, flag("verbose", Bool, "Show layers and platform as well").s('v')]],
    arity: Arity::Between(1, 2),
    order: Order::Mixed,
    run: |session, matches| Box::pin(inspect(session, matches)),
};
pub static INSPECT: Command = BASE;

pub static CREATE: Command = Command {
    name: "create",
    usage: "MANIFEST_LIST MANIFEST [MANIFEST...]",
    about: "Create a local manifest list for annotating and pushing to a registry",
    flags: &[&[INSECURE, flag("amend", Bool, "Change a list that exists").s('a')]],
    arity: Arity::AtLeast(2),
    run: |session, matches| Box::pin(create(session, matches)),
    ..BASE
};

pub static ANNOTATE: Command = Command {
    name: "annotate",
    usage: "[OPTIONS] MANIFEST_LIST MANIFEST",
    about: "Add additional information to a local image manifest",
    flags: &[&[
        flag("arch", Text, "Set the architecture"),
        flag("os", Text, "Set the operating system"),
        flag("os-features", Strings, "Add a feature of the operating system"),
        flag("os-version", Text, "Set the operating system's version"),
        flag("variant", Text, "Set the architecture's variant"),
    ]],
    arity: Arity::Exactly(2),
    run: |session, matches| Box::pin(async move { annotate(session, matches) }),
    ..BASE
};

pub static PUSH: Command = Command {
    name: "push",
    usage: "[OPTIONS] MANIFEST_LIST",
    about: "Push a manifest list to a repository",
    flags: &[&[PUSH_INSECURE, flag("purge", Bool, "Remove the local list afterwards").s('p')]],
    arity: Arity::Exactly(1),
    run: |session, matches| Box::pin(push(session, matches)),
    ..BASE
};

pub static RM: Command = Command {
    name: "rm",
    usage: "MANIFEST_LIST [MANIFEST_LIST...]",
    about: "Delete one or more manifest lists from local storage",
    flags: &[],
    arity: Arity::AtLeast(1),
    run: |session, matches| Box::pin(async move { remove(session, matches) }),
    ..BASE
};

fn parse(name: &str) -> Result<Reference, Failure> {
    Reference::parse(name).map_err(|error| Failure::new(error.to_string()))
}

fn parse_within(what: &str, name: &str) -> Result<Reference, Failure> {
    parse(name).map_err(|error| Failure::new(format!("{what} {name}: {error}")))
}

fn no_list(name: &Reference) -> Failure {
    Failure::new(format!("No such manifest: {name}"))
}

fn remote<'a>(session: &'a Session, matches: &Matches) -> Remote<'a> {
    let insecure = if matches.on("insecure") { Insecure::Allowed } else { Insecure::No };
    Remote::new(&session.config, insecure)
}

async fn inspect(session: &Session, matches: &Matches) -> Outcome {
    let store = Store::new(&session.config.directory);
    let verbose = matches.on("verbose");
    match &matches.args[..] {
        [list, image] => {
            let (list, image) = (parse(list)?, parse(image)?);
            let entry = store.find(&list, &image)?.ok_or_else(|| no_list(&image))?;
            print_image(&entry, verbose);
        }
        [name, ..] => {
            let name = parse(name)?;
            let found = match store.list(&name)? {
                Some(entries) => Found::List(entries),
                None => remote(session, matches).find(&name).await?,
            };
            match found {
                Found::Image(entry) => print_image(&entry, verbose),
                Found::List(entries) => print_list(&name, &entries, verbose)?,
            }
        }
        [] => {}
    }
    Ok(0)
}

fn print_image(entry: &Entry, verbose: bool) {
    let text =
        if verbose { entry.to_json() } else { String::from_utf8_lossy(&entry.raw).into_owned() };
    terminal::out(&format!("{}\n", json::indented_by("\t", &text)));
}

fn print_list(name: &Reference, entries: &[Entry], verbose: bool) -> Result<(), Failure> {
    if verbose {
        let all: Vec<String> = entries.iter().map(Entry::to_json).collect();
        let text = format!("[{}]", all.join(","));
        terminal::out(&format!("{}\n", json::indented_by("\t", &text)));
        return Ok(());
    }
    let document = entry::list(name, entries).map_err(|failure| {
        Failure::new(format!("failed to assemble ManifestDescriptor: {failure}"))
    })?;
    terminal::out(&format!("{}\n", String::from_utf8_lossy(&document.bytes)));
    Ok(())
}

async fn create(session: &Session, matches: &Matches) -> Outcome {
    let [name, images @ ..] = &matches.args[..] else { return Ok(0) };
    let list = parse_within("error parsing name for manifest list", name)?;
    let store = Store::new(&session.config.directory);
    if store.list(&list)?.is_some() && !matches.on("amend") {
        return Err(Failure::new(
            "refusing to amend an existing manifest list with no --amend flag",
        ));
    }
    let remote = remote(session, matches);
    for image in images {
        let image = parse(image)?;
        let entry = match store.find(&list, &image)? {
            Some(entry) => entry,
            None => match remote.find(&image).await? {
                Found::Image(entry) => *entry,
                Found::List(_) => {
                    return Err(Failure::new(format!("{image} is a manifest list")));
                }
            },
        };
        store.save(&list, &image, &entry)?;
    }
    terminal::out(&format!("Created manifest list {list}\n"));
    Ok(0)
}

fn annotate(session: &Session, matches: &Matches) -> Outcome {
    let [list_name, image_name] = &matches.args[..] else { return Ok(0) };
    let list = parse_within("annotate: error parsing name for manifest list", list_name)?;
    let image = parse_within("annotate: error parsing name for manifest", image_name)?;
    let store = Store::new(&session.config.directory);
    let mut entry = store.find(&list, &image)?.ok_or_else(|| {
        Failure::new(format!("manifest for image {image_name} does not exist in {list_name}"))
    })?;
    let mut platform =
        entry.descriptor.platform.take().unwrap_or_else(|| spec::Platform::new("", "", None));
    let given = |name: &str| Some(matches.text(name).to_owned()).filter(|text| !text.is_empty());
    platform.os = given("os").unwrap_or(platform.os);
    platform.architecture = given("arch").unwrap_or(platform.architecture);
    platform.variant = given("variant").or(platform.variant);
    platform.os_version = given("os-version").or(platform.os_version);
    for feature in matches.all("os-features") {
        if !platform.os_features.contains(feature) {
            platform.os_features.push(feature.clone());
        }
    }
    if !entry::is_known_platform(&platform.os, &platform.architecture) {
        return Err(Failure::new(format!(
            "manifest entry for image has unsupported os/arch combination: {}/{}",
            matches.text("os"),
            matches.text("arch")
        )));
    }
    entry.descriptor.platform = Some(platform);
    store.save(&list, &image, &entry)?;
    Ok(0)
}

async fn push(session: &Session, matches: &Matches) -> Outcome {
    let Some(name) = matches.args.first() else { return Ok(0) };
    let list = parse(name)?;
    let store = Store::new(&session.config.directory);
    let entries = store.list(&list)?.ok_or_else(|| no_list(&list))?;
    if entries.is_empty() {
        return Err(Failure::new(format!("{list} not found")));
    }
    for entry in &entries {
        let platform = entry.descriptor.platform.as_ref();
        if platform.is_none_or(|it| it.os.is_empty() || it.architecture.is_empty()) {
            return Err(Failure::new(format!(
                "manifest {} must have an OS and Architecture to be pushed to a registry",
                entry.reference
            )));
        }
    }
    let document = entry::list(&list, &entries)?;
    let digest = remote(session, matches)
        .push(&list, &entries, &document, |reference, digest| {
            terminal::out(&format!("Pushed ref {reference} with digest: {digest}\n"));
        })
        .await?;
    terminal::out(&format!("{digest}\n"));
    if matches.on("purge") {
        store.remove(&list)?;
    }
    Ok(0)
}

fn remove(session: &Session, matches: &Matches) -> Outcome {
    let store = Store::new(&session.config.directory);
    let mut errors = Vec::new();
    for name in &matches.args {
        let removed = parse(name).and_then(|list| match store.list(&list)? {
            Some(_) => store.remove(&list),
            None => Err(no_list(&list)),
        });
        errors.extend(removed.err().map(|failure| failure.to_string()));
    }
    finish(errors)
}
