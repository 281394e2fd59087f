//! The engine as a registry: `tug registry serve`, checked against the distribution specification,
//! by real clients, and by hostile ones.
//!
//! Source of what is demanded: OCI distribution-spec 1.1, by the names of its end points.

use std::collections::HashMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::harness::{BOTH, Cli, Outcome, Suite, run, wait_for};

super::cases! {
    the_registry_lets_pull,
    the_registry_takes_blobs_in_one_piece_and_in_chunks,
    the_registry_takes_manifests_of_every_kind,
    the_registry_lists_tags_and_referrers_in_pages,
    the_registry_deletes_what_it_is_told_to,
    what_is_pushed_to_the_registry_runs,
    the_front_lets_nothing_but_the_registry_through,
    the_front_knows_users_and_may_be_read_only,
    uploads_go_on_after_the_daemon_was_killed,
    skopeo_copies_in_and_out_with_the_same_digests,
}

pub(super) const ADDRESS: &str = "127.0.0.1:5050";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// A foreground command that ends with the case.
pub(super) struct Running(pub(super) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = run(Command::new("kill").arg("-TERM").arg(self.0.id().to_string()));
        let _ = self.0.wait();
    }
}

/// `tug registry serve` with more flags, once it answers.
fn serve(suite: &Suite, more: &[&str]) -> Running {
    let mut command = suite.command(Cli::Tug);
    command.args(["registry", "serve", "--addr", ADDRESS]).args(more);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let running = Running(child);
    wait_for("the registry", Duration::from_secs(30), || TcpStream::connect(ADDRESS).is_ok());
    running
}

/// An answer of the registry.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HashMap<String, String>,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    #[track_caller]
    fn is(self, status: u16) -> Answer {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    /// A refusal in the specification's form.
    #[track_caller]
    fn refuses(self, status: u16, code: &str) -> Answer {
        let want = format!("{{\"errors\":[{{\"code\":\"{code}\",\"message\":");
        assert!(self.status == status && self.body.starts_with(&want), "{code}: {self:?}");
        self
    }
}

/// A request to put together.
struct Ask<'a> {
    method: &'a str,
    path: String,
    headers: Vec<String>,
    body: Option<&'a [u8]>,
}

fn ask<'a>(method: &'a str, path: &str) -> Ask<'a> {
    Ask { method, path: path.to_owned(), headers: Vec::new(), body: None }
}

fn get(path: &str) -> Answer {
    ask("GET", path).send()
}

impl<'a> Ask<'a> {
    fn header(mut self, header: &str) -> Ask<'a> {
        self.headers.push(header.to_owned());
        self
    }

    fn body(mut self, body: &'a [u8]) -> Ask<'a> {
        self.body = Some(body);
        self
    }

    /// On a connection of its own, written as it stands: nothing cleans the path.
    #[track_caller]
    fn send(self) -> Answer {
        let mut stream = TcpStream::connect(ADDRESS).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut head = format!("{} {} HTTP/1.1\r\nHost: {ADDRESS}\r\n", self.method, self.path);
        for header in &self.headers {
            head.push_str(&format!("{header}\r\n"));
        }
        if !self.headers.iter().any(|header| header.to_lowercase().starts_with("connection:")) {
            head.push_str("Connection: close\r\n");
        }
        let body = self.body.unwrap_or_default();
        let told =
            self.headers.iter().any(|header| header.to_lowercase().starts_with("content-length"));
        if (self.body.is_some() || matches!(self.method, "POST" | "PUT" | "PATCH")) && !told {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        // Who refuses early may close early.
        let _ = stream.write_all(body);
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        answer(&bytes)
    }
}

#[track_caller]
fn answer(bytes: &[u8]) -> Answer {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("an answer has a head");
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    Answer { status, headers, body: String::from_utf8_lossy(&bytes[end + 4..]).into_owned() }
}

fn digest_of(bytes: &[u8]) -> String {
    let mut child =
        Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    format!("sha256:{}", &String::from_utf8_lossy(&output.stdout)[..64])
}

/// Pushes a blob by a single POST; gives its digest.
#[track_caller]
fn push_blob(name: &str, bytes: &[u8]) -> String {
    let digest = digest_of(bytes);
    let path = format!("/v2/{name}/blobs/uploads/?digest={digest}");
    ask("POST", &path).body(bytes).send().is(201);
    digest
}

/// Begins an upload; gives its location.
#[track_caller]
fn begin(name: &str) -> String {
    let begun = ask("POST", &format!("/v2/{name}/blobs/uploads/")).send().is(202);
    begun.header("location").to_owned()
}

/// A manifest of a configuration that is no image's, with layers.
fn artifact(config: &str, layers: &[&str], more: &str) -> String {
    let link = |kind: &str, digest: &str| {
        format!(
            "{{\"mediaType\":\"application/vnd.test.{kind}\",\"size\":1,\"digest\":\"{digest}\"}}"
        )
    };
    let layers: Vec<String> = layers.iter().map(|digest| link("layer", digest)).collect();
    format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"{OCI_MANIFEST}\",\"config\":{},\"layers\":[{}]{more}}}",
        link("config", config),
        layers.join(",")
    )
}

fn put_manifest(name: &str, reference: &str, manifest: &str) -> Answer {
    ask("PUT", &format!("/v2/{name}/manifests/{reference}"))
        .header(&format!("Content-Type: {OCI_MANIFEST}"))
        .body(manifest.as_bytes())
        .send()
}

/// An artifact with a tag; gives the digests of its manifest, configuration and layer.
#[track_caller]
fn push_artifact(name: &str, tag: &str) -> [String; 3] {
    let config = push_blob(name, format!("config {name} {tag}").as_bytes());
    let layer = push_blob(name, format!("layer {name} {tag}").as_bytes());
    let manifest = artifact(&config, &[&layer], "");
    let put = put_manifest(name, tag, &manifest).is(201);
    let digest = digest_of(manifest.as_bytes());
    assert_eq!(put.header("docker-content-digest"), digest);
    [digest, config, layer]
}

fn the_registry_lets_pull(suite: &Suite) -> Outcome {
    let _served = serve(suite, &[]);
    // end-1
    let base = get("/v2/").is(200);
    assert_eq!(base.header("docker-distribution-api-version"), "registry/2.0");
    let [digest, config, layer] = push_artifact("lets/pull", "v1");
    // end-2
    let blob = get(&format!("/v2/lets/pull/blobs/{config}")).is(200);
    assert_eq!(blob.body, "config lets/pull v1");
    assert_eq!(blob.header("docker-content-digest"), config);
    let head = ask("HEAD", &format!("/v2/lets/pull/blobs/{layer}")).send().is(200);
    assert_eq!((head.header("content-length"), head.body.as_str()), ("18", ""));
    assert_eq!(head.header("docker-content-digest"), layer);
    get(&format!("/v2/lets/pull/blobs/{EMPTY}")).refuses(404, "BLOB_UNKNOWN");
    ask("HEAD", &format!("/v2/lets/pull/blobs/{EMPTY}")).send().is(404);
    get("/v2/lets/pull/blobs/sha256:short").refuses(400, "DIGEST_INVALID");
    let part = |range: &str| {
        ask("GET", &format!("/v2/lets/pull/blobs/{config}"))
            .header(&format!("Range: {range}"))
            .send()
    };
    let middle = part("bytes=2-4").is(206);
    assert_eq!((middle.body.as_str(), middle.header("content-range")), ("nfi", "bytes 2-4/19"));
    assert_eq!(part("bytes=-2").is(206).body, "v1");
    assert_eq!(part("bytes=19-").is(416).header("content-range"), "bytes */19");
    // end-3
    for reference in ["v1", &digest] {
        let path = format!("/v2/lets/pull/manifests/{reference}");
        let manifest = ask("GET", &path).header(&format!("Accept: {OCI_MANIFEST}")).send().is(200);
        assert_eq!(manifest.header("content-type"), OCI_MANIFEST);
        assert_eq!(manifest.header("docker-content-digest"), digest);
        assert_eq!(digest_of(manifest.body.as_bytes()), digest);
        let head = ask("HEAD", &path).send().is(200);
        assert_eq!(head.header("content-length"), manifest.body.len().to_string());
        assert_eq!(head.header("docker-content-digest"), digest);
        let same = format!("If-None-Match: \"{digest}\"");
        ask("GET", &path).header(&same).send().is(304);
    }
    for unknown in ["v2", ".not-a-tag", EMPTY] {
        get(&format!("/v2/lets/pull/manifests/{unknown}")).refuses(404, "MANIFEST_UNKNOWN");
    }
    get("/v2/nobody/manifests/v1").refuses(404, "MANIFEST_UNKNOWN");
    Outcome::Passed
}

fn the_registry_takes_blobs_in_one_piece_and_in_chunks(suite: &Suite) -> Outcome {
    let _served = serve(suite, &[]);
    let text = b"in one piece and in chunks";
    let digest = digest_of(text);
    let blob = format!("/v2/takes/blobs/blobs/{digest}");
    let gone = || drop(ask("DELETE", &blob).send().is(202));
    // end-4b
    let posted = ask("POST", &format!("/v2/takes/blobs/blobs/uploads/?digest={digest}"));
    assert_eq!(posted.body(text).send().is(201).header("location"), blob);
    assert_eq!(get(&blob).is(200).body.as_bytes(), text);
    gone();
    // end-4a, end-6
    let location = begin("takes/blobs");
    let put = ask("PUT", &format!("{location}?digest={digest}")).body(text).send().is(201);
    assert_eq!(put.header("location"), blob);
    ask("GET", &location).send().refuses(404, "BLOB_UPLOAD_UNKNOWN");
    gone();
    // end-5, end-13
    let location = begin("takes/blobs");
    let chunk = |range: &str, bytes: &'static [u8]| {
        ask("PATCH", &location).header(&format!("Content-Range: {range}")).body(bytes).send()
    };
    chunk("1-3", b"n o").refuses(416, "BLOB_UPLOAD_INVALID");
    let first = chunk("0-11", &text[..12]).is(202);
    assert_eq!((first.header("range"), first.header("location")), ("0-11", location.as_str()));
    for wrong in ["0-11", "13-16", "11-14"] {
        let refused = chunk(wrong, b"wron").refuses(416, "BLOB_UPLOAD_INVALID");
        assert_eq!(
            (refused.header("range"), refused.header("location")),
            ("0-11", location.as_str())
        );
    }
    chunk("12-99", b"short").refuses(400, "SIZE_INVALID");
    let status = get(&location).is(204);
    assert_eq!((status.header("range"), status.header("location")), ("0-11", location.as_str()));
    // Without a range, as Docker streams.
    ask("PATCH", &location).body(&text[12..20]).send().is(202);
    let last = ask("PUT", &format!("{location}?digest={digest}"));
    last.header("Content-Range: 20-25").body(&text[20..]).send().is(201);
    assert_eq!(get(&blob).is(200).body.as_bytes(), text);
    // end-6: other bytes, no digest, another algorithm
    let location = begin("takes/blobs");
    ask("PUT", &location).body(text).send().refuses(400, "DIGEST_INVALID");
    ask("PUT", &format!("{location}?digest=sha512:00"))
        .body(text)
        .send()
        .refuses(400, "DIGEST_INVALID");
    let other = ask("PUT", &format!("{location}?digest={EMPTY}")).body(text).send();
    other.refuses(400, "DIGEST_INVALID");
    get(&format!("/v2/takes/blobs/blobs/{EMPTY}")).is(404);
    // end-14
    let location = begin("takes/blobs");
    ask("DELETE", &location).send().is(204);
    get(&location).refuses(404, "BLOB_UPLOAD_UNKNOWN");
    // A session is of one repository.
    let location = begin("takes/blobs").replace("takes/blobs", "others");
    get(&location).refuses(404, "BLOB_UPLOAD_UNKNOWN");
    // end-11
    let mount = |query: &str| ask("POST", &format!("/v2/mounted/blobs/uploads/?{query}")).send();
    let mounted = mount(&format!("mount={digest}&from=takes/blobs")).is(201);
    assert_eq!(mounted.header("location"), format!("/v2/mounted/blobs/{digest}"));
    mount(&format!("mount={digest}")).is(201);
    // Who is wrong about where a blob is sends it.
    let wrong = mount(&format!("mount={digest}&from=takes/nothing")).is(202);
    assert!(wrong.header("location").starts_with("/v2/mounted/blobs/uploads/"), "{wrong:?}");
    let fallback = mount(&format!("mount={EMPTY}&from=takes/blobs")).is(202);
    ask("DELETE", fallback.header("location")).send().is(204);
    mount("mount=../../etc/passwd&from=x").refuses(400, "DIGEST_INVALID");
    Outcome::Passed
}

fn the_registry_takes_manifests_of_every_kind(suite: &Suite) -> Outcome {
    let _served = serve(suite, &[]);
    let [digest, config, layer] = push_artifact("takes/manifests", "v1");
    let put = put_manifest("takes/manifests", "v2", &artifact(&config, &[], "")).is(201);
    assert_eq!(put.header("location"), "/v2/takes/manifests/manifests/v2");
    // By digest, with tags.
    let text = artifact(&config, &[&layer], ",\"annotations\":{\"a\":\"b\"}");
    let own = digest_of(text.as_bytes());
    put_manifest("takes/manifests", &format!("{own}?tag=x&tag=y"), &text).is(201);
    for reference in ["x", "y", &own] {
        let found = get(&format!("/v2/takes/manifests/manifests/{reference}")).is(200);
        assert_eq!(found.body, text, "bit for bit");
    }
    put_manifest("takes/manifests", &digest, &text).refuses(400, "DIGEST_INVALID");
    // What it names has to be here.
    let missing = artifact(&config, &[EMPTY], "");
    put_manifest("takes/manifests", "bad", &missing).refuses(404, "MANIFEST_BLOB_UNKNOWN");
    for (text, code) in [
        ("no json", "MANIFEST_INVALID"),
        ("{}", "MANIFEST_INVALID"),
        ("{\"schemaVersion\":2}", "MANIFEST_INVALID"),
        (&artifact("sha256:../../../etc/passwd", &[], ""), "MANIFEST_INVALID"),
        (&artifact(&config, &[], "").replace("image.manifest", "image.index"), "MANIFEST_INVALID"),
    ] {
        put_manifest("takes/manifests", "bad", text).refuses(400, code);
    }
    put_manifest("takes/manifests", ".bad", &text).refuses(400, "MANIFEST_INVALID");
    put_manifest("Takes", "v1", &text).refuses(400, "NAME_INVALID");
    get("/v2/takes/manifests/manifests/bad").refuses(404, "MANIFEST_UNKNOWN");
    // 4 MiB are taken, more is not, whether the length is told or not.
    let sized = |size: usize| {
        let bare = artifact(&config, &[], ",\"annotations\":{\"a\":\"\"}");
        bare.replace("\"\"", &format!("\"{}\"", "x".repeat(size - bare.len())))
    };
    put_manifest("takes/manifests", "large", &sized(4 << 20)).is(201);
    put_manifest("takes/manifests", "bad", &sized((4 << 20) + 1)).refuses(413, "MANIFEST_INVALID");
    let huge = ask("PUT", "/v2/takes/manifests/manifests/bad").header("Content-Length: 104857600");
    huge.send().refuses(413, "MANIFEST_INVALID");
    // An index of what is here, and a sparse one of what is not.
    let index = |child: &str| {
        format!(
            "{{\"schemaVersion\":2,\"mediaType\":\"{OCI_INDEX}\",\"manifests\":[{{\"mediaType\":\"{OCI_MANIFEST}\",\"size\":{},\"digest\":\"{child}\"}}]}}",
            text.len()
        )
    };
    let send = |tag: &str, text: &str| {
        let path = format!("/v2/takes/manifests/manifests/{tag}");
        ask("PUT", &path).header(&format!("Content-Type: {OCI_INDEX}")).body(text.as_bytes()).send()
    };
    send("index", &index(&own)).is(201);
    send("sparse", &index(EMPTY)).is(201);
    assert_eq!(get("/v2/takes/manifests/manifests/sparse").is(200).body, index(EMPTY));
    get(&format!("/v2/takes/manifests/manifests/{EMPTY}")).refuses(404, "MANIFEST_UNKNOWN");
    get("/v2/takes/manifests/tags/list?n=-1").refuses(400, "PAGINATION_NUMBER_INVALID");
    let found = get("/v2/takes/manifests/manifests/index").is(200);
    assert_eq!(found.header("content-type"), OCI_INDEX);
    assert_eq!(found.body, index(&own));
    Outcome::Passed
}

fn the_registry_lists_tags_and_referrers_in_pages(suite: &Suite) -> Outcome {
    let _served = serve(suite, &[]);
    get("/v2/lists/nobody/tags/list").refuses(404, "NAME_UNKNOWN");
    let [digest, config, _] = push_artifact("lists", "b");
    for tag in ["a", "d", "C"] {
        put_manifest("lists", tag, &artifact(&config, &[], "")).is(201);
    }
    // end-8
    let list = |query: &str| get(&format!("/v2/lists/tags/list{query}")).is(200);
    let tags = |names: &str| format!("{{\"name\":\"lists\",\"tags\":[{names}]}}\n");
    assert_eq!(list("").body, tags("\"C\",\"a\",\"b\",\"d\""));
    let first = list("?n=2");
    assert_eq!(first.body, tags("\"C\",\"a\""));
    let next =
        first.header("link").strip_prefix('<').unwrap().split_once(">; rel=\"next\"").unwrap().0;
    let second = get(next).is(200);
    assert_eq!((second.body.as_str(), second.header("link")), (tags("\"b\",\"d\"").as_str(), ""));
    assert_eq!(list("?last=a").body, tags("\"b\",\"d\""));
    let none = list("?n=0");
    assert_eq!((none.body.as_str(), none.header("link")), (tags("").as_str(), ""));
    get("/v2/lists/tags/list?n=x").is(400);
    let catalog = get("/v2/_catalog").is(200).body;
    assert!(catalog.contains("\"busybox\"") && catalog.contains("\"lists\""), "{catalog}");
    // end-12
    let referrers = |query: &str| get(&format!("/v2/lists/referrers/{query}")).is(200);
    let none = referrers(&digest);
    assert_eq!(none.header("content-type"), OCI_INDEX);
    assert!(none.body.contains("\"manifests\":[]"), "{none:?}");
    let subject = format!(
        "\"subject\":{{\"mediaType\":\"{OCI_MANIFEST}\",\"size\":1,\"digest\":\"{digest}\"}}"
    );
    let signed = artifact(
        &config,
        &[],
        &format!(
            ",\"artifactType\":\"application/x.sig\",\"annotations\":{{\"k\":\"v\"}},{subject}"
        ),
    );
    let plain = artifact(&config, &[], &format!(",{subject}"));
    for text in [&signed, &plain] {
        let put = put_manifest("lists", &digest_of(text.as_bytes()), text).is(201);
        assert_eq!(put.header("oci-subject"), digest);
    }
    let both = referrers(&digest).body;
    for want in
        ["application/x.sig", "application/vnd.test.config", "\"annotations\":{\"k\":\"v\"}"]
    {
        assert!(both.contains(want), "{want}: {both}");
    }
    let filtered = referrers(&format!("{digest}?artifactType=application/x.sig"));
    assert_eq!(filtered.header("oci-filters-applied"), "artifactType");
    let has = |text: &str| filtered.body.contains(&digest_of(text.as_bytes()));
    assert!(has(&signed) && !has(&plain), "{filtered:?}");
    // A subject that is not here is none that is refused.
    let early = artifact(&config, &[], &format!(",{subject}")).replace(&digest, EMPTY);
    put_manifest("lists", "early", &early).is(201);
    assert!(referrers(EMPTY).body.contains(&digest_of(early.as_bytes())));
    get("/v2/lists/referrers/sha256:x").refuses(400, "DIGEST_INVALID");
    Outcome::Passed
}

fn the_registry_deletes_what_it_is_told_to(suite: &Suite) -> Outcome {
    let _served = serve(suite, &[]);
    let [digest, config, layer] = push_artifact("deletes", "v1");
    let manifest = get("/v2/deletes/manifests/v1").is(200).body;
    put_manifest("deletes", "v2", &manifest).is(201);
    let delete = |path: &str| ask("DELETE", &format!("/v2/deletes/{path}")).send();
    // A blob that a manifest names stays.
    delete(&format!("blobs/{layer}")).refuses(405, "UNSUPPORTED");
    // end-9
    delete("manifests/v1").is(202);
    get("/v2/deletes/manifests/v1").refuses(404, "MANIFEST_UNKNOWN");
    assert_eq!(
        get("/v2/deletes/tags/list").is(200).body,
        "{\"name\":\"deletes\",\"tags\":[\"v2\"]}\n"
    );
    get(&format!("/v2/deletes/manifests/{digest}")).is(200);
    delete(&format!("manifests/{digest}")).is(202);
    for reference in ["v2", &digest] {
        get(&format!("/v2/deletes/manifests/{reference}")).refuses(404, "MANIFEST_UNKNOWN");
        delete(&format!("manifests/{reference}")).refuses(404, "MANIFEST_UNKNOWN");
    }
    // end-10
    for blob in [config, layer] {
        delete(&format!("blobs/{blob}")).is(202);
        get(&format!("/v2/deletes/blobs/{blob}")).refuses(404, "BLOB_UNKNOWN");
        delete(&format!("blobs/{blob}")).refuses(404, "BLOB_UNKNOWN");
    }
    // An image goes with its tag.
    suite.tug(["tag", "busybox", "deletes/image:v1"]).ok();
    ask("DELETE", "/v2/deletes/image/manifests/v1").send().is(202);
    suite.tug(["image", "inspect", "deletes/image:v1"]).fails(1);
    suite.tug(["run", "--rm", "busybox", "true"]).ok();
    Outcome::Passed
}

fn what_is_pushed_to_the_registry_runs(suite: &Suite) -> Outcome {
    let _served = serve(suite, &[]);
    for cli in BOTH {
        let there = format!("{ADDRESS}/group/app:v1");
        suite.run(cli, ["tag", "busybox", &there]).ok();
        let pushed = suite.run(cli, ["push", &there]).ok();
        let digest = pushed.split_whitespace().find(|word| word.starts_with("sha256:")).unwrap();
        // Pushed to ourselves, it is the image of that name here.
        let names = suite.run(cli, ["images", "--digests", "group/app"]).ok();
        assert!(names.contains("v1") && names.contains(digest), "{names}");
        assert_eq!(suite.run(cli, ["run", "--rm", "group/app:v1", "echo", "hi"]).ok(), "hi");
        suite.run(cli, ["rmi", &there]).ok();
        let pulled = suite.run(cli, ["pull", &there]).ok();
        assert!(pulled.contains(digest), "{pulled}");
        suite.run(cli, ["rmi", &there, "group/app:v1"]).ok();
        get("/v2/group/app/manifests/v1").refuses(404, "MANIFEST_UNKNOWN");
    }
    // What only looks like an image is kept, and told to be none.
    let config = push_blob("odd", b"{\"os\":\"linux\",\"architecture\":\"amd64\",\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"]}}");
    let layer = push_blob("odd", b"no tar at all");
    let manifest = artifact(&config, &[&layer], "")
        .replace("application/vnd.test.config", "application/vnd.oci.image.config.v1+json")
        .replace("application/vnd.test.layer", "application/vnd.oci.image.layer.v1.tar");
    let put = put_manifest("odd", "v1", &manifest).is(201);
    get("/v2/odd/manifests/v1").is(200);
    suite.tug(["image", "inspect", "odd:v1"]).fails(1);
    if cfg!(target_arch = "x86_64") {
        assert!(put.header("warning").starts_with("299 - \""), "{put:?}");
    }
    Outcome::Passed
}

fn the_front_lets_nothing_but_the_registry_through(suite: &Suite) -> Outcome {
    let _served = serve(suite, &[]);
    for path in [
        "/",
        "/info",
        "/v1.41/containers/json",
        "/v2/../v1.41/info",
        "/v2/%2e%2e/info",
        "/v2/..%2f..%2finfo",
        "/v2%2f..%2finfo",
        "//v2/",
        "/v2//",
        "/v2/./_catalog",
        "http://127.0.0.1/info",
    ] {
        get(path).refuses(404, "NAME_UNKNOWN");
    }
    ask("POST", "/v1.41/containers/create?name=x").body(b"{}").send().refuses(404, "NAME_UNKNOWN");
    let upgrade = ask("POST", "/v2/").header("Connection: Upgrade").header("Upgrade: tcp");
    upgrade.send().refuses(400, "UNSUPPORTED");
    ask("TRACE", "/v2/").send().refuses(405, "UNSUPPORTED");
    // The second request of a kept connection is looked at as the first.
    let mut kept = TcpStream::connect(ADDRESS).unwrap();
    kept.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let head = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n");
    kept.write_all((head("/v2/", "") + &head("/info", "Connection: close\r\n")).as_bytes())
        .unwrap();
    let mut text = String::new();
    kept.read_to_string(&mut text).unwrap();
    assert!(text.contains("200 OK") && text.contains("404 Not Found"), "{text}");
    assert!(!text.contains("Containers"), "{text}");
    // Names and digests that are paths.
    for path in ["/v2/a%00b/tags/list", "/v2/a%5c..%5cb/tags/list", "/v2/..a/tags/list"] {
        let refused = get(path);
        assert!(matches!(refused.status, 400 | 404), "{refused:?}");
    }
    let taken = suite.tug(["registry", "serve", "--addr", ADDRESS]).fails(1);
    assert!(taken.contains("address already in use") && taken.contains("held by"), "{taken}");
    let wrong = suite.tug(["registry", "serve", "--addr", "nowhere"]).fails(1);
    assert!(wrong.contains("invalid value"), "{wrong}");
    suite.tug(["registry", "serve", "--tls-cert", "x"]).fails(1);
    Outcome::Passed
}

fn the_front_knows_users_and_may_be_read_only(suite: &Suite) -> Outcome {
    let file = suite.scratch().join("users");
    // What `htpasswd -nbB` makes of "me" and "word".
    let hash = "$2b$05$abcdefghijklmnopqrstuuQDoL5Sa/TtfS/XN4AY/jgq.HBbO1BTu";
    fs::write(&file, format!("me:{hash}\n")).unwrap();
    {
        let _served = serve(suite, &["--htpasswd", file.to_str().unwrap()]);
        let refused = get("/v2/").refuses(401, "UNAUTHORIZED");
        assert!(refused.header("www-authenticate").starts_with("Basic realm="), "{refused:?}");
        for (given, status) in [("me:word", 200), ("me:wrong", 401), ("you:word", 401)] {
            let encoded = base64(given);
            ask("GET", "/v2/").header(&format!("Authorization: Basic {encoded}")).send().is(status);
        }
        get("/v2/_catalog").refuses(401, "UNAUTHORIZED");
    }
    let _served = serve(suite, &["--read-only"]);
    get("/v2/busybox/manifests/latest").is(200);
    ask("POST", "/v2/x/blobs/uploads/").send().refuses(405, "UNSUPPORTED");
    ask("DELETE", "/v2/busybox/manifests/latest").send().refuses(405, "UNSUPPORTED");
    suite.tug(["image", "inspect", "busybox"]).ok();
    Outcome::Passed
}

fn base64(text: &str) -> String {
    let mut child =
        Command::new("base64").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    String::from_utf8_lossy(&child.wait_with_output().unwrap().stdout).trim().to_owned()
}

fn uploads_go_on_after_the_daemon_was_killed(suite: &Suite) -> Outcome {
    let served = serve(suite, &[]);
    let [first, second] = [vec![b'a'; 300_000], vec![b'b'; 200_000]];
    let config = push_blob("goes/on", b"config");
    let location = begin("goes/on");
    // The first chunk is written; of the second the connection ends in the middle.
    ask("PATCH", &location).body(&first).send().is(202);
    let mut broken = TcpStream::connect(ADDRESS).unwrap();
    let head =
        format!("PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", second.len());
    broken.write_all(head.as_bytes()).unwrap();
    broken.write_all(&second[..100_000]).unwrap();
    suite.end_daemon("KILL");
    drop(broken);
    drop(served);
    suite.start_daemon(&[]);
    let _served = serve(suite, &[]);
    let held = get(&location).is(204).header("range").to_owned();
    let length = held.split_once('-').unwrap().1.parse::<usize>().unwrap() + 1;
    assert!((300_000..=400_000).contains(&length), "{held}");
    let all = [first, second].concat();
    let digest = digest_of(&all);
    let last = format!("Content-Range: {length}-{}", all.len() - 1);
    let put = ask("PUT", &format!("{location}?digest={digest}")).header(&last);
    put.body(&all[length..]).send().is(201);
    // What had come as a whole is still here, too, though no manifest names it yet.
    put_manifest("goes/on", "v1", &artifact(&config, &[&digest], "")).is(201);
    let blob = get(&format!("/v2/goes/on/blobs/{digest}")).is(200);
    assert_eq!(digest_of(blob.body.as_bytes()), digest);
    // Two uploads of one blob at once.
    let locations = [begin("goes/on"), begin("goes/on")];
    for location in &locations {
        ask("PATCH", location).body(b"twins").send().is(202);
    }
    let twins = digest_of(b"twins");
    let ends: Vec<_> = locations
        .iter()
        .map(|location| format!("{location}?digest={twins}"))
        .map(|path| std::thread::spawn(move || ask("PUT", &path).send().status))
        .collect();
    for end in ends {
        assert_eq!(end.join().unwrap(), 201);
    }
    assert_eq!(get(&format!("/v2/goes/on/blobs/{twins}")).is(200).body, "twins");
    Outcome::Passed
}

fn skopeo_copies_in_and_out_with_the_same_digests(suite: &Suite) -> Outcome {
    if Command::new("skopeo").arg("--version").output().is_err() {
        return Outcome::Ignored("skopeo is not installed".to_owned());
    }
    let _served = serve(suite, &[]);
    let skopeo = |args: &[&str]| run(Command::new("skopeo").args(args).stdin(Stdio::null()));
    let place = |name: &str| format!("docker://{ADDRESS}/{name}");
    let (out, back) = (suite.scratch(), suite.scratch());
    let dir = |path: &Path| format!("dir:{}", path.display());
    let copy = |from: &str, to: &str| {
        skopeo(&[
            "copy",
            "--preserve-digests",
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
            from,
            to,
        ])
        .ok()
    };
    copy(&place("busybox:latest"), &dir(&out));
    copy(&dir(&out), &place("by/skopeo:v1"));
    copy(&place("by/skopeo:v1"), &dir(&back));
    let manifest = |path: &Path| fs::read(path.join("manifest.json")).unwrap();
    assert_eq!(manifest(&out), manifest(&back));
    let tags = skopeo(&["list-tags", "--tls-verify=false", &place("by/skopeo")]).ok();
    assert!(tags.contains("\"v1\""), "{tags}");
    let seen = skopeo(&["inspect", "--tls-verify=false", &place("by/skopeo:v1")]).ok();
    assert!(seen.contains(&digest_of(&manifest(&out))), "{seen}");
    assert_eq!(suite.tug(["run", "--rm", "by/skopeo:v1", "echo", "hi"]).ok(), "hi");
    skopeo(&["delete", "--tls-verify=false", &place("by/skopeo:v1")]).ok();
    suite.tug(["image", "inspect", "by/skopeo:v1"]).fails(1);
    Outcome::Passed
}
