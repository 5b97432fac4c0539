//! The files of the page. `build.rs` compresses them with gzip, and they are sent that way: all current browsers accept
//! gzip. For other clients they are unpacked at each request, which saves a second copy in the flash of a router.

use std::borrow::Cow;

use super::accept::takes_gzip;
use super::{Answer, Body, HttpError, HttpRequest, inflate};

pub struct Asset {
    pub path: &'static str,
    pub media: &'static str,
    /// The ETag, with its quotes.
    pub tag: &'static str,
    /// Compressed with gzip.
    pub packed: &'static [u8],
}

pub static ASSETS: &[Asset] = include!(concat!(env!("OUT_DIR"), "/assets.rs"));

/// Content-Security-Policy: no inline script or style, nothing from other hosts, no frame on other sites.
/// `frame-ancestors`, `form-action` and `base-uri` do not fall back to `default-src`, so they are given.
const CONTENT_SECURITY_POLICY: &str =
    "default-src 'self'; frame-ancestors 'self'; base-uri 'none'; form-action 'self'; object-src 'none'";

const INDEX: &str = "/index.html";

pub fn find(path: &str) -> Option<&'static Asset> {
    let path = match path {
        "/" => INDEX,
        // Some browsers request this path without reading the icon's link in the page.
        "/favicon.ico" => "/icon.svg",
        other => other,
    };
    ASSETS.iter().find(|asset| asset.path == path)
}

/// The gzip and the plain version are different bytes, so each has its own ETag for caches.
pub fn answer(asset: &Asset, request: &HttpRequest) -> Result<Answer, HttpError> {
    let gzip = request.accept_encoding.is_some_and(takes_gzip);
    let tag =
        if gzip { Cow::from(asset.tag) } else { Cow::from(format!("{}-plain\"", asset.tag.trim_end_matches('"'))) };
    let unchanged = request.if_none_match.is_some_and(|tags| etag_matches(tags, &tag));
    let mut answer = match (unchanged, gzip) {
        (true, _) => Answer::empty(304),
        (false, true) => Answer::new(200, asset.media, Body::Static(asset.packed)),
        (false, false) => {
            let plain = inflate::gunzip(asset.packed);
            let plain = plain.ok_or_else(|| HttpError::new(500, "net-pulse is at fault: a file cannot be unpacked"))?;
            Answer::new(200, asset.media, Body::Bytes(plain))
        }
    };
    answer.header("ETag", tag);
    answer.header("Cache-Control", "no-cache");
    // Clients other than browsers get JSON at `/`.
    answer.header("Vary", if asset.path == INDEX { "Accept, Accept-Encoding" } else { "Accept-Encoding" });
    // The policy of a document also covers the files that it loads, so they do not need these headers.
    if asset.path.ends_with(".html") {
        answer.header("Content-Security-Policy", CONTENT_SECURITY_POLICY);
        answer.header("Referrer-Policy", "no-referrer");
    }
    if gzip && !unchanged {
        answer.header("Content-Encoding", "gzip");
    }
    Ok(answer)
}

/// Weak comparison, as for If-None-Match (RFC 9110, 13.1.2).
fn etag_matches(tags: &str, tag: &str) -> bool {
    tags.split(',').map(str::trim).any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_none_match() {
        let check = |tags, expect| assert_eq!(etag_matches(tags, "\"a1\""), expect, "{tags}");
        check("\"a1\"", true);
        check("\"b\", \"a1\"", true);
        check("W/\"a1\"", true);
        check("*", true);
        check("\"a2\"", false);
        check("a1", false);
        check("", false);
    }

    #[test]
    fn assets_are_gzip_without_a_time_and_include_the_page() {
        assert!(find("/").is_some());
        assert!(find("/nope.js").is_none());
        for asset in ASSETS {
            assert_eq!(asset.packed[..3], [0x1f, 0x8b, 8], "{}", asset.path);
            assert_eq!(asset.packed[3..8], [0; 5], "{}: flags and time", asset.path);
            assert_eq!(asset.tag.len(), 10);
        }
    }
}
