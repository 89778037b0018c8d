//! A run of heat on the port of `serve`, and what its tabs say. Included by path from the tests of that port.

#![allow(dead_code, reason = "each file uses what it needs")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

use std::path::PathBuf;

use serde_json::Value;

use crate::place::{Peer, Place, wait_for, wait_up_to_a_minute};
use crate::tabs::{Chromium, Tab};

// So many tiles that a slow member gets some too.
pub(crate) const HEAT: [&str; 9] = ["shaders/physics/heat", "--shape", "128,128", "--tile", "16,8", "--executor", "cpu", "--threads", "1"];

pub(crate) fn serve(place: &Place, more: &[&str]) -> Peer {
    Peer::start(place.command(&[&["serve"], &HEAT[..], &["--listen", "127.0.0.1:0", "--name", "root"], more].concat()))
}

/// A link as a tab opens it: on the cpu executor, in one thread, so that bits can be compared.
pub(crate) fn on_cpu(link: &str, name: &str) -> String {
    link.replace("/#", &format!("/?executor=cpu&threads=1&name={name}#"))
}

/// A tab's status, once it is what is waited for; its page says nothing that is wrong meanwhile.
pub(crate) fn status(browser: &mut Chromium, tab: &Tab, is: impl FnMut(&Value) -> bool) -> Value {
    watched(browser, tab, |said| said.is_empty(), is)
}

/// [`status`] of a tab that comes back, and says what it waits for.
pub(crate) fn status_of_lost(browser: &mut Chromium, tab: &Tab, is: impl FnMut(&Value) -> bool) -> Value {
    watched(browser, tab, |said| said.is_empty() || said.ends_with("Trying again…"), is)
}

fn watched(browser: &mut Chromium, tab: &Tab, may_say: fn(&str) -> bool, mut is: impl FnMut(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let found = wait_up_to_a_minute(|| {
        last = browser.evaluate(tab, "window.peercompute?.status()").unwrap();
        assert_ne!(last["ended"], "failed", "{last}");
        let said = browser.evaluate(tab, "document.querySelector('.wrong')?.textContent ?? ''").unwrap();
        assert!(said.as_str().is_some_and(may_say), "{said}: {last}");
        is(&last).then(|| last.clone())
    });
    found.unwrap_or_else(|| panic!("it never happened: {last}"))
}

/// What an expression comes to in a tab, once it is something.
#[track_caller]
pub(crate) fn something(browser: &mut Chromium, tab: &Tab, expression: &str) -> Value {
    wait_for(|| Some(browser.evaluate(tab, expression).unwrap()).filter(|value| !value.is_null()))
}

/// What makes a root so slow that its share of sixteen tiles leaves some to a software adapter, whichever machine this is.
pub(crate) const SLOW_ROOT: [&str; 16] = [
    "serve",
    "shaders/physics/heat",
    "--shape",
    "256,256",
    "--tile",
    "64,64",
    "--executor",
    "cpu",
    "--threads",
    "1",
    "--listen",
    "127.0.0.1:0",
    "--throttle",
    "0.02",
    "--snapshot-every",
    "0.3",
];

pub(crate) fn slow_root(place: &Place) -> Peer {
    Peer::start(place.command(&SLOW_ROOT))
}

/// A copy of the program, and of the package that it has for browsers.
pub(crate) fn packaged(place: &Place) -> (PathBuf, PathBuf) {
    let (program, web) = (place.path("peercompute"), place.path("web"));
    std::fs::copy(env!("CARGO_BIN_EXE_peercompute"), &program).unwrap();
    copy_folder(&peercompute::serve::package_folder().unwrap(), &web);
    (program, web)
}

fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        if path.is_dir() {
            copy_folder(&path, &to.join(name));
        } else {
            std::fs::copy(&path, to.join(name)).unwrap();
        }
    }
}
