//! What the machine needs beside a Rust toolchain: a Vulkan driver, a browser, an authority for certificates, and a test runner.
//!
//! Tests run kernels on a GPU or on a software driver; both are found through the Vulkan loader and a
//! driver's manifest (ICD). They also run them in headless Chromium, and get a certificate from Pebble. On Debian and Ubuntu the
//! software driver, the browser and the authority are installed when there is none; elsewhere this says what to install. Invariant: a driver that is there is left as it is.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{has, run, say};

/// The packages that bring the loader and lavapipe.
const PACKAGES: [&str; 2] = ["libvulkan1", "mesa-vulkan-drivers"];

/// What Chromium is called.
const BROWSERS: [&str; 6] = ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome", "chromium-headless-shell"];

/// Let's Encrypt's server for tests, and the names that it looks up; one package, called as the first.
const AUTHORITY: [&str; 2] = ["pebble", "pebble-challtestsrv"];

/// Installs everything that can be installed.
pub(crate) fn everything() -> bool {
    let has_all = driver() & browser() & authority();
    if nextest_is_installed() {
        say("cargo-nextest: installed");
        return has_all;
    }
    run("cargo", &["install", "--locked", "cargo-nextest"]) && has_all
}

/// Whether tests can be run by cargo-nextest.
pub(crate) fn nextest_is_installed() -> bool {
    has(&["nextest", "--version"])
}

/// Sees to it that there is a Vulkan driver; says what is missing if there is none.
pub(crate) fn driver() -> bool {
    if !cfg!(target_os = "linux") {
        // Metal and Direct3D come with the system.
        return true;
    }
    if let Some(missing) = missing() {
        say(format_args!("no Vulkan driver: {missing}"));
        install(&PACKAGES);
    }
    match missing() {
        None => true,
        Some(missing) => {
            eprintln!(
                "error: no Vulkan driver: {missing}\n  help: install your GPU's, or a software one:\n    \
                 Debian, Ubuntu   apt-get install {}\n    Fedora           dnf install vulkan-loader mesa-vulkan-drivers\n    \
                 Arch             pacman -S vulkan-icd-loader vulkan-swrast\n    Alpine           apk add vulkan-loader mesa-vulkan-swrast",
                PACKAGES.join(" ")
            );
            false
        }
    }
}

/// Sees to it that there is a browser for the tests; says what is missing if there is none.
pub(crate) fn browser() -> bool {
    let is_there = || BROWSERS.iter().any(|name| prints(name, &["--version"]).is_some());
    if !is_there() {
        install(&["chromium"]);
    }
    if !is_there() {
        eprintln!("error: none of {} runs here; on Debian and Ubuntu: apt-get install chromium", BROWSERS.join(", "));
    }
    is_there()
}

/// Sees to it that there is an ACME server, where tests want one; says what is missing if there is none.
pub(crate) fn authority() -> bool {
    let is_there = || !cfg!(target_os = "linux") || AUTHORITY.iter().all(|name| is_program(name));
    if !is_there() {
        install(&AUTHORITY[..1]);
    }
    if !is_there() {
        eprintln!("error: there is no {}; on Debian and Ubuntu: apt-get install {}", AUTHORITY.join(" or no "), AUTHORITY[0]);
    }
    is_there()
}

fn is_program(name: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|folders| std::env::split_paths(&folders).any(|folder| folder.join(name).exists()))
}

/// What stands between this machine and a Vulkan device, if anything.
fn missing() -> Option<&'static str> {
    if !manifest_is_there() {
        return Some("no driver manifest under /usr/share/vulkan/icd.d or /etc/vulkan/icd.d");
    }
    if !loader_is_there() {
        return Some("libvulkan.so.1 is not installed");
    }
    None
}

fn manifest_is_there() -> bool {
    let named = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"].into_iter().filter_map(std::env::var_os);
    if named.flat_map(|list| std::env::split_paths(&list).collect::<Vec<_>>()).any(|file| file.exists()) {
        return true;
    }
    let folders = ["/usr/share/vulkan/icd.d", "/usr/local/share/vulkan/icd.d", "/etc/vulkan/icd.d", "/run/opengl-driver/share/vulkan/icd.d"];
    folders.into_iter().any(|folder| files_of(Path::new(folder)).iter().any(|file| file.extension().is_some_and(|e| e == "json")))
}

fn loader_is_there() -> bool {
    let own = std::env::var_os("LD_LIBRARY_PATH").map(|list| std::env::split_paths(&list).collect::<Vec<_>>()).unwrap_or_default();
    let common = ["/lib", "/usr/lib", "/lib64", "/usr/lib64", "/usr/local/lib", "/run/opengl-driver/lib"].map(PathBuf::from);
    // Debian keeps libraries one folder deeper, by architecture.
    let deeper = ["/lib", "/usr/lib"].into_iter().flat_map(|folder| files_of(Path::new(folder)));
    let by_architecture = deeper.filter(|folder| folder.to_string_lossy().contains("-linux-"));
    own.into_iter().chain(common).chain(by_architecture).any(|folder| folder.join("libvulkan.so.1").exists())
}

fn files_of(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

/// Installs Debian packages where that is known how to do.
pub(crate) fn install(packages: &[&str]) {
    if !Path::new("/usr/bin/apt-get").exists() {
        return;
    }
    let Some(become_root) = root() else {
        say("it can be installed by root only: run as root, or give sudo");
        return;
    };
    let apt = |args: &[&str]| {
        let mut all = become_root.clone();
        all.extend(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
        all.extend(args);
        run(all[0], &all[1..])
    };
    // Without fresh lists a package may be named that the mirror no longer has; old lists may still do.
    apt(&["update"]);
    let install = ["install", "-y", "--no-install-recommends"].iter().chain(packages).copied().collect::<Vec<_>>();
    apt(&install);
}

/// What goes before a command for it to run as root; `None` if nothing does.
fn root() -> Option<Vec<&'static str>> {
    if prints("id", &["-u"]).as_deref() == Some("0") {
        return Some(Vec::new());
    }
    prints("sudo", &["-n", "true"]).map(|_| vec!["sudo", "-n"])
}

/// What a program prints, if it is there and succeeds.
pub(crate) fn prints(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_string())
}
