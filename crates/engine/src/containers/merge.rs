//! How an image's configuration fills in what the user left open.
//!
//! Source: moby `daemon/commit.go` `merge`, `runconfig`.

use spec::image::{Config, Healthcheck};

/// Merges the image's values into the user's.
pub fn merge(user: &mut Config, image: &Config) {
    fill(&mut user.user, &image.user);
    fill(&mut user.working_dir, &image.working_dir);
    fill(&mut user.stop_signal, &image.stop_signal);
    if user.stop_timeout.is_none() {
        user.stop_timeout = image.stop_timeout;
    }
    merge_command(user, image);
    merge_env(&mut user.env, &image.env);
    for (port, empty) in &image.exposed_ports {
        user.exposed_ports.entry(port.clone()).or_insert(*empty);
    }
    for (path, empty) in &image.volumes {
        user.volumes.entry(path.clone()).or_insert(*empty);
    }
    for (key, value) in &image.labels {
        user.labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    if user.shell.is_empty() {
        user.shell.clone_from(&image.shell);
    }
    if user.on_build.is_empty() {
        user.on_build.clone_from(&image.on_build);
    }
    merge_healthcheck(&mut user.healthcheck, image.healthcheck.as_ref());
}

fn fill(user: &mut String, image: &str) {
    if user.is_empty() {
        image.clone_into(user);
    }
}

/// An entrypoint of the user's drops the image's command; `[""]` stands for "none at all".
fn merge_command(user: &mut Config, image: &Config) {
    let given = user.entrypoint.as_ref().is_some_and(|words| !words.is_empty());
    if !given {
        if user.cmd.as_ref().is_none_or(Vec::is_empty) {
            user.cmd.clone_from(&image.cmd);
        }
        if user.entrypoint.is_none() {
            user.entrypoint.clone_from(&image.entrypoint);
        }
    }
    if user.entrypoint.as_deref().is_some_and(|words| matches!(words, [only] if only.is_empty())) {
        user.entrypoint = None;
    }
}

fn merge_env(user: &mut Vec<String>, image: &[String]) {
    let key = |entry: &str| entry.split('=').next().unwrap_or("").to_owned();
    let keys: Vec<String> = user.iter().map(|entry| key(entry)).collect();
    user.extend(image.iter().filter(|entry| !keys.contains(&key(entry))).cloned());
}

fn merge_healthcheck(user: &mut Option<Healthcheck>, image: Option<&Healthcheck>) {
    let Some(image) = image else { return };
    let Some(user) = user else {
        *user = Some(image.clone());
        return;
    };
    if user.test.is_empty() {
        user.test.clone_from(&image.test);
    }
    for (mine, theirs) in [
        (&mut user.interval, image.interval),
        (&mut user.timeout, image.timeout),
        (&mut user.start_period, image.start_period),
        (&mut user.start_interval, image.start_interval),
        (&mut user.retries, image.retries),
    ] {
        if *mine == 0 {
            *mine = theirs;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Option<Vec<String>> {
        (text != "-").then(|| {
            text.split(' ')
                .filter(|word| !word.is_empty())
                .map(|word| word.replace('_', ""))
                .collect()
        })
    }

    /// `-` is null; `_` is an empty word.
    #[track_caller]
    fn check(user: (&str, &str), image: (&str, &str), want: &str) {
        let config = |(entrypoint, cmd)| Config {
            entrypoint: words(entrypoint),
            cmd: words(cmd),
            ..Config::default()
        };
        let mut merged = config(user);
        merge(&mut merged, &config(image));
        let argv: Vec<String> = merged
            .entrypoint
            .into_iter()
            .flatten()
            .chain(merged.cmd.into_iter().flatten())
            .collect();
        assert_eq!(argv.join(" "), want);
    }

    #[test]
    fn the_command_line_follows_dockers_rules() {
        check(("-", "-"), ("-", "sh"), "sh");
        check(("-", "ls -l"), ("-", "sh"), "ls -l");
        check(("-", "ls"), ("tini --", "sh"), "tini -- ls");
        check(("-", "-"), ("tini --", "sh"), "tini -- sh");
        check(("echo", "-"), ("tini --", "sh"), "echo");
        check(("_", "ls"), ("tini --", "sh"), "ls");
        check(("_", "-"), ("tini --", "sh"), "");
    }

    #[test]
    fn the_users_environment_comes_first_and_wins() {
        let mut env = vec!["A=1".to_owned(), "B".to_owned()];
        merge_env(&mut env, &["B=2".to_owned(), "C=3".to_owned()]);
        assert_eq!(env, ["A=1", "B", "C=3"]);
    }
}
