//! scratch
#![allow(missing_docs, clippy::all, clippy::unwrap_used, clippy::print_stdout)]
use peercompute_bench::twin::*;
use peercompute_kernels::declaration::Declaration;
use peercompute_kernels::executor::gpu::*;
use peercompute_kernels::executor::*;
use peercompute_kernels::*;
use pollster::block_on;
fn cpu() -> f64 {
    let s = std::fs::read_to_string("/proc/self/stat").unwrap();
    let f: Vec<&str> = s.rsplit(") ").next().unwrap().split(' ').collect();
    (f[11].parse::<f64>().unwrap() + f[12].parse::<f64>().unwrap()) * 0.01
}
fn load(folder: &str, name: &str, shape: &[u32], tile: &[u32], edit: &dyn Fn(String) -> String, edit2: &dyn Fn(String) -> String) -> VerifiedBundle {
    let o = Overrides { shapes: vec![(None, shape.to_vec())], tiles: vec![(None, tile.to_vec())], ..Default::default() };
    let d = Declaration::parse(&std::fs::read_to_string(format!("{folder}/workload.toml")).unwrap(), &o).unwrap();
    let w = edit(std::fs::read_to_string(format!("{folder}/{name}.wgsl")).unwrap());
    let mut m = Manifest::new(&d, &[(format!("{name}.wgsl"), w)].into()).unwrap();
    for p in &mut m.passes { if !p.init { if std::env::var("SHOW").is_ok() { println!("{}", p.wgsl); } p.wgsl = edit2(p.wgsl.clone()); } }
    let k = SecretKey::generate().unwrap();
    VerifiedBundle::verify(&bundle::sign(&m, &k), &Trust::key(k.public())).unwrap()
}
fn main() {
    let n: u32 = 4096;
    let ticks = 6u64;
    let gpus: Vec<Gpu> = [Borders::Apart, Borders::InPlace].into_iter().map(|b| block_on(Gpu::open(GpuOptions { borders: Some(b), ..Default::default() })).unwrap()).collect();
    let mut things: Vec<(String, Box<dyn FnMut()>)> = Vec::new();
    let (d, q) = gpus[0].device();
    let t = HeatTwin::with_tuning(d, q, n, true, HeatTuning { workgroup: [64, 4], quads: false });
    things.push((format!("twin"), Box::new(move || t.run(ticks as u32))));
    let place = "let place = tile[row * PC_ROW];";
    let comp = (place, "let r = row * PC_ROW; let place = vec4<i32>(tile[r].x, tile[r].y, tile[r].z, tile[r].w);");
    let entry = ("let entry = tile[c.row * PC_ROW + 2u + u32(dot(side, PC_SIDE))];", "let e = c.row * PC_ROW + 2u + u32(dot(side, PC_SIDE)); let entry = vec4<i32>(tile[e].x, tile[e].y, tile[e].z, tile[e].w);");
    let dims2 = ("return u32(entry.x + place.x * entry.y + place.y * entry.z + place.z * entry.w);", "if (!PC_DEEP) { return u32(entry.x + place.x * entry.y + place.y * entry.z); } return u32(entry.x + place.x * entry.y + place.y * entry.z + place.z * entry.w);");
    let uni = (place, "let place = vec4<i32>(i32(pc_dispatch.page_row), 0, 0, 0);");
    let wg = |to| ("64, 4", to);
    let variants: Vec<(&str, u32, Vec<(&str, &str)>)> = vec![
        ("base 1024", 1024, vec![]),
        ("components 4096", 4096, vec![comp]),
        ("components 1024", 1024, vec![comp]),
        ("components, entry, 1024", 1024, vec![comp, entry, dims2]),
        ("components, entry, 1024, 16x16", 1024, vec![comp, entry, dims2, wg("16, 16")]),
        ("components, entry, 1024, 16x4", 1024, vec![comp, entry, dims2, wg("16, 4")]),
        ("uniform, entry, 1024", 1024, vec![uni, entry, dims2]),
        ("uniform, entry, 1024, 16x16", 1024, vec![uni, entry, dims2, wg("16, 16")]),
        ("uniform, entry, 1024, 16x4", 1024, vec![uni, entry, dims2, wg("16, 4")]),
    ];
    for (name, tile, edits) in variants {
        let b = load("/work/main/shaders/physics/heat", "heat", &[n, n], &[tile, tile], &|mut w| { for (f, t) in &edits { if *f == "64, 4" { w = w.replace(f, t); } } w }, &|mut w| { for (f, t) in edits.iter().filter(|e| e.0 != "64, 4") { assert!(w.contains(f), "{f}"); w = w.replace(f, t); } w });
        let gpu = &gpus[0];
        let Ok(run) = block_on(gpu.load(&b, &Placement::alone(b.program()))) else { println!("REFUSED {name}"); continue }; let mut runs = [run];
        let mut at = 0;
        things.push((format!("framework apart, one tile, {name}"), Box::new(move || {
            block_on(async { mesh::run(b.program(), &mut runs, at..at + ticks).await.unwrap(); runs[0].finish().await.unwrap(); });
            at += ticks;
        })));
    }
    let mut best = vec![f64::INFINITY; things.len()];
    for r in 0..4 { for (i, (_, t)) in things.iter_mut().enumerate() { let a = cpu(); t(); let b = cpu(); if r > 0 { best[i] = best[i].min(b - a); } } }
    for (i, (n, _)) in things.iter().enumerate() { println!("{:50} {:.1} cpu ms a tick", n, best[i] / ticks as f64 * 1e3); }
}
