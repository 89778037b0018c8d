//! A run of heat on the port of `serve`, and what its tabs say. Included by path from the tests of that port.

#![allow(dead_code, reason = "each file uses what it needs")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

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
