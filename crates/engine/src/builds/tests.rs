//! Builds on a real store, as far as they need no process: COPY, ADD, WORKDIR, stages, cache.
//! Steps that run commands are tested end to end.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

use bytes::Bytes;
use expect_test::{Expect, expect};
use spec::{Id, ImageId};
use store::LayerKey;
use sys::netlink::route::{Link, LinkChange, State as LinkState, link_set};
use sys::netlink::{Protocol as NetlinkProtocol, Socket};
use tokio::sync::mpsc;

use super::{
    BuildFailure, BuildRequest, BuildSource, CacheUse, Containers, Output, Pull, Squash, Style,
    Verbosity,
};
use crate::{Engine, EngineConfig, stream};

struct Bench {
    engine: Engine,
    root: PathBuf,
}

impl Drop for Bench {
    fn drop(&mut self) {
        // The store may still be removing things of its own in there.
        for _ in 0..50 {
            match std::fs::remove_dir_all(&self.root) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
                Ok(()) | Err(_) => return,
            }
        }
    }
}

/// An engine on a directory of its own, when we may make one.
async fn bench() -> Option<Bench> {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "CI must run this as root");
        println!("ignored: needs root");
        return None;
    }
    let root = std::env::temp_dir().join(format!("tug-build-test-{}", Id::random().short()));
    let config = EngineConfig {
        data_root: root.join("data"),
        exec_root: root.join("run"),
        unpacking: crate::config::Unpacking::Here,
        ..EngineConfig::default()
    };
    let engine = Engine::open(config).await.expect("an engine on a fresh directory");
    Some(Bench { engine, root })
}

fn request(body: stream::ByteStream) -> BuildRequest {
    BuildRequest {
        allow: Vec::new(),
        extras: super::BuildExtras::default(),
        source: BuildSource::Context(body),
        dockerfile: String::new(),
        tags: vec!["made:1".into()],
        target: None,
        arguments: BTreeMap::new(),
        labels: BTreeMap::new(),
        cache: CacheUse::Use,
        pull: Pull::Missing,
        credentials: BTreeMap::new(),
        containers: Containers::RemoveAfterSuccess,
        verbosity: Verbosity::Full,
        network: String::new(),
        extra_hosts: Vec::new(),
        shm_size: None,
        resources: crate::containers::spec::Resources::default(),
        platform: None,
        squash: Squash::No,
        cache_from: Vec::new(),
        security_opt: Default::default(),
        style: Style::Classic,
        exports: vec![super::Export::Image],
        build_id: String::new(),
    }
}

/// A tar of a Dockerfile and `files`; a name with `->` is a link.
fn context(dockerfile: &str, files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let all = [("Dockerfile", dockerfile)].into_iter().chain(files.iter().copied());
    for (name, text) in all {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o640);
        header.set_uid(1234);
        header.set_gid(1234);
        header.set_mtime(1_600_000_000);
        if let Some((name, target)) = name.split_once("->") {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            builder.append_link(&mut header, name, target).unwrap();
        } else {
            header.set_size(text.len() as u64);
            builder.append_data(&mut header, name, text.as_bytes()).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

impl Bench {
    async fn build(&self, archive: Vec<u8>) -> (Result<ImageId, BuildFailure>, String) {
        let (made, text) = self.build_with(archive, |_| {}).await;
        (made.map(|id| id.expect("an image was asked for")), text)
    }

    async fn build_with(
        &self,
        archive: Vec<u8>,
        change: impl FnOnce(&mut BuildRequest),
    ) -> (Result<Option<ImageId>, BuildFailure>, String) {
        let (sender, body) = mpsc::channel(1);
        tokio::spawn(async move { sender.send(Ok(Bytes::from(archive))).await });
        let (output, mut outputs) = mpsc::channel(64);
        let reader = tokio::spawn(async move {
            let mut text = String::new();
            while let Some(output) = outputs.recv().await {
                if let Output::Text(piece) = output {
                    text.push_str(&piece);
                }
            }
            text
        });
        let mut request = request(body);
        change(&mut request);
        let result = self.engine.build(request, output).await;
        (result, reader.await.unwrap())
    }

    /// Contexts go in the background.
    async fn assert_nothing_left(&self) {
        for _ in 0..100 {
            if std::fs::read_dir(self.root.join("data/tmp")).unwrap().next().is_none() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("a build left something in tmp");
    }

    /// The layers' entries, bottom first.
    fn listing(&self, id: &ImageId) -> String {
        let store = &self.engine.inner.store;
        let image = store.image(id).unwrap();
        let mut lines = Vec::new();
        for layer in &image.config.rootfs.diff_ids {
            lines.push("layer".to_owned());
            let mut archive = tar::Archive::new(store.layer_tar(&LayerKey(*layer)).unwrap());
            for entry in archive.entries().unwrap() {
                let mut entry = entry.unwrap();
                let path = entry.path().unwrap().to_string_lossy().into_owned();
                let header = entry.header().clone();
                let mut text = String::new();
                entry.read_to_string(&mut text).unwrap();
                let link = header.link_name().unwrap().map(|to| format!(" -> {}", to.display()));
                let (mode, uid) = (header.mode().unwrap(), header.uid().unwrap());
                lines.push(format!("{mode:04o} {uid} {path}{} {text}", link.unwrap_or_default()));
            }
        }
        lines.iter().map(|line| format!("{}\n", line.trim_end())).collect()
    }
}

/// A runtime whose threads have a network of their own, where the engine's bridge and tables stay.
fn runtime() -> tokio::runtime::Runtime {
    if rustix::process::geteuid().is_root() {
        // Threads inherit the namespace of the thread that starts them.
        sys::namespace::unshare(sys::namespace::Namespaces::NET).expect("root may do that");
        let up = LinkChange { state: Some(LinkState::Up), ..LinkChange::default() };
        let mut socket = Socket::open(NetlinkProtocol::Route).expect("the namespace is ours");
        socket.send(&[link_set(Link::Name("lo"), &up)]).expect("loopback can be set up");
    }
    tokio::runtime::Runtime::new().expect("threads can be started")
}

#[track_caller]
fn check(dockerfile: &'static str, files: &'static [(&str, &str)], want: Expect) {
    let runtime = runtime();
    runtime.block_on(async {
        let Some(bench) = bench().await else { return };
        let (result, _) = bench.build(context(dockerfile, files)).await;
        want.assert_eq(&match result {
            Ok(id) => bench.listing(&id),
            Err(failure) => format!("{}\n", failure.error),
        });
        let (again, text) = bench.build(context(dockerfile, files)).await;
        if let Ok(id) = again {
            assert!(text.contains("Using cache") && text.contains(&id.short()), "{text}");
        }
        bench.assert_nothing_left().await;
    });
}

#[test]
fn files_of_the_context_belong_to_root() {
    check(
        "FROM scratch\nCOPY a d /x/\nCOPY --chown=5:6 --chmod=700 a /y/b\n",
        &[("a", "1"), ("d/b", "2"), ("d/e/c", "3"), ("d/l->b", "")],
        expect![[r#"
            layer
            0755 0 x/
            0640 0 x/a 1
            0640 0 x/b 2
            0755 0 x/e/
            0640 0 x/e/c 3
            0777 0 x/l -> b
            layer
            0755 5 y/
            0700 5 y/b 1
        "#]],
    );
}

#[test]
fn a_link_at_the_top_is_followed_inside_the_context() {
    check(
        "FROM scratch\nCOPY l m /x/\n",
        &[("a", "1"), ("d/b", "2"), ("l->a", ""), ("m->/d", "")],
        expect![[r#"
            layer
            0755 0 x/
            0640 0 x/l 1
            0640 0 x/b 2
        "#]],
    );
    check(
        "FROM scratch\nCOPY l /x/\n",
        &[("l->/etc/passwd", "")],
        expect![[r#"
        COPY failed: file not found in build context or excluded by .dockerignore: stat l: file does not exist
    "#]],
    );
}

#[test]
fn what_dockerignore_leaves_out_is_not_copied() {
    check(
        "FROM scratch\nCOPY . /\n",
        &[
            (".dockerignore", "d\n!d/keep\nDockerfile\n.dockerignore\n"),
            ("a", "1"),
            ("d/b", "2"),
            ("d/keep", "3"),
        ],
        expect![[r#"
            layer
            0640 0 a 1
            0755 0 d/
            0640 0 d/keep 3
        "#]],
    );
}

#[test]
fn owners_by_name_are_those_of_the_image() {
    check(
        "FROM scratch\nCOPY passwd /etc/passwd\nCOPY --chown=www a /b\nUSER www\nWORKDIR /w/x\n",
        &[("passwd", "www:x:33:34::/:\n"), ("a", "1")],
        expect![[r#"
            layer
            0755 0 etc/
            0640 0 etc/passwd www:x:33:34::/:
            layer
            0640 33 b 1
            layer
            0755 0 w/
            0755 0 w/x/
        "#]],
    );
    check(
        "FROM scratch\nCOPY --chown=nobody a /b\n",
        &[("a", "1")],
        expect![[r#"
        unable to convert uid/gid chown string to host mapping: can't find uid for user nobody: no such user: nobody
    "#]],
    );
}

#[test]
fn stages_copy_from_each_other_and_keep_owners() {
    check(
        "FROM scratch AS one\nCOPY --chown=7:8 a /d/a\nFROM scratch\nCOPY --from=one /d/ /e/\nCOPY <<E /f\nhi $X\nE\n",
        &[("a", "1")],
        expect![[r#"
            layer
            0755 0 e/
            0640 7 e/a 1
            layer
            0644 0 f hi
        "#]],
    );
}

#[test]
fn an_added_archive_is_extracted_inside_its_destination() {
    let runtime = runtime();
    runtime.block_on(async {
        let Some(bench) = bench().await else { return };
        let inner = context("x", &[("p/q", "1")]);
        let mut builder = tar::Builder::new(Vec::new());
        let files: [(&str, &[u8]); 2] =
            [("Dockerfile", b"FROM scratch\nADD in.tar /t/\nCOPY in.tar /c\n"), ("in.tar", &inner)];
        for (name, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(bytes.len() as u64);
            builder.append_data(&mut header, name, bytes).unwrap();
        }
        let (result, _) = bench.build(builder.into_inner().unwrap()).await;
        let id = result.map_err(|failure| failure.error).unwrap();
        let lines = bench.listing(&id);
        assert!(lines.contains("0640 1234 t/p/q 1"), "{lines}");
    });
}

#[test]
fn what_is_wrong_is_said_in_dockers_words() {
    check(
        "FROM scratch\nFOO\n",
        &[],
        expect![[r#"
        dockerfile parse error on line 2: unknown instruction: FOO
    "#]],
    );
    check(
        "FROM 127.0.0.1:1/nowhere\n",
        &[],
        expect![[r#"
        Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused
    "#]],
    );
    check(
        "FROM scratch\nCOPY x /\n",
        &[],
        expect![[r#"
        COPY failed: file not found in build context or excluded by .dockerignore: stat x: file does not exist
    "#]],
    );
    check(
        "FROM scratch\nCOPY a /x\nCOPY d /x\n",
        &[("a", ""), ("d/b", "")],
        expect![[r#"
        cannot copy to non-directory: /x
    "#]],
    );
}

#[test]
fn a_context_that_is_no_archive_is_refused() {
    let runtime = runtime();
    runtime.block_on(async {
        let Some(bench) = bench().await else { return };
        let (result, _) = bench.build(b"not a tar".repeat(200)).await;
        assert!(result.unwrap_err().error.message.starts_with("Error processing tar file"));
        let (result, _) = bench.build(Vec::new()).await;
        let message = result.unwrap_err().error.message;
        assert_eq!(message, "Cannot locate specified Dockerfile: Dockerfile");
    });
}
