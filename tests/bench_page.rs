//! The benchmark page of a root, in a real browser: it measures what it says it measures, and refuses where it cannot.
//!
//! Needs headless Chromium and the package that `cargo xtask web` builds. Sizes are tiny: speeds are not judged.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test that cannot go on ends there; waiting for another process takes a clock")]

mod place;
mod tabs;

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use place::{Place, wait_for};
use serde_json::{Value, json};
use tabs::{Chromium, Tab};

/// A root, and its address.
struct Root {
    child: Child,
    url: String,
}

impl Root {
    fn start(place: &Place) -> Root {
        let heat = ["serve", "shaders/physics/heat", "--shape", "64,64", "--executor", "cpu", "--threads", "1", "--throttle", "0.05"];
        let mut command = place.command(&[&heat[..], &["--listen", "127.0.0.1:0", "--json"]].concat());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let link = lines.find_map(|line| Some(serde_json::from_str::<Value>(&line).unwrap()["link"].as_str()?.to_owned())).unwrap();
        // Who is not listened to stops.
        std::thread::spawn(move || lines.for_each(drop));
        Root { child, url: link.split('#').next().unwrap().to_owned() }
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The report, once there is one.
fn report(browser: &mut Chromium, tab: &Tab) -> Value {
    wait_for(|| {
        let report = browser.evaluate(tab, "window.peercomputeBench?.report").unwrap();
        report.is_object().then_some(report)
    })
}

#[test]
fn the_button_measures_every_workload_beside_its_twin() {
    let place = Place::new();
    let root = Root::start(&place);
    let mut browser = Chromium::start();
    let tab = browser.open(&format!("{}bench?effort=tiny", root.url));
    wait_for(|| (browser.evaluate(&tab, "document.getElementById('start')?.disabled").unwrap() == false).then_some(()));
    let adapter = browser.evaluate(&tab, "document.getElementById('adapter').textContent").unwrap();
    assert!(adapter.as_str().unwrap().contains("a software adapter, only ratios mean anything"), "{adapter}");
    // While the worker measures, the page's thread answers: the longest time between two of its ticks is told.
    let pressed = "(() => {
        let last = performance.now();
        window.longest = 0;
        setInterval(() => { longest = Math.max(longest, performance.now() - last); last = performance.now(); }, 10);
        document.getElementById('start').click();
    })()";
    browser.evaluate(&tab, pressed).unwrap();
    let report = report(&mut browser, &tab);
    assert_eq!(report["failures"], json!([]), "{report}");
    // As any report of `peercompute bench --json`.
    let read: peercompute_bench::Report = serde_json::from_value(report.clone()).unwrap();
    assert_eq!((read.version, read.effort.as_str()), (peercompute_bench::REPORT_VERSION, "tiny"));
    let adapter = read.adapter.as_ref().unwrap();
    assert!(adapter.name.contains("swiftshader") && adapter.is_software && adapter.backend == "WebGPU", "{adapter:?}");
    assert!(read.browser.as_ref().unwrap().is_isolated && read.is_sound());
    let cases: Vec<&str> = read.figures.iter().map(|figure| figure.case.as_str()).collect();
    let wanted = [
        "copy, 4 KiB",
        "heat, 64 x 64 cells",
        "n-body, 256 bodies",
        "reduce, 4000 values",
        "noise, 64 x 64 points",
        "a dispatch of many, 4 KiB",
        "4 KiB read back, p50",
        "4 KiB read back, p99",
        "a tick awaited, 64 x 64 cells, p50",
        "a tick awaited, 64 x 64 cells, p99",
        "to the root, 4 MiB a request",
    ];
    assert_eq!(cases, wanted);
    for figure in &read.figures {
        assert!(figure.bench == "page" && figure.value > 0.0 && figure.twin_value > 0.0 && figure.ratio > 0.0 && figure.rounds > 0, "{figure:?}");
        assert_eq!(figure.met, figure.target.map(|target| figure.ratio >= target), "{figure:?}");
    }
    let targets: Vec<f64> = read.figures.iter().filter_map(|figure| figure.target).collect();
    assert_eq!(targets, [0.90, 0.95, 0.95]);
    // The table has every figure, and the text to copy is the report.
    assert_eq!(browser.evaluate(&tab, "document.querySelectorAll('#table tbody tr').length").unwrap(), wanted.len());
    assert_eq!(browser.evaluate(&tab, "JSON.parse(document.getElementById('json').value)").unwrap(), report);
    let longest = browser.evaluate(&tab, "longest").unwrap();
    assert!(longest.as_f64().unwrap() < 1000.0, "the page's thread stood still for {longest} ms");
    // On a phone too: nothing is wider than the screen.
    browser.resize(&tab, 360, 1200);
    assert_eq!(browser.evaluate(&tab, "document.documentElement.scrollWidth <= innerWidth && innerWidth === 360").unwrap(), true);
    browser.screenshot(&tab, "bench-phone.png");
    browser.resize(&tab, 1000, 900);
    let picture = browser.screenshot(&tab, "bench.png");
    assert!(std::fs::metadata(picture).unwrap().len() > 10_000);
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn sizes_are_chosen_and_cases_left_out() {
    let place = Place::new();
    let root = Root::start(&place);
    let mut browser = Chromium::start();
    let tab = browser.open(&format!("{}bench?start&effort=tiny&copy=0&n-body=0&reduce=0&noise=0&heat=1024", root.url));
    let report = report(&mut browser, &tab);
    assert_eq!((&report["figures"][0]["case"], &report["failures"]), (&json!("heat, 1024 x 1024 cells"), &json!([])));
    assert_eq!(report["figures"].as_array().unwrap().len(), 7);
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn figures_are_made_of_times_as_rust_makes_them() {
    let place = Place::new();
    let root = Root::start(&place);
    let mut browser = Chromium::start();
    let tab = browser.open(&format!("{}bench", root.url));
    wait_for(|| browser.evaluate(&tab, "document.scripts[0]?.src").unwrap().as_str().map(drop));
    // The example of `bench/src/rounds.rs`.
    let figures = "import(new URL('figures.js', document.scripts[0].src)).then(({ fromRounds, fromTrips, percentile }) => [
        fromRounds({ repeats: 10, seconds: [[3, 1], [2, 5], [4, 3]] }, (each) => 1 / each, { target: 0.75 }),
        fromTrips([[0.002, 0.001], [0.004, 0.001]], 0.99, {}),
        percentile([5, 1, 4, 2, 3], 0.5),
    ])";
    let figures = browser.evaluate(&tab, figures).unwrap();
    let of = |figure: &Value| ["value", "twin_value", "ratio", "ratio_best", "met"].map(|name| figure[name].clone());
    assert_eq!(of(&figures[0]), [json!(5.0), json!(10), json!(0.75), json!(0.5), json!(true)].map(|value| number(&value)));
    assert_eq!(of(&figures[1]), [json!(4), json!(1), json!(0.25), Value::Null, Value::Null]);
    assert_eq!(figures[2], 3);
}

/// JavaScript writes whole numbers without a point.
fn number(value: &Value) -> Value {
    value.as_f64().filter(|number| number.fract() == 0.0).map_or_else(|| value.clone(), |number| json!(number as i64))
}

#[test]
fn without_webgpu_it_says_so_and_measures_the_way_to_the_root() {
    let place = Place::new();
    let root = Root::start(&place);
    let mut browser = Chromium::start_without_gpu();
    let tab = browser.open(&format!("{}bench?start&effort=tiny", root.url));
    let report = report(&mut browser, &tab);
    let said = browser.evaluate(&tab, "document.getElementById('adapter').textContent").unwrap();
    assert!(said.as_str().unwrap().starts_with("no WebGPU here:"), "{said}");
    assert_eq!(report["failures"], json!([{ "bench": "page", "cause": said }]));
    assert_eq!(report["figures"].as_array().unwrap().len(), 1);
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn the_server_bounds_what_a_page_may_ask_for() {
    let place = Place::new();
    let root = Root::start(&place);
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let get = |path: &str| {
        let mut answer = agent.get(&format!("{}{path}", root.url)).call().unwrap();
        (answer.status().as_u16(), answer.body_mut().with_config().limit(64 << 20).read_to_vec().unwrap())
    };
    let (code, page) = get("bench");
    assert!(code == 200 && String::from_utf8(page).unwrap().contains("/bench/bench.js"));
    let about: Value = serde_json::from_slice(&get("bench/about.json").1).unwrap();
    let trust = peercompute_kernels::Trust::key(about["key"].as_str().unwrap().parse().unwrap());
    let name = about["cases"][0]["sizes"][0]["bundle"].as_str().unwrap();
    let (code, bundle) = get(&format!("bench/bundles/{name}"));
    assert_eq!(code, 200);
    peercompute_kernels::VerifiedBundle::verify(&bundle, &trust).unwrap();
    for unknown in ["heat-1000000.pcb", "heat-64", "..%2fbench"] {
        assert_eq!(get(&format!("bench/bundles/{unknown}")).0, 404, "{unknown}");
    }
    let bytes = get("bench/bytes").1;
    assert_eq!(about["transfer_bytes"], bytes.len());
    let post = |content: &[u8]| agent.post(&format!("{}bench/bytes", root.url)).send(content).map(|answer| answer.status().as_u16());
    assert_eq!(post(&bytes).unwrap(), 204);
    // Who goes on sending may see the connection's end before the answer.
    assert!(post(&[&bytes[..], &bytes[..]].concat()).map_or(true, |code| code == 413));
}
