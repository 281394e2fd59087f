//! Output to the log and to clients, input to processes.

use std::time::Instant;

use jiff::Timestamp;
use sys::epoll::Ready;
use sys::process::Exit;

use super::attached::{Attached, Read};
use super::process::Output;
use super::{DRAIN_MAX, FINISHED_MAX, MAIN, Monitor, Phase};
use crate::logs::Stream;
use crate::wire::{DetachCause, Event, ExecState, Target};

/// Reads of one output before others get their turn.
const TURN_READS: usize = 4;

impl Monitor<'_> {
    /// An output of process `id` is ready.
    pub(super) fn output(&mut self, id: u32, stream: Stream) {
        let mut scratch = std::mem::take(&mut self.scratch);
        for _ in 0..TURN_READS {
            let Some(process) = self.processes.get_mut(&id) else { break };
            if process.is_held() {
                break;
            }
            match process.read(stream, &mut scratch) {
                Output::NothingYet => break,
                Output::End => {
                    self.close_output(id, stream);
                    break;
                }
                Output::Bytes(count) => self.pass_on(id, stream, &scratch[..count]),
            }
        }
        self.scratch = scratch;
    }

    /// Gives a piece of output to the log and to every client that wants it.
    fn pass_on(&mut self, id: u32, stream: Stream, bytes: &[u8]) {
        if id == MAIN
            && let Some(log) = &mut self.log
        {
            log.output(stream, bytes, Timestamp::now());
        }
        let mut gone = Vec::new();
        let mut slow = false;
        for (&client_id, client) in &mut self.clients {
            if client.process != id || !client.wants(stream) {
                continue;
            }
            match client.push(stream, bytes) {
                Ok(()) if client.is_slow() => slow = true,
                Ok(()) => {}
                Err(_gone) => gone.push(client_id),
            }
        }
        for client in gone {
            self.drop_client(client);
        }
        if slow {
            self.watch_process(id);
        }
    }

    /// Closes an output for good. The last one of an exec that ended is the end of its clients.
    pub(super) fn close_output(&mut self, id: u32, stream: Stream) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        if !process.open_outputs().any(|open| open == stream) {
            return;
        }
        process.close_output(stream, &self.poller);
        if id == MAIN
            && let Some(log) = &mut self.log
        {
            log.end(stream, Timestamp::now());
        }
    }

    /// Watches a process and its clients for what matters now.
    pub(super) fn watch_process(&mut self, id: u32) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let clients = || self.clients.values().filter(|client| client.process == id);
        let slow = clients().any(Attached::is_slow);
        process.watch(&self.poller, slow);
        let takes_stdin = process.takes_stdin();
        for client in self.clients.values_mut().filter(|client| client.process == id) {
            client.watch(&self.poller, takes_stdin);
        }
    }

    /// A process's stdin takes more.
    pub(super) fn stdin_ready(&mut self, id: u32) {
        if let Some(process) = self.processes.get_mut(&id) {
            process.flush(&self.poller);
        }
        self.watch_process(id);
    }

    /// A client has something to say, or takes more, or went.
    pub(super) fn client(&mut self, id: u32, news: Ready) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let process = client.process;
        // What a client typed before it hung up still counts, and may take several turns.
        if news.hung_up {
            client.hang_up();
        }
        if (news.readable || news.hung_up) && client.has_stdin() {
            self.read_client(id);
        }
        let Some(client) = self.clients.get_mut(&id) else { return };
        if news.hung_up && (client.closing || !client.has_stdin()) {
            self.drop_client(id);
            return;
        }
        if news.writable {
            if client.flush().is_err() {
                self.drop_client(id);
            } else if client.closing {
                self.progress();
                self.finish_client(id);
            }
        }
        self.watch_process(process);
    }

    fn read_client(&mut self, id: u32) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let Some(process) = self.processes.get_mut(&client.process) else { return };
        let mut last = Read::Nothing;
        for _ in 0..TURN_READS {
            if !process.takes_stdin() {
                break;
            }
            let (read, count) = client.read(&mut self.scratch);
            last = read;
            if count > 0 {
                let (read, input) = client.typed(&self.scratch[..count]);
                process.write(&input, &self.poller);
                last = read;
            }
            if last != Read::Input {
                break;
            }
        }
        self.act_on(id, last);
    }

    /// Gives a new client's first input, which the daemon had read already, to its process.
    pub(super) fn prelude(&mut self, id: u32) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let Some(process) = self.processes.get_mut(&client.process) else { return };
        let bytes = std::mem::take(&mut client.options.prelude);
        if bytes.is_empty() || !client.has_stdin() {
            return;
        }
        let (read, input) = client.typed(&bytes);
        process.write(&input, &self.poller);
        self.act_on(id, read);
    }

    fn act_on(&mut self, id: u32, read: Read) {
        match read {
            Read::Nothing | Read::Input => {}
            Read::End => self.client_stdin_ended(id),
            Read::Detach => {
                let Some(client) = self.clients.get(&id) else { return };
                let target = self.processes.get(&client.process).map(|process| process.target);
                if let Some(target) = target {
                    self.push(&Event::Detached { target, cause: DetachCause::Keys }, &[]);
                }
                self.finish_client(id);
            }
        }
    }

    /// The end of a client's input ends the process's stdin if it is the one that counts; else
    /// the client is done. Source: moby `container/stream/attach.go`.
    fn client_stdin_ended(&mut self, id: u32) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        client.end_stdin();
        let Some(process) = self.processes.get_mut(&client.process) else { return };
        if process.stdin_once && !process.tty {
            process.end_stdin(&self.poller);
        } else {
            self.finish_client(id);
        }
    }

    /// Lets a client go once it has read what it was sent.
    pub(super) fn finish_client(&mut self, id: u32) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let process = client.process;
        client.closing = true;
        let gone = client.flush().is_err();
        if (gone || !client.is_slow())
            && let Some(client) = self.clients.remove(&id)
        {
            client.close(&self.poller);
        } else if let Some(client) = self.clients.get_mut(&id) {
            client.watch(&self.poller, false);
        }
        self.watch_process(process);
    }

    /// A client hung up. If its input was the one that counts, so did the process's stdin.
    pub(super) fn drop_client(&mut self, id: u32) {
        let Some(client) = self.clients.remove(&id) else { return };
        let (process_id, had_stdin, closing) = (client.process, client.has_stdin(), client.closing);
        client.close(&self.poller);
        let Some(process) = self.processes.get_mut(&process_id) else { return };
        let target = process.target;
        if had_stdin && process.stdin_once {
            process.end_stdin(&self.poller);
        }
        self.watch_process(process_id);
        if !closing {
            self.push(&Event::Detached { target, cause: DetachCause::HungUp }, &[]);
        }
    }

    /// A client that reads on while we are leaving gets more time.
    fn progress(&mut self) {
        if let Phase::Leaving { until } = &mut self.phase {
            *until = Instant::now() + super::LINGER_MAX;
        }
    }

    /// The launcher of an exec tells its exit code, or is gone without.
    pub(super) fn exec_status(&mut self, id: u32) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let Some(code) = process.read_status(&self.poller) else { return };
        self.exec_ended(id, Exit::Code(code));
    }

    fn exec_ended(&mut self, id: u32, exit: Exit) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        process.exit = Some(exit);
        process.drain_until = Some(Instant::now() + DRAIN_MAX);
        let Target::Exec(exec) = process.target else { return };
        let pid = process.pid.as_raw_nonzero().get();
        self.remember_exec(ExecState { exec, pid, exit_code: Some(exit.code()) });
        self.watch_process(id);
        // Before its clients see the end, since they ask for the code then.
        self.push(&Event::ExecExited { exec, exit_code: exit.code() }, &[]);
    }

    /// Keeps how an exec ended, or why it did not start, for a daemon that asks later.
    pub(super) fn remember_exec(&mut self, state: ExecState) {
        if self.finished.len() >= FINISHED_MAX {
            self.finished.pop_front();
        }
        self.finished.push_back(state);
    }

    pub(super) fn exec_deadline(&self) -> Option<Instant> {
        self.processes.values().filter_map(|process| process.drain_until).min()
    }

    /// Lets go of execs that ended and whose output did too, or will not within its time.
    pub(super) fn end_execs(&mut self, now: Instant) {
        let ended: Vec<u32> = self
            .processes
            .values()
            .filter(|process| {
                process.drain_until.is_some_and(|until| !process.has_output() || now >= until)
            })
            .map(|process| process.id)
            .collect();
        for id in ended {
            let clients: Vec<u32> = self
                .clients
                .iter()
                .filter(|(_, client)| client.process == id)
                .map(|(&client, _)| client)
                .collect();
            if let Some(process) = self.processes.remove(&id) {
                process.close(&self.poller);
            }
            for client in clients {
                self.finish_client(client);
            }
        }
    }
}
