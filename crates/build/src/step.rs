//! The steps that touch files, made ready: RUN, COPY and ADD.
//!
//! Preparing a step expands its words, finds what it reads, and gives its key and its line of
//! history; nothing is written before the key was looked up.

use std::sync::Arc;

use spec::ignore::Ignore;
use spec::{DiffId, Digest};

use crate::chmod::Chmod;
use crate::flags;
use crate::git::{GitDirectory, Repository};
use crate::instruction::{
    Command, Heredoc, Instruction, Mount, MountKind, Run, RunNetwork, Security, Sharing, Transfer,
};
use crate::key::Key;
use crate::lines;
use crate::progress::{Event, Vertex};
use crate::select::{self, Parents, SelectError};
use crate::solve::{Dialect, Entitlement, StepError};
use crate::stage::StageRun;
use crate::state::{PATH_DEFAULT, PROXY_ARGUMENTS};
use crate::worker::{
    Blob, CacheMount, Content, Item, NodeKind, Origin, RunMount, RunStep, Unpack, Worker, WriteStep,
};

/// A RUN whose key is known.
pub(crate) struct PreparedRun {
    pub step: RunStep,
    pub key: Digest,
    pub created_by: String,
    /// As shown when it fails.
    argv: Vec<String>,
}

/// A COPY or ADD whose key is known.
pub(crate) struct PreparedTransfer {
    pub step: WriteStep,
    pub key: Digest,
    pub created_by: String,
}

/// A COPY's or ADD's words, expanded.
struct Words {
    owner: Option<String>,
    chmod: Option<String>,
    mode: Option<Chmod>,
    from: Option<String>,
    sources: Vec<String>,
    destination: String,
    exclude: Ignore,
}

impl<W: Worker> StageRun<'_, '_, W> {
    pub fn prepare_run(&self, run: &Run) -> Result<PreparedRun, StepError> {
        self.check_allowed(run)?;
        let (argv, script) = self.run_command(run);
        let line = argv.join(" ");
        let argv = if argv.is_empty() { self.own_command()? } else { argv };
        let arguments = self.state.argument_lines();
        let mut env = self.state.image.config.env.clone();
        env.extend(arguments.iter().cloned());
        if !env.iter().any(|line| line.starts_with("PATH=")) {
            env.push(format!("PATH={PATH_DEFAULT}"));
        }
        let mut key = Key::new("run")
            .with_tree(self.state.chain())
            .with_all(&argv)
            .with_all(&env)
            .with(&self.state.image.config.user)
            .with(&self.state.image.config.working_dir)
            .with(network_word(run.network))
            .with_option(script.as_ref().map(|(_, body)| body.as_str()))
            .with(if run.security == Security::Insecure { "insecure" } else { "sandbox" });
        let volumes: Vec<String> = match self.state.dialect {
            Dialect::Classic => self.state.image.config.volumes.keys().cloned().collect(),
            Dialect::BuildKit => Vec::new(),
        };
        if !volumes.is_empty() {
            key = key.with("volumes").with_all(&volumes);
        }
        if let Some(hostname) = self.given("BUILDKIT_SANDBOX_HOSTNAME") {
            key = key.with("hostname").with(hostname);
        }
        let mut mounts = Vec::new();
        for mount in &run.mounts {
            if let Some((mount, part)) = self.mount(mount)? {
                key = key.with_digest(&part);
                mounts.push(mount);
            }
        }
        // Behind the key: proxies leave no trace.
        for name in PROXY_ARGUMENTS {
            let is_set = env.iter().any(|line| line.split('=').next() == Some(name));
            if let (Some(Some(value)), false) = (self.build.options.arguments.get(name), is_set) {
                env.push(format!("{name}={value}"));
            }
        }
        let count = match arguments.is_empty() {
            true => String::new(),
            false => format!("|{} {} ", arguments.len(), arguments.join(" ")),
        };
        let created_by = match self.state.dialect {
            Dialect::Classic => format!("{count}{line}"),
            Dialect::BuildKit => format!("RUN {count}{line} # buildkit"),
        };
        let agent = mounts.iter().find_map(|mount| match mount {
            RunMount::Agent { target, .. } => Some(target.clone()),
            _ => None,
        });
        env.extend(agent.map(|socket| format!("SSH_AUTH_SOCK={socket}")));
        let step = RunStep {
            argv: argv.clone(),
            env,
            user: self.state.image.config.user.clone(),
            working_dir: self.state.absolute("."),
            network: run.network,
            privileged: run.security == Security::Insecure,
            mounts,
            volumes,
            secret_env: self.secret_variables(run)?,
            script,
            container: String::new(),
            hostname: self.given("BUILDKIT_SANDBOX_HOSTNAME").unwrap_or_default().to_owned(),
        };
        Ok(PreparedRun { step, key: key.digest(), created_by, argv })
    }

    fn check_allowed(&self, run: &Run) -> Result<(), StepError> {
        let network = (run.network == RunNetwork::Host).then_some(Entitlement::NetworkHost);
        let insecure = Security::Insecure == run.security;
        let security = insecure.then_some(Entitlement::SecurityInsecure);
        match [network, security]
            .into_iter()
            .flatten()
            .find(|asked| !self.build.options.allowed.contains(asked))
        {
            Some(asked) => Err(StepError::NotAllowed(asked)),
            None => Ok(()),
        }
    }

    /// What `RUN []` runs: for the classic builder what a container of the image would.
    ///
    /// Source: moby `dispatchRun`, `withEntrypointOverride`; buildkit `client/llb/exec.go`.
    fn own_command(&self) -> Result<Vec<String>, StepError> {
        if self.state.dialect == Dialect::BuildKit {
            return Err(StepError::NoArguments);
        }
        let config = &self.state.image.config;
        let words = [&config.entrypoint, &config.cmd];
        let mut words = words.into_iter().flatten().filter(|words| !words.is_empty());
        words.next().cloned().ok_or(StepError::NoCommand)
    }

    /// What BuildKit shows of the heredoc that is a RUN's whole command.
    ///
    /// Source: buildkit `frontend/dockerfile/dockerfile2llb/convert.go`, `summarizeHeredoc`.
    pub fn heredoc_summary(&self, instruction: &Instruction) -> Option<String> {
        let Instruction::Run(run) = instruction else { return None };
        let Command::Shell(line) = &run.command else { return None };
        let words = lines::raw_words(line, self.state.escape);
        let ([heredoc], [word]) = (run.heredocs.as_slice(), words.as_slice()) else { return None };
        lines::heredoc_word(word)?;
        let mut lines = heredoc.body.trim().lines();
        let first = lines.next().unwrap_or_default();
        Some(if lines.next().is_some() { format!("{first}...") } else { first.to_owned() })
    }

    /// The words to run, and the script's file when a heredoc starts with `#!`.
    fn run_command(&self, run: &Run) -> (Vec<String>, Option<(String, String)>) {
        let Command::Shell(line) = &run.command else {
            return (self.state.argv(&run.command), None);
        };
        if run.heredocs.is_empty() {
            return (self.state.argv(&run.command), None);
        }
        let words = lines::raw_words(line, self.state.escape);
        if let ([heredoc], [word]) = (run.heredocs.as_slice(), words.as_slice())
            && lines::heredoc_word(word).is_some()
        {
            if heredoc.body.starts_with("#!") {
                let path = format!("/dev/pipes/{}", heredoc.name);
                return (vec![path.clone()], Some((path, heredoc.body.clone())));
            }
            return (self.state.argv(&Command::Shell(heredoc.body.clone())), None);
        }
        // The shell reads its heredocs itself.
        let mut text = line.clone();
        for heredoc in &run.heredocs {
            text.push_str(&format!("\n{}{}", heredoc.body, heredoc.name));
        }
        (self.state.argv(&Command::Shell(text)), None)
    }

    /// A build argument that means something to the builder itself.
    fn given(&self, name: &str) -> Option<&str> {
        self.build.options.arguments.get(name)?.as_deref()
    }

    /// A mount with the values of its numbers known.
    fn settled(&self, mount: &Mount) -> Result<Mount, StepError> {
        let mut settled = mount.clone();
        for (key, word) in std::mem::take(&mut settled.deferred) {
            let value = self.state.expand(&word)?;
            flags::set_field(&mut settled, &key, value)?;
        }
        Ok(settled)
    }

    fn mount(&self, mount: &Mount) -> Result<Option<(RunMount, Digest)>, StepError> {
        let mount = &self.settled(mount)?;
        let expand =
            |word: &Option<String>| word.as_deref().map(|word| self.state.expand(word)).transpose();
        let target =
            expand(&mount.target)?.map(|target| self.state.absolute(&target)).unwrap_or_default();
        let source = expand(&mount.source)?.unwrap_or_default();
        let from = expand(&mount.from)?;
        let origin = from.map(|from| self.origin(&from)).transpose()?;
        let key = Key::new("mount").with(&target).with(&source);
        Ok(Some(match mount.kind {
            MountKind::Bind => {
                let origin = origin.unwrap_or(Origin::Context);
                let items = self.selected(&origin, &[source], Parents::Dropped, "RUN")?;
                let Some(item) = items.into_iter().next() else { return Ok(None) };
                let content = self.build.worker.files(&origin)?.digest(&item.path, &|_| true)?;
                let key = key.with("bind").with_digest(&content).digest();
                let read_only = mount.read_only;
                (RunMount::Bind { origin, source: item.path, target, read_only }, key)
            }
            MountKind::Cache => {
                let id = expand(&mount.id)?.unwrap_or_else(|| target.clone());
                let id = match self.given("BUILDKIT_CACHE_MOUNT_NS") {
                    Some(space) if !space.is_empty() => format!("{space}/{id}"),
                    Some(_) | None => id,
                };
                let key = key.with("cache").with(&id).with(sharing_word(mount.sharing)).digest();
                let cache = CacheMount {
                    id,
                    target,
                    read_only: mount.read_only,
                    sharing: mount.sharing,
                    seed: origin,
                    source,
                    mode: mount.mode.unwrap_or(0o755),
                    uid: mount.uid.unwrap_or(0),
                    gid: mount.gid.unwrap_or(0),
                };
                (RunMount::Cache(cache), key)
            }
            MountKind::Tmpfs => {
                let key = key.with("tmpfs").digest();
                (RunMount::Tmpfs { target, size_bytes: mount.size_bytes }, key)
            }
            MountKind::Secret => return self.secret(mount, target, key),
            MountKind::Ssh => return self.agent(mount, target, key),
        }))
    }

    /// A secret that was given; its content is not in the key, so a changed one runs nothing anew.
    fn secret(
        &self,
        mount: &Mount,
        target: String,
        key: Key,
    ) -> Result<Option<(RunMount, Digest)>, StepError> {
        let id = self.secret_id(mount)?;
        if !self.build.options.secrets.contains(&id) {
            return if mount.required { Err(StepError::Secret(id)) } else { Ok(None) };
        }
        if mount.env.is_some() && mount.target.is_none() {
            return Ok(None);
        }
        let target = if target.is_empty() { format!("/run/secrets/{id}") } else { target };
        let mode = mount.mode.unwrap_or(0o400);
        let (uid, gid) = (mount.uid.unwrap_or(0), mount.gid.unwrap_or(0));
        let key = key.with("secret").with(&id).with(&target).digest();
        Ok(Some((RunMount::Secret { id, target, mode, uid, gid }, key)))
    }

    fn secret_id(&self, mount: &Mount) -> Result<String, StepError> {
        let word = match (mount.id.as_ref().or(mount.source.as_ref()), &mount.target) {
            (Some(id), _) => self.state.expand(id)?,
            (None, Some(target)) => {
                let target = self.state.expand(target)?;
                target.rsplit('/').next().unwrap_or_default().to_owned()
            }
            (None, None) => mount.env.clone().unwrap_or_default(),
        };
        Ok(word)
    }

    /// `env=` of secret mounts: the variable, and the secret that it is.
    fn secret_variables(&self, run: &Run) -> Result<Vec<(String, String)>, StepError> {
        let mut found = Vec::new();
        for mount in run.mounts.iter().filter(|mount| mount.kind == MountKind::Secret) {
            let id = self.secret_id(mount)?;
            if let (Some(name), true) = (&mount.env, self.build.options.secrets.contains(&id)) {
                found.push((name.clone(), id));
            }
        }
        Ok(found)
    }

    fn agent(
        &self,
        mount: &Mount,
        target: String,
        key: Key,
    ) -> Result<Option<(RunMount, Digest)>, StepError> {
        let id = mount.id.clone().unwrap_or_else(|| "default".to_owned());
        if !self.build.options.agents.contains(&id) {
            return if mount.required { Err(StepError::Ssh(id)) } else { Ok(None) };
        }
        let target =
            if target.is_empty() { "/run/buildkit/ssh_agent.0".to_owned() } else { target };
        let key = key.with("ssh").with(&id).with(&target).digest();
        Ok(Some((RunMount::Agent { id, target }, key)))
    }

    /// Runs a prepared RUN.
    pub fn execute(
        &self,
        prepared: &PreparedRun,
        vertex: Vertex,
    ) -> Result<(Option<DiffId>, String), StepError> {
        let worker = self.build.worker;
        let log = |stream, bytes: &[u8]| {
            worker.report(Event::Log { vertex, stream, bytes: bytes.to_vec(), at: worker.now() });
        };
        let ran = worker.run(self.state.chain(), &prepared.step, &log)?;
        match ran.code {
            0 => Ok((ran.layer, prepared.created_by.clone())),
            code => Err(StepError::Command { argv: prepared.argv.clone(), code }),
        }
    }

    fn words(&self, keyword: &'static str, transfer: &Transfer) -> Result<Words, StepError> {
        let expand =
            |word: &Option<String>| word.as_deref().map(|word| self.state.expand(word)).transpose();
        let all = |words: &[String]| -> Result<Vec<String>, StepError> {
            words.iter().map(|word| Ok(self.state.expand(word)?)).collect()
        };
        let bad_pattern = |error: spec::ignore::IgnoreError| StepError::Select {
            keyword,
            problem: SelectError::Pattern(error.to_string()),
        };
        let exclude = all(&transfer.exclude)?;
        let chmod = expand(&transfer.chmod)?;
        let mode = |text: &str| Chmod::parse(text).ok_or_else(|| StepError::Mode(text.to_owned()));
        Ok(Words {
            owner: expand(&transfer.chown)?,
            mode: chmod.as_deref().map(mode).transpose()?,
            chmod,
            from: expand(&transfer.from)?,
            sources: all(&transfer.sources)?,
            destination: self.state.expand(&transfer.destination)?,
            exclude: Ignore::from_patterns(exclude.iter().map(String::as_str))
                .map_err(bad_pattern)?,
        })
    }

    pub fn prepare_transfer(
        &self,
        keyword: &'static str,
        transfer: &Transfer,
    ) -> Result<PreparedTransfer, StepError> {
        let Words { owner, chmod, mode, from, sources, destination, exclude } =
            self.words(keyword, transfer)?;
        let origin = match (&from, self.repository(keyword, transfer, &sources)?) {
            (Some(from), _) => self.origin(from)?,
            (None, Some(origin)) => origin,
            (None, None) => Origin::Context,
        };
        self.check_checksum(transfer, &sources)?;
        let (remote, local): (Vec<String>, Vec<String>) =
            sources.iter().cloned().partition(|source| keyword == "ADD" && is_url(source));
        // A repository's files are all of its own tree.
        let local = match matches!(origin, Origin::Named(_)) && from.is_none() {
            true => vec![".".to_owned()],
            false => local,
        };
        let mut blobs = self.fetched(&remote, transfer, mode.as_ref())?;
        for heredoc in &transfer.inline {
            blobs.push(self.inline(heredoc, mode.as_ref())?);
        }
        let parents = if transfer.parents { Parents::Kept } else { Parents::Dropped };
        let items = self.selected(&origin, &local, parents, keyword)?;
        let absolute = self.destination(&destination);
        if items.len() + blobs.len() > 1 && !absolute.ends_with('/') {
            return Err(StepError::ManyToOne(keyword));
        }

        let mut key = Key::new("copy")
            .with(keyword)
            .with_tree(self.state.chain())
            .with(&absolute)
            .with_option(owner.as_deref())
            .with_option(chmod.as_deref())
            .with(&format!("{:?}", transfer.unpack))
            .with(if from.is_some() { "from" } else { "context" });
        let content = self.content(&origin, &items, &blobs, &exclude)?;
        key = key.with_digest(&content);
        let unpack = match (keyword, transfer.unpack) {
            ("ADD", None | Some(true)) => Unpack::Archives,
            (_, _) => Unpack::Never,
        };
        let kind = kind_word(&items, &blobs);
        let step = WriteStep {
            origin,
            items,
            blobs,
            destination: absolute,
            owner,
            mode,
            exclude,
            unpack,
            unpack_blobs: transfer.unpack == Some(true),
        };
        let created_by = match self.state.dialect {
            Dialect::BuildKit => self.transfer_line(keyword, transfer, &sources, &destination),
            Dialect::Classic => {
                let content = format!("{kind}:{}", content.hex());
                self.classic_line(keyword, transfer, &content, &destination)
            }
        };
        Ok(PreparedTransfer { step, key: key.digest(), created_by })
    }

    /// Only what comes from elsewhere has a checksum, and one thing at a time.
    ///
    /// Source: buildkit `frontend/dockerfile/dockerfile2llb/convert.go`, `dispatchCopy`.
    fn check_checksum(&self, transfer: &Transfer, sources: &[String]) -> Result<(), StepError> {
        if transfer.checksum.is_none() {
            return Ok(());
        }
        if sources.len() + transfer.inline.len() != 1 {
            return Err(StepError::Sum("checksum can't be specified for multiple sources"));
        }
        let is_remote = |source: &String| is_url(source) || Repository::parse(source).is_some();
        match sources.iter().all(is_remote) {
            true => Ok(()),
            false => Err(StepError::Sum("checksum can't be specified for non-HTTP(S) sources")),
        }
    }

    /// The tree of the repository that an ADD names.
    fn repository(
        &self,
        keyword: &str,
        transfer: &Transfer,
        sources: &[String],
    ) -> Result<Option<Origin>, StepError> {
        let parsed = sources.iter().filter_map(|source| Repository::parse(source)).next();
        let Some(repository) = parsed.filter(|_| keyword == "ADD") else { return Ok(None) };
        if sources.len() + transfer.inline.len() > 1 {
            return Err(StepError::Git(repository.url));
        }
        let worker = self.build.worker;
        let keep = match transfer.keep_git_dir {
            true => GitDirectory::Kept,
            false => GitDirectory::Removed,
        };
        let (origin, got) = worker.repository(&repository, keep).map_err(StepError::Fetch)?;
        let want = transfer.checksum.as_deref().map(|word| self.state.expand(word)).transpose()?;
        match want {
            Some(want) if want.is_empty() || !got.starts_with(&want) => {
                Err(StepError::Commit { got, want })
            }
            Some(_) | None => Ok(Some(origin)),
        }
    }

    fn classic_line(
        &self,
        keyword: &str,
        transfer: &Transfer,
        content: &str,
        destination: &str,
    ) -> String {
        let chown = transfer.chown.as_ref().map(|owner| format!("--chown={owner} "));
        let chown = chown.unwrap_or_default();
        self.state.file_line(&format!("{keyword} {chown}{content} in {destination} "))
    }

    fn transfer_line(
        &self,
        keyword: &str,
        transfer: &Transfer,
        sources: &[String],
        destination: &str,
    ) -> String {
        let mut line = keyword.to_owned();
        if let Some(owner) = &transfer.chown {
            line.push_str(&format!(" --chown={owner}"));
        }
        if let Some(mode) = &transfer.chmod {
            line.push_str(&format!(" --chmod={mode}"));
        }
        for source in sources {
            line.push_str(&format!(" {source}"));
        }
        for heredoc in &transfer.inline {
            line.push_str(&format!(" <<{}", heredoc.name));
        }
        line.push_str(&format!(" {destination} # buildkit"));
        line
    }

    fn selected(
        &self,
        origin: &Origin,
        sources: &[String],
        parents: Parents,
        keyword: &'static str,
    ) -> Result<Vec<Item>, StepError> {
        let files = self.build.worker.files(origin)?;
        select::select(&*files, origin, sources, parents)
            .map_err(|problem| StepError::Select { keyword, problem })
    }

    fn content(
        &self,
        origin: &Origin,
        items: &[Item],
        blobs: &[Blob],
        ignore: &Ignore,
    ) -> Result<Digest, StepError> {
        let mut key = Key::new("content");
        let files = self.build.worker.files(origin)?;
        for item in items {
            let keep = |path: &str| path.is_empty() || !ignore.excludes(path);
            let digest = files.digest(&item.path, &keep)?;
            let name = match item.kind {
                NodeKind::Directory => "",
                NodeKind::File | NodeKind::Other => {
                    item.path.rsplit('/').next().unwrap_or_default()
                }
            };
            key =
                key.with("item").with(name).with_option(item.below.as_deref()).with_digest(&digest);
        }
        for blob in blobs {
            key = key
                .with("blob")
                .with(&blob.name)
                .with(&blob.mode.to_string())
                .with_digest(&blob.content.digest());
        }
        Ok(key.digest())
    }

    /// Absolute, and with a `/` at the end when the words say that it is a directory.
    fn destination(&self, word: &str) -> String {
        let is_directory = word.ends_with('/')
            || word == "."
            || word == ".."
            || word.ends_with("/.")
            || word.ends_with("/..");
        let absolute = self.state.absolute(word);
        match is_directory && absolute != "/" {
            true => format!("{absolute}/"),
            false => absolute,
        }
    }

    fn fetched(
        &self,
        urls: &[String],
        transfer: &Transfer,
        mode: Option<&Chmod>,
    ) -> Result<Vec<Blob>, StepError> {
        let wanted =
            transfer.checksum.as_deref().map(|word| self.state.expand(word)).transpose()?;
        let mut blobs = Vec::new();
        for url in urls {
            let mut blob = self.build.worker.fetch(url).map_err(StepError::Fetch)?;
            let got = blob.content.digest();
            if let Some(want) = wanted.clone().filter(|want| *want != got.to_string()) {
                return Err(StepError::Checksum { url: url.clone(), got, want });
            }
            blob.mode = mode.map_or(0o600, |mode| mode.apply(0o600, false));
            blobs.push(blob);
        }
        Ok(blobs)
    }

    fn inline(&self, heredoc: &Heredoc, mode: Option<&Chmod>) -> Result<Blob, StepError> {
        let body = match heredoc.expand {
            true => self.state.expand_body(&heredoc.body)?,
            false => heredoc.body.clone(),
        };
        Ok(Blob {
            name: heredoc.name.clone(),
            content: Content::Memory(Arc::from(body.into_bytes())),
            mode: mode.map_or(0o644, |mode| mode.apply(0o644, false)),
            modified_secs: None,
        })
    }
}

/// What the classic builder's history calls the sources.
fn kind_word(items: &[Item], blobs: &[Blob]) -> &'static str {
    match (items, blobs) {
        ([item], []) if item.kind == NodeKind::Directory => "dir",
        ([_], []) | ([], [_]) => "file",
        (_, _) => "multi",
    }
}

fn network_word(network: RunNetwork) -> &'static str {
    match network {
        RunNetwork::Default => "default",
        RunNetwork::None => "none",
        RunNetwork::Host => "host",
    }
}

fn sharing_word(sharing: Sharing) -> &'static str {
    match sharing {
        Sharing::Shared => "shared",
        Sharing::Private => "private",
        Sharing::Locked => "locked",
    }
}

fn is_url(source: &str) -> bool {
    (source.starts_with("http://") || source.starts_with("https://"))
        && Repository::parse(source).is_none()
}
