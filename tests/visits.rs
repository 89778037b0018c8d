//! Tabs of a real browser that come and go, sleep, lose their GPU or their server, and are who they were when they are back: whatever
//! happens to them, the run goes on, with the same bits.
//!
//! Needs headless Chromium and the package that `cargo xtask web` builds.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test that cannot go on ends there; waiting for another process takes a clock")]

mod place;
mod served;
mod tabs;

use std::time::{Duration, Instant};

use place::{Peer, Place, hash, wait_for};
use served::{HEAT, SLOW_ROOT, on_cpu, packaged, serve, slow_root, something, status, status_of_lost};
use tabs::{Chromium, Tab};

#[test]
fn a_tab_comes_late_is_read_and_leaves_another_is_closed_and_the_run_goes_on() {
    let place = Place::new();
    let root = serve(&place, &["--throttle", "0.1", "--snapshot-every", "0.3"]);
    let link = root.link();
    let mut browser = Chromium::start();
    let first = browser.open(&on_cpu(&link, "first"));
    status(&mut browser, &first, |status| status["tilesOwned"].as_u64() > Some(0));
    let late = browser.open(&on_cpu(&link, "late"));
    status(&mut browser, &late, |status| status["tilesOwned"].as_u64() > Some(0) && status["peers"] == 3);
    let read = "(async () => {
        const [tile] = await peercompute.tiles('temperature');
        const values = await peercompute.read('temperature', { tile });
        return [values.constructor.name, values.length, values.every(Number.isFinite)];
    })()";
    assert_eq!(browser.evaluate(&late, read).unwrap(), serde_json::json!(["Float32Array", 16 * 8, true]));
    let theirs = "(await peercompute.world()).fields[0].owners.findIndex((owner, tile, all) => owner !== all[mine])";
    for (wrong, code, words) in [
        ("'temperature', { tile: 999 }", "option", "no tile 999"),
        ("'pressure', { tile: 0 }", "option", "no buffer is called `pressure`"),
        ("'temperature', { tile: theirs }", "tile", "is another member's"),
    ] {
        let caught = format!(
            "(async () => {{
                const [mine] = await peercompute.tiles('temperature');
                const theirs = {theirs};
                return await peercompute.read({wrong}).catch((error) => [error.code, error.message]);
            }})()"
        );
        let caught = browser.evaluate(&late, &caught).unwrap();
        assert!(caught[0] == code && caught[1].as_str().unwrap().contains(words), "{wrong}: {caught}");
    }
    // One in good order, one without a word.
    browser.evaluate(&first, "peercompute.leave()").unwrap();
    status(&mut browser, &first, |status| status["ended"] == "left");
    status(&mut browser, &late, |status| status["peers"] == 2);
    browser.close(&late);
    root.heard(|line| (line["event"] == "gone" && line["name"] == "late").then_some(()));
    let until = root.heard(|line| {
        (line["event"] == "epoch" && line["members"].as_array()?.len() == 1 && line["epoch"].as_u64()? > 3).then(|| line["tick"].as_u64())?
    });
    root.heard(|line| (line["event"] == "progress" && line["tick"].as_u64()? > until).then_some(()));
    assert_eq!(browser.complaints(), [""; 0]);
}

/// Nothing else happens meanwhile: a server alone is not told by another epoch that who left is gone.
#[test]
fn a_tab_that_left_comes_back_as_who_it_was() {
    let place = Place::new();
    let root = serve(&place, &["--throttle", "0.1"]);
    let link = root.link();
    let mut browser = Chromium::start();
    let tab = browser.open(link.split('#').next().unwrap());
    let visit = format!(
        "(async () => {{
            const {{ join }} = await import('/peercompute/index.js');
            const told = [];
            let node = await join('{link}', {{ executor: 'cpu', threads: 1 }});
            for (const way of ['run', 'run', 'node']) {{
                const run = await node.run();
                let status = {{}};
                while (!(status.tilesOwned > 0)) {{
                    await new Promise((on) => setTimeout(on, 50));
                    status = await run.status();
                    if (status.ended || status.lost) return [way, status];
                }}
                told.push(status.peerId);
                await (way === 'run' ? run : node).leave();
            }}
            // One that is left before it is in is no member either.
            node = await join('{link}', {{ executor: 'cpu', threads: 1, name: 'undecided' }});
            const coming = node.run();
            await node.leave();
            told.push((await (await coming).ended).state);
            return told;
        }})()"
    );
    let told = browser.evaluate(&tab, &visit).unwrap();
    let told = told.as_array().unwrap();
    assert!(told.len() == 4 && told[..3].iter().all(|id| *id == told[0] && id.is_string()) && told[3] == "left", "{told:?}");
    std::thread::sleep(Duration::from_secs(2));
    let said = root.said.lock().unwrap();
    let last = said.iter().rev().find(|line| line["event"] == "epoch").unwrap();
    assert_eq!(last["members"].as_array().unwrap().len(), 1, "{last}");
    assert_eq!(browser.complaints(), [""; 0]);
}

/// Tabs cannot go on without their server: how many of them there are must not keep it from going on without them.
#[test]
fn a_browser_with_most_members_is_closed_and_the_run_goes_on() {
    let place = Place::new();
    let root = serve(&place, &["--throttle", "0.1", "--snapshot-every", "0.3"]);
    let link = root.link();
    let mut browser = Chromium::start();
    let tabs = ["one", "two", "three"].map(|name| browser.open(&on_cpu(&link, name)));
    for tab in &tabs {
        status(&mut browser, tab, |status| status["tilesOwned"].as_u64() > Some(0) && status["peers"] == 4);
    }
    assert_eq!(browser.complaints(), [""; 0]);
    drop(browser);
    for name in ["one", "two", "three"] {
        root.heard(|line| (line["event"] == "gone" && line["name"] == name).then_some(()));
    }
    let alone = root.heard(|line| (line["event"] == "epoch" && line["members"].as_array()?.len() == 1).then(|| line["tick"].as_u64())?);
    root.heard(|line| (line["event"] == "progress" && line["tick"].as_u64()? > alone).then_some(()));
}

#[test]
fn a_root_that_was_lost_and_comes_back_finds_its_tabs_again() {
    comes_back("KILL");
}

/// One that leaves hands everything over to a tab that nobody could find.
#[test]
fn a_root_that_left_and_comes_back_finds_its_tabs_again() {
    comes_back("INT");
}

/// A port that is free now.
fn free_port() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// A root that is the same at its next start.
fn stored_root(place: &Place, address: &str, more: &[&str]) -> Peer {
    let store = place.path("heat.run");
    let kept = ["--listen", address, "--name", "root", "--throttle", "0.1", "--snapshot-every", "0.2", "--store", store.to_str().unwrap()];
    Peer::start(place.command(&[&["serve"], &HEAT[..], &kept, more].concat()))
}

#[test]
fn a_page_of_somebodys_own_goes_on_with_a_root_that_comes_back() {
    let (place, address) = (Place::new(), free_port());
    let start = || stored_root(&place, &address, &["--page", "examples/browser-minimal"]);
    let mut root = start();
    let link = root.link();
    let mut browser = Chromium::start();
    let tab = browser.open(&link);
    let goes_on = "/^heat, tick [1-9]/.test(globalThis.said?.textContent) && field.width === 128 || null";
    something(&mut browser, &tab, goes_on);
    let stored = root.mark();
    root.says_since(stored, "stored");
    root.signal("KILL");
    root.code();
    drop(root);
    something(&mut browser, &tab, "/; trying again$/.test(said.textContent) || null");
    let _root = start();
    something(&mut browser, &tab, goes_on);
}

fn comes_back(signal: &str) {
    let (place, address) = (Place::new(), free_port());
    let start = || stored_root(&place, &address, &[]);
    let mut root = start();
    let link = root.link();
    let mut browser = Chromium::start();
    let tab = browser.open(&on_cpu(&link, "faithful"));
    let before = status(&mut browser, &tab, |status| status["tilesOwned"].as_u64() > Some(0) && status["tick"].as_u64() > Some(50));
    browser.evaluate(&tab, "peercompute.run.set('rate', 0.2)").unwrap();
    let changed = "peercompute.run.params().then(([rate]) => rate?.value > 0.15)";
    wait_for(|| (browser.evaluate(&tab, changed).unwrap() == true).then_some(()));
    let stored = root.said.lock().unwrap().len();
    root.says_since(stored, "stored");
    root.signal(signal);
    root.code();
    drop(root);
    // It may not go on alone; it says so.
    let mut lost = || browser.evaluate(&tab, "peercompute.status()").unwrap();
    wait_for(|| lost()["lost"].is_string().then_some(()));
    let back = start();
    assert_eq!(back.link(), link);
    let after =
        wait_for(|| Some(lost()).filter(|status| status.get("lost").is_none() && status["tilesOwned"].as_u64() > Some(0) && status["peers"] == 2));
    wait_for(|| Some(lost()).filter(|status| status["tick"].as_u64() > before["tick"].as_u64()));
    assert!(after.get("ended").is_none(), "{after}");
    // What a member changed is in the store as well.
    assert_eq!(browser.evaluate(&tab, changed).unwrap(), true);
}

#[test]
fn a_gpu_that_goes_away_is_replaced_and_the_tab_comes_back() {
    let place = Place::new();
    let root = slow_root(&place);
    let link = root.link();
    let mut browser = Chromium::start();
    let tab = browser.open(&link.replace("/#", "/?executor=gpu#"));
    let before = status(&mut browser, &tab, |status| status["executor"] == "gpu" && status["tilesOwned"].as_u64() > Some(0));
    browser.crash_gpu();
    // It has lost its part, and says why it does not go on.
    let lost = status_of_lost(&mut browser, &tab, |status| status["lost"].is_string());
    assert!(lost["lost"].as_str().unwrap().contains("device"), "{lost}");
    let after = status_of_lost(&mut browser, &tab, |status| {
        status.get("lost").is_none() && status["tilesOwned"].as_u64() > Some(0) && status["tick"].as_u64() > before["tick"].as_u64()
    });
    assert_eq!((&after["executor"], &after["peers"]), (&"gpu".into(), &2.into()), "{after}");
    assert_eq!(after["peerId"], before["peerId"]);
}

/// The third time, a tab that may choose computes on.
#[test]
fn a_gpu_that_goes_away_again_and_again_is_done_without() {
    let place = Place::new();
    let (program, web) = packaged(&place);
    // The adapter of this browser is software, which nobody chooses who may; here it says that it is none.
    let worker = web.join("worker.js");
    let honest = std::fs::read_to_string(&worker).unwrap();
    let disguise = "Object.defineProperty(GPUAdapter.prototype, 'info', { value: { description: 'Hardware 9000', isFallbackAdapter: false } });";
    std::fs::write(&worker, format!("{honest}\n{disguise}\n")).unwrap();
    std::fs::remove_file(web.join("worker.js.br")).unwrap();
    let root = Peer::start(place.command_of(&program, &SLOW_ROOT));
    let mut browser = Chromium::start_crashing();
    let tab = browser.open(&root.link());
    for loss in 1..=3 {
        let on = status_of_lost(&mut browser, &tab, |status| status.get("lost").is_none() && status["tilesOwned"].as_u64() > Some(0));
        assert_eq!((&on["executor"], on.get("executorNote")), (&"gpu".into(), None), "{loss}: {on}");
        browser.crash_gpu();
        status_of_lost(&mut browser, &tab, |status| status["lost"].is_string());
    }
    let on = status_of_lost(&mut browser, &tab, |status| status.get("lost").is_none() && status["tilesOwned"].as_u64() > Some(0));
    assert_eq!((&on["executor"], &on["executorNote"]), (&"cpu".into(), &"the GPU went away 3 times".into()), "{on}");
    something(&mut browser, &tab, "/went away/.test(document.getElementById('status').textContent) || null");
}

#[test]
fn a_tab_that_is_frozen_is_done_without_and_comes_back() {
    let place = Place::new();
    let root = serve(&place, &["--throttle", "0.1", "--snapshot-every", "0.3"]);
    let link = root.link();
    let mut browser = Chromium::start();
    let tabs = ["sleeper", "other"].map(|name| browser.open(&on_cpu(&link, name)));
    let [sleeper, other] = &tabs;
    for tab in &tabs {
        status(&mut browser, tab, |status| status["tilesOwned"].as_u64() > Some(0) && status["peers"] == 3);
    }
    browser.freeze(sleeper, true);
    let without = status(&mut browser, other, |status| status["peers"] == 2);
    status(&mut browser, other, |status| status["tick"].as_u64() > without["tick"].as_u64());
    browser.freeze(sleeper, false);
    status_of_lost(&mut browser, sleeper, |status| status["tilesOwned"].as_u64() > Some(0) && status["peers"] == 3);
    // The browser closes a frozen tab's connections, and says so.
    let complaints: Vec<_> = browser.complaints().into_iter().filter(|text| !text.contains("Page entered Back-Forward Cache")).collect();
    assert_eq!(complaints, [""; 0]);
}

#[test]
fn a_tab_catches_up_in_the_shadow_of_the_root() {
    let place = Place::new();
    // Four megabytes to come: the root would wait for them.
    let heat = ["shaders/physics/heat", "--shape", "1024,2048", "--tile", "128,128", "--executor", "cpu", "--threads", "1", "--ticks", "600"];
    let alone = hash(&place, &[&["run"], &heat[..], &["--json"]].concat());
    let mut root = Peer::controlled(place.command(&[&["serve"], &heat[..], &["--listen", "127.0.0.1:0", "--throttle", "0.02"]].concat()));
    let link = root.link();
    let mut browser = Chromium::start();
    let tab = browser.open(&on_cpu(&link, "newcomer"));
    let epoch_with = |root: &Peer, what: &str| {
        root.heard(|line| {
            let members = line["members"].as_array().filter(|_| line["event"] == "epoch")?;
            let newcomer = members.iter().find(|member| member["name"] == "newcomer")?;
            (newcomer[what].as_u64() > Some(0)).then(|| (line["epoch"].as_u64(), newcomer.clone()))
        })
    };
    let (first, shadow) = epoch_with(&root, "shadows");
    let (second, owner) = epoch_with(&root, "tiles");
    assert!(first < second && shadow["tiles"] == 0 && shadow["shadows"] == owner["tiles"], "{shadow} {owner}");
    root.order("throttle 1");
    assert_eq!(root.state_hash(), alone);
    let status = status(&mut browser, &tab, |status| status["ended"] == "finished");
    assert_eq!(status["stateHash"], alone, "{status}");
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn a_browser_is_the_same_peer_at_its_next_visit_one_tab_at_a_time() {
    let place = Place::new();
    let root = serve(&place, &[]);
    let link = root.link();
    let mut browser = Chromium::start();
    let joined = |browser: &mut Chromium, link: &str, name: &str| {
        let tab = browser.open(&on_cpu(link, name));
        let status = status(browser, &tab, |status| status["tilesOwned"].as_u64() > Some(0));
        (tab, status)
    };
    let (first, kept) = joined(&mut browser, &link, "first");
    let (_second, new) = joined(&mut browser, &link, "second");
    assert_eq!((&kept["identity"], &new["identity"]), (&"kept".into(), &"new".into()), "{kept} {new}");
    assert_ne!(kept["peerId"], new["peerId"]);
    assert!(new["identityNote"].as_str().unwrap().contains("another tab"), "{new}");
    // Reloading a tab is a next visit.
    browser.reload(&first);
    let again = status(&mut browser, &first, |status| status["tilesOwned"].as_u64() > Some(0));
    assert_eq!((&again["identity"], &again["peerId"]), (&"kept".into(), &kept["peerId"]), "{again}");
    assert_eq!(browser.complaints(), [""; 0]);
    // Another browser, whose user lets pages keep nothing, computes all the same.
    let mut forgetful = Chromium::start_forgetful();
    let (_third, status) = joined(&mut forgetful, &link, "third");
    assert_eq!(status["identity"], "new", "{status}");
    assert!(status["identityNote"].as_str().unwrap().contains("keeps nothing"), "{status}");
    assert_eq!(forgetful.complaints(), [""; 0]);
}

/// On both executors, as a seed says: `cargo nextest run --profile long`, and PEERCOMPUTE_SEED to see one again.
#[test]
#[allow(clippy::print_stdout, reason = "what failed once is wanted again")]
fn long_random_visits_change_no_bit() {
    let seed = std::env::var("PEERCOMPUTE_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("PEERCOMPUTE_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let place = Place::new();
    let life = ["shaders/physics/life", "--shape", "256,256", "--tile", "32,32", "--executor", "cpu", "--threads", "1", "--ticks", "40000"];
    let more = ["--listen", "127.0.0.1:0", "--name", "root", "--throttle", "0.01", "--snapshot-every", "0.5"];
    let mut root = Peer::controlled(place.command(&[&["serve"], &life[..], &more].concat()));
    let link = root.link();
    let mut browser = Chromium::start_crashing();
    let open = |browser: &mut Chromium, random: &mut fastrand::Rng| {
        let executor = ["executor=gpu", "executor=cpu&threads=1", "executor=cpu&threads=2"][random.usize(..3)];
        browser.open(&link.replace("/#", &format!("/?{executor}#")))
    };
    let mut tabs: Vec<Tab> = vec![open(&mut browser, &mut random)];
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(90) {
        let (what, at) = (random.u8(..12), random.usize(..tabs.len()));
        match what {
            0..4 if tabs.len() < 5 => tabs.push(open(&mut browser, &mut random)),
            4 if tabs.len() > 1 => browser.close(&tabs.swap_remove(at)),
            5 => browser.reload(&tabs[at]),
            6 => {
                browser.freeze(&tabs[at], true);
                std::thread::sleep(Duration::from_millis(random.u64(100..3000)));
                browser.freeze(&tabs[at], false);
            }
            7 if tabs.len() > 1 => {
                let tab = tabs.swap_remove(at);
                // One that is no member yet has nothing to leave.
                browser.evaluate(&tab, "void window.peercompute?.leave().catch(() => {})").unwrap();
                browser.close(&tab);
            }
            8 => {
                let pause = "(async (run) => { await run?.pause(); await new Promise((on) => setTimeout(on, 300)); await run?.resume(); })";
                // Whoever has just been lost wishes in vain.
                browser.evaluate(&tabs[at], &format!("void {pause}(window.peercompute?.run).catch(() => {{}})")).unwrap();
            }
            9 => browser.crash_gpu(),
            _ => {}
        }
        std::thread::sleep(Duration::from_millis(random.u64(50..2500)));
    }
    root.order("throttle 1");
    browser.evaluate(&tabs[0], "window.peercompute?.run?.resume()").unwrap();
    // Alone it is soon done.
    tabs.iter().for_each(|tab| browser.close(tab));
    let alone = hash(&place, &[&["run"], &life[..], &["--json"]].concat());
    assert_eq!(root.state_hash(), alone);
}
