//! Tabs of a headless Chromium, driven over its debugging protocol. Included by path from the tests that need tabs.
//!
//! Invariant: what a page or a worker complains of is kept, and fails whoever asks.

#![allow(dead_code, reason = "each file uses what it needs")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test that cannot go on ends there; a browser that hangs is told by a clock")]

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine;
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use crate::place::wait_for;

const BROWSERS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome"];
/// WebGPU in software.
const GPU: [&str; 2] = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"];
const FLAGS: [&str; 12] = [
    "--headless=new",
    "--no-sandbox",
    "--remote-debugging-port=0",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--disable-background-timer-throttling",
    "--disable-renderer-backgrounding",
    "--disable-backgrounding-occluded-windows",
];

/// A browser that ends with us.
pub(crate) struct Chromium {
    child: Child,
    socket: WebSocket<TcpStream>,
    calls: u64,
    complaints: Vec<String>,
    _profile: tempfile::TempDir,
}

/// A tab of it.
#[derive(Clone, Debug)]
pub(crate) struct Tab {
    session: String,
    target: String,
}

impl Chromium {
    pub(crate) fn start() -> Chromium {
        Chromium::start_with(&GPU)
    }

    /// One that shows what WebGPU in software draws on a canvas: with its other ways of drawing in hardware's place, the browser's
    /// GPU process ends at the first frame.
    pub(crate) fn start_drawing() -> Chromium {
        Chromium::start_with(&[&GPU[..], &["--use-angle=swiftshader", "--enable-features=Vulkan", "--use-vulkan=swiftshader"]].concat())
    }

    /// One whose user lets pages keep nothing.
    pub(crate) fn start_forgetful() -> Chromium {
        let profile = tempfile::tempdir().unwrap();
        let folder = profile.path().join("Default");
        std::fs::create_dir_all(&folder).unwrap();
        // 2: block.
        let preferences = json!({ "profile": { "default_content_setting_values": { "cookies": 2 } } });
        std::fs::write(folder.join("Preferences"), preferences.to_string()).unwrap();
        Chromium::start_in(profile, &GPU)
    }

    /// One that was told to go on whatever certificate it is shown, and to which every name is this machine's.
    pub(crate) fn start_nearby() -> Chromium {
        Chromium::start_with(&[&GPU[..], &["--ignore-certificate-errors", "--host-resolver-rules=MAP *.test 127.0.0.1"]].concat())
    }

    /// One that gives pages a GPU however often it has lost one.
    pub(crate) fn start_crashing() -> Chromium {
        Chromium::start_with(&[&GPU[..], &["--disable-gpu-process-crash-limit", "--disable-domain-blocking-for-3d-apis"]].concat())
    }

    /// One that has no WebGPU.
    pub(crate) fn start_without_gpu() -> Chromium {
        Chromium::start_with(&["--disable-gpu"])
    }

    fn start_with(flags: &[&str]) -> Chromium {
        Chromium::start_in(tempfile::tempdir().unwrap(), flags)
    }

    fn start_in(profile: tempfile::TempDir, flags: &[&str]) -> Chromium {
        let folders: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH").unwrap()).collect();
        let found = BROWSERS.iter().find_map(|name| folders.iter().map(|folder| folder.join(name)).find(|file| file.exists()));
        let found = found.expect("there is no Chromium: `cargo xtask setup` installs one");
        let mut command = Command::new(found);
        command.args(FLAGS).args(flags).arg(format!("--user-data-dir={}", profile.path().display())).arg("about:blank");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let (port, path) = wait_for(|| {
            let text = std::fs::read_to_string(profile.path().join("DevToolsActivePort")).ok()?;
            let (port, path) = text.split_once('\n')?;
            Some((port.parse::<u16>().ok()?, path.trim().to_owned()))
        });
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let (socket, _) = tungstenite::client(format!("ws://127.0.0.1:{port}{path}"), stream).unwrap();
        Chromium { child, socket, calls: 0, complaints: Vec::new(), _profile: profile }
    }

    pub(crate) fn open(&mut self, url: &str) -> Tab {
        let target = self.call(None, "Target.createTarget", json!({ "url": "about:blank" }))["targetId"].as_str().unwrap().to_owned();
        let session =
            self.call(None, "Target.attachToTarget", json!({ "targetId": target, "flatten": true }))["sessionId"].as_str().unwrap().to_owned();
        let tab = Tab { session, target };
        self.listen_to(&tab.session.clone());
        self.call(Some(&tab.session), "Page.navigate", json!({ "url": url }));
        tab
    }

    /// Gives a tab another size, in pixels.
    pub(crate) fn resize(&mut self, tab: &Tab, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call(Some(&tab.session), "Emulation.setDeviceMetricsOverride", size);
    }

    /// A picture of a tab, kept among the build's files for people to look at.
    pub(crate) fn screenshot(&mut self, tab: &Tab, name: &str) -> PathBuf {
        let picture = self.call(Some(&tab.session), "Page.captureScreenshot", json!({ "format": "png" }));
        let png = base64::engine::general_purpose::STANDARD.decode(picture["data"].as_str().unwrap()).unwrap();
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::write(&path, png).unwrap();
        path
    }

    pub(crate) fn close(&mut self, tab: &Tab) {
        self.call(None, "Target.closeTarget", json!({ "targetId": tab.target }));
    }

    /// Ends the process that all tabs' GPU work is done in; the browser starts another.
    pub(crate) fn crash_gpu(&mut self) {
        self.call(None, "Browser.crashGpuProcess", json!({}));
    }

    /// Stops all that a tab does, or lets it go on, as browsers do with tabs that nobody has looked at for long.
    pub(crate) fn freeze(&mut self, tab: &Tab, is_frozen: bool) {
        let state = if is_frozen { "frozen" } else { "active" };
        self.call(Some(&tab.session), "Page.setWebLifecycleState", json!({ "state": state }));
    }

    fn listen_to(&mut self, session: &str) {
        for method in ["Runtime.enable", "Log.enable"] {
            self.call(Some(session), method, json!({}));
        }
        // Workers too.
        self.call(Some(session), "Target.setAutoAttach", json!({ "autoAttach": true, "waitForDebuggerOnStart": false, "flatten": true }));
    }

    /// Loads a tab's page again, and waits for it.
    pub(crate) fn reload(&mut self, tab: &Tab) {
        self.evaluate(tab, "window.isBefore = true").unwrap();
        self.call(Some(&tab.session), "Page.reload", json!({}));
        // Until then, whoever is asked may be gone before it answers.
        let is_here = |browser: &mut Chromium| browser.evaluate(tab, "!window.isBefore && document.readyState === 'complete'");
        wait_for(|| (is_here(self) == Ok(true.into())).then_some(()));
    }

    /// What an expression comes to, promises awaited.
    ///
    /// **Errors:** what it throws; the page goes before it answers.
    pub(crate) fn evaluate(&mut self, tab: &Tab, expression: &str) -> Result<Value, String> {
        let parameters = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let answer = self.ask(Some(&tab.session), "Runtime.evaluate", parameters)?;
        match answer.get("exceptionDetails") {
            Some(thrown) => Err(thrown["exception"]["description"].as_str().unwrap_or("?").to_owned()),
            None => Ok(answer["result"]["value"].clone()),
        }
    }

    /// What pages and workers have complained of so far.
    pub(crate) fn complaints(&mut self) -> Vec<String> {
        // Everything that was said before an answer has come before it.
        self.call(None, "Browser.getVersion", json!({}));
        self.complaints.clone()
    }

    fn call(&mut self, session: Option<&str>, method: &str, parameters: Value) -> Value {
        self.ask(session, method, parameters).unwrap_or_else(|error| panic!("{error}"))
    }

    fn ask(&mut self, session: Option<&str>, method: &str, parameters: Value) -> Result<Value, String> {
        let id = self.send(session, method, &parameters);
        loop {
            let message: Value = match self.socket.read().unwrap_or_else(|error| panic!("{method}: {error}")) {
                Message::Text(text) => serde_json::from_str(&text).unwrap(),
                _ => continue,
            };
            if message["id"] == id {
                return match message.get("error") {
                    Some(error) => Err(format!("{method}: {error}")),
                    None => Ok(message["result"].clone()),
                };
            }
            self.note(&message);
        }
    }

    fn send(&mut self, session: Option<&str>, method: &str, parameters: &Value) -> u64 {
        self.calls += 1;
        let mut message = json!({ "id": self.calls, "method": method, "params": parameters });
        if let Some(session) = session {
            message["sessionId"] = session.into();
        }
        self.socket.send(Message::Text(message.to_string().into())).unwrap();
        self.calls
    }

    fn note(&mut self, message: &Value) {
        let said = &message["params"];
        match message["method"].as_str() {
            Some("Target.attachedToTarget") => {
                let session = said["sessionId"].as_str().unwrap().to_owned();
                // Their answers are nobody's.
                self.send(Some(&session), "Runtime.enable", &json!({}));
                self.send(Some(&session), "Log.enable", &json!({}));
            }
            Some("Runtime.exceptionThrown") => self.complaints.push(said["exceptionDetails"].to_string()),
            Some("Runtime.consoleAPICalled") if said["type"] == "error" => self.complaints.push(said["args"].to_string()),
            // Browsers ask for a picture that pages do not have.
            Some("Log.entryAdded")
                if said["entry"]["level"] == "error" && !said["entry"]["url"].as_str().unwrap_or_default().ends_with("/favicon.ico") =>
            {
                self.complaints.push(said["entry"].to_string());
            }
            _ => {}
        }
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
