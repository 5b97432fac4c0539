//! What a client accepts, by the weights (`q=`) in its headers (RFC 9110, 12.4.2).

/// The items of a header with their weights; 0 means not acceptable. A weight that is missing or cannot be parsed
/// counts as 1.
fn weighted_items(header: &str) -> impl Iterator<Item = (&str, f32)> {
    header.split(',').map(|item| {
        let mut parts = item.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let weight = parts
            .filter_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")))
            .find_map(|text| text.trim().parse::<f32>().ok());
        (name, weight.unwrap_or(1.0))
    })
}

/// Weight of the last item that is one of `names`; `None` when the header has none of them.
fn weight(header: &str, names: &[&str]) -> Option<f32> {
    let matches_name = |name: &str| names.iter().any(|known| name.eq_ignore_ascii_case(known));
    weighted_items(header).filter(|(name, _)| matches_name(name)).last().map(|(_, weight)| weight)
}

/// Whether to send HTML: the client names text/html and does not prefer JSON, as browsers do. A client with only `*/*`
/// is a script; scripts used `/` for JSON before the page existed.
pub fn prefers_html(accept: &str) -> bool {
    let html = weight(accept, &["text/html"]).unwrap_or(0.0);
    html > 0.0 && html >= weight(accept, &["application/json"]).unwrap_or(0.0)
}

/// Whether to send gzip: the client accepts it and does not prefer `identity`. A client that names neither gzip nor `*`
/// gets plain text: curl prints what it receives, and proxies that rewrite pages ask for `identity`.
pub fn takes_gzip(accept_encoding: &str) -> bool {
    let gzip = weight(accept_encoding, &["gzip", "x-gzip"]).or(weight(accept_encoding, &["*"])).unwrap_or(0.0);
    gzip > 0.0 && gzip >= weight(accept_encoding, &["identity"]).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_clients_get_html() {
        let check = |accept, expect| assert_eq!(prefers_html(accept), expect, "{accept}");
        check("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", true);
        check("text/html", true);
        check("TEXT/HTML ; q=0.5", true);
        check("text/html;q=0", false);
        check("*/*", false);
        check("", false);
        check("application/json", false);
        check("application/json, text/html;q=0.9", false);
        check("application/json;q=0.5, text/html;q=0.9", true);
        check("application/json, text/html", true);
        check("text/html;q=", true);
        check(";;;,,,q=", false);
        check("text/html;q=NaN", false);
    }

    #[test]
    fn which_clients_get_gzip() {
        let check = |header, expect| assert_eq!(takes_gzip(header), expect, "{header}");
        check("gzip, deflate, br, zstd", true);
        check("br;q=1.0, gzip;q=0.8, *;q=0.1", true);
        check("GZip", true);
        check("x-gzip", true);
        check("*", true);
        check("deflate, *;q=0.5", true);
        check("gzip;q=0.001", true);
        check("gzip, identity", true);
        check("*;q=0, gzip", true);
        check("gzip;q=1, identity;q=0", true);
        check("", false);
        check("identity", false);
        check("br, deflate", false);
        check("gzip;q=0", false);
        check("gzip ; Q=0.0", false);
        check("gzip;q=0, *", false);
        check("*;q=0", false);
        check("identity, gzip;q=0.5", false);
        check("identity;q=0.6, *;q=0.5", false);
        check("gzipped, not-gzip", false);
        check(";;;,,,q=1", false);
    }
}
