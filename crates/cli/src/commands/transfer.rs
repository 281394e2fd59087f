//! Images and filesystems on the move: pull, push, import, load, save, commit.

use std::path::Path;

use api::{
    client::{Body, Response, segment},
    container::Config,
    image::IdResponse,
};
use base64::Engine as _;
use spec::reference::Reference;
use tokio::io::AsyncWriteExt as _;

use super::platform_json;
use crate::{
    args::{Arity, Command, Kind::*, Matches, Order, Outcome, flag},
    context::Session,
    create::files::reason,
    failure::Failure,
    files::{self, Whole},
    render::pull,
    terminal::{self, Output},
};

const BASE: Command = Command {
    name: "pull",
    aliases: &[],
    spellings: &["image pull", "pull"],
    usage: "[OPTIONS] NAME[:TAG|@DIGEST]",
    about: "Download an image from a registry",
    flags: &[&[
        flag("all-platforms", Bool, "Keep all platforms of the image, to push or save it whole")
            .own(),
        flag("all-tags", Bool, "Download every tagged image of the repository").s('a'),
        flag("disable-content-trust", Bool, "Skip image verification").or("true"),
        flag("platform", Text, "Platform of the image, where the server has several"),
        flag("quiet", Bool, "Do not show progress").s('q'),
    ]],
    arity: Arity::Exactly(1),
    order: Order::Mixed,
    run: |session, matches| Box::pin(pull_image(session, matches)),
};
pub static PULL: Command = BASE;

pub static PUSH: Command = Command {
    name: "push",
    spellings: &["image push", "push"],
    usage: "[OPTIONS] NAME[:TAG]",
    about: "Upload an image to a registry",
    flags: &[&[
        flag("all-tags", Bool, "Upload every tag of the image").s('a'),
        flag(
            "compression",
            Text,
            "Send layers as \"gzip\" or \"zstd\" (Docker has no such option)",
        )
        .own(),
        flag("disable-content-trust", Bool, "Skip image signing").or("true"),
        flag(
            "platform",
            Text,
            "Upload only this platform's variant",
        ),
        flag("quiet", Bool, "Do not show progress").s('q'),
        flag(
            "to",
            Text,
            "Send images by their own names to another engine (ssh://[USER@]HOST[:PORT]) or registry (http[s]://HOST[:PORT])",
        )
        .own(),
    ]],
    arity: Arity::OneUnless("to"),
    run: |session, matches| Box::pin(push(session, matches)),
    ..BASE
};

pub static IMPORT: Command = Command {
    name: "import",
    spellings: &["image import", "import"],
    usage: "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
    about: "Make a filesystem image of a tarball's content",
    flags: &[&[
        flag("change", List, "Apply a Dockerfile instruction to the image").s('c'),
        flag("message", Text, "Message to commit with the image").s('m'),
        flag("platform", Text, "Platform of the image"),
    ]],
    arity: Arity::AtLeast(1),
    run: |session, matches| Box::pin(import(session, matches)),
    ..BASE
};

pub static LOAD: Command = Command {
    name: "load",
    spellings: &["image load", "load"],
    usage: "[OPTIONS]",
    about: "Load images from a tar archive or STDIN",
    flags: &[&[
        flag("input", Text, "Read from a tar archive instead of STDIN").s('i'),
        flag("platform", Text, "Load only this platform's variant"),
        flag("quiet", Bool, "Do not show progress").s('q'),
    ]],
    arity: Arity::None,
    run: |session, matches| Box::pin(load(session, matches)),
    ..BASE
};

pub static SAVE: Command = Command {
    name: "save",
    spellings: &["image save", "save"],
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    about: "Save one or more images to a tar archive (to STDOUT unless told otherwise)",
    flags: &[&[
        flag("output", Text, "Write to a file instead of STDOUT").s('o'),
        flag("platform", Text, "Save only this platform's variant"),
    ]],
    arity: Arity::AtLeast(1),
    run: |session, matches| Box::pin(save(session, matches)),
    ..BASE
};

pub static COMMIT: Command = Command {
    name: "commit",
    spellings: &["container commit", "commit"],
    usage: "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    about: "Make an image of a container's changes",
    flags: &[&[
        flag("author", Text, "Author (e.g., \"Jane Doe <jane@example.com>\")").s('a'),
        flag("change", List, "Apply a Dockerfile instruction to the image").s('c'),
        flag("message", Text, "Commit message").s('m'),
        flag("pause", Bool, "Pause the container meanwhile").s('p').or("true"),
    ]],
    arity: Arity::Between(1, 2),
    run: |session, matches| Box::pin(commit(session, matches)),
    ..BASE
};

fn parse_reference(name: &str) -> Result<Reference, Failure> {
    Reference::parse(name).map_err(|error| Failure::new(error.to_string()))
}

/// The credentials for a reference's registry, in the header's form.
fn auth_header(session: &Session, reference: &Reference) -> String {
    let auth = session.config.registry_auth(reference.domain());
    let json = serde_json::to_vec(&auth).unwrap_or_default();
    base64::engine::general_purpose::URL_SAFE.encode(json)
}

/// Begins a pull; the answer is its progress.
pub async fn start_pull(
    session: &Session,
    image: &str,
    platform: &str,
) -> Result<Response, Failure> {
    let reference = parse_reference(image)?;
    let tag = match (reference.digest(), reference.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.unwrap_or_default().to_owned(),
    };
    begin_pull(session, &reference, &[("tag", &tag), ("platform", platform)]).await
}

async fn begin_pull(
    session: &Session,
    reference: &Reference,
    query: &[(&str, &str)],
) -> Result<Response, Failure> {
    let mut request = session
        .client()
        .await?
        .post("/images/create")
        .query("fromImage", reference.familiar_name())
        .header("x-registry-auth", &auth_header(session, reference));
    for (name, value) in query {
        if !value.is_empty() {
            request = request.query(name, value);
        }
    }
    Ok(request.send().await?)
}

async fn pull_image(session: &Session, matches: &Matches) -> Outcome {
    let Some(name) = matches.args.first() else { return Ok(0) };
    let written =
        Reference::parse_untagged(name).map_err(|error| Failure::new(error.to_string()))?;
    let all = matches.on("all-tags");
    if all && (written.tag().is_some() || written.digest().is_some()) {
        return Err(Failure::new("tag can't be used with --all-tags/-a"));
    }
    let quiet = matches.on("quiet");
    if written.tag().is_none() && written.digest().is_none() && !all && !quiet {
        terminal::out("Using default tag: latest\n");
    }
    let reference = if all { written } else { parse_reference(name)? };
    let tag = match (reference.digest(), reference.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.unwrap_or_default().to_owned(),
    };
    let extent = if matches.on("all-platforms") { "1" } else { "" };
    let query =
        [("tag", tag.as_str()), ("platform", matches.text("platform")), ("allPlatforms", extent)];
    let response = begin_pull(session, &reference, &query).await?;
    if quiet {
        pull::discard(response).await?;
    } else {
        pull::show(response, Output::Stdout, |_| ()).await?;
    }
    terminal::out(&format!("{}\n", full_name(&reference)));
    Ok(0)
}

fn full_name(reference: &Reference) -> String {
    let mut name = reference.name();
    if let Some(tag) = reference.tag() {
        name.push_str(&format!(":{tag}"));
    }
    if let Some(digest) = reference.digest() {
        name.push_str(&format!("@{digest}"));
    }
    name
}

/// Pushes one image by its name, as `build --push` does.
///
/// # Errors
/// As the registry says.
pub async fn push_image(session: &Session, name: &str) -> Result<(), Failure> {
    let reference = parse_reference(name)?;
    let path = format!("/images/{}/push", segment(&reference.familiar_name()));
    let mut request = session.client().await?.post(&path);
    request = request.header("x-registry-auth", &auth_header(session, &reference));
    if let Some(tag) = reference.tag() {
        request = request.query("tag", tag);
    }
    pull::show(request.send().await?, Output::Stdout, |_| ()).await
}

async fn push(session: &Session, matches: &Matches) -> Outcome {
    if matches.find("to").is_some() {
        if matches.find("compression").is_some() {
            return Err(Failure::new(
                "--to sends layers as they are: it cannot be used with --compression",
            ));
        }
        return crate::relay::push(session, matches).await;
    }
    let Some(name) = matches.args.first() else { return Ok(0) };
    let written =
        Reference::parse_untagged(name).map_err(|error| Failure::new(error.to_string()))?;
    let all = matches.on("all-tags");
    if all && (written.tag().is_some() || written.digest().is_some()) {
        return Err(Failure::new("tag can't be used with --all-tags/-a"));
    }
    let quiet = matches.on("quiet");
    let reference = if all { written.clone() } else { parse_reference(name)? };
    if !all && written.tag().is_none() && !quiet {
        terminal::out("Using default tag: latest\n");
    }
    let client = session.client().await?;
    let mut request = client
        .post(&format!("/images/{}/push", segment(&reference.familiar_name())))
        .header("x-registry-auth", &auth_header(session, &reference));
    if let Some(tag) = reference.tag().filter(|_| !all) {
        request = request.query("tag", tag);
    }
    if !matches.text("platform").is_empty() {
        request = request.query("platform", platform_json(matches.text("platform")));
    }
    if !matches.text("compression").is_empty() {
        request = request.query("compression", matches.text("compression"));
    }
    let response = request.send().await?;
    if quiet {
        pull::discard(response).await?;
        terminal::out(&format!("{}\n", full_name(&reference)));
    } else {
        pull::show(response, Output::Stdout, |_| ()).await?;
    }
    Ok(0)
}

async fn open_input(path: &str) -> Result<Body, Failure> {
    let file = tokio::fs::File::open(path)
        .await
        .map_err(|error| Failure::new(format!("open {path}: {}", reason(&error))))?;
    Ok(Body::from_reader(file))
}

async fn import(session: &Session, matches: &Matches) -> Outcome {
    let [source, rest @ ..] = &matches.args[..] else { return Ok(0) };
    let client = session.client().await?;
    let mut request = client.post("/images/create");
    let remote = source.starts_with("http://") || source.starts_with("https://");
    request = request.query("fromSrc", if remote { source.as_str() } else { "-" });
    if let Some(name) = rest.first() {
        // Refused here, before an archive is sent for nothing.
        Reference::parse_untagged(name).map_err(|error| Failure::new(error.to_string()))?;
        request = request.query("repo", name);
    }
    for change in matches.all("change") {
        request = request.query("changes", change);
    }
    for (name, value) in
        [("message", matches.text("message")), ("platform", matches.text("platform"))]
    {
        if !value.is_empty() {
            request = request.query(name, value);
        }
    }
    if source == "-" {
        request = request.body("text/plain", crate::stream::stdin_body());
    } else if !remote {
        request = request.body("text/plain", open_input(source).await?);
    }
    pull::show(request.send().await?, Output::Stdout, |_| ()).await?;
    Ok(0)
}

async fn load(session: &Session, matches: &Matches) -> Outcome {
    let input = matches.text("input");
    let body = if input.is_empty() {
        if terminal::stdin_is_terminal() {
            return Err(Failure::new("requested load from stdin, but stdin is empty"));
        }
        crate::stream::stdin_body()
    } else {
        open_input(input).await?
    };
    let quiet = matches.on("quiet") || !terminal::stdout_is_terminal();
    let mut request = session.client().await?.post("/images/load").body("application/x-tar", body);
    request = request.query("quiet", if quiet { "1" } else { "0" });
    if !matches.text("platform").is_empty() {
        request = request.query("platform", platform_json(matches.text("platform")));
    }
    let response = request.send().await?;
    pull::show(response, Output::Stdout, |_| ()).await?;
    Ok(0)
}

/// Writes an answer's body to a file, by way of a temporary one beside it, or to stdout.
///
/// # Errors
/// When stdout is a terminal, or the file cannot be written.
pub async fn save_body(mut response: Response, path: &str) -> Result<(), Failure> {
    if path.is_empty() {
        while let Some(chunk) = response.chunk().await? {
            terminal::write(Output::Stdout, &chunk)?;
        }
        return Ok(());
    }
    let failed = |verb: &str, error: std::io::Error| {
        Failure::new(format!("{verb} {path}: {}", reason(&error)))
    };
    let whole = Whole::beside(Path::new(path), 0o600).map_err(|error| failed("open", error))?;
    let file = whole.file.try_clone().map_err(|error| failed("open", error))?;
    let mut file = tokio::fs::File::from_std(file);
    while let Some(chunk) = response.chunk().await? {
        file.write_all(&chunk).await.map_err(|error| failed("write", error))?;
    }
    file.flush().await.map_err(|error| failed("write", error))?;
    match tokio::task::spawn_blocking(move || whole.place()).await {
        Ok(placed) => placed.map_err(|error| failed("write", error)),
        Err(panic) => Err(Failure::new(panic.to_string())),
    }
}

async fn save(session: &Session, matches: &Matches) -> Outcome {
    let output = matches.text("output");
    if output.is_empty() && terminal::stdout_is_terminal() {
        return Err(Failure::new(
            "cowardly refusing to save to a terminal. Use the -o flag or redirect",
        ));
    }
    check_output("save image", output)?;
    let mut request = session.client().await?.get("/images/get");
    for name in &matches.args {
        request = request.query("names", name);
    }
    if !matches.text("platform").is_empty() {
        request = request.query("platform", platform_json(matches.text("platform")));
    }
    let response = request.send().await?;
    save_body(response, output).await?;
    Ok(0)
}

/// Refuses what is no place for an archive, before anything is asked. `verb` is what is done to what.
///
/// # Errors
/// In the words of [`files::check_output`].
pub fn check_output(verb: &str, path: &str) -> Result<(), Failure> {
    if path.is_empty() {
        return Ok(());
    }
    files::check_output(path).map_err(|why| Failure::new(format!("failed to {verb}: {why}")))
}

async fn commit(session: &Session, matches: &Matches) -> Outcome {
    let [container, rest @ ..] = &matches.args[..] else { return Ok(0) };
    let mut request = session.client().await?.post("/commit").query("container", container);
    if let Some(name) = rest.first() {
        let reference = parse_reference(name)?;
        request = request.query("repo", reference.familiar_name());
        if let Some(tag) = reference.tag() {
            request = request.query("tag", tag);
        }
    }
    for (name, value) in [("author", matches.text("author")), ("comment", matches.text("message"))]
    {
        if !value.is_empty() {
            request = request.query(name, value);
        }
    }
    for change in matches.all("change") {
        request = request.query("changes", change);
    }
    if !matches.on("pause") {
        request = request.query("pause", "0");
    }
    let made: IdResponse = request.json(&None::<Config>).send().await?.json().await?;
    terminal::out(&format!("{}\n", made.id));
    Ok(0)
}
