//! Every bench at a tiny size, so that it cannot rot. Speeds are not judged here: a software adapter, or an
//! unoptimised build, says nothing about them.

use peercompute_bench::{Bench, BenchOptions, Effort, Kind, REPORT_VERSION, Report, run};

fn tiny(bench: Bench) -> Report {
    let options = BenchOptions { only: vec![bench], effort: Effort::Tiny, ..BenchOptions::default() };
    let mut steps = 0;
    let report = run(&options, &mut |_| steps += 1);
    assert!(report.failures.is_empty(), "{report}");
    assert_eq!(report.version, REPORT_VERSION);
    assert!(!report.figures.is_empty() && steps > 0, "{report}");
    for figure in &report.figures {
        assert_eq!(figure.bench, bench.name());
        assert!(figure.value > 0.0 && figure.twin_value > 0.0 && figure.ratio > 0.0, "{figure:?}");
        if figure.kind == Kind::Exact {
            assert_eq!(figure.met, Some(true), "{report}");
        }
    }
    assert!(report.is_sound());
    report
}

#[test]
fn copy() {
    tiny(Bench::Copy);
}

#[test]
fn heat() {
    assert_eq!(tiny(Bench::Heat).figures[0].target, Some(0.90));
}

#[test]
fn nbody() {
    assert_eq!(tiny(Bench::Nbody).figures[0].target, Some(0.97));
}

#[test]
fn memory_is_what_the_declaration_says() {
    assert_eq!(tiny(Bench::Memory).figures.len(), 10);
}

#[test]
fn peers_ship_strips_and_nothing_more() {
    assert_eq!(tiny(Bench::Strips).figures.len(), 3);
}

#[test]
fn exchange() {
    assert_eq!(tiny(Bench::Exchange).figures[0].target, Some(0.7));
}

#[test]
fn tiles_that_move() {
    assert_eq!(tiny(Bench::Move).figures[0].target, Some(0.6));
}

#[test]
fn executors_agree_and_are_compared() {
    let report = tiny(Bench::Executors);
    for twin in ["cpu over Rust", "interpreter over machine code"] {
        let of_twin: Vec<&str> = report.figures.iter().map(|figure| figure.case.as_str()).filter(|case| case.ends_with(twin)).collect();
        let workloads: Vec<&str> = of_twin.iter().filter_map(|case| case.split(',').next()).collect();
        assert_eq!(workloads, ["heat", "nbody", "noise", "sum"], "{report}");
    }
    assert!(report.figures.iter().any(|figure| figure.case.starts_with("loading")), "{report}");
}

#[test]
fn a_browser_computes_what_its_gpu_computes() {
    let report = tiny(Bench::Browser);
    let over_gpu: Vec<&str> = report.figures.iter().filter(|figure| figure.target == Some(4.0)).map(|figure| figure.case.as_str()).collect();
    let workloads: Vec<&str> = over_gpu.iter().filter_map(|case| case.split(',').next()).collect();
    assert_eq!(workloads, ["heat", "nbody", "noise", "sum"], "{report}");
}

#[test]
fn the_page_measures_without_a_window_too() {
    let report = tiny(Bench::Page);
    assert_eq!(report.figures.len(), 11, "{report}");
    assert!(report.adapter.is_some() && report.browser.is_some(), "{report}");
}

#[test]
fn members_keep_up_and_share_the_work() {
    let report = tiny(Bench::Members);
    let targets: Vec<Option<f64>> = report.figures.iter().map(|figure| figure.target).collect();
    assert_eq!(targets, [0.95, 0.95, 1.0, 0.8, 0.85, 1.0, 1.0].map(Some));
    // Bytes are no times: what snapshots ship is about what was sketched here too.
    assert!(report.figures[1].ratio > 0.6, "{report}");
}

#[test]
fn a_fresh_tab_comes_to_its_first_tick_and_says_where_the_time_went() {
    let report = tiny(Bench::Arrival);
    let [figure] = &report.figures[..] else { panic!("{report}") };
    assert_eq!(figure.target, Some(1.0));
    assert!(figure.notes.iter().any(|note| note.contains("bundles verified") && note.contains("the first tick")), "{figure:?}");
}

#[test]
fn executors_are_compared_only_where_that_is_asked_for() {
    let options = BenchOptions { adapter: Some("no such adapter".into()), effort: Effort::Tiny, ..BenchOptions::default() };
    let failed = |options: &BenchOptions| run(options, &mut |_| {}).failures.iter().any(|failure| failure.bench == Bench::Executors.name());
    assert!(!failed(&options) && failed(&BenchOptions { only: vec![Bench::Executors], ..options }));
}

#[test]
fn without_an_adapter_every_gpu_bench_fails_and_says_why() {
    let options = BenchOptions {
        adapter: Some("no such adapter".into()),
        only: vec![Bench::Heat, Bench::Strips],
        effort: Effort::Tiny,
        ..BenchOptions::default()
    };
    let report = run(&options, &mut |_| {});
    let failed: Vec<&str> = report.failures.iter().map(|failure| failure.bench.as_str()).collect();
    assert_eq!(failed, ["heat", "strips"]);
    assert!(!report.is_sound() && report.to_string().contains("no adapter's name contains `no such adapter`"), "{report}");
}

#[test]
fn a_report_survives_json() {
    let report = tiny(Bench::Strips);
    let json = serde_json::to_string(&report).expect("a report is plain data");
    assert_eq!(serde_json::from_str::<Report>(&json).expect("our own JSON parses"), report);
}
