"""What the benchmarks share: the two engines, their clients, and the clock."""

import os
import shutil
import subprocess
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)


def sh(*argv, check=True, **kwargs):
    kwargs.setdefault("stdin", subprocess.DEVNULL)
    kwargs.setdefault("stdout", subprocess.PIPE)
    kwargs.setdefault("stderr", subprocess.PIPE)
    done = subprocess.run(argv, **kwargs)
    if check and done.returncode != 0:
        raise SystemExit(f"{argv} ended with {done.returncode}: {done.stderr.decode()[-2000:]}")
    return done


class Side:
    """One client on one daemon."""

    def __init__(self, name, client, socket):
        self.name, self.client, self.socket = name, client, socket
        self.env = dict(os.environ, DOCKER_HOST=f"unix://{socket}", DOCKER_CONFIG="/nonexistent", DOCKER_BUILDKIT="0")

    def __call__(self, *argv, **kwargs):
        return sh(self.client, *argv, env=self.env, **kwargs)

    def out(self, *argv):
        return self(*argv).stdout.decode().strip()


def timed(function):
    began = time.perf_counter()
    function()
    return (time.perf_counter() - began) * 1000


def install(packages):
    """`packages`: program -> Debian package."""
    missing = [package for program, package in packages.items() if not shutil.which(program)]
    if missing:
        sh("apt-get", "update", "-qq")
        sh("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing, env=dict(os.environ, DEBIAN_FRONTEND="noninteractive"))


def start(argv, socket, log):
    daemon = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=open(log, "w"), stderr=subprocess.STDOUT)
    for _ in range(300):
        if os.path.exists(socket) and sh("curl", "-sf", "--unix-socket", socket, "http://d/_ping", check=False).returncode == 0:
            return daemon
        time.sleep(0.1)
    raise SystemExit(f"{argv[0]} did not answer; see {log}: " + open(log).read()[-2000:])


def built(tug):
    """The binary to measure: the given one, else a release build."""
    if tug:
        return tug
    sh("cargo", "build", "--release", "--quiet", cwd=ROOT)
    for candidate in ("target/x86_64-unknown-linux-gnu/release/tug", "target/aarch64-unknown-linux-gnu/release/tug", "target/release/tug"):
        if os.path.exists(os.path.join(ROOT, candidate)):
            return os.path.join(ROOT, candidate)
    raise SystemExit("cargo built no tug")


def start_docker(directory):
    socket = f"{directory}/docker.sock"
    return start(
        ["dockerd", "-H", f"unix://{socket}", "--data-root", f"{directory}/docker", "--exec-root", f"{directory}/docker-run", "--pidfile", f"{directory}/docker.pid", "--bip", "172.30.0.1/24"],
        socket, f"{directory}/dockerd.log"), socket


def start_tug(tug, directory):
    socket = f"{directory}/tug.sock"
    return start(
        [tug, "daemon", "-H", f"unix://{socket}", "--data-root", f"{directory}/tug", "--exec-root", f"{directory}/tug-run", "--pidfile", f"{directory}/tug.pid"],
        socket, f"{directory}/tug.log"), socket


def stop(process):
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
