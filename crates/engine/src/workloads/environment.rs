//! The environment of a run's processes.

/// What every process has: where programs are, and its host's name.
pub(crate) fn defaults(hostname: &str) -> Vec<String> {
    const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    vec![PATH.to_owned(), format!("HOSTNAME={hostname}")]
}

/// Puts `entries` into `env` by key; a key without a value takes one away.
pub(crate) fn replace(env: &mut Vec<String>, entries: &[String]) {
    let key = |entry: &str| entry.split('=').next().unwrap_or("").to_owned();
    for new in entries {
        let place = env.iter().position(|entry| key(entry) == key(new));
        match (place, new.contains('=')) {
            (Some(place), true) => env[place].clone_from(new),
            (Some(place), false) => {
                env.remove(place);
            }
            (None, true) => env.push(new.clone()),
            (None, false) => {}
        }
    }
}
