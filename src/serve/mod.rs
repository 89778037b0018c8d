//! The root's one port: the page, the package for browsers, the runs' bundles, and the WebSockets by which peers join.
//!
//! ```text
//!  TCP ─ TLS? ─ HTTP ─┬─ /                the page, never kept
//!                     ├─ /app/HASH/…      what the page loads, kept for ever: another content has another HASH
//!                     ├─ /peercompute/…   the same package for a user's own page, whose files are at /…
//!                     ├─ /runs            what is computed here, and where it is joined
//!                     ├─ /bundles/HASH.pcb   a run's signed bundle, by its manifest's hash
//!                     ├─ /bench           the benchmark page, its bundles, and bytes to measure the way with
//!                     ├─ /health          what is served, for monitors
//!                     └─ /p2p, /p2p/NAME  101 ─► the first run's door, or the named one's: from here on it is a peer's link
//! ```
//!
//! Nothing that is served names a third host, and the page may load none. The invitation is in the link's fragment, which a browser
//! keeps to itself: who has the page's address alone gets the page, and no run. Invariants: every connection is bounded in time
//! until it has asked for something, and so is their number; a file is served from memory, as it was when the program started.

mod acme;
mod bench;
mod fetch;
mod self_signed;
mod site;
mod tls;
mod upgrade;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use peercompute_buffers::digest::hex;
use peercompute_kernels::VerifiedBundle;
use peercompute_net::transport::websocket::{Door, Fingerprint, PATH};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};

use crate::link::{Link, PageAddress};

pub use acme::Acme;
pub use fetch::{FetchError, fetch_bundle};
use site::{Asset, Site};
pub use site::{SiteError, package_folder};
use tls::Tls;
pub use tls::{Certificate, TlsError};

/// Connections at a time, those of peers among them.
const CONNECTIONS_MAX: usize = 2048;
/// How long a request's head, or a TLS handshake, may take.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// The format of `/runs`.
const LISTING_VERSION: u32 = 1;
/// A page may do what it needs and nothing else: its own files, its own WebAssembly, its own server.
const POLICY: &str = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; style-src 'self'; \
                      img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What to serve, and where.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// The port.
    pub listen: SocketAddr,
    /// What makes it https; without, plain HTTP.
    pub certificate: Option<Certificate>,
    /// How others reach this port, where that differs from `listen`: behind a proxy, or by name. A URL without a path.
    pub public: Option<String>,
    /// A folder with a page to show in place of this program's own.
    pub page: Option<PathBuf>,
}

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The port is not to be had.
    #[error("cannot listen on {address}: {cause}; choose another with `--listen IP:PORT`, or port 0 for a free one")]
    Listen {
        /// The port.
        address: SocketAddr,
        /// The system's word.
        cause: std::io::Error,
    },
    /// The page's files.
    #[error(transparent)]
    Site(#[from] SiteError),
    /// The certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The public address is not a URL.
    #[error("`{given}` is not like https://example.com or http://192.0.2.1:8080")]
    Public {
        /// What was given.
        given: String,
    },
    /// The system gives no thread.
    #[error("cannot start the server: {0}")]
    Thread(std::io::Error),
}

/// A port that is taken, and what will be served on it.
pub struct Server {
    listener: std::net::TcpListener,
    site: Site,
    tls: Option<Tls>,
    /// How others see the port, the best first.
    places: Vec<PageAddress>,
}

impl Server {
    /// Takes the port, and reads what is to be served.
    ///
    /// **Errors:** [`ServeError`].
    pub fn bind(config: &ServeConfig) -> Result<Server, ServeError> {
        let public = match &config.public {
            Some(given) => Some(PageAddress::parse(given).ok_or_else(|| ServeError::Public { given: given.clone() })?),
            None => None,
        };
        let public = config.certificate.as_ref().map_or(Ok(public.clone()), |certificate| certificate.public(public))?;
        let mut places: Vec<PageAddress> = public.into_iter().collect();
        // What an authority vouches for is the name alone.
        if !matches!(config.certificate, Some(Certificate::Acme(_))) {
            places.extend(seen_as(config.listen, config.certificate.is_some()));
        }
        places.dedup();
        let hosts = places.iter().map(|place| place.host.clone());
        let tls = config.certificate.as_ref().map(|certificate| Tls::open(certificate, hosts)).transpose()?;
        let site = Site::load(config.page.as_deref())?;
        let listen_error = |cause| ServeError::Listen { address: config.listen, cause };
        let listener = std::net::TcpListener::bind(config.listen).map_err(listen_error)?;
        listener.set_nonblocking(true).map_err(listen_error)?;
        let port = listener.local_addr().map_err(listen_error)?.port();
        // A free one was wanted.
        places.iter_mut().filter(|place| place.port == 0).for_each(|place| place.port = port);
        Ok(Server { listener, site, tls, places })
    }

    /// What a run listens on, as the transport has it: a WebSocket at every address of the port, with the certificate
    /// where nobody vouches for that. The first run has no name in it.
    pub fn addresses(&self, run: Option<&str>) -> Vec<String> {
        let address = |place: &PageAddress| match self.certificate() {
            Some(named) if place.is_secure => named.named_by(&place.multiaddress(run)),
            _ => place.multiaddress(run),
        };
        self.places.iter().map(address).collect()
    }

    /// The page's address.
    pub fn url(&self) -> String {
        self.places.first().map(PageAddress::url).unwrap_or_default()
    }

    /// The certificate, where no authority vouches for it.
    pub fn certificate(&self) -> Option<Fingerprint> {
        self.tls.as_ref()?.named
    }

    /// Whether a page from here may use WebGPU: browsers want TLS, except at home.
    pub fn is_trustworthy(&self) -> bool {
        self.places
            .first()
            .is_some_and(|place| place.is_secure || place.host == "localhost" || place.host.starts_with("127.") || place.host == "[::1]")
    }

    /// Whether browsers can take part: whether this program was built with its package for them, or is beside one.
    pub fn has_package(&self) -> bool {
        self.site.is_whole
    }

    /// Serves, on a thread of its own, until what is returned is dropped.
    ///
    /// The first run's door is at `/p2p`, each other's at `/p2p/NAME`. Where `is_open`, the listing of runs invites everybody.
    /// `tell` hears how an authority answers.
    ///
    /// **Errors:** the system gives no thread.
    pub fn start(self, hosted: Vec<Hosted>, is_open: bool, tell: impl Fn(String) + Send + Sync + 'static) -> Result<Serving, ServeError> {
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServeError::Thread)?;
        let served =
            Arc::new(Served { is_open, runs: hosted.into_iter().map(Served::run).collect(), site: self.site, bench: bench::Bench::default() });
        // The first visitor need not wait for it; one that comes meanwhile waits no longer than for doing it itself.
        let early = served.clone();
        let is_slow = |asset: &&Asset| asset.brotli.is_none();
        std::thread::spawn(move || early.site.files.values().filter(is_slow).for_each(|asset| drop(asset.gzipped())));
        let listener = self.listener;
        let (tls, renewal) = self.tls.map_or((None, None), |tls| (Some(tls.acceptor), tls.renewal));
        let thread = std::thread::Builder::new().name("peercompute-http".to_owned());
        let thread = thread.spawn(move || {
            runtime.block_on(async move {
                let Ok(listener) = TcpListener::from_std(listener) else { return };
                let renewing = async {
                    match renewal {
                        Some(renewal) => renewal.keep(&tell).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = accept(listener, tls, served) => {}
                    () = renewing => {}
                    _ = stopped => {}
                }
            });
        });
        Ok(Serving { stop: Some(stop), thread: Some(thread.map_err(ServeError::Thread)?) })
    }
}

/// A server at work. Dropping it ends every connection.
pub struct Serving {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

/// How others see a port that listens there.
fn seen_as(listen: SocketAddr, is_secure: bool) -> impl Iterator<Item = PageAddress> {
    let ip = listen.ip();
    let seen = if ip.is_unspecified() {
        [outward(ip), Some(if ip.is_ipv4() { IpAddr::from([127, 0, 0, 1]) } else { IpAddr::from(std::net::Ipv6Addr::LOCALHOST) })]
    } else {
        [Some(ip), None]
    };
    seen.into_iter().flatten().map(move |ip| PageAddress {
        is_secure,
        host: if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() },
        port: listen.port(),
    })
}

/// The address that leads out of this machine, if any does. Nothing is sent.
fn outward(like: IpAddr) -> Option<IpAddr> {
    // From the blocks that are kept for documentation: only the route to it is asked for.
    let elsewhere: SocketAddr = if like.is_ipv4() { ([192, 0, 2, 1], 9).into() } else { ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 9).into() };
    let socket = std::net::UdpSocket::bind((like, 0)).ok()?;
    socket.connect(elsewhere).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified() && !ip.is_loopback())
}

/// A run that can be joined here.
pub struct Hosted {
    /// How to join it.
    pub link: Link,
    /// What it computes.
    pub bundle: VerifiedBundle,
    /// Where its peers come in.
    pub door: Door,
}

/// What all requests share.
struct Served {
    site: Site,
    bench: bench::Bench,
    runs: Vec<ServedRun>,
    /// Whether the listing of runs invites everybody.
    is_open: bool,
}

struct ServedRun {
    link: Link,
    /// The bundle's hash, as hexadecimal.
    hash: String,
    bundle: Asset,
    door: Door,
}

impl Served {
    fn run(hosted: Hosted) -> ServedRun {
        ServedRun {
            bundle: Asset::new("application/octet-stream", hosted.bundle.bytes().to_vec()),
            hash: hex(&hosted.link.bundle),
            link: hosted.link,
            door: hosted.door,
        }
    }

    /// The door of a run, by its name, or the first.
    fn door(&self, name: Option<&str>) -> Option<&Door> {
        match name {
            None => self.runs.first(),
            Some(name) => self.runs.iter().find(|run| run.link.workload == name),
        }
        .map(|run| &run.door)
    }

    /// What is computed here, for whoever wants to join; a run that is over is not.
    fn listing(&self) -> serde_json::Value {
        let run = |ServedRun { link, hash, .. }: &ServedRun| {
            let mut run = serde_json::json!({
                "name": link.workload,
                "version": link.version,
                "bundle": hash,
                "key": hex(&link.key.0),
                "addresses": link.addresses,
            });
            if self.is_open {
                run["token"] = hex(&link.token).into();
            }
            run
        };
        let runs = self.runs.iter().filter(|run| !run.door.is_shut()).map(run);
        serde_json::json!({ "version": LISTING_VERSION, "runs": runs.collect::<Vec<_>>() })
    }

    /// What is computed here, for monitors.
    fn health(&self) -> serde_json::Value {
        let run = |run: &ServedRun| {
            let ServedRun { link: Link { workload, version, .. }, hash, door, .. } = run;
            serde_json::json!({ "name": workload, "version": version, "bundle": hash, "goes_on": !door.is_shut() })
        };
        serde_json::json!({
            "is_well": self.runs.iter().all(|run| !run.door.is_shut()),
            "program_version": env!("CARGO_PKG_VERSION"),
            "runs": self.runs.iter().map(run).collect::<Vec<_>>(),
        })
    }
}

async fn accept(listener: TcpListener, tls: Option<tokio_rustls::TlsAcceptor>, served: Arc<Served>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let (stream, remote) = match listener.accept().await {
            Ok(accepted) => accepted,
            // Too many files are open: somebody will close one.
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (tls, served) = (tls.clone(), served.clone());
        tokio::spawn(async move {
            // Small frames go out at once; a socket that refuses that is slower, and no worse.
            let _ = stream.set_nodelay(true);
            match tls {
                None => converse(stream, remote, served, permit).await,
                Some(tls) => {
                    // Whoever speaks no TLS, or too slowly, is not answered.
                    if let Ok(Ok(stream)) = tokio::time::timeout(HEAD_LIMIT, tls.accept(stream)).await {
                        converse(stream, remote, served, permit).await;
                    }
                }
            }
        });
    }
}

async fn converse<S>(stream: S, remote: SocketAddr, served: Arc<Served>, permit: tokio::sync::OwnedSemaphorePermit)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let visitor = upgrade::Visitor { remote, permit: Arc::new(permit) };
    let service = TowerToHyperService::new(router(served).layer(axum::Extension(visitor)));
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_LIMIT);
    // Visitors go as they like.
    let _ = http.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
}

fn router(served: Arc<Served>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/app/{hash}/{*file}", get(app))
        .route("/peercompute/{*file}", get(package))
        .route("/bundles/{name}", get(bundle))
        .route("/runs", get(runs))
        .route("/health", get(health))
        .merge(bench::routes())
        .route(PATH, get(upgrade::first))
        .route(&format!("{PATH}/{{run}}"), get(upgrade::named))
        .fallback(get(own))
        .with_state(served)
        .layer(axum::middleware::map_response(with_policy))
}

/// On every answer: what the browser must not do with it.
async fn with_policy(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-embedder-policy"), "require-corp"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Pages from elsewhere may read what is signed, and what is told to everybody.
const FOR_ALL: [(HeaderName, HeaderValue); 1] = [(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"))];
const FOR_EVER: &str = "public, max-age=31536000, immutable";

async fn page(State(served): State<Arc<Served>>, headers: HeaderMap) -> Response {
    answer(&served.site.page, &headers, "no-cache")
}

async fn app(State(served): State<Arc<Served>>, Path((hash, file)): Path<(String, String)>, headers: HeaderMap) -> Response {
    match served.site.files.get(&file).filter(|_| hash == served.site.hash) {
        Some(asset) => answer(asset, &headers, FOR_EVER),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn package(State(served): State<Arc<Served>>, Path(file): Path<String>, headers: HeaderMap) -> Response {
    found(&served.site.files, &file, &headers)
}

/// A file of a user's page.
async fn own(State(served): State<Arc<Served>>, uri: Uri, headers: HeaderMap) -> Response {
    found(&served.site.own, uri.path().trim_start_matches('/'), &headers)
}

fn found(files: &BTreeMap<String, Asset>, name: &str, headers: &HeaderMap) -> Response {
    files.get(name).map_or_else(|| StatusCode::NOT_FOUND.into_response(), |asset| answer(asset, headers, "no-cache"))
}

async fn bundle(State(served): State<Arc<Served>>, Path(name): Path<String>, headers: HeaderMap) -> Response {
    match served.runs.iter().find(|run| name.strip_suffix(".pcb") == Some(&run.hash)) {
        // Its hash is of what it computes, not of all its bytes.
        Some(run) => (FOR_ALL, answer(&run.bundle, &headers, "no-cache")).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn runs(State(served): State<Arc<Served>>, headers: HeaderMap) -> Response {
    let listing = Asset::new("application/json", served.listing().to_string().into_bytes());
    (FOR_ALL, answer(&listing, &headers, "no-cache")).into_response()
}

async fn health(State(served): State<Arc<Served>>) -> Response {
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], served.health().to_string()).into_response()
}

/// A file, as the browser likes it best.
fn answer(asset: &Asset, headers: &HeaderMap, keep: &'static str) -> Response {
    let listed = |name: HeaderName| headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    // A browser that has it in one encoding has it in all.
    let tag = format!("W/\"{}\"", asset.hash);
    let common = [(header::CACHE_CONTROL, keep.to_owned()), (header::VARY, "accept-encoding".to_owned()), (header::ETAG, tag.clone())];
    if listed(header::IF_NONE_MATCH).any(|known| known.trim() == tag) {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    // What is given a rank is taken as well, but for one of 0.
    let takes = |coding: &str| {
        let has_rank = |rank: &str| rank.trim().strip_prefix("q=").and_then(|rank| rank.parse().ok()).is_none_or(|rank: f32| rank > 0.0);
        listed(header::ACCEPT_ENCODING).any(|value| match value.split_once(';') {
            Some((name, rank)) => name.trim() == coding && has_rank(rank),
            None => value.trim() == coding,
        })
    };
    let (coding, content) = match &asset.brotli {
        Some(brotli) if takes("br") => (Some("br"), brotli.clone()),
        _ => match takes("gzip").then(|| asset.gzipped()).flatten() {
            Some(gzipped) => (Some("gzip"), gzipped),
            None => (None, asset.content.clone()),
        },
    };
    (common, [(header::CONTENT_TYPE, asset.kind)], coding.map(|coding| [(header::CONTENT_ENCODING, coding)]), content).into_response()
}
