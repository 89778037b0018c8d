//! Runs whose peers come and go, with real processes: whatever happens to them, the bits are those of an undisturbed run, and
//! who does not fit is told why.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test that cannot go on ends there; waiting for another process takes a clock")]

mod place;

use std::process::Command;

use place::{Peer, Place, hash, wait_for};
use serde_json::Value;

/// A small workload on one thread: what is tested is not how fast it is.
const HEAT: [&str; 9] = ["shaders/physics/heat", "--shape", "96,64", "--tile", "32,32", "--executor", "cpu", "--threads", "1"];
const JOIN: [&str; 4] = ["--executor", "cpu", "--threads", "1"];
const TICKS: &str = "1500";

/// A host that computes slowly until it is told otherwise, so that there is time for what is to happen.
fn slow_host(place: &Place, more: &[&str]) -> Peer {
    let args = [&["host"], &HEAT[..], &["--ticks", TICKS, "--snapshot-every", "0.2", "--name", "host", "--throttle", "0.004"], more].concat();
    Peer::controlled(place.command(&args))
}

fn join(place: &Place, link: &str, name: &str) -> Peer {
    Peer::controlled(place.command(&[&["join", link, "--name", name], &JOIN[..]].concat()))
}

fn undisturbed(place: &Place) -> String {
    hash(place, &[&["run"], &HEAT[..], &["--ticks", TICKS, "--json"]].concat())
}

#[test]
fn joins_a_kill_a_leave_and_a_return_change_no_bit() {
    let place = Place::new();
    let mut host = slow_host(&place, &[]);
    let link = host.link();
    let ann = join(&place, &link, "ann");
    host.is_with(&["host", "ann"]);
    let mut bob = join(&place, &link, "bob");
    host.is_with(&["host", "ann", "bob"]);
    let status = place.json(&["status", &link, "--json"]);
    let members = status["members"].as_array().unwrap();
    let tiles: u64 = members.iter().map(|member| member["tiles"].as_u64().unwrap()).sum();
    assert_eq!((members.len(), tiles, &status["workload"], &status["end"]), (3, 6, &"heat".into(), &1500.into()), "{status}");
    let table = String::from_utf8(place.output(&["status", &link]).stdout).unwrap();
    assert!(table.contains("of 1500, epoch") && table.lines().count() == 5 && table.contains(" ann "), "{table}");
    // One vanishes, the others go on; one leaves in good order, and comes back.
    ann.signal("KILL");
    host.heard(|line| (line["event"] == "lost" && line["name"] == "ann").then_some(()));
    host.is_with(&["host", "bob"]);
    bob.signal("INT");
    assert_eq!(bob.code(), Some(0));
    bob.says_since(0, "left");
    host.is_with(&["host"]);
    let mut back = join(&place, &link, "back");
    host.is_with(&["host", "back"]);
    host.order("throttle 1");
    let want = undisturbed(&place);
    assert_eq!(host.state_hash(), want);
    assert_eq!(back.state_hash(), want);
}

#[test]
fn the_rest_go_on_without_their_host_can_be_joined_and_it_can_come_back() {
    let place = Place::new();
    let store = place.path("heat.run");
    let store = ["--store", store.to_str().unwrap()];
    let host = slow_host(&place, &store);
    let link = host.link();
    let [mut ann, bob] = ["ann", "bob"].map(|name| {
        let peer = join(&place, &link, name);
        host.heard(|line| (line["event"] == "joined" && line["name"] == name).then_some(()));
        peer
    });
    // Slow, so that there is still something to compute for one who comes later.
    ann.order("throttle 0.004");
    let mark = host.mark();
    wait_for(|| host.said.lock().unwrap()[mark..].iter().any(|line| line["tick"].as_u64() > Some(2)).then_some(()));
    host.signal("KILL");
    ann.is_with(&["ann", "bob"]);
    let gone = place.refused(&["status", &link]);
    assert!(gone.contains("cannot reach") && gone.trim().ends_with("Connection refused (os error 111)"), "{gone}");
    // The link of one that lives is as good as the host's was.
    let cid = join(&place, &bob.link(), "cid");
    ann.is_with(&["ann", "bob", "cid"]);
    // Its store knows who was there, so it joins them instead of going on alone from what was stored.
    drop(host);
    let mut back = slow_host(&place, &store);
    ann.is_with(&["ann", "bob", "cid", "host"]);
    back.order("throttle 1");
    ann.order("throttle 1");
    let want = undisturbed(&place);
    for mut peer in [ann, bob, cid, back] {
        assert_eq!(peer.state_hash(), want);
    }
}

#[test]
fn a_store_outlives_every_process() {
    let place = Place::new();
    let store = place.path("heat.run");
    let store = store.to_str().unwrap();
    let host = slow_host(&place, &["--store", store]);
    host.heard(|line| (line["event"] == "stored" && line["tick"].as_u64() > Some(0)).then_some(()));
    host.signal("KILL");
    drop(host);
    let other = place.refused(&["host", "shaders/physics/life", "--store", store]);
    assert!(other.contains("holds a run of heat 1.0.0") && other.contains("this is life 1.0.0"), "{other}");
    // It goes on where it was; and a polite kill loses no tick.
    let mut host = slow_host(&place, &["--store", store]);
    let first = host.heard(|line| (line["event"] == "epoch").then(|| line["tick"].as_u64().unwrap()));
    assert!(first > 0);
    host.signal("TERM");
    assert_eq!(host.code(), Some(0));
    let last = host.said.lock().unwrap().iter().filter(|line| line["event"] == "progress").filter_map(|line| line["tick"].as_u64()).max();
    let mut host = slow_host(&place, &["--store", store]);
    assert!(Some(host.heard(|line| (line["event"] == "epoch").then(|| line["tick"].as_u64().unwrap()))) >= last);
    host.order("throttle 1");
    assert_eq!(host.state_hash(), undisturbed(&place));
}

#[test]
fn a_full_disk_stops_the_storing_and_not_the_run() {
    let place = Place::new();
    let run = ["shaders/physics/heat", "--shape", "640,512", "--executor", "cpu", "--threads", "1", "--ticks", "60", "--json"];
    let host = place.command(&[&["host"], &run[..], &["--snapshot-every", "0.1", "--throttle", "0.1", "--store"]].concat());
    // No file may be longer than a snapshot and a half; what the system then says is an error of the disk like any other.
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -f 4000; trap '' XFSZ; exec \"$0\" \"$@\""]).arg(host.get_program()).args(host.get_args());
    command.arg(place.path("heat.run")).current_dir(host.get_current_dir().unwrap());
    command.envs(host.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && said.contains("not stored any more, and goes on without"), "{said}");
    assert!(said.contains(&hash(&place, &[&["run"], &run[..]].concat())), "{said}");
}

#[test]
fn who_does_not_fit_is_told_why_and_the_run_goes_on() {
    let place = Place::new();
    let mut host = slow_host(&place, &[]);
    let link = host.link();
    let refused = |place: &Place, args: &[&str], text: &str| {
        let said = place.refused(args);
        assert!(said.contains(text), "{args:?}: {said}");
    };
    // Code never travels: elsewhere the bundle has to be there already, and to be the same.
    let elsewhere = Place::new();
    refused(&elsewhere, &["join", &link], "heat 1.0.0");
    refused(&elsewhere, &["join", &link], "is not on this machine, and code never travels");
    refused(&elsewhere, &["join", &link, "--workload", "shaders/physics/life"], "is life 1.0.0");
    refused(&elsewhere, &["join", &link, "--workload", "shaders/physics/heat"], "the same version with another shape");
    let key = elsewhere.path("other.key");
    elsewhere.json(&["keygen", key.to_str().unwrap(), "--json"]);
    let public = key.with_extension("pub");
    refused(&elsewhere, &["join", &link, "--trust", public.to_str().unwrap()], "which is not the key that you trust");
    // Another's signature over the same content is not the host's.
    let bundle = elsewhere.path("heat.pcb");
    let sign =
        ["sign", "shaders/physics/heat", "--shape", "96,64", "--tile", "32,32", "--key", key.to_str().unwrap(), "-o", bundle.to_str().unwrap()];
    elsewhere.json(&[&sign[..], &["--json"]].concat());
    refused(&elsewhere, &["join", &link, "--bundle", bundle.to_str().unwrap()], "not a trusted key");
    // An older version than one that was seen, though the run itself has it.
    let folder = elsewhere.path("newer");
    std::fs::create_dir(&folder).unwrap();
    for name in ["workload.toml", "heat.wgsl"] {
        let text = std::fs::read_to_string(std::path::Path::new("shaders/physics/heat").join(name)).unwrap();
        std::fs::write(folder.join(name), text.replace("version = \"1.0.0\"", "version = \"1.2.0\"")).unwrap();
    }
    let newer = elsewhere.path("newer.pcb");
    elsewhere.json(&["sign", folder.to_str().unwrap(), "--key", key.to_str().unwrap(), "-o", newer.to_str().unwrap(), "--json"]);
    let trust = ["--trust", public.to_str().unwrap()];
    let old = Peer::controlled(place.command(&[&["host", bundle.to_str().unwrap(), "--throttle", "0.01"], &trust[..], &JOIN[..]].concat()));
    elsewhere.json(&[&["verify", newer.to_str().unwrap(), "--json"], &trust[..]].concat());
    refused(&elsewhere, &["join", &old.link(), "--bundle", bundle.to_str().unwrap()], "older than 1.2.0");
    drop(old);
    // A wrong invitation, and links that were damaged on the way.
    let mut words: Vec<&str> = link.split(',').collect();
    words[4] = "00000000000000000000000000000000";
    refused(&place, &[&["join", &words.join(",")], &JOIN[..]].concat(), "not invited to this run");
    for (cut, part) in [(8, "workload"), (60, "bundle"), (140, "key"), (170, "token"), (185, "address")] {
        let output = place.output(&["join", &link[..cut]]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && said.contains(&format!("the link's {part} is")), "{cut}: {said}");
    }
    // None of that was noticed, except by name.
    host.heard(|line| line["text"].as_str()?.contains("turned away").then_some(()));
    host.order("throttle 1");
    assert_eq!(host.state_hash(), undisturbed(&place));
    refused(&place, &[&["join", &link], &JOIN[..]].concat(), "cannot reach");
    refused(&place, &["status", &link], "cannot reach");
}

/// A run with chaos: its last line.
fn chaos(place: &Place, peers: &str, list: &str, more: &[&str]) -> Value {
    place.json(&[&["run"], &HEAT[..], &["--ticks", TICKS, "--peers", peers, "--snapshot-every", "0.3", "--json", "--chaos", list], more].concat())
}

#[test]
fn a_list_of_chaos_changes_no_bit() {
    let place = Place::new();
    let npy = place.path("t.npy");
    let export = format!("temperature={}", npy.display());
    // The parameter changes between a loss and a join, so that who comes later has to know of it.
    let changed = ["--set", "rate=0.07", "--set", "rate=0.2@300"];
    let list = "kill 2@200, join@400, freeze 1 1.5s@600, slow 3 0.5@700, leave 3@900, slow 4 1@1000";
    let report = chaos(&place, "4", list, &[&["--export", &export], &changed[..]].concat());
    let want = hash(&place, &[&["run"], &HEAT[..], &["--ticks", TICKS, "--json"], &changed[..]].concat());
    assert_eq!(report["state_hash"], want, "{report}");
    assert_ne!(want, undisturbed(&place));
    let done = report["chaos"].as_array().unwrap();
    assert!(done.len() == 6 && done.iter().all(|done| done["skipped"].is_null()), "{report}");
    assert!(report["epochs"].as_u64() > Some(3) && report["losses"].as_u64() >= Some(2), "{report}");
    assert!(report["seconds_lost"].as_f64() < Some(30.0), "{report}");
    // What was exported is the state itself.
    let import = ["--import", &export, "--ticks", "0", "--json"];
    assert_eq!(hash(&place, &[&["run"], &HEAT[..], &import[..]].concat()), report["state_hash"].as_str().unwrap());
}

/// Fields that are exchanged in a run's first tick only, reductions over all tiles, and reads of everything.
#[test]
fn every_kind_of_exchange_survives_chaos() {
    let place = Place::new();
    for workload in [
        ["shaders/worldgen/rivers", "--shape", "96,64", "--tile", "32,32"],
        ["shaders/physics/energy", "--shape", "96,64", "--tile", "32,32"],
        ["shaders/physics/nbody", "--shape", "256", "--tile", "64"],
    ] {
        let run = [&["run"], &workload[..], &["--executor", "cpu", "--threads", "1", "--ticks", "500", "--json"]].concat();
        let churned = ["--peers", "3", "--snapshot-every", "0.2", "--chaos", "kill 2@100, join@200, leave 0@350"];
        let report = place.json(&[&run[..], &churned[..]].concat());
        assert_eq!(report["state_hash"], hash(&place, &run), "{report}");
    }
}

#[test]
fn chaos_that_cannot_be_is_told() {
    let place = Place::new();
    let run = |list: &str, more: &[&str]| place.refused(&[&["run"], &HEAT[..], &["--ticks", "300", "--peers", "3", "--chaos", list], more].concat());
    assert!(run("kill 2@100, explode@200", &[]).contains("chaos `explode@200`: an item is `kill [PEER]@TICK`"));
    assert!(run("kill 3@100", &[]).contains("there is no peer 3 by then: they are 0 to 2"));
    let export = format!("temperature={}", place.path("t.npy").display());
    let lost = run("kill 0@100", &["--export", &export]);
    assert!(lost.contains("the exports are lost"), "{lost}");
}

/// Random lists, by seed; each is to give the undisturbed hash.
fn random(seeds: std::ops::Range<u64>) {
    let place = Place::new();
    let want = undisturbed(&place);
    for seed in seeds {
        let (peers, list, seed) = ((4 + seed % 5).to_string(), format!("random:{seed}"), seed.to_string());
        let report = chaos(&place, &peers, &list, &["--chaos-seed", &seed]);
        assert_eq!(report["state_hash"], want, "seed {seed}: {report}");
    }
}

#[test]
fn random_chaos_changes_no_bit() {
    random(0..2);
}

/// As many as it takes to trust it: `cargo nextest run --profile long`.
#[test]
fn long_random_chaos_changes_no_bit() {
    random(100..150);
}
