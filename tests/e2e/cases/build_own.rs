//! Builds: what only Tug's own client can ask for.

use std::fs;

use crate::harness::{Outcome, Suite, shell};

super::cases! {
    secrets_leave_no_trace,
    results_go_where_they_are_wanted,
    further_contexts_stand_beside_the_first,
    mounts_of_a_step_are_its_own,
    more_needs_leave,
}

fn text(suite: &Suite, args: &[&str]) -> (i32, String) {
    let output = suite.run(crate::harness::Cli::Tug, args);
    (output.code, format!("{}{}", output.stdout, output.stderr))
}

fn secrets_leave_no_trace(suite: &Suite) -> Outcome {
    let directory = suite.scratch();
    let path = directory.to_str().unwrap();
    fs::write(directory.join("token"), "hush-hush").unwrap();
    fs::write(
        directory.join("Dockerfile"),
        "FROM busybox\nRUN --mount=type=secret,id=a cat /run/secrets/a | wc -c; stat -c %a:%u /run/secrets/a\n\
         RUN --mount=type=secret,id=a,target=/x/y,mode=0440,uid=5 stat -c %a:%u /x/y\n\
         RUN --mount=type=secret,id=b,env=TOKEN echo token ${#TOKEN}\n\
         RUN --mount=type=secret,id=none test ! -e /run/secrets/none\n\
         RUN test ! -e /run/secrets/a && ! env | grep -q TOKEN\n",
    )
    .unwrap();
    let token = format!("id=a,src={path}/token");
    let second = format!("id=b,src={path}/token");
    let args = [
        "build",
        "--progress=plain",
        "--secret",
        &token,
        "--secret",
        &second,
        "-t",
        "secret:1",
        path,
    ];
    let (code, said) = text(suite, &args);
    assert_eq!(code, 0, "{said}");
    for words in [" 9\n", " 400:0\n", " 440:5\n", " token 9\n"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let traces = format!(
        "{}{}",
        suite.tug(["history", "--no-trunc", "secret:1"]).ok(),
        suite.tug(["inspect", "secret:1"]).ok()
    );
    assert!(!traces.contains("hush") && !said.contains("hush"), "{traces}{said}");
    let kept = format!("grep -rl hush-hush {} | head -n1", suite.data_root().display());
    assert_eq!(shell(&kept).stdout, "");
    fs::write(
        directory.join("Dockerfile"),
        "FROM busybox\nRUN --mount=type=secret,id=z,required true\n",
    )
    .unwrap();
    let (code, said) = text(suite, &["build", path]);
    assert!(code == 1 && said.contains("secret z: not found"), "{said}");
    suite.tug(["rmi", "secret:1"]).ok();
    Outcome::Passed
}

fn results_go_where_they_are_wanted(suite: &Suite) -> Outcome {
    let directory = suite.scratch();
    let path = directory.to_str().unwrap();
    fs::write(directory.join("f"), "content").unwrap();
    fs::write(directory.join("Dockerfile"), "FROM scratch\nCOPY --chmod=u=rw,go= f /d/f\n")
        .unwrap();
    let out = format!("{path}/out");
    suite.tug(["build", "-q", "-o", &out, path]).ok();
    let found = shell(&format!("cd {out} && cat d/f && stat -c %a d/f")).ok();
    assert_eq!(found, "content600");
    let tar = format!("type=tar,dest={path}/out.tar");
    suite.tug(["build", "-q", "--output", &tar, path]).ok();
    assert!(shell(&format!("tar -tf {path}/out.tar")).ok().contains("d/f"));
    let archive = format!("type=docker,dest={path}/image.tar");
    suite.tug(["build", "-q", "--output", &archive, path]).ok();
    let loaded = suite.tug(["load", "-i", &format!("{path}/image.tar")]).ok();
    let id = loaded.rsplit(' ').next().unwrap().to_owned();
    suite.tug(["rmi", &id]).ok();
    suite.tug(["build", "-q", "-o", "type=image,name=wanted:1", "-t", "wanted:2", path]).ok();
    suite.tug(["rmi", "wanted:1", "wanted:2"]).ok();
    assert_eq!(suite.tug(["ps", "-aq"]).ok(), "");
    let (code, said) = text(suite, &["build", "-o", "type=s3", path]);
    assert!(code == 1 && said.contains("unsupported output type \"s3\""), "{said}");
    Outcome::Passed
}

fn further_contexts_stand_beside_the_first(suite: &Suite) -> Outcome {
    let directory = suite.scratch();
    let path = directory.to_str().unwrap();
    shell(&format!(
        "cd {path} && mkdir main other && echo first > main/f && echo second > other/f"
    ))
    .ok();
    fs::write(
        directory.join("main/Dockerfile"),
        "FROM base\nCOPY . /main\nCOPY --from=more f /more\nRUN --mount=from=more,target=/m cat /m/f && ls -A /main && cat /main/f /more\n",
    )
    .unwrap();
    let more = format!("more={path}/other");
    let main = format!("{path}/main");
    let args = [
        "build",
        "--progress=plain",
        "--build-context",
        &more,
        "--build-context",
        "base=docker-image://busybox",
        "-t",
        "further:1",
        &main,
    ];
    let (code, said) = text(suite, &args);
    assert_eq!(code, 0, "{said}");
    let lines: Vec<&str> =
        said.lines().filter_map(|line| line.rsplit_once(' ')).map(|pair| pair.1).collect();
    let want = ["second", "Dockerfile", "f", "first", "second"];
    assert!(lines.windows(want.len()).any(|window| window == want), "{said}");
    let (_, again) = text(suite, &args);
    assert_eq!(again.matches(" CACHED").count(), 3, "{again}");
    suite.tug(["rmi", "further:1"]).ok();
    Outcome::Passed
}

fn mounts_of_a_step_are_its_own(suite: &Suite) -> Outcome {
    let directory = suite.scratch();
    let path = directory.to_str().unwrap();
    shell(&format!("cd {path} && mkdir d && echo kept > d/f")).ok();
    fs::write(
        directory.join("Dockerfile"),
        "FROM busybox AS seed\nRUN mkdir /s && echo seeded > /s/x\n\
         FROM busybox\nRUN --mount=type=bind,source=d,target=/b,rw echo changed > /b/f && cat /b/f\n\
         RUN --mount=type=bind,source=d,target=/b cat /b/f && ! touch /b/g 2>/dev/null\n\
         RUN --mount=type=cache,id=own-seeded,target=/c,from=seed,source=/s cat /c/x && echo more > /c/y\n\
         RUN --mount=type=cache,id=own-seeded,target=/c,from=seed,source=/s cat /c/x /c/y\n\
         RUN --mount=type=tmpfs,target=/t,size=64k df /t | tail -n1 | awk '{print $2}'\n\
         RUN ! ls -d /b /c /t 2>/dev/null\n",
    )
    .unwrap();
    let (code, said) =
        text(suite, &["build", "--no-cache", "--progress=plain", "-t", "mounts:1", path]);
    assert_eq!(code, 0, "{said}");
    for words in [" changed\n", " kept\n", " seeded\n", " more\n", " 64\n"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    suite.tug(["rmi", "mounts:1"]).ok();
    suite.tug(["builder", "prune", "-af"]).ok();
    Outcome::Passed
}

fn more_needs_leave(suite: &Suite) -> Outcome {
    let directory = suite.scratch();
    let path = directory.to_str().unwrap();
    fs::write(directory.join("Dockerfile"), "FROM busybox\nRUN --network=host true\n").unwrap();
    let (code, said) = text(suite, &["build", path]);
    assert!(code == 1 && said.contains("network.host is not allowed"), "{said}");
    let (code, said) =
        text(suite, &["build", "-q", "--allow", "network.host", "-o", "type=cacheonly", path]);
    assert_eq!(code, 0, "{said}");
    fs::write(directory.join("Dockerfile"), "FROM busybox\nRUN --security=insecure true\n")
        .unwrap();
    let (code, said) = text(suite, &["build", "--allow", "security.insecure", path]);
    assert!(code == 1 && said.contains("security.insecure is not allowed"), "{said}");
    Outcome::Passed
}
