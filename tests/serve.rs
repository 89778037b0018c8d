//! A root that serves browsers, with tabs of a real one: they compute what one peer computes alone, next to native peers.
//!
//! Needs headless Chromium and the package that `cargo xtask web` builds.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test that cannot go on ends there; waiting for another process takes a clock")]

mod place;
mod served;
mod tabs;

use std::time::{Duration, Instant};

use place::{Peer, Place, hash, wait_for};
use serde_json::Value;
use served::{HEAT, SLOW_ROOT, on_cpu, packaged, serve, slow_root, something, status};
use tabs::Chromium;

#[test]
fn two_tabs_and_two_processes_compute_what_one_peer_computes() {
    let place = Place::new();
    let alone = hash(&place, &[&["run"], &HEAT[..], &["--ticks", "400", "--json"]].concat());
    let mut root = serve(&place, &["--ticks", "400", "--assemble", "4"]);
    let link = root.link();
    let mut browser = Chromium::start();
    let tabs = ["one", "two"].map(|name| browser.open(&on_cpu(&link, name)));
    // Another machine: it has not the workload, and is given the bundle by the page.
    let elsewhere = Place::new();
    let mut native = Peer::start(elsewhere.command(&["join", &link, "--name", "native", "--executor", "cpu", "--threads", "1"]));
    assert_eq!(native.state_hash(), alone);
    assert_eq!(root.state_hash(), alone);
    let mut identities = Vec::new();
    for tab in &tabs {
        let status = status(&mut browser, tab, |status| status["ended"] == "finished");
        assert_eq!(status["stateHash"], alone, "{status}");
        assert_eq!((&status["workload"], &status["peers"], &status["tick"]), (&"heat".into(), &4.into(), &400.into()));
        assert_eq!((&status["executor"], &status["adapter"]), (&"cpu".into(), &"1 thread".into()));
        assert!(status["tilesOwned"].as_u64().unwrap() > 0 && status["elementsPerSecond"].is_number(), "{status}");
        identities.push(status["peerId"].clone());
    }
    assert_ne!(identities[0], identities[1]);
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn a_kept_bundle_that_was_damaged_is_fetched_again() {
    let place = Place::new();
    let root = serve(&place, &["--throttle", "0.1"]);
    let link = root.link();
    let elsewhere = Place::new();
    let join = || {
        let native = Peer::start(elsewhere.command(&["join", &link, "--name", "native", "--executor", "cpu", "--threads", "1"]));
        native.heard(|line| (line["event"] == "epoch").then_some(()));
    };
    join();
    let kept: Vec<_> = std::fs::read_dir(elsewhere.path("cache/peercompute/bundles")).unwrap().map(|file| file.unwrap().path()).collect();
    let [kept] = &kept[..] else { panic!("{kept:?}") };
    let good = std::fs::read(kept).unwrap();
    for damaged in [Vec::new(), b"PCBUNDLE".to_vec(), good[..good.len() - 1].to_vec()] {
        std::fs::write(kept, damaged).unwrap();
        join();
        assert!(std::fs::read(kept).unwrap() == good);
    }
}

#[test]
fn a_page_shows_the_whole_world_and_who_computes_what() {
    let place = Place::new();
    let root = serve(&place, &["--throttle", "0.2", "--snapshot-every", "0.3"]);
    let link = root.link();
    let mut browser = Chromium::start();
    let tab = browser.open(&on_cpu(&link, "seer"));
    status(&mut browser, &tab, |status| status["tilesOwned"].as_u64() > Some(0));
    // What others compute is seen with their next snapshot: every pixel is there, and not all of one colour.
    let drawn = "(() => {
        const canvas = document.getElementById('field');
        if (document.getElementById('world').hidden) return {};
        const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        const pixels = new Uint32Array(data.buffer);
        return { isOpaque: data.every((v, i) => i % 4 < 3 || v === 255), colours: new Set(pixels).size };
    })()";
    let seen = wait_for(|| {
        let seen = browser.evaluate(&tab, drawn).unwrap();
        (seen["isOpaque"] == true).then_some(seen)
    });
    assert!(seen["colours"].as_u64() > Some(20), "{seen}");
    let world = "peercompute.world().then(({ members, fields }) => ({ members, names: fields.map((f) => f.name), owners: [...fields[0].owners] }))";
    let world = browser.evaluate(&tab, world).unwrap();
    assert_eq!(world["names"], serde_json::json!(["temperature"]));
    let members = world["members"].as_array().unwrap();
    let tiles = |me: bool| members.iter().filter(|member| member["isMe"] == me).map(|member| member["tiles"].as_u64().unwrap()).sum::<u64>();
    assert!(tiles(true) > 0 && tiles(true) + tiles(false) == world["owners"].as_array().unwrap().len() as u64, "{world}");
    let error = browser.evaluate(&tab, "peercompute.frame('pressure')").unwrap_err();
    assert!(error.contains("no buffer is called `pressure`"), "{error}");
    let picture = browser.screenshot(&tab, "page.png");
    assert!(std::fs::metadata(picture).unwrap().len() > 10_000);
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn a_page_says_what_is_wrong_with_its_link() {
    let place = Place::new();
    let root = serve(&place, &[]);
    let link = root.link();
    let mut browser = Chromium::start();
    let mut check = |url: &str, words: &str| {
        let tab = browser.open(url);
        let said = wait_for(|| {
            let said = browser.evaluate(&tab, "document.querySelector('.wrong')?.textContent").unwrap();
            said.as_str().map(str::to_owned)
        });
        assert!(said.contains(words), "{url}: {said}");
        browser.close(&tab);
    };
    let (page, word) = link.split_once('#').unwrap();
    let parts: Vec<&str> = word.split(',').collect();
    check(page, "only half of the invitation");
    let other = |at: usize, with: &str| {
        let mut parts = parts.clone();
        parts[at] = with;
        on_cpu(&format!("{page}#{}", parts.join(",")), "guest")
    };
    check(&other(2, &"0".repeat(64)), "no bundle for this link");
    check(&other(3, &"11".repeat(32)), "not a trusted key");
    check(&other(4, &"0".repeat(32)), "not invited");
    check(&other(5, "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"), "no server that browsers can reach");
}

#[test]
fn several_workloads_on_one_port_rest_until_somebody_comes_and_a_page_picks() {
    let place = Place::new();
    let root = ["serve", "life", "heat", "--listen", "127.0.0.1:0", "--name", "root", "--executor", "cpu", "--threads", "1", "--throttle", "0.2"];
    let root = Peer::start(place.command(&root));
    let links = root.heard(|line| {
        let runs = line["runs"].as_array()?;
        Some(runs.iter().map(|run| (run["name"].as_str().unwrap().to_owned(), run["link"].as_str().unwrap().to_owned())).collect::<Vec<_>>())
    });
    assert_eq!([&links[0].0, &links[1].0], ["life", "heat"]);
    assert_eq!(links[0].1, root.link());
    let mut browser = Chromium::start();
    let tab = browser.open(&on_cpu(&links[0].1, "chooser"));
    status(&mut browser, &tab, |status| status["workload"] == "life" && status["tilesOwned"].as_u64() > Some(0));
    let entered = |of: &str, members: usize| {
        root.heard(|line| {
            (line["of"] == of && line["event"] == "epoch" && line["members"].as_array()?.len() == members).then(|| line["tick"].as_u64())?
        })
    };
    // Nothing had been computed before somebody came.
    assert_eq!(entered("life", 2), 0);
    browser.evaluate(&tab, "(runs.value = 'heat', runs.onchange())").unwrap();
    status(&mut browser, &tab, |status| status["workload"] == "heat" && status["tilesOwned"].as_u64() > Some(0));
    assert_eq!(entered("heat", 2), 0);
    // A native peer by the second run's link, without having the workload.
    let elsewhere = Place::new();
    let _native = Peer::start(elsewhere.command(&["join", &links[1].1, "--name", "native", "--executor", "cpu", "--threads", "1"]));
    status(&mut browser, &tab, |status| status["peers"] == 3 && status["workload"] == "heat");
    assert_eq!(browser.complaints(), [""; 0]);
    let refused = place.refused(&["serve", "life", "heat", "--tile", "64,64"]);
    assert!(refused.contains("`--tile` is for one workload"), "{refused}");
    let refused = place.refused(&["serve", "life", "shaders/physics/life"]);
    assert!(refused.contains("two workloads are called `life`"), "{refused}");
}

#[test]
fn a_page_of_somebodys_own_shows_a_field_and_is_told_what_is_wrong_by_a_code() {
    let place = Place::new();
    let page = ["--page", "examples/browser-minimal", "--throttle", "0.2", "--snapshot-every", "0.3", "--open"];
    let root = serve(&place, &page);
    let link = root.link();
    let mut browser = Chromium::start();
    let tab = browser.open(&link);
    something(&mut browser, &tab, "/^heat, tick [1-9]/.test(globalThis.said?.textContent) && field.width === 128 || null");
    let drawn = "new Set(new Uint32Array(field.getContext('2d').getImageData(0, 0, 128, 128).data.buffer)).size > 20 || null";
    something(&mut browser, &tab, drawn);
    let (base, word) = link.split_once('#').unwrap();
    let key = word.split(',').nth(3).unwrap();
    // Who knows the key of a server that invites everybody needs nothing else.
    let joined = |expression: &str| {
        format!(
            "(async () => {{
                const {{ join, PeerComputeError }} = await import('/peercompute/index.js');
                const ended = async (node) => {{
                    const {{ error, code }} = await (await node.run()).ended;
                    throw new PeerComputeError(error, code);
                }};
                {expression}
            }})()"
        )
    };
    let looking_on = joined(&format!(
        "const node = await join('{base}', {{ key: '{key}', executor: 'cpu', threads: 1 }});
         const run = await node.run('heat', {{ tiles: 'none' }});
         const tick = await new Promise((resolve) => run.onTick((tick) => tick > 0 && resolve(tick)));
         const status = await run.status();
         await node.leave();
         return [tick > 0, status.tilesOwned, status.peers, (await run.ended).state, node.runs];"
    ));
    let runs = serde_json::json!([{ "name": "heat", "version": "1.0.0" }]);
    assert_eq!(browser.evaluate(&tab, &looking_on).unwrap(), serde_json::json!([true, 0, 3, "left", runs]));
    let other = "11".repeat(32);
    let twice = "const node = await join(location.href, { executor: 'cpu', threads: 1 }); await Promise.all([node.run('heat'), node.run('heat')]);";
    for (wrong, code, words) in [
        ("await join('nowhere')".to_owned(), "link", "not the address of a server"),
        (format!("await join('{base}#pc1,heat@1.0.0')"), "link", "cut"),
        (format!("await join('{base}')"), "key", "no key says"),
        (format!("await join('{base}', {{ key: '{other}' }})"), "key", "nothing at"),
        ("await join('http://127.0.0.1:1/', { key: 'x' })".to_owned(), "unreachable", "not reached"),
        ("await join(location.href.replace('@1.0.0', '@2.0.0'))".to_owned(), "link", "heat 2.0.0 is heat 1.0.0"),
        ("await (await join(location.href.slice(0, -3), { executor: 'cpu', threads: 1 })).run()".to_owned(), "link", "is not an address"),
        ("await join(location.href, { threads: 0 })".to_owned(), "option", "from 1 to 256, not 0"),
        ("await join(location.href, { threads: 'all' })".to_owned(), "option", r#"not "all""#),
        ("await join(location.href, { token: 'come in' })".to_owned(), "option", "32 hexadecimal digits"),
        ("await join(location.href, null)".to_owned(), "option", "an object"),
        ("await join(location.href.replace('@1.0.0', ''))".to_owned(), "link", "cut"),
        ("await join(Object.create(null))".to_owned(), "link", "a text"),
        (format!("await ended(await join(location.href, {{ token: '{}', executor: 'cpu', threads: 1 }}))", "1".repeat(32)), "refused", "not invited"),
        ("await (await join(location.href)).run('life')".to_owned(), "run", "there are heat"),
        ("await (await join(location.href)).run('heat', { tiles: 'all' })".to_owned(), "option", "auto"),
        ("await (await join(location.href, { identity: 'another' })).run()".to_owned(), "option", "kept"),
        ("await (await join(location.href, { executor: 'Nonesuch 9000' })).run()".to_owned(), "executor", "Nonesuch"),
        (twice.to_owned(), "run", "already"),
    ] {
        let caught = joined(&format!("try {{ {wrong} }} catch (error) {{ return [error.name, error.code, error.message]; }}"));
        let caught = browser.evaluate(&tab, &caught).unwrap();
        assert_eq!((&caught[0], &caught[1]), (&"PeerComputeError".into(), &code.into()), "{wrong}: {caught}");
        assert!(caught[2].as_str().unwrap().contains(words), "{wrong}: {caught}");
    }
    // What a run is asked for is looked at before it is asked.
    let wrongs = joined(
        "const run = await (await join(location.href, { executor: 'cpu', threads: 1, identity: 'new' })).run();
         while ((await run.status()).epoch === 0) await new Promise((on) => setTimeout(on, 50));
         const [none, canvas] = [Object.create(null), document.createElement('canvas')];
         canvas.getContext('2d');
         const tried = [
           () => run.tiles(), () => run.tiles(5), () => run.tiles(Symbol()), () => run.read(), () => run.read('temperature'),
           () => run.read('temperature', { tile: -1 }), () => run.read('temperature', { tile: '1' }), () => run.read('temperature', { tile: 1.5 }),
           () => run.read('temperature', { tile: 2 ** 32 }), () => run.read('temperature', { tile: 1n }), () => run.frame({}), () => run.frame('temperature', NaN),
           () => run.set(), () => run.set('rate', none), () => run.set('rate', '0.1\\nx = 3'), () => run.set('rate', Infinity), () => run.set('rate', 1e39),
           () => run.set('rate', [[[1]]]), () => run.set('pace', 1), () => run.draw(), () => run.draw(document.body, 'temperature'), () => run.draw(canvas, 'temperature'),
           async () => run.onTick(null),
         ];
         const codes = [];
         for (const wrong of tried) codes.push(await wrong().then(() => `${wrong} resolves`, ({ name, code }) => (name === 'PeerComputeError' && code === 'option' ? [] : `${wrong}: ${name} ${code}`)));
         let heard = 0;
         run.onTick(() => { throw new Error('a listener of somebody\\'s'); });
         run.onTick(() => heard++);
         while (heard < 3) await new Promise((on) => setTimeout(on, 50));
         await run.leave();
         for (const late of [() => run.set('rate', 0.1), () => run.pause(), () => run.tiles('temperature'), () => run.draw(document.createElement('canvas'), 'temperature')])
           codes.push(await late().then(() => `${late} resolves`, ({ code }) => (code === 'left' ? [] : `${late}: ${code}`)));
         return codes.flat();",
    );
    assert_eq!(browser.evaluate(&tab, &wrongs).unwrap(), serde_json::json!([]));
    let empty = place.path("empty");
    std::fs::create_dir(&empty).unwrap();
    assert!(place.refused(&["serve", "life", "--page", empty.to_str().unwrap()]).contains("has no index.html"));
}

#[test]
fn a_tab_pauses_a_run_and_changes_a_parameter_for_all_from_one_tick_on() {
    let place = Place::new();
    let mut root = serve(&place, &["--ticks", "600", "--throttle", "0.05", "--snapshot-every", "0.3"]);
    let link = root.link();
    let mut browser = Chromium::start();
    let tab = browser.open(&on_cpu(&link, "tab"));
    status(&mut browser, &tab, |status| status["tilesOwned"].as_u64() > Some(0));
    let wrong = "peercompute.run.set('rate', 'fast').catch((error) => [error.code, error.message])";
    let said = browser.evaluate(&tab, wrong).unwrap();
    assert!(said[0] == "option" && said[1].as_str().unwrap().contains("rate"), "{said}");
    // By what a person does.
    something(&mut browser, &tab, "(params.elements.rate && !pause.hidden) || null");
    browser.evaluate(&tab, "pause.click()").unwrap();
    let paused = status(&mut browser, &tab, |status| status["isPaused"] == true);
    std::thread::sleep(std::time::Duration::from_millis(500));
    let tick = status(&mut browser, &tab, |_| true)["tick"].clone();
    assert_eq!(paused["tick"], tick);
    // A member that comes meanwhile is let in.
    let elsewhere = Place::new();
    let _native = Peer::start(elsewhere.command(&["join", &link, "--name", "native", "--executor", "cpu", "--threads", "1"]));
    status(&mut browser, &tab, |status| status["peers"] == 3);
    browser.evaluate(&tab, "(params.elements.rate.value = '0.2', params.elements.rate.onchange())").unwrap();
    something(&mut browser, &tab, "peercompute.run.params().then(([rate]) => Math.fround(0.2) === rate.value || null)");
    browser.evaluate(&tab, "peercompute.run.resume()").unwrap();
    status(&mut browser, &tab, |status| status["isPaused"] == false && status["tick"].as_u64() > tick.as_u64());
    let together = root.state_hash();
    let set = format!("rate=0.2@{tick}");
    assert_eq!(together, hash(&place, &[&["run"], &HEAT[..], &["--ticks", "600", "--set", &set, "--json"]].concat()));
    assert_ne!(together, hash(&place, &[&["run"], &HEAT[..], &["--ticks", "600", "--json"]].concat()));
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn a_page_draws_straight_from_the_gpus_buffers() {
    let place = Place::new();
    let root = slow_root(&place);
    let link = root.link();
    let mut browser = Chromium::start_drawing();
    let tab = browser.open(&link.replace("/#", "/?executor=gpu&draw=gpu#"));
    status(&mut browser, &tab, |status| status["executor"] == "gpu" && status["tilesOwned"].as_u64() > Some(0));
    // A page cannot read such a canvas; what a person sees in its place can be counted.
    let place_of =
        "(() => { const { x, y, width, height } = document.getElementById('field').getBoundingClientRect(); return [x, y, width, height]; })()";
    let colours = |browser: &mut Chromium, at_least: usize| {
        wait_for(|| {
            let [x, y, width, height] = serde_json::from_value::<[f64; 4]>(browser.evaluate(&tab, place_of).unwrap()).unwrap().map(|it| it as u32);
            let picture = image::open(browser.screenshot(&tab, "page-gpu.png")).unwrap().to_rgba8();
            // Without the frames of owners.
            let inset = 40.min(width / 4).min(height / 4);
            let seen = image::imageops::crop_imm(&picture, x + inset, y + inset, width - 2 * inset, height - 2 * inset).to_image();
            let colours = seen.pixels().collect::<std::collections::HashSet<_>>().len();
            // A canvas has its size with its first frame.
            (colours >= at_least && width == height).then_some(colours)
        })
    };
    let flat = colours(&mut browser, 100);
    // Light makes more colours of it.
    browser.evaluate(&tab, "relief.click()").unwrap();
    colours(&mut browser, flat + flat / 2);
    let drawn = "peercompute.run.draw(new OffscreenCanvas(1, 1), 'pressure').catch((error) => [error.code, error.message])";
    let refused = browser.evaluate(&tab, drawn).unwrap();
    assert!(refused[0] == "option" && refused[1].as_str().unwrap().contains("no buffer is called `pressure`"), "{refused}");
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn a_tab_with_webgpu_does_without_what_only_the_cpu_executor_needs() {
    let place = Place::new();
    // A program whose package lacks it.
    let (program, web) = packaged(&place);
    let rest = "peercompute_cpu.wasm";
    let kept = std::fs::read(web.join(rest)).unwrap();
    std::fs::remove_file(web.join(rest)).unwrap();
    let start = || Peer::start(place.command_of(&program, &SLOW_ROOT));
    let root = start();
    let link = root.link();
    let mut browser = Chromium::start();
    let tab = browser.open(&link.replace("/#", "/?executor=gpu#"));
    let there = status(&mut browser, &tab, |status| status["executor"] == "gpu" && status["tilesOwned"].as_u64() > Some(0));
    let on = |status: &Value| status["tick"].as_u64() > there["tick"].as_u64().map(|tick| tick + 20);
    status(&mut browser, &tab, on);
    let seen = "(async () => [await peercompute.tiles('temperature').then((tiles) => peercompute.read('temperature', { tile: tiles[0] })).then((it) => it.length)])()";
    assert_eq!(browser.evaluate(&tab, seen).unwrap(), serde_json::json!([64 * 64]));
    assert_eq!(browser.complaints(), [""; 0]);
    // One that wants the other executor is told, and has it as soon as it is there.
    let other = browser.open(&link.replace("/#", "/?executor=cpu&threads=1#"));
    something(&mut browser, &other, "/the cpu executor cannot be loaded: .*404/.test(document.querySelector('.wrong')?.textContent) || null");
    let app = browser.evaluate(&other, "document.querySelector('script').src").unwrap();
    let join = format!(
        "(async () => {{
            const {{ join }} = await import(new URL('index.js', '{}'));
            const node = await join(location.href, {{ executor: 'cpu', threads: 1 }});
            try {{ await node.run('heat'); }} catch (error) {{ return [error.code, error.message]; }}
        }})()",
        app.as_str().unwrap()
    );
    let refused = browser.evaluate(&other, &join).unwrap();
    assert!(refused[0] == "executor", "{refused}");
    let words = refused[1].as_str().unwrap();
    assert!(words.contains("the cpu executor cannot be loaded") && words.contains("404"), "{words}");
    drop((root, browser));
    std::fs::write(web.join(rest), kept).unwrap();
    let root = start();
    let mut browser = Chromium::start();
    let tab = browser.open(&root.link().replace("/#", "/?executor=cpu&threads=1#"));
    status(&mut browser, &tab, |status| status["executor"] == "cpu" && status["tilesOwned"].as_u64() > Some(0));
}

/// What a page does while its worker computes: the browser names each task of the page's thread that took 50 ms or more.
#[test]
#[allow(clippy::print_stdout, reason = "what was measured is worth a look")]
fn a_page_answers_while_its_worker_computes() {
    for executor in ["gpu", "cpu"] {
        let place = Place::new();
        let root = slow_root(&place);
        let mut browser = Chromium::start();
        let tab = browser.open(&root.link().replace("/#", &format!("/?executor={executor}#")));
        let begun = status(&mut browser, &tab, |status| status["executor"] == executor && status["tilesOwned"].as_u64() > Some(0));
        let watched =
            "new PerformanceObserver((seen) => tasks.push(...seen.getEntries().map(({ duration }) => duration))).observe({ type: 'longtask' })";
        browser.evaluate(&tab, &format!("globalThis.tasks = []; {watched}")).unwrap();
        std::thread::sleep(Duration::from_secs(5));
        let ended = status(&mut browser, &tab, |_| true);
        assert!(ended["tick"].as_u64() > begun["tick"].as_u64() && ended["tilesOwned"].as_u64() > Some(0), "{begun} {ended}");
        let tasks: Vec<f64> = serde_json::from_value(browser.evaluate(&tab, "tasks").unwrap()).unwrap();
        assert!(tasks.iter().all(|task| *task <= 200.0), "{executor}: {tasks:?} ms");
        // One that takes so long is seen.
        browser.evaluate(&tab, "setTimeout(() => { const end = performance.now() + 201; while (performance.now() < end); })").unwrap();
        something(&mut browser, &tab, "tasks.some((task) => task > 200) || null");
        println!("{executor}: tasks of 50 ms and more, in 5 s: {tasks:?} ms");
        assert_eq!(browser.complaints(), [""; 0]);
    }
}

/// A workload whose ticks take seconds, in workgroups of some tens of milliseconds each.
fn toilsome(place: &Place) -> String {
    let toml = r#"
        name = "toilsome"
        version = "1.0.0"
        class = "exact"
        grid = { shape = [64, 64], tile = [16, 16] }
        [buffers.v]
        element = "u32"
        [[passes]]
        kernel = "toilsome.wgsl"
        entry = "toil"
        reads = ["v"]
        writes = ["v"]
    "#;
    let wgsl = "var<storage, read> v: array<u32>;
        var<storage, read_write> v_next: array<u32>;
        @compute @workgroup_size(8, 8) fn toil(@builtin(global_invocation_id) id: vec3<u32>) {
            let c = cell(id);
            if (!c.inside) { return; }
            var x = v[c.index] + c.coord.x;
            for (var i = 0u; i < 3000000u; i++) { x = x * 747796405u + 2891336453u; }
            v_next[c.index] = x;
        }";
    let folder = place.path("toilsome");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("workload.toml"), toml).unwrap();
    std::fs::write(folder.join("toilsome.wgsl"), wgsl).unwrap();
    folder.to_str().unwrap().to_owned()
}

#[test]
fn a_tab_whose_ticks_take_seconds_is_heard_all_the_while() {
    for threads in [1, 2] {
        let place = Place::new();
        let root = Peer::start(place.command(&[
            "serve",
            &toilsome(&place),
            "--executor",
            "cpu",
            "--threads",
            "1",
            "--listen",
            "127.0.0.1:0",
            "--snapshot-every",
            "0.3",
        ]));
        let link = root.link().replace("/#", &format!("/?executor=cpu&threads={threads}#"));
        let mut browser = Chromium::start();
        let tab = browser.open(&link);
        let begun = status(&mut browser, &tab, |status| status["tilesOwned"].as_u64() > Some(0));
        let first = begun["tick"].as_u64().unwrap();
        let since = Instant::now();
        let last = status(&mut browser, &tab, |status| {
            assert_eq!(status["peers"], 2, "{status}");
            status["tick"].as_u64() > Some(first + 1)
        });
        let per_tick = since.elapsed() / (last["tick"].as_u64().unwrap() - first) as u32;
        let mut slowest = Duration::ZERO;
        for _ in 0..20 {
            let asked = Instant::now();
            browser.evaluate(&tab, "peercompute.status()").unwrap();
            slowest = slowest.max(asked.elapsed());
            std::thread::sleep(Duration::from_millis(100));
        }
        // With a pass in one go it would be a tick.
        assert!(slowest < per_tick / 2, "{slowest:?} of {per_tick:?}: {last}");
        let said = root.said.lock().unwrap();
        assert!(!said.iter().any(|line| line["event"] == "gone"), "{said:?}");
        assert_eq!(browser.complaints(), [""; 0]);
    }
}

#[test]
fn runs_that_begin_at_once_are_of_one_peer() {
    let place = Place::new();
    let both = ["serve", "shaders/physics/heat", "shaders/physics/life", "--executor", "cpu", "--threads", "1", "--listen", "127.0.0.1:0"];
    let root = Peer::start(place.command(&both));
    let link = root.link();
    let mut browser = Chromium::start();
    // Both load at once; on a GPU into one device.
    for executor in ["cpu", "gpu"] {
        // A page that takes part in nothing by itself.
        let tab = browser.open(link.split('#').next().unwrap());
        let begun = format!(
            "(async () => {{
                const {{ join }} = await import('/peercompute/index.js');
                const node = await join('{link}', {{ executor: '{executor}', threads: 1 }});
                const runs = await Promise.all(['heat', 'life'].map((name) => node.run(name)));
                const told = (await Promise.all(runs.map((run) => run.status()))).map((status) => [status.identity, status.peerId]);
                await node.leave();
                return told;
            }})()"
        );
        let begun = browser.evaluate(&tab, &begun).unwrap();
        assert_eq!((&begun[0][0], &begun[0]), (&"kept".into(), &begun[1]), "{executor}: {begun}");
        browser.close(&tab);
    }
}

#[test]
fn of_a_bundle_that_was_changed_nothing_is_compiled() {
    let place = Place::new();
    let root = serve(&place, &[]);
    let link = root.link();
    let parts: Vec<&str> = link.split(',').collect();
    let mut browser = Chromium::start();
    let tab = browser.open(link.split('#').next().unwrap());
    let (hash, key, other) = (parts[2], parts[3], "11".repeat(32));
    let tried = format!(
        "(async () => {{
            const {{ default: init, Executor, verifyBundle }} = await import('/peercompute/peercompute.js');
            await init();
            let compiled = 0;
            for (const [of, name] of [[GPUDevice.prototype, 'createShaderModule'], [WebAssembly, 'compile'], [WebAssembly, 'Module']]) {{
                const before = of[name];
                of[name] = function (...args) {{ compiled++; return new.target ? new before(...args) : before.apply(this, args); }};
            }}
            const bundle = new Uint8Array(await (await fetch('/bundles/{hash}.pcb')).arrayBuffer());
            const codes = new Set();
            const refuse = (bytes, key) => {{ try {{ verifyBundle(bytes, key); codes.add('none'); }} catch (error) {{ codes.add(error.code); }} }};
            const executors = [await Executor.open('gpu'), await Executor.open('cpu', undefined, 1)];
            const loads = [];
            const load = (bytes, key) => Promise.all(executors.map((it) => it.load(bytes, key).then(() => loads.push('loaded'), () => loads.push('refused'))));
            for (const at of [0, 9, 40, 120, bundle.length >> 1, bundle.length - 1]) {{
                const changed = bundle.slice();
                changed[at] ^= 1;
                refuse(changed, '{key}');
                await load(changed, 'peercompute-public-1:{key}');
            }}
            const cut = bundle.slice(0, -1);
            refuse(cut, '{key}');
            refuse(bundle, '{other}');
            await load(bundle, 'peercompute-public-1:{other}');
            const bad = compiled;
            const refused = new Set(loads.splice(0));
            refuse(bundle, '{key}');
            // The same counter sees what is compiled of the bundle as it is, on either executor.
            await load(bundle, 'peercompute-public-1:{key}');
            return [bad, [...codes].sort(), [...refused], loads, compiled > 1];
        }})()"
    );
    let found = browser.evaluate(&tab, &tried).unwrap();
    assert_eq!(found, serde_json::json!([0, ["bundle", "key", "none"], ["refused"], ["loaded", "loaded"], true]));
}
