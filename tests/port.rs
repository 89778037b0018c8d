//! The port that a root serves browsers on: its files, its certificates, and the options that it takes.
//!
//! Needs headless Chromium and the package that `cargo xtask web` builds.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test that cannot go on ends there; waiting for another process takes a clock")]

mod place;
mod served;
mod tabs;

use std::io::Read;

use base64::Engine;
use peercompute_net::transport::websocket::Fingerprint;
use place::{Peer, Place, hash, wait_for};
use serde_json::Value;
use served::{HEAT, on_cpu, serve, something, status};
use tabs::Chromium;

#[test]
fn what_is_served_is_typed_compressed_kept_by_its_hash_and_nothing_else() {
    let place = Place::new();
    let root = serve(&place, &[]);
    let link = root.link();
    let (page, word) = link.split_once('#').unwrap();
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let get = |path: &str, codings: &str| {
        let request = agent.get(&format!("{page}{path}"));
        let request = if codings.is_empty() { request } else { request.header("accept-encoding", codings) };
        let mut answer = request.call().unwrap();
        let field = |name: &str| answer.headers().get(name).map_or(String::new(), |value| value.to_str().unwrap().to_owned());
        let fields = ["content-type", "cache-control", "content-encoding", "content-security-policy", "etag"].map(field);
        let isolated = [field("cross-origin-opener-policy"), field("cross-origin-embedder-policy")];
        assert_eq!(isolated, ["same-origin", "require-corp"], "{path}");
        (answer.status().as_u16(), fields, answer.body_mut().with_config().limit(64 << 20).read_to_vec().unwrap())
    };
    let (code, [kind, cache, _, policy, _], content) = get("", "");
    assert_eq!((code, kind.as_str(), cache.as_str()), (200, "text/html; charset=utf-8", "no-cache"));
    assert!(policy.contains("default-src 'none'") && policy.contains("'wasm-unsafe-eval'") && !policy.contains("http"), "{policy}");
    let text = String::from_utf8(content).unwrap();
    let app = text.split("src=\"/").nth(1).unwrap().split("/page.js").next().unwrap().to_owned();
    for (file, wanted, best) in [
        ("page.js", "text/javascript; charset=utf-8", "gzip"),
        ("page.css", "text/css; charset=utf-8", "gzip"),
        ("worker.js", "text/javascript; charset=utf-8", "br"),
        ("peercompute_bg.wasm", "application/wasm", "br"),
    ] {
        let path = format!("{app}/{file}");
        let (_, [_, _, encoding, _, tag], plain) = get(&path, "");
        assert!(encoding.is_empty(), "{file} is {encoding}");
        // Whoever has it in one coding is not given it in another.
        let known = agent.get(&format!("{page}{path}")).header("accept-encoding", "br").header("if-none-match", &format!("\"old\", {tag}"));
        assert_eq!(known.call().unwrap().status().as_u16(), 304, "{file} is sent again");
        for (codings, wanted_encoding) in [
            ("gzip, deflate, br, zstd", best),
            ("gzip", "gzip"),
            ("br;q=0, gzip;q=0.5", "gzip"),
            ("br ; q=0.1, deflate", if best == "br" { "br" } else { "" }),
        ] {
            let (code, [kind, cache, encoding, _, same], short) = get(&path, codings);
            assert_eq!((code, kind.as_str(), encoding.as_str(), &same), (200, wanted, wanted_encoding, &tag), "{file} for {codings}");
            assert!(cache.contains("immutable"), "{cache}");
            let mut content = Vec::new();
            match wanted_encoding {
                "br" => drop(brotli::BrotliDecompress(&mut &short[..], &mut content)),
                "gzip" => drop(flate2::read::GzDecoder::new(&short[..]).read_to_end(&mut content)),
                _ => content.clone_from(&short),
            }
            assert!(content == plain && (encoding.is_empty() || short.len() < plain.len()), "{file} in {encoding}");
        }
        assert!(!String::from_utf8_lossy(&plain).contains("https://") || file.ends_with("wasm"), "{file} names another host");
    }
    let hash = word.split(',').nth(2).unwrap();
    let (code, [kind, cache, ..], bundle) = get(&format!("bundles/{hash}.pcb"), "");
    assert_eq!((code, kind.as_str()), (200, "application/octet-stream"));
    assert!(cache == "no-cache" && !bundle.is_empty(), "{cache}");
    let (code, _, health) = get("health", "");
    let health: Value = serde_json::from_slice(&health).unwrap();
    assert_eq!((code, &health["is_well"], &health["runs"][0]["bundle"]), (200, &true.into(), &hash.into()));
    let (_, [kind, cache, ..], listing) = get("runs", "");
    let listing: Value = serde_json::from_slice(&listing).unwrap();
    assert_eq!((kind.as_str(), cache.as_str(), &listing["runs"][0]["bundle"]), ("application/json", "no-cache", &hash.into()));
    assert!(listing["runs"][0].get("token").is_none(), "who was not invited is: {listing}");
    for (missing, code) in [
        ("nothing", 404),
        ("app/0000000000000000/page.js", 404),
        ("bundles/..%2f..%2fCargo.toml", 404),
        ("p2p", 426),
        ("p2p/heat", 426),
        ("p2p/life", 404),
    ] {
        assert_eq!(get(missing, "").0, code, "{missing}");
    }
    assert!(!app.is_empty());
}

#[test]
fn a_certificate_makes_it_https_and_who_joins_checks_it() {
    let place = Place::new();
    let alone = hash(&place, &[&["run"], &HEAT[..], &["--ticks", "200", "--json"]].concat());
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let [chain, key] = ["chain.pem", "key.pem"].map(|name| place.path(name));
    std::fs::write(&chain, made.cert.pem()).unwrap();
    std::fs::write(&key, made.key_pair.serialize_pem()).unwrap();
    let [chain, key] = [&chain, &key].map(|path| path.to_str().unwrap());
    let root = serve(&place, &["--ticks", "200", "--assemble", "2", "--certificate", chain, "--key", key]);
    let link = root.link();
    assert!(link.starts_with("https://127.0.0.1:") && link.contains("/wss/p2p/"), "{link}");
    let elsewhere = Place::new();
    let join = ["join", &link, "--executor", "cpu", "--threads", "1"];
    let refused = elsewhere.refused(&join);
    assert!(refused.contains("gives no bundle") && refused.contains("ertificate"), "{refused}");
    let mut trusting = elsewhere.command(&join);
    trusting.env("SSL_CERT_FILE", chain);
    assert_eq!(Peer::start(trusting).state_hash(), alone);
}

/// Like a port that another process opened to the house: it is known before it is listened on.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn a_tab_from_elsewhere_is_in_a_secure_context_and_computes_over_tls() {
    let place = Place::new();
    let alone = hash(&place, &[&["run"], &HEAT[..], &["--ticks", "200", "--json"]].concat());
    let port = free_port();
    let (public, listen) = (format!("https://nearby.test:{port}"), format!("0.0.0.0:{port}"));
    let at = ["--self-signed", "--public", &public, "--listen", &listen, "--ticks", "200", "--assemble", "2"];
    let mut root = Peer::start(place.command(&[&["serve"], &HEAT[..], &at].concat()));
    let link = root.link();
    assert!(link.starts_with(&format!("{public}/#pc1,")) && link.contains(&format!("/dns/nearby.test/tcp/{port}/wss/certhash/")), "{link}");
    let mut browser = Chromium::start_nearby();
    // What a tab may do where nothing is encrypted.
    let plain = serve(&Place::new(), &["--throttle", "0.1"]);
    let tab = browser.open(&plain.link().split('#').next().unwrap().replace("127.0.0.1", "nearby.test"));
    let may = "document.getElementById('world') && [isSecureContext, crossOriginIsolated, 'gpu' in navigator]";
    assert_eq!(something(&mut browser, &tab, may), serde_json::json!([false, false, false]));
    browser.close(&tab);
    let tab = browser.open(&on_cpu(&link, "phone"));
    assert_eq!(something(&mut browser, &tab, may), serde_json::json!([true, true, true]));
    let ended = status(&mut browser, &tab, |status| status["ended"] == "finished");
    assert_eq!((&ended["stateHash"], &ended["peers"]), (&Value::from(alone.as_str()), &2.into()), "{ended}");
    assert_eq!(root.state_hash(), alone);
}

#[test]
fn a_certificate_that_nobody_signed_is_taken_where_the_link_names_it() {
    let place = Place::new();
    let alone = hash(&place, &[&["run"], &HEAT[..], &["--ticks", "200", "--json"]].concat());
    let mut root = serve(&place, &["--self-signed", "--ticks", "200", "--assemble", "3"]);
    let link = root.link();
    assert!(link.starts_with("https://127.0.0.1:") && link.contains("/wss/certhash/uEi"), "{link}");
    let elsewhere = Place::new();
    let join = |link: &str| ["join", link, "--executor", "cpu", "--threads", "1"].map(str::to_owned);
    let refused = |link: &str| elsewhere.refused(&join(link).each_ref().map(String::as_str));
    // Without its hash it is what it is to everybody: unknown.
    let hash_at = link.find("/certhash/").unwrap();
    let hash_end = hash_at + link[hash_at..].find("/p2p/").unwrap();
    let unnamed = format!("{}{}", &link[..hash_at], &link[hash_end..]);
    let said = refused(&unnamed);
    assert!(said.contains("gives no bundle") && said.contains("ertificate"), "{said}");
    let digit = hash_at + "/certhash/uEi".len() + 9;
    let other = format!("{}{}{}", &link[..digit], if &link[digit..=digit] == "A" { "B" } else { "A" }, &link[digit + 1..]);
    let words = "and no authority vouches for it: ask for a new link";
    let said = refused(&other);
    assert!(said.contains("gives no bundle") && said.contains(words), "{said}");
    let mut native = Peer::start(elsewhere.command(&join(&link).each_ref().map(String::as_str)));
    // They exchange strips through the root, which a tab names without its certificate.
    let mut browser = Chromium::start_nearby();
    let tab = browser.open(&on_cpu(&link, "tab"));
    assert_eq!(native.state_hash(), alone);
    assert_eq!(status(&mut browser, &tab, |status| status["ended"] == "finished")["stateHash"], alone);
    assert_eq!(root.state_hash(), alone);
    // From now on the bundle is here, and the link itself refuses.
    let root = serve(&place, &["--self-signed"]);
    let (before, port) = (link.split('/').nth(2).unwrap(), root.link().split('/').nth(2).unwrap().to_owned());
    let tcp = |host: &str| format!("/tcp/{}/", host.rsplit(':').next().unwrap());
    let said = refused(&other.replace(before, &port).replace(&tcp(before), &tcp(&port)));
    assert!(!said.contains("gives no bundle") && said.contains(words), "{said}");
    let report = elsewhere.json(&["status", &root.link(), "--json"]);
    assert_eq!((&report["workload"], report["members"].as_array().map(Vec::len)), (&"heat".into(), Some(1)), "{report}");
}

#[test]
fn a_self_signed_certificate_outlives_its_server_and_is_its_owner_s_alone() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let certificate = |more: &[&str]| {
        let root = serve(&place, &[&["--self-signed"], more].concat());
        root.heard(|line| Some(line["certificate_sha256"].as_str()?.to_owned()))
    };
    let first = certificate(&[]);
    assert_eq!(first.len(), 64);
    let folder = place.path("config/peercompute/certificates");
    let file = folder.join("self-signed.pem");
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&folder), mode(&file)), (0o700, 0o600));
    assert_eq!(certificate(&[]), first);
    // Under another name it would be refused; the one for both does for either.
    let named = certificate(&["--public", "https://nearby.test:8443"]);
    assert_ne!(named, first);
    assert_eq!(certificate(&[]), named);
    assert_eq!(mode(&file), 0o600);
    std::fs::write(&file, "-----BEGIN CERTIFICATE-----").unwrap();
    assert_ne!(certificate(&[]), named);
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    let said = place.refused(&[&["serve"], &HEAT[..], &["--listen", "127.0.0.1:0", "--self-signed"]].concat());
    assert!(said.contains("cannot read the certificate `"), "{said}");
}

#[test]
fn people_are_told_the_fingerprint() {
    use std::io::{BufRead, BufReader};
    let place = Place::new();
    let mut command = place.command(&[&["serve"], &HEAT[..], &["--listen", "127.0.0.1:0", "--self-signed"]].concat());
    let mut child = command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let told: Vec<String> = lines.skip_while(|line| !line.contains("browsers warn once")).take(3).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    let pem = std::fs::read_to_string(place.path("config/peercompute/certificates/self-signed.pem")).unwrap();
    let pem = pem.split_once("-----BEGIN CERTIFICATE-----").and_then(|(_, rest)| rest.split_once("-----END")).unwrap().0;
    let der = base64::engine::general_purpose::STANDARD.decode(pem.replace(['\r', '\n'], "")).unwrap();
    assert!(told[0].contains("SHA-256") && told[2] == Fingerprint::of(&der).to_string(), "{told:?}");
}

#[test]
fn an_authority_that_does_not_answer_is_told_of_and_asked_again() {
    let place = Place::new();
    let directory = format!("https://localhost:{}/directory", free_port());
    let root = serve(&place, &["--acme", "example.com", "--acme-contact", "ada@example.com", "--acme-directory", &directory]);
    let link = root.link();
    assert!(link.starts_with("https://example.com/#pc1,") && link.contains(",/dns/example.com/tcp/443/wss/p2p/"), "{link}");
    assert_eq!(link.matches("/p2p/").count(), 1, "an address that the certificate is not for: {link}");
    let told = || root.said.lock().unwrap().iter().filter(|line| line["text"].as_str().is_some_and(|text| text.contains("tried again"))).count();
    wait_for(|| (told() >= 2).then_some(()));
    root.heard(|line| line["text"].as_str()?.starts_with("there is no new certificate for example.com yet: ").then_some(()));
}

#[test]
fn wrong_options_are_named() {
    let place = Place::new();
    let serve = |more: &[&str]| place.refused(&[&["serve"], &HEAT[..], more].concat());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    assert!(serve(&["--listen", &address]).contains(&format!("cannot listen on {address}")));
    assert!(serve(&["--public", "example.com"]).contains("not like https://example.com"));
    let nothing = place.path("nothing.pem");
    let nothing = nothing.to_str().unwrap();
    assert!(serve(&["--certificate", nothing, "--key", nothing]).contains("is no certificate in PEM"));
    let acme = |domain: &str, contact: &str, more: &[&str]| serve(&[&["--acme", domain, "--acme-contact", contact], more].concat());
    assert!(acme("192.0.2.1", "ada@example.com", &[]).contains("`192.0.2.1` is an address, and authorities vouch for names"));
    assert!(acme("example.com", "ada", &[]).contains("`ada` is no mail address"));
    assert!(acme("example.com", "ada@example.com", &["--acme-directory", "staging"]).contains("`staging` is not like https://"));
    let elsewhere = acme("example.com", "ada@example.com", &["--public", "https://www.example.com"]);
    assert!(elsewhere.contains("`--public https://www.example.com/` is not at example.com"), "{elsewhere}");
    let unclear = |more: &[&str], words: &str| {
        let output = place.output(&[&["serve"], &HEAT[..], more].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && said.contains(words), "{said}");
    };
    unclear(&["--self-signed", "--certificate", nothing, "--key", nothing], "cannot be used with '--certificate");
    unclear(&["--self-signed", "--acme", "example.com", "--acme-contact", "ada@example.com"], "cannot be used with '--acme");
    unclear(&["--acme", "example.com"], "--acme-contact <MAIL>");
    unclear(&["--acme-contact", "ada@example.com"], "--acme <DOMAIN>");
}

/// A workload of which a server keeps no copy: its state is more than 64 MiB.
fn vast(place: &Place) -> String {
    let toml = r#"
        name = "vast"
        version = "1.0.0"
        class = "exact"
        grid = { shape = [4224, 4224], tile = [528, 528] }
        [buffers.v]
        element = "u32"
        [[passes]]
        kernel = "vast.wgsl"
        entry = "count"
        reads = ["v"]
        writes = ["v"]
    "#;
    let wgsl = "var<storage, read> v: array<u32>;
        var<storage, read_write> v_next: array<u32>;
        @compute @workgroup_size(8, 8) fn count(@builtin(global_invocation_id) id: vec3<u32>) {
            let c = cell(id);
            if (c.inside) { v_next[c.index] = v[c.index] + 1u; }
        }";
    let folder = place.path("vast");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("workload.toml"), toml).unwrap();
    std::fs::write(folder.join("vast.wgsl"), wgsl).unwrap();
    folder.to_str().unwrap().to_owned()
}

#[test]
fn a_run_that_fails_takes_nothing_else_of_its_server_with_it() {
    let place = Place::new();
    let on_cpu = ["--executor", "cpu", "--threads", "1", "--throttle", "0.2"];
    // Nobody keeps what another owns, so that its loss is the run's.
    let vast = vast(&place);
    let root = [&["serve", &vast, "life", "--listen", "127.0.0.1:0", "--replicas", "0", "--snapshot-every", "0.3"], &on_cpu[..]].concat();
    let mut root = Peer::start(place.command(&root));
    let links = root.heard(|line| Some(line["runs"].as_array()?.iter().map(|run| run["link"].as_str().unwrap().to_owned()).collect::<Vec<_>>()));
    let join = |link: &str, name: &str| Peer::start(place.command(&[&["join", link, "--name", name], &on_cpu[..]].concat()));
    let fragile = join(&links[0], "fragile");
    root.heard(|line| (line["of"] == "vast" && line["event"] == "progress" && line["tick"].as_u64()? > 5).then_some(()));
    // From an epoch that begins from what it computed, nobody can go back to the run's begin.
    let _steady = join(&links[0], "steady");
    let tiles = |line: &Value| line["members"].as_array()?.iter().find(|member| member["name"] == "steady")?["tiles"].as_u64();
    let epoch = root.heard(|line| tiles(line).filter(|tiles| *tiles > 0).and(line["epoch"].as_u64()));
    root.heard(|line| (line["of"] == "vast" && line["event"] == "progress" && line["epoch"].as_u64()? >= epoch).then_some(()));
    fragile.signal("KILL");
    root.heard(|line| (line["of"] == "vast" && line["text"].as_str()?.contains("this run has failed")).then_some(()));
    let page = links[0].split('#').next().unwrap();
    let told = |what: &str| -> Value {
        serde_json::from_str(&ureq::get(&format!("{page}{what}")).call().unwrap().body_mut().read_to_string().unwrap()).unwrap()
    };
    let (health, listing) = (told("health"), told("runs"));
    assert_eq!(listing["runs"].as_array().unwrap().iter().map(|run| &run["name"]).collect::<Vec<_>>(), ["life"]);
    let goes_on: Vec<_> = health["runs"].as_array().unwrap().iter().map(|run| (run["name"].clone(), run["goes_on"].clone())).collect();
    assert_eq!((&health["is_well"], &goes_on[..]), (&false.into(), &[("vast".into(), false.into()), ("life".into(), true.into())][..]));
    let refused = ureq::get(&format!("{page}p2p")).call().unwrap_err();
    assert!(matches!(refused, ureq::Error::StatusCode(410)), "{refused}");
    let other = join(&links[1], "other");
    other.heard(|line| (line["event"] == "progress" && line["tick"].as_u64()? > 0).then_some(()));
    drop(other);
    // What failed is its exit code.
    root.signal("INT");
    assert_eq!(root.code(), Some(1));
}
