//! The command as a user runs it, in a home of its own. Included by path from the tests with real processes.

#![allow(dead_code, reason = "each file uses what it needs")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test that cannot go on ends there; waiting for another process takes a clock")]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A folder that holds all that a command keeps.
pub(crate) struct Place(tempfile::TempDir);

impl Place {
    pub(crate) fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The command, with a home of its own.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        self.command_of(Path::new(env!("CARGO_BIN_EXE_peercompute")), args)
    }

    /// A copy of the command somewhere else, with the same home.
    pub(crate) fn command_of(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).current_dir(env!("CARGO_MANIFEST_DIR"));
        command.env("XDG_CONFIG_HOME", self.path("config")).env("XDG_STATE_HOME", self.path("state"));
        command.env("XDG_CACHE_HOME", self.path("cache"));
        command
    }

    pub(crate) fn output(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// The last line of a command that succeeds, as JSON.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let output = self.output(args);
        assert!(output.status.success(), "{args:?}\n{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        serde_json::from_str(text.lines().last().unwrap()).unwrap()
    }

    /// What a command that fails says.
    pub(crate) fn refused(&self, args: &[&str]) -> String {
        let output = self.output(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}\n{}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stderr).unwrap()
    }
}

/// A peer's process, and what it has said.
pub(crate) struct Peer {
    pub(crate) child: Child,
    pub(crate) said: Arc<Mutex<Vec<Value>>>,
}

impl Peer {
    pub(crate) fn start(mut command: Command) -> Peer {
        Peer::with(command.arg("--json").stdin(Stdio::null()))
    }

    /// One that takes orders.
    pub(crate) fn controlled(mut command: Command) -> Peer {
        Peer::with(command.args(["--json", "--control"]).stdin(Stdio::piped()))
    }

    fn with(command: &mut Command) -> Peer {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let (output, heard) = (child.stdout.take().unwrap(), said.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                heard.lock().unwrap().push(serde_json::from_str(&line).unwrap());
            }
        });
        Peer { child, said }
    }

    /// What it said first that `is` says yes to; waits for it.
    pub(crate) fn heard<T>(&self, is: impl Fn(&Value) -> Option<T>) -> T {
        wait_for(|| self.said.lock().unwrap().iter().find_map(&is))
    }

    pub(crate) fn link(&self) -> String {
        self.heard(|line| Some(line["link"].as_str()?.to_owned()))
    }

    /// Waits until it is in an epoch with exactly these.
    pub(crate) fn is_with(&self, names: &[&str]) {
        self.heard(|line| {
            let members = line["members"].as_array()?;
            (members.iter().map(|member| member["name"].as_str().unwrap()).eq(names.iter().copied())).then_some(())
        });
    }

    /// Waits until it has said this since it said `mark` lines.
    pub(crate) fn says_since(&self, mark: usize, event: &str) {
        wait_for(|| self.said.lock().unwrap()[mark..].iter().any(|line| line["event"] == event).then_some(()));
    }

    pub(crate) fn mark(&self) -> usize {
        self.said.lock().unwrap().len()
    }

    pub(crate) fn order(&mut self, text: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{text}").unwrap();
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Waits for its end; its exit code.
    pub(crate) fn code(&mut self) -> Option<i32> {
        wait_for(|| self.child.try_wait().unwrap()).code()
    }

    /// Its state hash, once it is done.
    pub(crate) fn state_hash(&mut self) -> String {
        assert_eq!(self.code(), Some(0), "{:?}", self.said.lock().unwrap().last());
        self.heard(|line| Some(line["state_hash"].as_str()?.to_owned()))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The state hash of a run that succeeds.
pub(crate) fn hash(place: &Place, args: &[&str]) -> String {
    place.json(args)["state_hash"].as_str().unwrap().to_string()
}

/// Polls for something that another process does: there is no event to wait for.
pub(crate) fn wait_for<T>(ready: impl FnMut() -> Option<T>) -> T {
    wait_up_to_a_minute(ready).expect("it never happened")
}

/// [`wait_for`], for who can say more of what was seen instead.
pub(crate) fn wait_up_to_a_minute<T>(mut ready: impl FnMut() -> Option<T>) -> Option<T> {
    let begun = Instant::now();
    loop {
        if let Some(value) = ready() {
            return Some(value);
        }
        if begun.elapsed() > Duration::from_secs(60) {
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status().unwrap().success());
}
