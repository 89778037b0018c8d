//! Running every test, and counting them.
//!
//! cargo-nextest runs the tests where it is installed, `cargo test` where it is not; documentation
//! tests are `cargo test`'s in both cases. What the runners print goes on to the terminal as it comes,
//! and their own summaries are added up; the check of the package's types counts as one test. Invariant: the last line on standard output is
//! `N passed, N failed, N skipped`, also when nothing could be built.

use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::process::{Command, Stdio};

use crate::{say, setup, types, web};

/// How many tests went which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// Sets up, builds the package for browsers and runs the tests; with arguments, those that the runner selects by them.
pub(crate) fn run(args: &[String]) -> bool {
    let mut is_fine = setup::driver();
    let mut counts = Counts::default();
    let mut args: Vec<&str> = args.iter().map(String::as_str).collect();
    let select_all = args.is_empty();
    if select_all {
        // What they lack shows in the tests that need them as well; this says it first.
        is_fine &= setup::browser();
        is_fine &= setup::authority();
        is_fine &= web::build();
    } else {
        say("the package for browsers is used as it is: arguments select tests (cargo xtask web builds it)");
    }
    if !args.iter().any(|arg| arg.starts_with("-p") || arg.starts_with("--package")) {
        args.insert(0, "--workspace");
    }
    if select_all {
        match types::check() {
            Some(true) => counts.passed += 1,
            Some(false) => counts.failed += 1,
            None => counts.skipped += 1,
        }
    }
    if setup::nextest_is_installed() {
        is_fine &= runner(&[&["nextest", "run", "--no-fail-fast"], &args[..]].concat(), &mut counts);
    } else {
        say("cargo-nextest is not installed: `cargo test` runs the tests (cargo xtask setup installs it)");
        is_fine &= runner(&[&["test", "--no-fail-fast", "--tests", "--examples"], &args[..]].concat(), &mut counts);
    }
    if select_all {
        is_fine &= runner(&["test", "--workspace", "--no-fail-fast", "--doc"], &mut counts);
    } else {
        say("documentation tests were not run: arguments select other tests");
    }
    say(format_args!("{} passed, {} failed, {} skipped", counts.passed, counts.failed, counts.skipped));
    is_fine && counts.failed == 0
}

/// Runs cargo, passes on what it prints and adds up its summaries.
fn runner(args: &[&str], counts: &mut Counts) -> bool {
    say(format_args!("$ cargo {}", args.join(" ")));
    let mut command = Command::new("cargo");
    command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    if std::io::stderr().is_terminal() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // Mesa complains where no desktop has set this.
        command.env("XDG_RUNTIME_DIR", std::env::temp_dir());
    }
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            eprintln!("error: cannot start cargo: {error}");
            return false;
        }
    };
    let (output, errors) = (child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        let errors = scope.spawn(|| errors.map(|errors| pass_on(errors, &mut std::io::stderr())).unwrap_or_default());
        if let Some(output) = output {
            *counts += pass_on(output, &mut std::io::stdout());
        }
        *counts += errors.join().unwrap_or_default();
    });
    match child.wait() {
        Ok(status) if status.success() => true,
        Ok(status) => {
            eprintln!("error: cargo {}: {status}", args.join(" "));
            false
        }
        Err(error) => {
            eprintln!("error: cargo {}: {error}", args.join(" "));
            false
        }
    }
}

/// Copies lines as they come, and adds up the summaries among them.
fn pass_on(from: impl Read, to: &mut impl Write) -> Counts {
    let mut counts = Counts::default();
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
        // A reader that went away ends nothing: the tests run on, and their exit code counts.
        let _ = to.write_all(&line).and_then(|()| to.flush());
        if let Some(summary) = summary(&plain(&String::from_utf8_lossy(&line))) {
            counts += summary;
        }
        line.clear();
    }
    counts
}

/// A line without its colours.
fn plain(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(char) = chars.next() {
        if char == '\u{1b}' {
            chars.by_ref().find(char::is_ascii_alphabetic);
        } else {
            text.push(char);
        }
    }
    text
}

/// What a runner's summary line counts; `None` for any other line.
///
/// ```text
/// nextest      Summary [   1.2s] 9 tests run: 6 passed (1 slow), 2 failed, 1 timed out, 3 skipped
/// cargo test   test result: FAILED. 6 passed; 2 failed; 3 ignored; 0 measured; 0 filtered out; finished in 1.20s
/// ```
///
/// What nextest shows of a test that failed is indented, and has a result of its own, which it has counted.
fn summary(line: &str) -> Option<Counts> {
    let list = match line.trim().strip_prefix("Summary [") {
        Some(rest) => rest.split_once(" run: ")?.1,
        None => line.trim_end().strip_prefix("test result: ")?.split_once(". ")?.1,
    };
    let mut counts = Counts::default();
    for part in list.split([',', ';']) {
        let mut words = part.split_whitespace();
        let (Some(Ok(count)), Some(what)) = (words.next().map(str::parse::<u64>), words.next()) else { continue };
        match what {
            "passed" => counts.passed += count,
            // "timed out", "exec failed": neither passed.
            "failed" | "timed" | "exec" => counts.failed += count,
            "skipped" | "ignored" | "filtered" => counts.skipped += count,
            _ => {}
        }
    }
    Some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: Option<[u64; 3]>) {
        let counts = summary(&plain(line)).map(|counts| [counts.passed, counts.failed, counts.skipped]);
        assert_eq!(counts, expected, "{line}");
    }

    #[test]
    fn summaries_are_counted() {
        check("     Summary [   0.011s] 3 tests run: 3 passed, 0 skipped", Some([3, 0, 0]));
        check("     Summary [   1.200s] 9 tests run: 6 passed (1 slow), 2 failed, 1 timed out, 3 skipped", Some([6, 3, 3]));
        check("     Summary [   1.200s] 4/9 tests run: 2 passed (1 flaky, 1 leaky), 1 exec failed, 1 failed, 5 skipped", Some([2, 2, 5]));
        check(
            "\u{1b}[31;1m     Summary\u{1b}[0m [   0.011s] \u{1b}[1m1\u{1b}[0m test run: \u{1b}[1m1\u{1b}[0m \u{1b}[32mpassed\u{1b}[0m, 0 skipped",
            Some([1, 0, 0]),
        );
        check("test result: ok. 6 passed; 0 failed; 3 ignored; 0 measured; 1 filtered out; finished in 1.20s", Some([6, 0, 4]));
        check("test result: FAILED. 0 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s", Some([0, 2, 0]));
        check("    test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 12 filtered out; finished in 61.86s", None);
        check("test tests::summaries_are_counted ... ok", None);
        check("running 5 tests", None);
    }

    #[test]
    fn lines_go_on_unchanged_and_every_summary_counts() {
        let text = "noise\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0s\n\
                    test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0s";
        let mut copy = Vec::new();
        let counts = pass_on(text.as_bytes(), &mut copy);
        assert_eq!(copy, text.as_bytes());
        assert_eq!(counts, Counts { passed: 3, failed: 0, skipped: 1 });
    }
}
