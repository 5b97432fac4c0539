//! The page: files that `build.rs` packed, sent as they are stored, which is compressed: every browser of this century
//! takes gzip. For others they are unpacked each time, so that a router spends no flash on a second copy.

use std::borrow::Cow;

use super::accept::takes_gzip;
use super::{Answer, Ask, Body, Fault, inflate};

pub struct Asset {
    pub path: &'static str,
    pub media: &'static str,
    /// The ETag, with its quotes.
    pub tag: &'static str,
    pub packed: &'static [u8],
}

pub static ASSETS: &[Asset] = include!(concat!(env!("OUT_DIR"), "/assets.rs"));

/// No inline script or style, nothing from elsewhere, in nobody's frame.
/// `frame-ancestors`, `form-action` and `base-uri` do not fall back to `default-src`.
const POLICY: &str =
    "default-src 'self'; frame-ancestors 'self'; base-uri 'none'; form-action 'self'; object-src 'none'";

const PAGE: &str = "/index.html";

pub fn find(path: &str) -> Option<&'static Asset> {
    let path = match path {
        "/" => PAGE,
        // Asked for by browsers that do not read the link in the page.
        "/favicon.ico" => "/icon.svg",
        other => other,
    };
    ASSETS.iter().find(|asset| asset.path == path)
}

/// Two clients may get different bytes, which are two things to whatever keeps a copy: each has a tag of its own.
pub fn answer(asset: &Asset, ask: &Ask) -> Result<Answer, Fault> {
    let packed = ask.accept_encoding.is_some_and(takes_gzip);
    let tag =
        if packed { Cow::from(asset.tag) } else { Cow::from(format!("{}-plain\"", asset.tag.trim_end_matches('"'))) };
    let known = ask.if_none_match.is_some_and(|tags| holds(tags, &tag));
    let mut answer = match (known, packed) {
        (true, _) => Answer::empty(304),
        (false, true) => Answer::new(200, asset.media, Body::Static(asset.packed)),
        (false, false) => {
            let plain = inflate::gunzip(asset.packed);
            let plain = plain.ok_or_else(|| Fault::new(500, "the program is at fault: a file cannot be unpacked"))?;
            Answer::new(200, asset.media, Body::Bytes(plain))
        }
    };
    answer.header("ETag", tag);
    answer.header("Cache-Control", "no-cache");
    // Under the name of `/` others get JSON.
    answer.header("Vary", if asset.path == PAGE { "Accept, Accept-Encoding" } else { "Accept-Encoding" });
    // It is the document's policy that counts, for what it loads too. The other files have few bytes for headers.
    if asset.path.ends_with(".html") {
        answer.header("Content-Security-Policy", POLICY);
        answer.header("Referrer-Policy", "no-referrer");
    }
    if packed && !known {
        answer.header("Content-Encoding", "gzip");
    }
    Ok(answer)
}

/// The weak comparison, which is the one for If-None-Match (RFC 9110, 13.1.2).
fn holds(tags: &str, tag: &str) -> bool {
    tags.split(',').map(str::trim).any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_none_match() {
        let check = |tags, expect| assert_eq!(holds(tags, "\"a1\""), expect, "{tags}");
        check("\"a1\"", true);
        check("\"b\", \"a1\"", true);
        check("W/\"a1\"", true);
        check("*", true);
        check("\"a2\"", false);
        check("a1", false);
        check("", false);
    }

    #[test]
    fn packed_without_a_time_and_with_a_page() {
        assert!(find("/").is_some());
        assert!(find("/nope.js").is_none());
        for asset in ASSETS {
            assert_eq!(asset.packed[..3], [0x1f, 0x8b, 8], "{}", asset.path);
            assert_eq!(asset.packed[3..8], [0; 5], "{}: flags and time", asset.path);
            assert_eq!(asset.tag.len(), 10);
        }
    }
}
