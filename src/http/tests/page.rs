//! The files of the page, for clients that accept gzip and for those that do not.

use super::{Reply, TestServer, check_documented, document};
use crate::http::assets::ASSETS;
use crate::http::inflate::gunzip;

const GZIP: &str = "Accept-Encoding: gzip, deflate, br\r\n";

fn tag(reply: &Reply) -> &str {
    reply.header("etag").unwrap()
}

#[test]
fn browsers_get_the_page() {
    let server = TestServer::new();
    let page = server.send("GET", "/", &format!("Accept: text/html,*/*;q=0.8\r\n{GZIP}"), b"");
    check_documented(&document(), "GET", "/", &page);
    assert_eq!((page.status, page.header("content-encoding")), (200, Some("gzip")));
    assert_eq!(page.header("vary"), Some("Accept, Accept-Encoding"));
    assert_eq!(page.body[..2], [0x1f, 0x8b]);
    assert_eq!(server.send("GET", "/index.html", GZIP, b"").body, page.body);
    assert_eq!(server.get("/favicon.ico").header("content-type"), Some("image/svg+xml"));
    for asset in ASSETS {
        let reply = server.send("GET", asset.path, GZIP, b"");
        assert_eq!((reply.status, reply.body.as_slice()), (200, asset.packed), "{}", asset.path);
        assert_eq!(reply.header("content-encoding"), Some("gzip"));
        assert_eq!(reply.header("content-type"), Some(asset.media));
        assert_eq!(reply.header("cache-control"), Some("no-cache"));
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        if asset.path == "/index.html" {
            assert_eq!(reply.header("referrer-policy"), Some("no-referrer"));
            let policy = reply.header("content-security-policy").unwrap();
            assert!(policy.contains("default-src 'self'") && policy.contains("frame-ancestors 'self'"));
            assert!(!policy.contains("unsafe"), "{policy}");
        }
    }
}

/// Proxies that rewrite pages send `Accept-Encoding: identity`. curl sends no `Accept-Encoding`.
#[test]
fn clients_without_gzip_get_plain_text() {
    let server = TestServer::new();
    for accept in ["", "Accept-Encoding: identity\r\n", "Accept-Encoding: br\r\nAccept-Encoding: *, gzip;q=0\r\n"] {
        for asset in ASSETS {
            let reply = server.send("GET", asset.path, accept, b"");
            assert_eq!((reply.status, reply.header("content-encoding")), (200, None), "{} {accept}", asset.path);
            assert_eq!(Some(reply.body), gunzip(asset.packed), "{} {accept}", asset.path);
        }
    }
    let page = server.send("GET", "/", "Accept: text/html\r\nAccept-Encoding: identity\r\n", b"");
    assert!(page.body.starts_with(b"<!doctype html>") && page.body.ends_with(b"</html>\n"));
    assert_eq!(page.header("vary"), Some("Accept, Accept-Encoding"));
}

#[test]
fn gzip_and_plain_text_have_different_etags() {
    let server = TestServer::new();
    for asset in ASSETS {
        let with = |accept: &str, more: &str| server.send("GET", asset.path, &format!("{accept}{more}"), b"");
        let encodings = [GZIP, "Accept-Encoding: identity\r\n"];
        let tags = encodings.map(|accept| tag(&with(accept, "")).to_string());
        assert_ne!(tags[0], tags[1]);
        for (at, accept) in encodings.iter().enumerate() {
            let whole = with(accept, "");
            assert!(whole.header("vary").unwrap().ends_with("Accept-Encoding"), "{}", asset.path);
            let again = with(accept, &format!("If-None-Match: {}\r\n", tags[at]));
            assert_eq!((again.status, again.body.len(), again.header("content-length")), (304, 0, None));
            assert_eq!((tag(&again), again.header("content-encoding")), (tags[at].as_str(), None));
            assert_eq!(again.header("vary"), whole.header("vary"));
            let other = with(accept, &format!("If-None-Match: {}\r\n", tags[1 - at]));
            assert_eq!((other.status, other.body.len()), (200, whole.body.len()));
            let head = server.send("HEAD", asset.path, accept, b"");
            assert_eq!((head.status, head.body.len()), (200, 0));
            assert_eq!(head.header("content-length"), Some(whole.body.len().to_string().as_str()));
            assert_eq!(head.header("content-encoding"), whole.header("content-encoding"));
        }
    }
}
