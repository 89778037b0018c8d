//! The benchmark page in a browser without a window: what `peercompute serve` shows people, measured and heard here.
//!
//! The page makes the figures; they are taken as they are, and so is what it says of adapter and browser.

use std::time::Duration;

use serde::Deserialize;
use tiny_http::{Method, Request};

use super::{BrowserError, Page, Session, respond};
use crate::page::{Bundles, FILES, PAGE, TRANSFER_BYTES, random_bytes};
use crate::report::{Failure, Report};
use crate::{Bench, BenchError, BenchOptions};

/// What the page may take for a step without a word: compiling, comparing, and all rounds of a case.
const PATIENCE: Duration = Duration::from_secs(300);

/// What the page tells.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Told {
    Progress(String),
    Report(Box<Report>),
    Failed(String),
}

/// Opens the page, and takes its report into this one.
pub(crate) fn measure(options: &BenchOptions, report: &mut Report, progress: &mut dyn FnMut(&str)) {
    match open(options, progress) {
        Ok(seen) => {
            report.adapter = seen.adapter;
            report.browser = seen.browser;
            report.figures.extend(seen.figures);
            report.failures.extend(seen.failures);
        }
        Err(error) => report.failures.push(Failure { bench: Bench::Page.name().into(), cause: error.to_string() }),
    }
}

fn open(options: &BenchOptions, progress: &mut dyn FnMut(&str)) -> Result<Report, BenchError> {
    let site = Site { bundles: Bundles::new()?, bytes: random_bytes() };
    let mut session = Session::open(&format!("bench?start&tell&effort={}", options.effort.name()), Page::Isolated, PATIENCE)?;
    loop {
        let request = session.receive()?;
        let url = request.url().split('?').next().unwrap_or_default().to_owned();
        if (request.method(), url.as_str()) != (&Method::Post, "/bench/told") {
            site.answer(&session, request, &url)?;
            continue;
        }
        let failed = |cause| BrowserError::Failed { cause };
        let told = session.heard(request).map_err(failed)?;
        match serde_json::from_slice(&told).map_err(|error| failed(error.to_string()))? {
            Told::Progress(step) => progress(&format!("page: {step}")),
            Told::Report(report) => return Ok(*report),
            Told::Failed(cause) => return Err(failed(cause).into()),
        }
    }
}

/// What there is beside the package.
struct Site {
    bundles: Bundles,
    bytes: Vec<u8>,
}

impl Site {
    fn answer(&self, session: &Session, request: Request, url: &str) -> Result<(), BenchError> {
        let file = url.strip_prefix("/package/").and_then(|name| FILES.iter().find(|(known, ..)| *known == name));
        let (kind, content) = match (url, file) {
            (_, Some((_, kind, content))) => (*kind, content.as_bytes().to_vec()),
            ("/bench", _) => ("text/html; charset=utf-8", PAGE.replace("APP", "/package").into_bytes()),
            ("/bench/about.json", _) => ("application/json", self.bundles.about().into_bytes()),
            ("/bench/bytes", _) if request.method() == &Method::Post => {
                return match session.heard(request) {
                    Ok(bytes) if bytes.len() == TRANSFER_BYTES => Ok(()),
                    Ok(bytes) => Err(BrowserError::Failed { cause: format!("{} bytes came up of {TRANSFER_BYTES}", bytes.len()) }.into()),
                    Err(cause) => Err(BrowserError::Failed { cause }.into()),
                };
            }
            ("/bench/bytes", _) => ("application/octet-stream", self.bytes.clone()),
            _ => match url.strip_prefix("/bench/bundles/").map(|name| self.bundles.bundle(name)).transpose()?.flatten() {
                Some(bundle) => ("application/octet-stream", bundle.to_vec()),
                None => {
                    session.file(request, url);
                    return Ok(());
                }
            },
        };
        respond(request, Page::Isolated, kind, &content);
        Ok(())
    }
}
