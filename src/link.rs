//! The link to a run: one word that says where it is, which workload it computes, and that whoever has it was invited.
//!
//! ```text
//! pc1,heat@1.0.0,<bundle: 64 hex>,<key: 64 hex>,<token: 32 hex>,<address>[,<address> …]
//! https://example.com/#pc1,…                the same, and a page that takes part; whoever opens it sends nothing of it to the server
//! ```
//!
//! It names the code and carries none: who joins has the bundle already, and verifies it against a key. Invariants: a shell
//! takes a link as one word, unquoted; what does not parse is refused with the part that is wrong.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use peercompute_buffers::digest::hex;
use peercompute_kernels::PublicKey;

const PREFIX: &str = "pc1";
/// Below this are the runs of a server, as a multiaddress writes it.
const RUN_PATH: &str = "%2Fp2p%2F";
/// The longest link that is read, in bytes.
const LINK_BYTES_MAX: usize = 4096;

/// How to join a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The workload's name.
    pub workload: String,
    /// Its version.
    pub version: String,
    /// The hash of the bundle that all run.
    pub bundle: [u8; 32],
    /// The key that signed it for the host.
    pub key: PublicKey,
    /// The invitation.
    pub token: [u8; 16],
    /// Where the run is: multiaddresses of members, identities included.
    pub addresses: Vec<String>,
    /// Where a page takes part in it, and where its bundle is.
    pub page: Option<String>,
}

/// Why a text is no link.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// It does not begin like one.
    #[error("not a link: `peercompute host` prints one that begins with `{PREFIX},`, `peercompute serve` one with `#{PREFIX},` in it")]
    Prefix,
    /// Longer than any.
    #[error("a link of {given} bytes, at most {LINK_BYTES_MAX} are read")]
    Length {
        /// Its length.
        given: usize,
    },
    /// A part is wrong, or missing because the link was cut.
    #[error("the link's {part} is {}, not {needed}", if given.is_empty() { "missing".to_owned() } else { format!("`{given}`") })]
    Part {
        /// Which.
        part: &'static str,
        /// What stands there.
        given: String,
        /// What should.
        needed: &'static str,
    },
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bundle, key, token) = (hex(&self.bundle), hex(&self.key.0), hex(&self.token));
        if let Some(page) = &self.page {
            write!(f, "{page}#")?;
        }
        write!(f, "{PREFIX},{}@{},{bundle},{key},{token},{}", self.workload, self.version, self.addresses.join(","))
    }
}

impl FromStr for Link {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Link, LinkError> {
        let text = text.trim();
        if text.len() > LINK_BYTES_MAX {
            return Err(LinkError::Length { given: text.len() });
        }
        let (page, text) = match text.split_once('#') {
            Some((page, text)) if is_page(page) => (Some(page.to_owned()), text),
            Some((page, _)) => {
                return Err(LinkError::Part { part: "page", given: page.chars().take(80).collect(), needed: "like https://example.com/" });
            }
            None => (None, text),
        };
        let mut words = text.split(',');
        if words.next() != Some(PREFIX) {
            return Err(LinkError::Prefix);
        }
        let mut word = |part, needed| {
            let given = words.next().unwrap_or_default();
            (given, LinkError::Part { part, given: given.chars().take(80).collect(), needed })
        };
        let (given, wrong) = word("workload", "NAME@VERSION");
        let (workload, version) = given.split_once('@').filter(|(name, version)| is_plain(name) && is_plain(version)).ok_or(wrong)?;
        let (given, wrong) = word("bundle", "a hash of 64 hexadecimal digits");
        let bundle = bytes_from_hex(given).ok_or(wrong)?;
        let (given, wrong) = word("key", "a public key of 64 hexadecimal digits");
        let key = PublicKey(bytes_from_hex(given).ok_or(wrong)?);
        let (given, wrong) = word("token", "32 hexadecimal digits");
        let token = bytes_from_hex(given).ok_or(wrong)?;
        let mut addresses = Vec::new();
        loop {
            let (given, wrong) = word("address", "like /ip4/192.0.2.1/tcp/4001/p2p/…");
            if given.is_empty() && !addresses.is_empty() {
                break;
            }
            if !is_address(given) {
                return Err(wrong);
            }
            addresses.push(given.to_owned());
        }
        Ok(Link { workload: workload.to_owned(), version: version.to_owned(), bundle, key, token, addresses, page })
    }
}

/// Nothing that a shell or a terminal would take for something else.
fn is_plain(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte))
}

fn is_page(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    rest.is_some_and(|rest| {
        rest.ends_with('/') && rest.len() > 1 && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/.:-[]".contains(&byte))
    })
}

fn is_address(text: &str) -> bool {
    text.starts_with('/') && text.contains("/p2p/") && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/.:-_%".contains(&byte))
}

/// Where a page is: a URL without a path, and the multiaddress of the WebSocket on the same port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageAddress {
    /// Whether it is https.
    pub is_secure: bool,
    /// A name, or a number; one of IPv6 in brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl PageAddress {
    /// `None` if it is no such URL.
    pub fn parse(url: &str) -> Option<PageAddress> {
        let (scheme, rest) = url.split_once("://")?;
        let is_secure = match scheme {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let standard = if is_secure { 443 } else { 80 };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port.parse().ok()?),
            _ => (authority, standard),
        };
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
        (!host.is_empty() && host.bytes().all(is_plain)).then(|| PageAddress { is_secure, host: host.to_owned(), port })
    }

    /// As a URL.
    pub fn url(&self) -> String {
        let PageAddress { is_secure, host, port } = self;
        match (is_secure, port) {
            (true, 443) => format!("https://{host}/"),
            (false, 80) => format!("http://{host}/"),
            (true, _) => format!("https://{host}:{port}/"),
            (false, _) => format!("http://{host}:{port}/"),
        }
    }

    /// Where peers join: the first run of a server, or the one of a name.
    pub fn multiaddress(&self, run: Option<&str>) -> String {
        let PageAddress { is_secure, host, port } = self;
        let bare = host.trim_matches(['[', ']']);
        let host = match bare.parse::<IpAddr>() {
            Ok(IpAddr::V4(ip)) => format!("/ip4/{ip}"),
            Ok(IpAddr::V6(ip)) => format!("/ip6/{ip}"),
            Err(_) => format!("/dns/{bare}"),
        };
        let scheme = if *is_secure { "wss" } else { "ws" };
        match run {
            None => format!("{host}/tcp/{port}/{scheme}"),
            Some(run) => format!("{host}/tcp/{port}/x-parity-{scheme}/{RUN_PATH}{run}"),
        }
    }
}

/// The run that an address of a server names.
pub fn run_in(address: &str) -> Option<&str> {
    let (_, rest) = address.split_once("/x-parity-ws")?;
    rest.trim_start_matches('s').strip_prefix('/')?.split('/').next()?.strip_prefix(RUN_PATH)
}

/// As many bytes as are wanted, from twice as many hexadecimal digits.
pub fn bytes_from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link() -> Link {
        Link {
            workload: "heat".into(),
            version: "1.0.0-rc.1+b".into(),
            bundle: [0xab; 32],
            key: PublicKey([7; 32]),
            token: [255; 16],
            addresses: vec!["/ip4/127.0.0.1/tcp/4001/p2p/12D3KooWx".into(), "/ip6/fe80::1/udp/1/quic-v1/p2p/12D3KooWx".into()],
            page: None,
        }
    }

    #[test]
    fn a_link_is_one_word_and_comes_back() {
        let text = link().to_string();
        assert_eq!(text.parse(), Ok(link()));
        assert_eq!(format!(" {text}\n").parse(), Ok(link()));
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b",@/.:+-".contains(&byte)), "{text}");
        let with_certificate = Link { addresses: vec!["/ip4/192.0.2.1/tcp/1/wss/certhash/uEi_-x/p2p/12D3KooWx".into()], ..link() };
        assert_eq!(with_certificate.to_string().parse(), Ok(with_certificate));
    }

    #[test]
    fn a_page_s_link_is_its_address_and_the_rest_behind_it() {
        let with_page = Link { page: Some("http://127.0.0.1:8080/".into()), ..link() };
        let text = with_page.to_string();
        assert_eq!(text, format!("http://127.0.0.1:8080/#{}", link()));
        assert_eq!(text.parse(), Ok(with_page));
        for wrong in ["http://127.0.0.1", "ftp://x/", "https:///", "https://a b/", "javascript:x/", ""] {
            let error = format!("{wrong}#{}", link()).parse::<Link>().unwrap_err().to_string();
            assert!(error.contains("page is"), "{wrong}: {error}");
        }
        // A page alone invites nobody.
        assert_eq!("http://127.0.0.1:8080/".parse::<Link>(), Err(LinkError::Prefix));
    }

    #[test]
    fn a_port_has_a_url_and_a_multiaddress() {
        let check = |given: &str, url: &str, address: &str| {
            let public = PageAddress::parse(given).unwrap_or_else(|| panic!("{given}"));
            assert_eq!((public.url().as_str(), public.multiaddress(None).as_str()), (url, address));
            let of_run = public.multiaddress(Some("heat"));
            assert_eq!((run_in(&of_run), run_in(address)), (Some("heat"), None), "{of_run}");
            assert_eq!(run_in(&format!("{of_run}/p2p/x")), Some("heat"));
        };
        check("https://example.com", "https://example.com/", "/dns/example.com/tcp/443/wss");
        check("https://example.com:8443/", "https://example.com:8443/", "/dns/example.com/tcp/8443/wss");
        check("http://192.0.2.1:8080", "http://192.0.2.1:8080/", "/ip4/192.0.2.1/tcp/8080/ws");
        check("http://192.0.2.1", "http://192.0.2.1/", "/ip4/192.0.2.1/tcp/80/ws");
        check("http://[::1]:8080", "http://[::1]:8080/", "/ip6/::1/tcp/8080/ws");
        for wrong in ["example.com", "ftp://example.com", "https://", "https://a b", "https://example.com/path", "http://x:99999"] {
            assert_eq!(PageAddress::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn errors_name_the_part() {
        let check = |text: &str, part: &str| {
            let error = text.parse::<Link>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        };
        let text = link().to_string();
        check("", "not a link");
        check("http://example.com", "not a link");
        check(&"pc1,".repeat(2000), "8000 bytes");
        check("pc1", "workload is missing");
        check(&text.replace("heat@", "heat"), "workload is `heat1.0.0-rc.1+b`");
        check(&text.replace("heat@", "he$(at)@"), "workload");
        check(&text.replace("abab,", "ab,"), "bundle");
        check(&text.replace("0707", "07é"), "key");
        check(&text.replace("ffff,", "fffg,"), "token");
        check(&text.replace("ffff,", "ff+f,"), "token");
        check(&text.replace("/ip4", "ip4"), "address");
        // Wherever a link was cut, the part that is missing or short is told, or an address is: those can be any length.
        for end in 0..text.len() {
            if let Err(error) = text[..end].parse::<Link>() {
                assert!(matches!(error, LinkError::Prefix | LinkError::Part { .. }), "{error}");
            } else {
                assert!(text[..end].contains("/p2p/"), "{end}");
            }
        }
    }
}
