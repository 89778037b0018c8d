//! Real processes over real sockets on loopback: the same bits for any number of peers, and a clear
//! report for whatever happens to one of them.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test that cannot go on ends there; waiting for another process takes a clock")]

mod place;

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use place::{Peer, Place, hash, signal, wait_for};

#[test]
fn any_number_of_peers_gives_the_same_bits() {
    let place = Place::new();
    for (workload, shape, tile) in [
        ("shaders/physics/life", "160,96", "32,32"),
        ("shaders/physics/wave3d", "20,18,16", "7,6,8"),
        ("shaders/physics/nbody", "700", "64"),
        ("shaders/physics/energy", "160,96", "32,32"),
    ] {
        let run = |peers: &str| hash(&place, &["run", workload, "--shape", shape, "--tile", tile, "--ticks", "100", "--peers", peers, "--json"]);
        let alone = run("1");
        for peers in ["2", "3", "4", "7"] {
            assert_eq!(run(peers), alone, "{workload} on {peers} peers");
        }
    }
}

#[test]
fn quic_measured_split_and_tiles_change_no_bit() {
    let place = Place::new();
    let run = |more: &[&str]| hash(&place, &[&["run", "shaders/physics/heat", "--shape", "130,70", "--ticks", "40", "--json"], more].concat());
    let alone = run(&["--tile", "32,32"]);
    assert_eq!(run(&["--tile", "32,32", "--peers", "3", "--transport", "quic"]), alone);
    assert_eq!(run(&["--tile", "32,32", "--peers", "2", "--split", "measured"]), alone);
    assert_eq!(run(&["--tile", "50,9", "--peers", "4"]), alone);
    // A parameter changes at the agreed tick on every peer, and changes the result.
    let changed = run(&["--tile", "32,32", "--set", "rate=0.2@20"]);
    assert_ne!(changed, alone);
    assert_eq!(run(&["--tile", "32,32", "--set", "rate=0.2@20", "--peers", "3"]), changed);
}

#[test]
fn the_executor_is_chosen_and_named() {
    let place = Place::new();
    let run = |more: &[&str]| {
        place.json(&[&["run", "shaders/physics/life", "--shape", "96,64", "--tile", "32,32", "--ticks", "20", "--json"], more].concat())
    };
    let cpu = run(&["--executor", "cpu", "--threads", "1"]);
    assert!(cpu["executor"] == "cpu" && cpu["adapter"].as_str().unwrap().starts_with("1 thread"), "{cpu}");
    let gpu = run(&["--executor", "gpu"]);
    assert_eq!((&gpu["executor"], &gpu["state_hash"]), (&"gpu".into(), &cpu["state_hash"]));
    let named = run(&["--executor", gpu["adapter"].as_str().unwrap()]);
    assert_eq!((&named["executor"], &named["adapter"]), (&"gpu".into(), &gpu["adapter"]));
    let together = run(&["--executor", "cpu", "--threads", "2", "--peers", "2"]);
    assert_eq!((&together["executor"], &together["state_hash"]), (&"cpu".into(), &cpu["state_hash"]));
    assert!(together["adapters"].as_array().unwrap().iter().all(|adapter| adapter.as_str().unwrap().starts_with("2 threads")), "{together}");
}

#[test]
fn the_report_has_its_fields_and_counts_what_is_shipped() {
    let place = Place::new();
    let report = place.json(&["run", "shaders/physics/heat", "--shape", "256,256", "--tile", "128,128", "--ticks", "10", "--peers", "2", "--json"]);
    for field in ["workload", "peers", "ticks", "executor", "adapter", "state_hash", "elements_per_s", "shipped_bytes", "seconds"] {
        assert!(!report[field].is_null(), "{field} is missing: {report}");
    }
    // Two halves of two tiles each; a border is 256 elements, and the two corners where four tiles meet are shipped with it.
    let (payload, shipped) = (report["payload_bytes"].as_u64().unwrap(), report["shipped_bytes"].as_u64().unwrap());
    assert_eq!(payload % 10, 0);
    assert!((2 * 256 * 4..=2 * 260 * 4).contains(&(payload / 10)), "{payload}");
    assert_eq!(shipped, payload + 10 * 2 * 20, "a frame adds 20 bytes");
}

#[test]
fn fields_go_out_and_come_in() {
    let place = Place::new();
    let (npy, png) = (place.path("t.npy"), place.path("deep/t.png"));
    let with = |flag: &str, path: &Path| format!("{flag}={}", path.display());
    let export = with("temperature", &npy);
    let image = with("temperature", &png);
    let base = ["run", "shaders/physics/heat", "--shape", "60,40", "--tile", "16,16", "--json"];
    let first = hash(&place, &[&base[..], &["--ticks", "20", "--peers", "3", "--export", &export, "--image", &image]].concat());
    // What was written is the state itself: read back without a tick it has the same hash, on any number of peers.
    let import = with("temperature", &npy);
    for peers in ["1", "2"] {
        assert_eq!(hash(&place, &[&base[..], &["--ticks", "0", "--peers", peers, "--import", &import]].concat()), first);
    }
    let picture = image::open(&png).unwrap();
    assert_eq!((picture.width(), picture.height()), (60, 40));
    let wrong = with("temperatur", &npy);
    assert!(place.refused(&["run", "shaders/physics/heat", "--import", &wrong]).contains("no buffer `temperatur`"));
    let misfit = place.refused(&["run", "shaders/physics/heat", "--shape", "61,40", "--tile", "16,16", "--import", &import]);
    assert!(misfit.contains("does not fit `temperature`"), "{misfit}");
}

/// What would be lost at the end of a long run is refused at its beginning.
#[test]
fn results_that_cannot_be_written_are_told_before_anything_runs() {
    let place = Place::new();
    let (folder, file) = (place.path("folder"), place.path("file"));
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(&file, "a file").unwrap();
    // Far more ticks than there is time for.
    let long = ["run", "shaders/physics/heat", "--shape", "64,64", "--tile", "32,32", "--ticks", "100000000000", "--executor", "cpu"];
    let refused = |more: &[&str]| place.refused(&[&long[..], more].concat());
    let of = |path: &Path| format!("temperature={}", path.display());
    for peers in ["1", "2"] {
        let with = |flag: &str, path: &Path| refused(&[flag, &of(path), "--peers", peers]);
        assert!(with("--export", &folder).contains("cannot write"), "a folder");
        assert!(with("--export", &file.join("t.npy")).contains("error"), "in a file");
        assert!(with("--image", &place.path("t.jpg")).contains("it ends in `.png`"));
    }
    let energy = ["run", "shaders/physics/energy", "--ticks", "100000000000", "--image", "energy=t.png"];
    assert!(place.refused(&energy).contains("axes"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "a file");
    let late = place.refused(&["run", "shaders/physics/heat", "--ticks", "10", "--set", "rate=0.1@10"]);
    assert!(late.contains("`rate` is to change at tick 10, and the run ends before it"), "{late}");
}

#[test]
fn keys_and_bundles_are_checked() {
    let place = Place::new();
    let (key, public, file) = (place.path("root.key"), place.path("root.pub"), place.path("life.pcb"));
    let [key, public, file] = [&key, &public, &file].map(|path| path.to_str().unwrap());
    place.json(&["keygen", key, "--json"]);
    assert!(place.refused(&["keygen", key]).contains("never overwritten"));
    place.json(&["sign", "shaders/physics/life", "--key", key, "-o", file, "--shape", "64,64", "--tile", "32,32", "--json"]);
    assert_eq!(place.json(&["verify", file, "--trust", public, "--json"])["verified"], true);
    assert!(place.refused(&["run", file]).contains("--trust"));
    let run = ["run", file, "--trust", public, "--ticks", "5", "--json"];
    assert_eq!(hash(&place, &run), hash(&place, &[&run[..], &["--peers", "2"]].concat()));
    let other = place.path("other.key");
    place.json(&["keygen", other.to_str().unwrap(), "--json"]);
    let other = place.path("other.pub");
    assert!(place.refused(&["verify", file, "--trust", other.to_str().unwrap()]).contains("not a trusted key"));
    let mut bytes = std::fs::read(file).unwrap();
    bytes[100] ^= 1;
    let tampered = place.path("tampered.pcb");
    std::fs::write(&tampered, &bytes).unwrap();
    assert!(place.refused(&["verify", tampered.to_str().unwrap(), "--trust", public]).contains("does not verify"));
    // A newer version is remembered, and the older one then refused.
    let folder = place.path("life");
    std::fs::create_dir(&folder).unwrap();
    for name in ["workload.toml", "life.wgsl"] {
        let text = std::fs::read_to_string(Path::new("shaders/physics/life").join(name)).unwrap();
        std::fs::write(folder.join(name), text.replace("version = \"1.0.0\"", "version = \"1.1.0\"")).unwrap();
    }
    let newer = place.path("newer.pcb");
    let newer = newer.to_str().unwrap();
    place.json(&["sign", folder.to_str().unwrap(), "--key", key, "-o", newer, "--json"]);
    place.json(&["verify", newer, "--trust", public, "--json"]);
    assert!(place.refused(&["verify", file, "--trust", public]).contains("older than 1.1.0"));
}

#[test]
fn mistakes_on_the_command_line_are_told() {
    let place = Place::new();
    assert!(place.refused(&["check", "no/such/folder"]).contains("cannot read"));
    assert!(place.refused(&["run", "shaders/physics/heat", "--set", "rte=1"]).contains("did you mean `rate`?"));
    let unknown = place.refused(&["run", "shaders/physics/heat", "--executor", "no such adapter"]);
    assert!(unknown.contains("no adapter's name contains `no such adapter`") && unknown.contains("cpu"), "{unknown}");
    // What no executor takes is told after everything that can be, and is not a success.
    let folder = place.path("wide");
    std::fs::create_dir(&folder).unwrap();
    for name in ["workload.toml", "life.wgsl"] {
        let text = std::fs::read_to_string(Path::new("shaders/physics/life").join(name)).unwrap();
        std::fs::write(folder.join(name), text.replace("@workgroup_size(16, 16)", "@workgroup_size(1025)")).unwrap();
    }
    assert!(place.refused(&["check", folder.to_str().unwrap(), "--executor", "cpu"]).contains("the executor refuses the workload"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let text = place.refused(&["run", "shaders/physics/life", "--peers", "2", "--listen", &address, "--ticks", "1"]);
    assert!(text.contains("in use") || text.contains("taken"), "{text}");
}

/// A long run of three peers, and the process of each, once it is under way.
fn long_run(place: &Place, silence: &str) -> (Child, Vec<u32>) {
    let args = ["run", "shaders/physics/life", "--shape", "256,256", "--tile", "64,64", "--ticks", "1000000", "--peers", "3", "--silence", silence];
    let mut command = place.command(&args);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pids = wait_for(|| {
        let mut peers: Vec<(u32, u32)> = processes()
            .into_iter()
            .filter(|(_, parent, _)| *parent == child.id())
            .filter_map(|(pid, _, arguments)| {
                let at = arguments.iter().position(|a| a == "--index")?;
                Some((arguments.get(at + 1)?.parse().ok()?, pid))
            })
            .collect();
        peers.sort_unstable();
        let busy = peers.iter().all(|(_, pid)| cpu_ticks(*pid) > 30);
        (peers.len() == 3 && busy).then(|| peers.into_iter().map(|(_, pid)| pid).collect())
    });
    (child, pids)
}

/// `(pid, parent, arguments)` of every process.
fn processes() -> Vec<(u32, u32, Vec<String>)> {
    let numeric = |name: std::ffi::OsString| name.to_str()?.parse::<u32>().ok();
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(|entry| numeric(entry.ok()?.file_name()));
    entries
        .filter_map(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let parent = stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()?;
            let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
            Some((pid, parent, line.split('\0').map(str::to_string).collect()))
        })
        .collect()
}

fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    fields.get(11).and_then(|f| f.parse().ok()).unwrap_or(0)
}

fn report(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_peer_that_disappears_stops_the_run_with_its_name() {
    for victim in [0, 2] {
        let place = Place::new();
        let (child, pids) = long_run(&place, "10");
        let begun = Instant::now();
        signal(pids[victim], "KILL");
        let text = report(child);
        assert!(text.contains("the run stopped") && text.contains(&format!("peer {victim}")), "{text}");
        assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
        wait_for(|| pids.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
    }
}

#[test]
fn a_peer_that_goes_silent_is_named() {
    let place = Place::new();
    let (child, pids) = long_run(&place, "1");
    signal(pids[1], "STOP");
    let text = report(child);
    assert!(text.contains("peer 1") && text.contains("silent"), "{text}");
    wait_for(|| pids.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
}

#[test]
fn no_peer_outlives_its_launcher() {
    let place = Place::new();
    let (mut child, pids) = long_run(&place, "10");
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for(|| pids.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
}

#[test]
fn a_member_that_is_cut_off_from_most_leaves_at_once() {
    let place = Place::new();
    let on_cpu = ["--executor", "cpu", "--threads", "1", "--throttle", "0.1"];
    let mut host = Peer::start(
        place.command(&[&["host", "shaders/physics/heat", "--shape", "128,128", "--tile", "16,16", "--name", "host"], &on_cpu[..]].concat()),
    );
    let link = host.link();
    let mut others = ["one", "two"].map(|name| Peer::start(place.command(&[&["join", &link, "--name", name], &on_cpu[..]].concat())));
    host.heard(|line| (line["event"] == "epoch" && line["members"].as_array()?.len() == 3).then_some(()));
    others.iter_mut().for_each(|other| other.signal("KILL"));
    host.heard(|line| line["text"].as_str()?.contains("may not go on").then_some(()));
    let asked = Instant::now();
    host.signal("INT");
    assert_eq!(host.code(), Some(0));
    // With others to be handed over to it may take ten seconds.
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
}
