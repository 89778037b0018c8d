//! The command line program as a process that is measured, and what it says.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Instant;

use serde_json::Value;

use crate::BenchError;

/// Lines of a process that wait to be read.
const LINES_MAX: usize = 4096;

pub(crate) fn failed(cause: impl Into<String>) -> BenchError {
    BenchError::Run { cause: cause.into() }
}

/// The command line program: this one, or the one beside it.
pub(crate) fn program() -> Result<PathBuf, BenchError> {
    let own = std::env::current_exe().map_err(|cause| failed(format!("cannot find the own program: {cause}")))?;
    let name = format!("peercompute{}", std::env::consts::EXE_SUFFIX);
    let beside = own.ancestors().skip(1).take(2).map(|folder| folder.join(&name));
    beside.into_iter().find(|path| path.is_file()).ok_or_else(|| failed("there is no `peercompute` beside this program: build the workspace"))
}

/// One process of a run. Dropping it ends it.
pub(crate) struct Process {
    child: Child,
    orders: Option<ChildStdin>,
    lines: Receiver<Value>,
}

impl Process {
    /// Starts it; what it says is JSON.
    pub(crate) fn start(program: &Path, args: &[String]) -> Result<Process, BenchError> {
        let mut command = Command::new(program);
        command.args(args).arg("--json");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|cause| failed(format!("{}: {cause}", program.display())))?;
        let (lines_in, lines) = sync_channel(LINES_MAX);
        let orders = child.stdin.take();
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || {
                let lines = BufReader::new(stdout).lines().map_while(Result::ok);
                // Those of a member to whom nobody listens are dropped: it must not wait for a reader.
                lines.filter_map(|line| serde_json::from_str(&line).ok()).for_each(|line| drop(lines_in.try_send(line)));
            });
        }
        Ok(Process { child, orders, lines })
    }

    /// Ends it at once, as a crash does.
    pub(crate) fn kill(&mut self) -> Result<(), BenchError> {
        self.child.kill().map_err(|cause| failed(format!("cannot kill a member: {cause}")))
    }

    /// Stops it where it is: its sockets stay open, and say nothing.
    #[cfg(unix)]
    pub(crate) fn freeze(&mut self) -> Result<(), BenchError> {
        use rustix::process::{Pid, Signal, kill_process};
        let pid = Pid::from_raw(self.child.id() as i32).ok_or_else(|| failed("a member without a process"))?;
        kill_process(pid, Signal::STOP).map_err(|cause| failed(format!("cannot freeze a member: {cause}")))
    }

    /// Processes are frozen on Unix only.
    #[cfg(not(unix))]
    pub(crate) fn freeze(&mut self) -> Result<(), BenchError> {
        Err(failed("members are frozen on Unix only"))
    }

    /// Gives it an order, a line.
    pub(crate) fn order(&mut self, order: &str) -> Result<(), BenchError> {
        let orders = self.orders.as_mut().ok_or_else(|| failed("a member takes no orders"))?;
        writeln!(orders, "{order}").map_err(|cause| failed(format!("a member is gone: {cause}")))
    }

    /// The next line of an event, until then.
    pub(crate) fn next(&self, event: &str, until: Instant) -> Result<Value, BenchError> {
        loop {
            let line = self.line(until)?.ok_or_else(|| failed(format!("no `{event}` came in time")))?;
            if line["event"] == event {
                return Ok(line);
            }
        }
    }

    /// The next line, if one comes until then.
    #[allow(clippy::disallowed_methods, reason = "a measurement")]
    pub(crate) fn line(&self, until: Instant) -> Result<Option<Value>, BenchError> {
        match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) if line["error"].is_string() => Err(failed(format!("a member: {}", line["error"]))),
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(failed("a member ended before its time")),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
