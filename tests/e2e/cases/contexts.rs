//! Contexts: what one command line makes, the other uses.

use crate::harness::{BOTH, Outcome, Suite, run};

super::cases! {
    contexts_of_both_command_lines_are_the_same,
}

fn contexts_of_both_command_lines_are_the_same(suite: &Suite) -> Outcome {
    let socket = format!("host=unix://{}", suite.socket().display());
    let configs = BOTH.map(|cli| suite.scratch().join(format!("contexts-{cli:?}")));
    // The default context's place is each engine's own, and so is the order of what is told.
    let both = |args: &[&str]| {
        let [tug, docker] = [0, 1].map(|at| {
            let mut command = suite.command(BOTH[at]);
            command.env_remove("DOCKER_HOST").env("DOCKER_CONFIG", &configs[at]).args(args);
            let output = run(&mut command);
            let config = configs[at].to_str().unwrap();
            let lines = output.stdout.lines().chain(output.stderr.lines());
            let lines = lines.filter(|line| !line.starts_with("default "));
            let text: Vec<_> =
                lines.map(|line| line.trim_end().replace(config, "CONFIG")).collect();
            (output.code, text.join("\n"))
        });
        assert_eq!(tug, docker, "{args:?}");
        tug
    };
    assert_eq!(both(&["context", "show"]), (0, "default".to_owned()));
    both(&["context", "create", "--description", "ours", "--docker", &socket, "suite"]);
    both(&["context", "create", "suite"]);
    both(&["context", "create", "default"]);
    both(&["context", "create", "bad name"]);
    both(&["context", "inspect", "suite"]);
    both(&["context", "use", "nope"]);
    both(&["context", "rm", "nope"]);
    assert_eq!(both(&["--context", "suite", "ps", "-aq", "--filter", "name=nobody"]).0, 0);
    both(&["context", "use", "suite"]);
    both(&["context", "ls"]);
    both(&["context", "ls", "-q"]);
    assert_eq!(both(&["images", "-q", "nobody"]).0, 0);
    both(&["context", "rm", "suite"]);
    both(&["context", "rm", "-f", "suite"]);
    both(&["context", "show"]);
    both(&["--context", "gone", "ps"]);
    both(&["context", "rm", "default"]);
    // Each reads what the other wrote.
    for (at, cli) in BOTH.into_iter().enumerate() {
        let typed = |config: usize, args: &[&str]| {
            let mut command = suite.command(cli);
            run(command.env_remove("DOCKER_HOST").env("DOCKER_CONFIG", &configs[config]).args(args))
        };
        typed(at, &["context", "create", "--docker", &socket, "crossed"]).ok();
        let other = BOTH[1 - at];
        let mut command = suite.command(other);
        command.env_remove("DOCKER_HOST").env("DOCKER_CONFIG", &configs[at]);
        run(command.args(["--context", "crossed", "images", "-q"])).ok();
    }
    Outcome::Passed
}
