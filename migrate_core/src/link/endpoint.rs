//! Where a peer is: a TCP address or the path of a UNIX socket.

use std::fmt;
use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::str::FromStr;

use socket2::SockAddr;

use crate::error::{Error, Result};

/// An address to listen on or to connect to.
///
/// As text: `HOST:PORT`, `tcp:HOST:PORT` or `unix:PATH`; an IPv6 address stands in brackets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// A TCP port; port 0 lets the system choose when listening.
    Tcp {
        /// Name or address, without brackets.
        host: String,
        /// Port.
        port: u16,
    },
    /// The path of a UNIX stream socket.
    Unix(PathBuf),
}

impl FromStr for Endpoint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.strip_prefix("unix:") {
            Some("") => Err(wrong(text, "the path of the socket is missing")),
            Some(path) => Ok(Self::Unix(PathBuf::from(path))),
            None => parse_tcp(text),
        }
    }
}

fn parse_tcp(text: &str) -> Result<Endpoint> {
    let address = text.strip_prefix("tcp:").unwrap_or(text);
    let (host, port) = address.rsplit_once(':').ok_or_else(|| wrong(text, "the port is missing"))?;
    let host = parse_host(text, host)?.to_owned();
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|_| digits);
    let port = port.ok_or_else(|| wrong(text, "the port must be a number from 0 to 65535"))?;
    Ok(Endpoint::Tcp { host, port })
}

fn parse_host<'a>(text: &str, host: &'a str) -> Result<&'a str> {
    let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let bare = bracketed.unwrap_or(host);
    if bare.is_empty() {
        return Err(wrong(text, "the host is missing (0.0.0.0 or [::] listens on all addresses)"));
    }
    if bracketed.is_some() != bare.contains(':') {
        return Err(wrong(text, "an IPv6 address, and nothing else, stands in brackets: [::1]:4444"));
    }
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '[' | ']');
    match bare.find(odd) {
        Some(_) => Err(wrong(text, "this is no host name (a path is written unix:PATH)")),
        None => Ok(bare),
    }
}

fn wrong(text: &str, reason: &str) -> Error {
    Error::usage(format!("bad endpoint `{text}`: {reason}; use HOST:PORT, tcp:HOST:PORT or unix:PATH"))
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp:[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp:{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Endpoint {
    /// The system's addresses for this endpoint, at least one.
    pub(super) fn resolve(&self) -> Result<Vec<SockAddr>> {
        match self {
            Self::Unix(path) => {
                let refused = |e| Error::usage(format!("{self}: not a path for a socket: {e}"));
                Ok(vec![SockAddr::unix(path).map_err(refused)?])
            }
            Self::Tcp { host, port } => {
                let found = (host.as_str(), *port).to_socket_addrs();
                let found = found.map_err(|e| Error::io(format!("looking up {self}"), e))?;
                let found: Vec<SockAddr> = found.map(SockAddr::from).collect();
                match found.is_empty() {
                    true => Err(Error::link(format!("{self}: this host has no address"))),
                    false => Ok(found),
                }
            }
        }
    }

    /// The endpoint of a system's address; `None` for an unnamed one.
    pub(super) fn of_address(address: &SockAddr) -> Option<Self> {
        match address.as_socket() {
            Some(ip) => Some(Self::Tcp { host: ip.ip().to_string(), port: ip.port() }),
            None => address.as_pathname().map(|path| Self::Unix(path.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tcp(host: &str, port: u16) -> Endpoint {
        Endpoint::Tcp { host: host.into(), port }
    }

    #[test]
    fn texts_that_are_endpoints() {
        for (text, endpoint) in [
            ("localhost:4444", tcp("localhost", 4444)),
            ("tcp:10.0.0.1:0", tcp("10.0.0.1", 0)),
            ("[::1]:65535", tcp("::1", 65535)),
            ("tcp:[fe80::1%eth0]:1", tcp("fe80::1%eth0", 1)),
            ("unix:/tmp/a b:c", Endpoint::Unix("/tmp/a b:c".into())),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap(), endpoint, "{text}");
        }
    }

    #[test]
    fn texts_that_are_not_say_why() {
        for (text, reason) in [
            ("", "port is missing"),
            ("localhost", "port is missing"),
            ("tcp:4444", "port is missing"),
            (":4444", "host is missing"),
            ("[]:4444", "host is missing"),
            ("::1:4444", "brackets"),
            ("[host]:1", "brackets"),
            ("host:", "from 0 to 65535"),
            ("host:65536", "from 0 to 65535"),
            ("host:+1", "from 0 to 65535"),
            ("host:-1", "from 0 to 65535"),
            ("/tmp/socket:1", "unix:PATH"),
            ("a b:1", "no host name"),
            ("unix:", "path of the socket is missing"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err();
            assert!(matches!(error, Error::Usage(_)));
            assert!(error.to_string().contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_a_usage_error() {
        let error = Endpoint::Unix("x".repeat(200).into()).resolve().unwrap_err();
        assert!(matches!(error, Error::Usage(_)), "{error}");
    }

    proptest! {
        #[test]
        fn what_is_shown_parses_back(host in "[a-z0-9.-]{1,20}|[0-9a-f:]{1,8}:", port: u16, path in "/[ -~]{1,30}") {
            for endpoint in [tcp(&host, port), Endpoint::Unix(path.clone().into())] {
                prop_assert_eq!(endpoint.to_string().parse::<Endpoint>().unwrap(), endpoint);
            }
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = text.parse::<Endpoint>();
        }
    }
}
