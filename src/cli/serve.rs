//! `peercompute serve`: hosts runs for browsers too. One port has the page, the bundles and the links' other ends.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};

use clap::Args;
use peercompute::keys::{self, KeyFileError};
use peercompute::launch::LaunchError;
use peercompute::link::Link;
use peercompute::node::NodeError;
use peercompute::serve::{Acme, Certificate, Hosted, ServeConfig, ServeError, Server, Serving};
use peercompute::told::Line;
use peercompute::world;
use peercompute_buffers::digest::hex;
use peercompute_kernels::VerifiedBundle;
use peercompute_kernels::executor::any::Choice;
use peercompute_net::transport::websocket::Fingerprint;
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;

use super::host::{self, HostArgs, Site};
use super::member::leave_all;
use super::{OpeningArgs, Voice, say, say_json, shipped};

#[derive(Args)]
pub(crate) struct ServeArgs {
    /// Workloads' folders, or signed bundles, or names of what comes with the program: rivers, heat, life, nbody; without any, all of these.
    workloads: Vec<PathBuf>,
    #[command(flatten)]
    opening: OpeningArgs,
    #[command(flatten)]
    host: HostArgs,
    /// A certificate chain in PEM, for https; browsers give WebGPU to pages from elsewhere over https alone.
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    /// The certificate's key, in PEM.
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// https with a certificate that this program signs itself, for phones and machines nearby. Browsers warn of it once; its fingerprint is
    /// printed, to compare. It is kept, and made anew when it ends or this machine has other addresses.
    #[arg(long, conflicts_with_all = ["certificate", "acme"])]
    self_signed: bool,
    /// https with a certificate for this name from Let's Encrypt, which is asked for, proved on this port and renewed by itself. The name must lead
    /// here, and its port 443 to this one.
    #[arg(long, value_name = "DOMAIN", requires = "acme_contact", conflicts_with = "certificate")]
    acme: Option<String>,
    /// Whom the authority writes to when something is wrong with the certificate.
    #[arg(long, value_name = "MAIL", requires = "acme")]
    acme_contact: Option<String>,
    /// Another authority than Let's Encrypt, or its staging: the URL of its directory.
    #[arg(long, value_name = "URL", requires = "acme")]
    acme_directory: Option<String>,
    /// How others reach this port, where that differs: behind a proxy, or by name.
    #[arg(long, value_name = "URL")]
    public: Option<String>,
    /// Show the page in this folder in place of the program's own; it has the package for browsers at /peercompute/index.js.
    #[arg(long, value_name = "DIR")]
    page: Option<PathBuf>,
    /// Invite whoever knows the port: the listing of runs tells how to join.
    #[arg(long)]
    open: bool,
    /// Wait while nobody else takes part, as several workloads on one port always do.
    #[arg(long)]
    rest_alone: bool,
}

/// What is to be served: before the first session starts, everything that can be wrong with it has been told.
pub(crate) fn run(args: &ServeArgs, choice: &Choice, json: bool) -> Result<(), LaunchError> {
    let bundles = args.bundles()?;
    let listen = args.host.listen().unwrap_or(SocketAddr::from(([127, 0, 0, 1], 8080)));
    let certificate = args.certificate()?;
    let server = Server::bind(&ServeConfig { listen, certificate, public: args.public.clone(), page: args.page.clone() })?;
    if !server.has_package() {
        eprintln!(
            "warning: this program was built without its package for browsers, so that only native peers can join\n  help: `cargo xtask web` builds it"
        );
    }
    if !server.is_trustworthy() {
        eprintln!(
            "warning: browsers give WebGPU and shared memory to pages over https alone, except at home; the cpu executor computes there, in one thread\n  help: `--self-signed` makes it https"
        );
    }
    let names: Vec<String> = bundles.iter().map(|bundle| bundle.program().manifest.name.clone()).collect();
    let has_several = bundles.len() > 1;
    let addresses: Vec<_> = names.iter().enumerate().map(|(at, name)| server.addresses((at > 0).then_some(name))).collect();
    let opening = Opening::new(server, bundles.len(), args.open, json)?;
    let opening = &opening;
    // Each run has a thread of its own. Before the port is open the first that fails ends all; after, the others go on.
    std::thread::scope(|scope| {
        let runs = bundles.into_iter().zip(addresses).enumerate().map(|(place, (bundle, addresses))| {
            let voice = Voice { json, of: has_several.then(|| names[place].clone()) };
            scope.spawn(move || {
                let site = Site::new(opening, place, addresses);
                let ended = host::host(&args.host, &bundle, Some(site), args.rest_alone || has_several, choice, voice.clone());
                if let Err(error) = &ended {
                    if !opening.give_up() {
                        leave_all();
                    } else if has_several {
                        voice.say(&Line::Notice { text: format!("this run has failed, and what else is served goes on: {error}") });
                    }
                }
                ended
            })
        });
        let runs: Vec<_> = runs.collect();
        let ended = runs.into_iter().map(|run| run.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        // All are waited for before the first error is told.
        ended.collect::<Vec<_>>().into_iter().collect()
    })
}

impl ServeArgs {
    fn certificate(&self) -> Result<Option<Certificate>, KeyFileError> {
        let given = self.certificate.clone().zip(self.key.clone()).map(|(chain, key)| Certificate::Given { chain, key });
        Ok(match (&self.acme, &self.acme_contact) {
            (Some(domain), Some(contact)) => {
                let cache = keys::certificates()?.join("acme");
                Some(Certificate::Acme(Acme { domain: domain.clone(), contact: contact.clone(), directory: self.acme_directory.clone(), cache }))
            }
            _ if self.self_signed => Some(Certificate::SelfSigned { file: keys::certificates()?.join("self-signed.pem") }),
            _ => given,
        })
    }

    fn bundles(&self) -> Result<Vec<VerifiedBundle>, LaunchError> {
        let OpeningArgs { tile, shape, .. } = &self.opening;
        let count = if self.workloads.is_empty() { shipped::ALL.len() } else { self.workloads.len() };
        let mut of_one = self.host.of_one_workload();
        of_one.extend([("--tile", !tile.is_empty()), ("--shape", !shape.is_empty())]);
        if let Some((option, _)) = of_one.into_iter().find(|(_, is_given)| *is_given && count > 1) {
            return Err(LaunchError::OneWorkload { option });
        }
        let open = |workload: &Path| match workload.to_str().and_then(shipped::named) {
            Some(shipped) if !workload.exists() => shipped.open(&self.opening.overrides()),
            _ => self.opening.open(workload),
        };
        let bundles: Vec<VerifiedBundle> = if self.workloads.is_empty() {
            shipped::ALL.iter().map(|shipped| shipped.open(&self.opening.overrides())).collect::<Result<_, _>>()?
        } else {
            self.workloads.iter().map(|workload| open(workload)).collect::<Result<_, _>>()?
        };
        let name = |bundle: &VerifiedBundle| bundle.program().manifest.name.clone();
        let again = bundles.iter().enumerate().find(|(at, bundle)| bundles[..*at].iter().any(|other| name(other) == name(bundle)));
        match again {
            Some((_, bundle)) => Err(LaunchError::SameName { name: name(bundle) }),
            None => Ok(bundles),
        }
    }
}

/// A port that is opened to visitors once every run can be joined.
pub(super) struct Opening {
    /// The invitation to each run that has none yet.
    pub(super) token: [u8; 16],
    url: String,
    /// What a browser shows to who looks at its warning.
    certificate: Option<Fingerprint>,
    is_open: bool,
    json: bool,
    inner: Mutex<Inner>,
    /// Rung when the port is open, or will not be.
    decided: Condvar,
}

struct Inner {
    server: Option<Server>,
    hosted: Vec<Option<Hosted>>,
    /// From then on, until the last run has ended.
    serving: Option<Serving>,
    /// Whether one of the runs will never be there.
    is_vain: bool,
}

impl Opening {
    fn new(server: Server, runs: usize, is_open: bool, json: bool) -> Result<Opening, NodeError> {
        let (url, certificate) = (server.url(), server.certificate());
        let inner = Inner { hosted: (0..runs).map(|_| None).collect(), server: Some(server), serving: None, is_vain: false };
        Ok(Opening { token: world::random()?, url, certificate, is_open, json, inner: Mutex::new(inner), decided: Condvar::new() })
    }

    /// One of the runs can be joined from now on. With the last of them the port is opened and announced, for which the others
    /// wait; `false` if it never will be.
    ///
    /// **Errors:** the server does not start.
    pub(super) fn ready(&self, place: usize, mut hosted: Hosted) -> Result<bool, ServeError> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        hosted.link.page = Some(self.url.clone());
        inner.hosted[place] = Some(hosted);
        if inner.hosted.iter().any(Option::is_none) {
            let waiting = |inner: &mut Inner| inner.serving.is_none() && !inner.is_vain;
            let inner = self.decided.wait_while(inner, waiting).unwrap_or_else(PoisonError::into_inner);
            return Ok(!inner.is_vain);
        }
        let hosted: Vec<Hosted> = inner.hosted.iter_mut().filter_map(Option::take).collect();
        let told = hosted.iter().map(|hosted| hosted.link.clone()).collect::<Vec<_>>();
        if let Some(server) = inner.server.take() {
            let voice = Voice { json: self.json, of: None };
            inner.serving = Some(server.start(hosted, self.is_open, move |text| voice.say(&Line::Notice { text }))?);
        }
        self.announce(&told);
        self.decided.notify_all();
        Ok(true)
    }

    /// One of the runs is over, or will never be there: then the port stays closed. Whether it is open.
    fn give_up(&self) -> bool {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.is_vain = inner.serving.is_none();
        self.decided.notify_all();
        inner.serving.is_some()
    }

    fn announce(&self, links: &[Link]) {
        let Some(first) = links.first() else { return };
        let identity = |link: &Link| link.addresses.first().and_then(|address| Some(address.rsplit_once("/p2p/")?.1.to_owned()));
        if self.json {
            let run = |link: &Link| {
                serde_json::json!({
                    "name": link.workload, "version": link.version, "link": link.to_string(), "peer_id": identity(link), "addresses": link.addresses,
                })
            };
            say_json(&serde_json::json!({
                "event": "listening",
                "link": first.to_string(),
                "peer_id": identity(first),
                "addresses": first.addresses,
                "certificate_sha256": self.certificate.map(|certificate| hex(&certificate.0)),
                "runs": links.iter().map(run).collect::<Vec<_>>(),
            }));
            return;
        }
        let names: Vec<String> = links.iter().map(|link| format!("{} {}", link.workload, link.version)).collect();
        say(format!("{}; browsers open\n\n{first}\n\n{}", names.join(", "), picture(&first.to_string())));
        if let Some(certificate) = self.certificate {
            say(format!("browsers warn once that nobody vouches for the certificate; go on if its SHA-256 fingerprint is\n\n{certificate}\n"));
        }
        say("others join with\n");
        for link in links {
            say(format!("peercompute join {link}\n"));
        }
    }
}

/// A link to point a phone at; empty if it is too long for that.
fn picture(link: &str) -> String {
    QrCode::new(link).map_or_else(|_| String::new(), |code| code.render::<Dense1x2>().quiet_zone(true).build())
}
