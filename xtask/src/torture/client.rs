//! One user: types commands at random and keeps books of what was acknowledged.
//!
//! Names are the client's own (`c3-17`), so that nobody else changes what it knows, but for the few
//! names that all clients fight for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::field::{Field, Outcome, REGISTRY};
use super::ledger::{ContainerFacts, Ledger, Presence, Running, ThingFacts, named};
use super::random::Random;
use super::report::Report;

/// How many of each kind a client keeps; more are removed first.
const CONTAINERS_MAX: usize = 5;
const THINGS_MAX: usize = 3;
/// Names that every client wants.
pub const SHARED_NAMES: [&str; 3] = ["shared-0", "shared-1", "shared-2"];
/// Ends at once on SIGTERM, else never.
const OBEDIENT: &str = "trap 'exit 0' TERM; echo up; while :; do sleep 1 & wait $!; done";

pub struct Client {
    number: u64,
    field: Arc<Field>,
    report: Arc<Report>,
    random: Random,
    ledger: Ledger,
    names: u64,
}

impl Client {
    pub fn new(number: u64, field: Arc<Field>, report: Arc<Report>, random: Random) -> Client {
        Client { number, field, report, random, ledger: Ledger::default(), names: 0 }
    }

    /// Works until it is `over`; gives the books.
    pub fn work(mut self, over: &AtomicBool) -> Ledger {
        while !over.load(Ordering::Relaxed) && !self.report.is_hopeless() {
            self.step();
        }
        self.ledger
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..18 => self.create(),
            18..30 => self.run_once(),
            30..45 => self.exec(),
            45..55 => self.stop_or_start(),
            55..60 => self.rename(),
            60..67 => self.connect_or_disconnect(),
            67..71 => self.update(),
            71..75 => self.volume(),
            75..79 => self.network(),
            79..83 => self.build(),
            83..86 => self.pull(),
            86..89 => self.fight(),
            89..92 => self.read(),
            _ => self.remove(),
        }
    }

    fn call(&self, operation: &'static str, args: &[&str]) -> Outcome {
        let began = Instant::now();
        let outcome = self.field.call(args);
        self.report.operation(operation, &outcome, began.elapsed());
        if outcome == Outcome::Lost {
            // While no daemon runs there is nothing to do but to try again.
            std::thread::sleep(Duration::from_millis(50));
        }
        if outcome == Outcome::Hung {
            self.report.fault(format!("{operation} did not end: {args:?}"));
        }
        outcome
    }

    fn fresh(&mut self, kind: &str) -> String {
        self.names += 1;
        format!("{kind}{}-{}", self.number, self.names)
    }

    fn create(&mut self) {
        if self.ledger.containers_where(|facts| facts.presence != Presence::Absent).len()
            >= CONTAINERS_MAX
        {
            return self.remove();
        }
        let name = self.fresh("c");
        let mut args = vec!["run", "-d", "--name", &name];
        let networks = named(&self.ledger.networks, Presence::Present);
        let volumes = named(&self.ledger.volumes, Presence::Present);
        let mut mount = String::new();
        if !volumes.is_empty() && self.random.chance(30) {
            mount = format!("{}:/v", self.random.pick(&volumes));
        }
        if !networks.is_empty() && self.random.chance(30) {
            args.extend(["--network", self.random.pick(&networks).as_str()]);
        }
        if self.random.chance(25) {
            args.extend(["-p", "127.0.0.1::80"]);
        }
        if !mount.is_empty() {
            args.extend(["-v", &mount]);
        }
        args.extend(["busybox", "sh", "-c", OBEDIENT]);
        let outcome = self.call("run -d", &args);
        let mut facts = ContainerFacts::open();
        if let Outcome::Done(id) = outcome {
            facts.id = id;
            facts.presence = Presence::Present;
            facts.running = Running::Yes;
        }
        self.ledger.containers.insert(name, facts);
    }

    fn run_once(&mut self) {
        let token = self.fresh("token");
        let outcome = self.call("run --rm", &["run", "--rm", "busybox", "echo", &token]);
        if let Outcome::Done(said) = outcome
            && said != token
        {
            self.report.fault(format!("run --rm echo {token} ended well and printed {said:?}"));
        }
    }

    /// The name of a container that was acknowledged and is, or is not, running.
    fn pick(&mut self, running: Running) -> Option<String> {
        let names = self.ledger.containers_where(|facts| {
            facts.presence == Presence::Present && facts.running == running
        });
        (!names.is_empty()).then(|| self.random.pick(&names).clone())
    }

    /// A refusal that contradicts an acknowledgement is a fault, unless the container's monitor
    /// was killed or stopped.
    fn contradicts(&self, name: &str, what: &str, outcome: &Outcome) {
        let Outcome::Refused(words) = outcome else { return };
        let gone = words.contains("No such container");
        let ended = words.contains("is not running");
        let facts = &self.ledger.containers[name];
        if gone || (ended && !self.report.victims().contains(&facts.id)) {
            self.report.fault(format!("{what} {name}, which was acknowledged: {words}"));
        }
    }

    fn exec(&mut self) {
        let Some(name) = self.pick(Running::Yes) else { return self.create() };
        let token = self.fresh("token");
        let outcome = self.call("exec", &["exec", &name, "echo", &token]);
        match &outcome {
            Outcome::Done(said) if *said != token => {
                self.report.fault(format!("exec {name} echo {token} printed {said:?}"));
            }
            Outcome::Done(_)
            | Outcome::Refused(_)
            | Outcome::Lost
            | Outcome::Status(_)
            | Outcome::Hung => self.contradicts(&name, "exec", &outcome),
        }
    }

    fn stop_or_start(&mut self) {
        let (operation, args, from, to): (_, &[&str], _, _) = match self.random.below(5) {
            0 => ("stop", &["stop", "-t", "3"], Running::Yes, Running::No),
            1 => ("restart", &["restart", "-t", "3"], Running::Yes, Running::Yes),
            2 => ("kill", &["kill"], Running::Yes, Running::No),
            3 => ("pause", &["pause"], Running::Yes, Running::Open),
            _ => ("start", &["start"], Running::No, Running::Yes),
        };
        let Some(name) = self.pick(from) else { return };
        let args: Vec<&str> = args.iter().copied().chain([name.as_str()]).collect();
        let outcome = self.call(operation, &args);
        self.contradicts(&name, operation, &outcome);
        let done = matches!(outcome, Outcome::Done(_));
        self.set_running(&name, if done { to } else { Running::Open });
        if operation == "pause" {
            let outcome = self.call("unpause", &["unpause", &name]);
            let done = done && matches!(outcome, Outcome::Done(_));
            self.set_running(&name, if done { Running::Yes } else { Running::Open });
        }
    }

    fn set_running(&mut self, name: &str, running: Running) {
        if let Some(facts) = self.ledger.containers.get_mut(name) {
            facts.running = running;
        }
    }

    fn rename(&mut self) {
        let Some(name) = self.pick(Running::Yes) else { return };
        let new = self.fresh("c");
        let outcome = self.call("rename", &["rename", &name, &new]);
        self.contradicts(&name, "rename", &outcome);
        let facts = self.ledger.containers[&name].clone();
        match outcome {
            Outcome::Done(_) => {
                let absent =
                    ContainerFacts { presence: Presence::Absent, ..ContainerFacts::open() };
                self.ledger.containers.insert(name, absent);
                self.ledger.containers.insert(new, facts);
            }
            Outcome::Lost | Outcome::Hung => {
                // One of the two names is there; both are removed at the end.
                self.ledger.containers.insert(name, ContainerFacts::open());
                self.ledger.containers.insert(new, ContainerFacts::open());
            }
            Outcome::Refused(_) | Outcome::Status(_) => {}
        }
    }

    fn connect_or_disconnect(&mut self) {
        let networks = named(&self.ledger.networks, Presence::Present);
        let Some(name) = self.pick(Running::Yes).filter(|_| !networks.is_empty()) else {
            return self.network();
        };
        let network = self.random.pick(&networks).clone();
        let connect = self.random.chance(60);
        let verb = if connect { "connect" } else { "disconnect" };
        let outcome = self.call(verb, &["network", verb, &network, &name]);
        let Some(facts) = self.ledger.containers.get_mut(&name) else { return };
        facts.connected.remove(&network);
        facts.disconnected.remove(&network);
        if let Outcome::Done(_) = outcome {
            let side = if connect { &mut facts.connected } else { &mut facts.disconnected };
            side.insert(network);
        }
    }

    fn update(&mut self) {
        let Some(name) = self.pick(Running::Yes) else { return };
        let mib = 64 + self.random.below(64);
        let (memory, swap) = (format!("{mib}m"), format!("{}m", 2 * mib));
        let args = ["update", "--memory", &memory, "--memory-swap", &swap, &name];
        let outcome = self.call("update", &args);
        self.contradicts(&name, "update", &outcome);
        if let Some(facts) = self.ledger.containers.get_mut(&name) {
            let done = matches!(outcome, Outcome::Done(_));
            facts.memory_bytes = done.then_some(mib << 20);
        }
    }

    fn volume(&mut self) {
        if not_absent(&self.ledger.volumes) >= THINGS_MAX {
            return self.remove_thing();
        }
        let name = self.fresh("v");
        let token = self.fresh("token");
        let outcome = self.call("volume create", &["volume", "create", &name]);
        let mut facts = ThingFacts { presence: Presence::Open, token: None };
        if let Outcome::Done(_) = outcome {
            facts.presence = Presence::Present;
            let mount = format!("{name}:/v");
            let script = format!("echo {token} > /v/token");
            let args = ["run", "--rm", "-v", &mount, "busybox", "sh", "-c", &script];
            if let Outcome::Done(_) = self.call("volume write", &args) {
                facts.token = Some(token);
            }
        }
        self.ledger.volumes.insert(name, facts);
    }

    fn network(&mut self) {
        if not_absent(&self.ledger.networks) >= THINGS_MAX {
            return self.remove_thing();
        }
        let name = self.fresh("n");
        let outcome = self.call("network create", &["network", "create", &name]);
        let presence = presence_after(&outcome);
        self.ledger.networks.insert(name, ThingFacts { presence, token: None });
    }

    fn build(&mut self) {
        if not_absent(&self.ledger.images) >= THINGS_MAX {
            return self.remove_thing();
        }
        let name = self.fresh("i");
        let token = self.fresh("token");
        let argument = format!("TOKEN={token}");
        let context = self.field.context();
        let context = context.to_string_lossy();
        let args = ["build", "-q", "-t", &name, "--build-arg", &argument, &context];
        let presence = presence_after(&self.call("build", &args));
        self.ledger.images.insert(name, ThingFacts { presence, token: Some(token) });
    }

    fn pull(&mut self) {
        let name = format!("{REGISTRY}/busybox:latest");
        let outcome = self.call("pull", &["pull", "-q", &name]);
        if let Outcome::Refused(words) = &outcome
            && !words.contains("context canceled")
        {
            self.report.fault(format!("pull of what the registry has: {words}"));
        }
        if self.random.chance(50) {
            self.call("rmi", &["rmi", &name]);
        }
    }

    /// All clients want the same names; what counts is that a name is free again afterwards.
    fn fight(&mut self) {
        let name = *self.random.pick(&SHARED_NAMES);
        match self.random.below(3) {
            0 => drop(self.call("create shared", &["create", "--name", name, "busybox", "true"])),
            1 => drop(self.call("rm shared", &["rm", "-f", name])),
            _ => {
                let other = *self.random.pick(&SHARED_NAMES);
                self.call("rename shared", &["rename", name, other]);
            }
        }
    }

    fn read(&mut self) {
        let Some(name) = self.pick(Running::Yes) else { return };
        let outcome = match self.random.below(4) {
            0 => self.call("logs", &["logs", &name]),
            1 => self.call("cp", &["cp", &format!("{name}:/etc/passwd"), "-"]),
            2 => self.call("ps", &["ps", "-a"]),
            _ => self.call("inspect", &["inspect", &name]),
        };
        self.contradicts(&name, "read", &outcome);
    }

    fn remove(&mut self) {
        let names = self.ledger.containers_where(|facts| facts.presence != Presence::Absent);
        if names.is_empty() || self.random.chance(25) {
            return self.remove_thing();
        }
        let name = self.random.pick(&names).clone();
        let outcome = self.call("rm -f", &["rm", "-f", "-v", &name]);
        let facts = self.ledger.containers.entry(name).or_insert_with(ContainerFacts::open);
        match outcome {
            Outcome::Done(_) => facts.presence = Presence::Absent,
            Outcome::Refused(_) | Outcome::Lost | Outcome::Status(_) | Outcome::Hung => {
                facts.presence = Presence::Open;
            }
        }
    }

    fn remove_thing(&mut self) {
        let ledger = &mut self.ledger;
        let (operation, verb, things) = match self.random.below(3) {
            0 => ("volume rm", "volume", &mut ledger.volumes),
            1 => ("network rm", "network", &mut ledger.networks),
            _ => ("image rm", "image", &mut ledger.images),
        };
        let names: Vec<String> = things
            .iter()
            .filter(|(_, facts)| facts.presence != Presence::Absent)
            .map(|(name, _)| name.clone())
            .collect();
        if names.is_empty() {
            std::thread::sleep(Duration::from_millis(20));
            return;
        }
        let name = self.random.pick(&names).clone();
        let before = things[&name].presence;
        let outcome = self.call(operation, &[verb, "rm", &name]);
        let presence = match outcome {
            Outcome::Done(_) => Presence::Absent,
            // In use: nothing changed.
            Outcome::Refused(_) => before,
            Outcome::Lost | Outcome::Status(_) | Outcome::Hung => Presence::Open,
        };
        let ledger = &mut self.ledger;
        for things in [&mut ledger.volumes, &mut ledger.networks, &mut ledger.images] {
            if let Some(facts) = things.get_mut(&name) {
                facts.presence = presence;
            }
        }
    }
}

/// How many may exist, and so take an address pool or a place on the disk.
fn not_absent(things: &BTreeMap<String, ThingFacts>) -> usize {
    things.values().filter(|facts| facts.presence != Presence::Absent).count()
}

fn presence_after(outcome: &Outcome) -> Presence {
    match outcome {
        Outcome::Done(_) => Presence::Present,
        Outcome::Refused(_) | Outcome::Lost | Outcome::Status(_) | Outcome::Hung => Presence::Open,
    }
}
