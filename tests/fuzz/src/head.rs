//! Request heads: parsing a whole head and scanning it byte by byte give the same result. The head that the gate sends
//! to the upstream is the same request; it has X-Real-IP and Connection once, Host at most once, and none of the
//! headers that the gate drops.

use std::net::IpAddr;

use net_pulse::http::gate::head::{BODY_LIMIT, HEAD_LIMIT, Head, Scan, ScannedHead, parse};

const FROM: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

pub fn head(bytes: &[u8]) {
    let whole = parse(bytes);
    let mut scan = Scan::default();
    let found = (1..=bytes.len()).find_map(|end| scan.end(&bytes[..end]).transpose());
    match &whole {
        ScannedHead::Incomplete => {
            assert!(found.is_none() && bytes.len() < HEAD_LIMIT);
        }
        ScannedHead::Refused(refusal) => {
            assert!((400..500).contains(&refusal.status));
            let found = found.expect("the scan must end too").and_then(|end| Head::read(&bytes[..end]).map(drop));
            assert_eq!(found, Err(*refusal));
        }
        ScannedHead::Complete(head, end) => {
            assert_eq!(found, Some(Ok(*end)));
            assert!(*end <= HEAD_LIMIT && head.length.is_none_or(|length| length <= BODY_LIMIT));
            assert!(head.target.starts_with('/') && head.target.bytes().all(|byte| byte.is_ascii_graphic()));
            check_sent(head);
        }
    }
}

/// Checks the head that the gate sends to the upstream.
fn check_sent(head: &Head) {
    let sent = head.to_upstream(FROM);
    let text = std::str::from_utf8(&sent).expect("ASCII");
    let head_text = text.strip_suffix("\r\n\r\n").expect("an empty line at the end");
    assert!(text.is_ascii() && !head_text.contains("\r\n\r\n"));
    let lines: Vec<&str> = head_text.split("\r\n").collect();
    assert!(
        lines
            .iter()
            .all(|line| !line.is_empty() && line.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte)))
    );
    assert_eq!(lines[0].split(' ').collect::<Vec<_>>()[..2], [head.method, &*head.target]);
    let count = |name: &str| lines[1..].iter().filter(|line| line.starts_with(&format!("{name}: "))).count();
    assert!(head.host.is_some() || head.is_http_1_0);
    let hosts = usize::from(head.host.is_some());
    assert_eq!((count("x-real-ip"), count("host"), count("connection")), (1, hosts, 1));
    assert_eq!(count("content-length"), usize::from(head.length.is_some()));
    assert_eq!(count("transfer-encoding") + count("expect") + count("cookie"), 0);
    assert!(!head.forwarded || count("forwarded") > 0);
    // Parsing the head that was sent gives the same request.
    let ScannedHead::Complete(again, end) = parse(&sent) else { panic!("not a head: {text}") };
    assert_eq!(end, sent.len());
    assert_eq!((again.method, &*again.target, again.is_http_1_0), (head.method, &*head.target, head.is_http_1_0));
    assert_eq!((again.host, again.length), (head.host, head.length));
    assert_eq!((again.origin, again.fetch_site), (head.origin, head.fetch_site));
}
