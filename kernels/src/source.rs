//! Bounds on source text, checked before any parser sees it.
//!
//! naga's parser, validator and back ends recurse over what they read, so a hostile file could
//! overflow a stack or take minutes; a panic or an abort would take the whole peer with it. This
//! scanner knows only comments, strings, brackets and operators, runs once over the bytes and needs
//! no stack. What passes is parsed and checked on a stack that the bounds fit with room to spare.
//! Invariant: text that passes costs the parsers bounded depth and bounded time.

use std::error::Error;
use std::ops::Range;

use crate::diagnose::{ErrorKind, WorkloadError, error_at};

/// The largest WGSL file, in bytes.
pub const WGSL_BYTES_MAX: u64 = 256 << 10;
/// The deepest nesting of brackets; in WGSL an `else` nests what follows it too.
pub const NESTING_MAX: usize = 64;
/// The most operators in one expression.
pub const OPERATORS_MAX: usize = 200;
/// The most statements in one file: naga's time grows with their square.
pub const STATEMENTS_MAX: usize = 4_096;
/// The most declarations at module scope in one file: each may name the next, and naga follows them.
pub const DECLARATIONS_MAX: usize = 256;

/// What the text is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// `#` comments and quoted strings.
    Toml,
    /// `//` and nested `/* */` comments.
    Wgsl,
}

/// Checks a WGSL file against every bound.
///
/// **Errors:** [`ErrorKind::TooLarge`], [`ErrorKind::NestedTooDeep`], [`ErrorKind::TooComplex`].
pub fn check_wgsl(file: &str, text: &str) -> Result<(), WorkloadError> {
    check_bounds(file, text, 1)
}

/// Checks linked WGSL: twice the bounds on a file, since linking adds the prelude and the bindings.
///
/// **Errors:** as [`check_wgsl`].
pub fn check_linked(file: &str, text: &str) -> Result<(), WorkloadError> {
    check_bounds(file, text, 2)
}

/// What naga's validator found, without the numbers that only it knows things by: the cause, and notes.
pub(crate) fn invalid(error: &naga::WithSpan<naga::valid::ValidationError>) -> (String, Vec<String>) {
    let first: &dyn Error = error.as_inner();
    let mut chain: Vec<String> = std::iter::successors(Some(first), |&error| error.source()).map(|error| plain(&error.to_string())).collect();
    // The last knows best; those around it only where, and whom if they name it.
    let mut cause = chain.pop().unwrap_or_default();
    chain.retain(|text| text.contains('\''));
    let labels = error.spans().map(|(_, label)| label).filter(|label| !label.is_empty() && !label.starts_with("naga::"));
    chain.extend(labels.map(|label| plain(label)));
    if cause.starts_with("Accessing index") {
        cause = "an index is beyond the end of what it goes into".into();
    } else if cause.starts_with("Abstract types") {
        chain.push("operands are of one type: `1u` goes with a `u32`, `1.0` with an `f32`".into());
    }
    (cause, chain)
}

/// Without places in naga's arenas, and with WGSL's names of scalars.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for word in text.split_inclusive(' ') {
        let is_place = word.trim_end().strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).is_some_and(|number| number.parse::<u32>().is_ok());
        if !is_place {
            plain.push_str(word);
        }
    }
    for (kind, name) in [("Uint", "u32"), ("Sint", "i32"), ("Float", "f32")] {
        plain = plain.replace(&format!("Scalar(Scalar {{ kind: {kind}, width: 4 }})"), name);
    }
    plain.trim_end().to_string()
}

fn check_bounds(file: &str, text: &str, times: usize) -> Result<(), WorkloadError> {
    let bytes_max = WGSL_BYTES_MAX * times as u64;
    if text.len() as u64 > bytes_max {
        return Err(ErrorKind::TooLarge { file: file.into(), bytes: text.len() as u64, limit: bytes_max }.into());
    }
    check_nesting(file, text, Syntax::Wgsl)?;
    let (mut statements, mut operators, mut declarations) = (0, 0, 0);
    // Per level of braces, the `else` of the chain that is open there.
    let mut elses = vec![0];
    let mut nested = 0usize;
    let fail = |what, count, limit, at: usize| Err(error_at(ErrorKind::TooComplex { what, count, limit }, file, text, at..at + 1));
    let bytes = text.as_bytes();
    for at in code(text, Syntax::Wgsl) {
        match bytes[at] {
            b';' | b'{' | b'}' => {
                statements += usize::from(bytes[at] == b';');
                operators = 0;
                match bytes[at] {
                    b'{' => elses.push(0),
                    b'}' if elses.len() > 1 => nested -= elses.pop().unwrap_or(0),
                    _ => {}
                }
                let chain_goes_on = bytes[at] == b'{' || bytes[at] == b'}' && text[at + 1..].trim_start().starts_with("else");
                if let Some(chain) = elses.last_mut().filter(|_| !chain_goes_on) {
                    nested -= std::mem::take(chain);
                }
                declarations += usize::from(elses.len() == 1);
            }
            b',' => operators = 0,
            b'+' | b'-' | b'*' | b'/' | b'%' | b'!' | b'~' | b'&' | b'|' | b'^' | b'<' | b'>' | b'.' | b'[' => operators += 1,
            b'e' if bytes[at..].starts_with(b"else") => {
                nested += 1;
                if let Some(chain) = elses.last_mut() {
                    *chain += 1;
                }
            }
            _ => {}
        }
        // An expression is the user's own: the prelude adds nothing to it.
        let counted = [
            ("operators in one expression", operators, OPERATORS_MAX),
            ("statements", statements, STATEMENTS_MAX * times),
            ("declarations", declarations, DECLARATIONS_MAX * times),
        ];
        let depth = nested + elses.len() - 1;
        if depth > NESTING_MAX {
            return Err(error_at(ErrorKind::NestedTooDeep { depth, limit: NESTING_MAX }, file, text, at..at + 1));
        }
        if let Some(&(what, count, limit)) = counted.iter().find(|(_, count, limit)| count > limit) {
            return fail(what, count, limit, at);
        }
    }
    Ok(())
}

/// Checks how deep brackets nest.
///
/// **Errors:** [`ErrorKind::NestedTooDeep`].
pub fn check_nesting(file: &str, text: &str, syntax: Syntax) -> Result<(), WorkloadError> {
    let bytes = text.as_bytes();
    let mut depth = 0usize;
    // Template lists nest types: `array<array<…>>`. A `<` may be a comparison too, so it only counts
    // while nothing but names and commas stands between.
    let mut templates = 0usize;
    for at in code(text, syntax) {
        match bytes[at] {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b'<' if syntax == Syntax::Wgsl => templates += 1,
            b'>' => templates = templates.saturating_sub(1),
            b';' => templates = 0,
            _ => {}
        }
        if depth > NESTING_MAX || templates > NESTING_MAX {
            let kind = ErrorKind::NestedTooDeep { depth: depth.max(templates), limit: NESTING_MAX };
            return Err(error_at(kind, file, text, at..at + 1));
        }
    }
    Ok(())
}

/// The byte positions that are neither comment nor string.
fn code(text: &str, syntax: Syntax) -> impl Iterator<Item = usize> + '_ {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < bytes.len() {
            let rest = &bytes[at..];
            let skip = match syntax {
                Syntax::Toml if rest[0] == b'#' => line(rest),
                Syntax::Toml if rest[0] == b'"' || rest[0] == b'\'' => string(rest),
                Syntax::Wgsl if rest.starts_with(b"//") => line(rest),
                Syntax::Wgsl if rest.starts_with(b"/*") => block_comment(rest),
                _ => {
                    at += 1;
                    return Some(at - 1);
                }
            };
            at += skip;
        }
        None
    })
}

/// Where the directives stand that a WGSL file may begin with, each up to its semicolon.
pub(crate) fn directives(text: &str) -> impl Iterator<Item = Range<usize>> + '_ {
    let bytes = text.as_bytes();
    let mut code = code(text, Syntax::Wgsl).filter(|&at| !bytes[at].is_ascii_whitespace());
    std::iter::from_fn(move || {
        let start = code.next()?;
        let is_directive = ["enable", "requires", "diagnostic"].iter().any(|word| text[start..].starts_with(word));
        let end = code.by_ref().find(|&at| bytes[at] == b';').filter(|_| is_directive)?;
        Some(start..end + 1)
    })
}

fn line(rest: &[u8]) -> usize {
    rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len())
}

fn string(rest: &[u8]) -> usize {
    let quote = rest[0];
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' if quote == b'"' => at += 1,
            b'\n' => return at,
            b if b == quote => return at + 1,
            _ => {}
        }
        at += 1;
    }
    rest.len()
}

fn block_comment(rest: &[u8]) -> usize {
    let mut depth = 0usize;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// The stack that parsing and checking get: unoptimised naga takes up to 45 KiB per level of nesting.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) const STACK_BYTES: usize = 32 << 20;

/// Runs what recurses over checked text where the bounds are sure to fit, whatever the caller's stack.
/// A browser has optimised code and one stack: there it runs in place.
pub(crate) fn on_deep_stack<T: Send>(mut work: impl FnMut() -> T + Send) -> T {
    #[cfg(not(target_arch = "wasm32"))]
    {
        let outcome = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("workload".into()).stack_size(STACK_BYTES);
            thread.spawn_scoped(scope, &mut work).ok().map(std::thread::ScopedJoinHandle::join)
        });
        match outcome {
            Some(Ok(value)) => return value,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            // No thread to be had: the caller's stack must do.
            None => {}
        }
    }
    work()
}

/// A naga span as a byte range.
pub(crate) fn range(span: naga::Span) -> Range<usize> {
    span.to_range().unwrap_or(0..0)
}

/// The line of a text where a naga span begins, from 1.
pub(crate) fn line_of(text: &str, span: naga::Span) -> usize {
    let start = range(span).start.min(text.len());
    1 + text.as_bytes()[..start].iter().filter(|&&byte| byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_texts_are_refused_before_parsing() {
        let check = |text: &str| *check_wgsl("a.wgsl", text).unwrap_err().kind;
        assert!(matches!(check(&" ".repeat(10 << 20)), ErrorKind::TooLarge { .. }));
        assert!(matches!(check(&"(".repeat(10_000)), ErrorKind::NestedTooDeep { .. }));
        assert!(matches!(check(&"array<".repeat(10_000)), ErrorKind::NestedTooDeep { .. }));
        assert!(matches!(check(&format!("let a = 1{};", "+1".repeat(10_000))), ErrorKind::TooComplex { .. }));
        assert!(matches!(check(&format!("let a = {}1;", "-".repeat(10_000))), ErrorKind::TooComplex { .. }));
        assert!(matches!(check(&"x = 1;".repeat(20_000)), ErrorKind::TooComplex { .. }));
        assert!(matches!(check(&format!("let a = b{};", "[0]".repeat(10_000))), ErrorKind::TooComplex { .. }));
        assert!(matches!(check(&"struct A { b: B }".repeat(300)), ErrorKind::TooComplex { what: "declarations", .. }));
        assert!(matches!(check(&"if (a) {} else ".repeat(10_000)), ErrorKind::NestedTooDeep { .. }));
        assert!(matches!(check(&format!("fn f() {{ {} }}", "if (a) { b; } else ".repeat(100))), ErrorKind::NestedTooDeep { .. }));
    }

    #[test]
    fn branches_that_do_not_nest_are_not_counted_together() {
        let branches = "if (a) { b = 1; } else if (c) { b = 2; } else { b = 3; }\n".repeat(300);
        check_wgsl("a.wgsl", &format!("fn f() {{ {branches} }}")).unwrap();
    }

    #[test]
    fn comments_and_strings_do_not_count() {
        check_wgsl("a.wgsl", &format!("/* {} /* */ */ // {}\n", "(".repeat(1000), "(".repeat(1000))).unwrap();
        check_nesting("a.toml", &format!("a = \"{}\\\"\" # {}", "[".repeat(1000), "[".repeat(1000)), Syntax::Toml).unwrap();
    }
}
