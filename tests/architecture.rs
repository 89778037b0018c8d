//! `plan/ARCHITECTURE.md` against the tree: what the page says is so, or a test fails and names the line.
//!
//! The page is the only source: its map says which modules and dependencies there are, its tables say
//! where a name may stand. Checks are functions of a [`Tree`] in memory, so the second half of this
//! file can break a copy of the real one in every way and see that it is noticed.
//! Invariant: comments and strings never count; a name is looked for as a whole word or a path's start.

#![allow(clippy::unwrap_used, reason = "a test that cannot read the tree ends there")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::OnceLock;

const PAGE: &str = "plan/ARCHITECTURE.md";
/// Folders that hold crates' code.
const ROOTS: [&str; 8] = ["buffers", "kernels", "net", "bench", "xtask", "src", "tests", "examples"];

/// The files that matter, by their path from the repository's root; of sources, the code alone.
#[derive(Clone)]
struct Tree {
    files: BTreeMap<String, String>,
}

impl Tree {
    fn load() -> Tree {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut tree = Tree { files: BTreeMap::new() };
        for file in [PAGE, "Cargo.toml"] {
            tree.files.insert(file.into(), std::fs::read_to_string(root.join(file)).unwrap());
        }
        ROOTS.iter().for_each(|folder| tree.load_folder(root, folder));
        tree
    }

    fn load_folder(&mut self, root: &Path, folder: &str) {
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            let entry = entry.unwrap();
            let path = format!("{folder}/{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                if entry.file_name() != "target" {
                    self.load_folder(root, &path);
                }
            } else if path.ends_with(".rs") {
                self.files.insert(path, code_of(&std::fs::read_to_string(entry.path()).unwrap()));
            } else if path.ends_with("Cargo.toml") {
                self.files.insert(path, std::fs::read_to_string(entry.path()).unwrap());
            }
        }
    }

    fn page(&self) -> &str {
        &self.files[PAGE]
    }

    /// A crate's manifest.
    fn cargo(&self, folder: &str) -> Option<toml::Table> {
        let path = if folder == "src" { "Cargo.toml".to_string() } else { format!("{folder}/Cargo.toml") };
        self.files.get(&path).map(|text| text.parse().unwrap())
    }

    /// The top-level modules of a crate, from its files.
    fn modules(&self, folder: &str) -> BTreeSet<String> {
        let sources = if folder == "src" { "src/".to_string() } else { format!("{folder}/src/") };
        let below = self.files.keys().filter_map(|path| path.strip_prefix(&sources));
        let modules = below.filter_map(|path| match path.split_once('/') {
            Some((folder, _)) => Some(folder),
            None => path.strip_suffix(".rs"),
        });
        modules.filter(|name| !["lib", "main", "bin"].contains(name)).map(str::to_string).collect()
    }
}

/// A crate as the map shows it.
#[derive(Debug, Default)]
struct Mapped {
    folder: String,
    modules: BTreeSet<String>,
    dependencies: BTreeSet<String>,
}

/// The crates of the page's map.
fn map(page: &str) -> Vec<Mapped> {
    let block = page.split_once("## Map").and_then(|(_, rest)| rest.split("```text\n").nth(1)).and_then(|rest| rest.split("```").next());
    let mut crates: Vec<Mapped> = Vec::new();
    for line in block.expect("the page has a map").lines() {
        match (line.strip_prefix("  "), crates.last_mut()) {
            (Some(modules), Some(last)) => {
                // One or two to a line: a name, two spaces or more, what it is.
                let columns: Vec<&str> = modules.split("  ").map(str::trim).filter(|column| !column.is_empty()).collect();
                last.modules.extend(columns.iter().step_by(2).map(|name| name.to_string()));
            }
            _ => {
                let (head, dependencies) = line.split_once('→').unwrap_or_else(|| panic!("no → in `{line}`"));
                let (folder, _) = head.split_once('/').unwrap_or_else(|| panic!("no folder in `{line}`"));
                let named = dependencies.split(',').map(str::trim).filter(|name| *name != "nothing");
                crates.push(Mapped { folder: folder.into(), modules: BTreeSet::new(), dependencies: named.map(str::to_string).collect() });
            }
        }
    }
    crates
}

/// The rows of a table by its head: what stands in `code` in the first and in the second column.
fn table<'a>(page: &'a str, head: &str) -> Vec<(&'a str, Vec<&'a str>)> {
    let coded = |cell: &'a str| cell.split('`').skip(1).step_by(2).collect::<Vec<_>>();
    let rows = page.split_once(head).unwrap_or_else(|| panic!("no table {head}")).1.lines().skip(2);
    rows.take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells: Vec<&str> = line.split('|').collect();
            (coded(cells[1])[0], coded(cells[2]))
        })
        .collect()
}

const NAMES: &str = "| name | only in |";
const PLACES: &str = "| place | never |";

/// Modules and crates: what the page names is there, and what is there the page names.
fn check_map(tree: &Tree) -> Vec<String> {
    let mapped = map(tree.page());
    let mut problems = Vec::new();
    let workspace = tree.cargo("src").unwrap();
    let members: BTreeSet<&str> = workspace["workspace"]["members"].as_array().unwrap().iter().filter_map(|m| m.as_str()).chain(["src"]).collect();
    let named: BTreeSet<&str> = mapped.iter().map(|c| c.folder.as_str()).collect();
    problems.extend(members.difference(&named).map(|m| format!("the page does not map the crate `{m}`")));
    problems.extend(named.difference(&members).map(|m| format!("the page maps `{m}`, which is no crate of the workspace")));
    for Mapped { folder, modules, .. } in &mapped {
        let found = tree.modules(folder);
        problems.extend(found.difference(modules).map(|m| format!("`{folder}` has a module `{m}` that the page does not name")));
        problems.extend(modules.difference(&found).map(|m| format!("the page names `{m}` in `{folder}`, where no such module is")));
    }
    problems
}

/// Layers: a crate depends on exactly what the page says, in tests on nothing more.
fn check_layers(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for Mapped { folder, dependencies, .. } in map(tree.page()) {
        let Some(cargo) = tree.cargo(&folder) else { continue };
        let ours = |kinds: &[&str]| -> BTreeSet<String> {
            all_dependencies(&cargo, kinds).iter().filter_map(|name| Some(name.strip_prefix("peercompute-")?.to_string())).collect()
        };
        let (normal, any) = (ours(&["dependencies"]), ours(&["dependencies", "dev-dependencies", "build-dependencies"]));
        problems.extend(any.difference(&dependencies).map(|d| format!("`{folder}` depends on `{d}`, which the page does not allow")));
        problems.extend(dependencies.difference(&normal).map(|d| format!("the page says that `{folder}` depends on `{d}`, but it does not")));
    }
    problems
}

/// The names in a manifest's dependency tables, those for single targets counted in.
fn all_dependencies(cargo: &toml::Table, kinds: &[&str]) -> BTreeSet<String> {
    let targets = cargo.get("target").and_then(|t| t.as_table()).into_iter().flat_map(|t| t.values().filter_map(|v| v.as_table()));
    let tables = std::iter::once(cargo).chain(targets).flat_map(|table| kinds.iter().filter_map(|kind| table.get(*kind)?.as_table()));
    tables.flat_map(|table| table.keys().cloned()).collect()
}

/// Names: nowhere in code but where the page allows them, nor among the dependencies of another crate.
fn check_names(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    let code: BTreeMap<&str, &String> =
        tree.files.iter().filter(|(path, _)| path.ends_with(".rs")).map(|(path, code)| (path.as_str(), code)).collect();
    let mut seek = |name: &str, path: &str, why: &str| {
        if !code[path].contains(name) {
            return;
        }
        for (index, line) in code[path].lines().enumerate().filter(|(_, line)| names(line, name)) {
            problems.push(format!("{path}:{}: `{name}` {why}: {}", index + 1, line.trim()));
        }
    };
    for (name, allowed) in table(tree.page(), NAMES) {
        for path in code.keys().filter(|path| !allowed.iter().any(|place| is_within(path, place))) {
            seek(name, path, "may not stand here");
        }
    }
    for (place, never) in table(tree.page(), PLACES) {
        for path in code.keys().filter(|path| is_within(path, place)) {
            never.iter().for_each(|name| seek(name, path, "is never named here"));
        }
    }
    for Mapped { folder, .. } in map(tree.page()) {
        let Some(cargo) = tree.cargo(&folder) else { continue };
        let depends = all_dependencies(&cargo, &["dependencies", "dev-dependencies", "build-dependencies"]);
        for (name, allowed) in table(tree.page(), NAMES) {
            if depends.contains(&name.replace('_', "-")) | depends.contains(name) && !allowed.iter().any(|place| is_within(place, &folder)) {
                problems.push(format!("`{folder}` depends on `{name}`, which may not stand there"));
            }
        }
    }
    problems
}

/// Places that the page names exist; otherwise a rule would hold for nothing.
fn check_places(tree: &Tree) -> Vec<String> {
    let allowed = table(tree.page(), NAMES).into_iter().flat_map(|(_, places)| places);
    let places = allowed.chain(table(tree.page(), PLACES).into_iter().map(|(place, _)| place));
    let missing = places.filter(|place| !tree.files.keys().any(|path| is_within(path, place)));
    missing.map(|place| format!("the page names `{place}`, which does not exist")).collect()
}

fn is_within(path: &str, place: &str) -> bool {
    path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether a line of code has the name: a whole word, or the first of a longer name as `libp2p_stream` is.
fn names(line: &str, name: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(name).any(|(at, _)| {
        let (before, after) = (line[..at].chars().next_back(), line[at + name.len()..].chars().next());
        !before.is_some_and(is_word) && !after.is_some_and(|c| c.is_alphanumeric())
    })
}

/// A source's code: comments and the insides of strings blanked out, lines kept.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(hashes) = raw_string(rest) {
            let close = format!("\"{}", "#".repeat(hashes));
            let open = hashes + 2;
            rest[open..].find(&close).map_or(rest.len(), |end| open + end + close.len())
        } else if first == '"' {
            1 + string_end(&rest[1..])
        } else if rest.starts_with("'\"'") {
            3
        } else if rest.starts_with("'\\") {
            // An escaped character: what follows the backslash is not the end.
            3 + rest[3..].find('\'').map_or(0, |end| end + 1)
        } else {
            0
        };
        if skip == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
            // `r` within a word opens no raw string.
            while let Some(next) = rest.chars().next().filter(|c| (first.is_alphanumeric() || first == '_') && (c.is_alphanumeric() || *c == '_')) {
                code.push(next);
                rest = &rest[next.len_utf8()..];
            }
        } else {
            code.extend(rest[..skip].chars().filter(|c| *c == '\n'));
            code.push(' ');
            rest = &rest[skip..];
        }
    }
    code
}

/// The hashes of a raw string that starts here.
fn raw_string(rest: &str) -> Option<usize> {
    let after = rest.strip_prefix('r')?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    after[hashes..].starts_with('"').then_some(hashes)
}

fn string_end(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

fn check_all(tree: &Tree) -> Vec<String> {
    [check_map, check_layers, check_names, check_places].iter().flat_map(|check| check(tree)).collect()
}

#[test]
fn the_tree_is_as_the_page_says() {
    let problems = check_all(&Tree::load());
    assert!(problems.is_empty(), "{PAGE} and the tree differ:\n  {}", problems.join("\n  "));
}

/// Breaks a copy of the real tree, and expects exactly one more problem, with these words.
fn check(broken: impl FnOnce(&mut Tree), expected: &str) {
    static WHOLE: OnceLock<(Tree, Vec<String>)> = OnceLock::new();
    let (whole, before) = WHOLE.get_or_init(|| {
        let tree = Tree::load();
        let problems = check_all(&tree);
        (tree, problems)
    });
    let mut tree = whole.clone();
    broken(&mut tree);
    let new: Vec<String> = check_all(&tree).into_iter().filter(|problem| !before.contains(problem)).collect();
    assert!(new.len() == 1 && new[0].contains(expected), "expected `{expected}`, found {new:?}");
}

fn edit(file: &'static str, from: &'static str, to: &'static str) -> impl FnOnce(&mut Tree) {
    move |tree| {
        let text = tree.files.get_mut(file).unwrap();
        assert!(text.contains(from), "{file} has no `{from}`");
        *text = text.replacen(from, to, 1);
    }
}

fn append(file: &'static str, line: &'static str) -> impl FnOnce(&mut Tree) {
    move |tree| tree.files.get_mut(file).unwrap().push_str(line)
}

#[test]
fn a_module_on_one_side_only_is_noticed() {
    check(|tree| drop(tree.files.insert("net/src/gossip.rs".into(), String::new())), "`net` has a module `gossip`");
    check(|tree| drop(tree.files.insert("net/src/gossip/mod.rs".into(), String::new())), "`net` has a module `gossip`");
    check(edit(PAGE, "  driver ", "  gossip       rumours\n  driver "), "the page names `gossip` in `net`");
    check(edit(PAGE, "  commit       commits and the warm store\n", ""), "`buffers` has a module `commit`");
    check(|tree| drop(tree.files.remove("src/picture.rs")), "the page names `picture` in `src`");
    check(edit("Cargo.toml", "\"xtask\"]", "\"xtask\", \"state\"]"), "does not map the crate `state`");
}

#[test]
fn a_dependency_against_the_layers_is_noticed() {
    let dependency = "[dependencies]\n";
    check(edit("buffers/Cargo.toml", dependency, "[dependencies]\npeercompute-net = { workspace = true }\n"), "`buffers` depends on `net`");
    check(
        edit("kernels/Cargo.toml", "[dev-dependencies]\n", "[dev-dependencies]\npeercompute-net = { workspace = true }\n"),
        "`kernels` depends on `net`",
    );
    let target = "\n[target.'cfg(unix)'.dependencies]\npeercompute-kernels = { workspace = true }\n";
    check(append("net/Cargo.toml", target), "`net` depends on `kernels`");
    check(edit("net/Cargo.toml", "peercompute-buffers = { workspace = true }\n", ""), "that `net` depends on `buffers`");
    check(edit("buffers/Cargo.toml", dependency, "[dependencies]\nwgpu = { workspace = true }\n"), "`buffers` depends on `wgpu`");
}

#[test]
fn a_name_where_it_may_not_stand_is_noticed() {
    check(append("kernels/src/program.rs", "\nuse wgpu::Device;\n"), "kernels/src/program.rs");
    check(append("src/launch.rs", "\nuse libp2p_stream::Control;\n"), "`libp2p` may not stand here");
    check(append("net/src/core/mod.rs", "\nfn now() -> u64 { std::time::Instant::now() }\n"), "`Instant` is never named here");
    check(append("net/src/membership/lead.rs", "\nfn now() -> u64 { std::time::Instant::now() }\n"), "`Instant` is never named here");
    check(append("net/src/core/watch.rs", "\nfn roll() -> u64 { fastrand::u64(..) }\n"), "`fastrand` is never named here");
    check(append("buffers/src/grid.rs", "\nfn late() { std::thread::yield_now() }\n"), "`thread` is never named here");
    check(edit(PAGE, "`net/src/wire.rs` |", "`net/src/wires.rs` |"), "`net/src/wires.rs`, which does not exist");
}

#[test]
fn comments_and_strings_are_not_code() {
    let check = |text: &str, expected: &str| assert_eq!(code_of(text).split_whitespace().collect::<Vec<_>>().join(" "), expected);
    check("a // wgpu\nb", "a b");
    check("a /* wgpu */ b", "a b");
    check("a(\"wgpu \\\" // wgpu\") b", "a( ) b");
    check("a(r#\"wgpu \" wgpu\"#) b", "a( ) b");
    check("let c = '\"'; wgpu \"x\"", "let c = ; wgpu");
    check("let c = '\\''; wgpu \"x\"", "let c = ; wgpu");
    check("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}");
    check("for\"wgpu\" b", "for b");
    assert!(names("use libp2p_stream::x", "libp2p") && names("x: wgpu::Y", "wgpu"));
    assert!(!names("my_wgpu", "wgpu") && !names("threads", "thread"));
}
