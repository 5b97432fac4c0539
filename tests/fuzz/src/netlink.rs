//! Netlink datagrams, in both byte orders: parsing never panics or loops, and the size of the results is limited by the
//! size of the input.

use net_pulse::source::parse::{self, ByteOrder, Dump, Messages};

const HEADER: usize = 16;

fn parse_datagram(order: ByteOrder, bytes: &[u8]) {
    let mut count = 0;
    for message in Messages::new(order, bytes) {
        count += 1;
        let Ok(message) = message else { continue };
        assert!(message.body.len() + HEADER <= bytes.len());
        let _ = parse::notification(order, &message);
        let _ = parse::notified_link(order, &message);
        parse_body(order, message.body);
    }
    assert!(count <= bytes.len() / HEADER + 1);
    parse_body(order, bytes);

    // Use the sequence number and port of the first message, so that the dump accepts the datagram as its reply.
    let Some(Ok(first)) = Messages::new(order, bytes).next() else { return };
    for kind in [parse::RTM_NEWSTATS, parse::RTM_NEWLINK, first.kind] {
        let mut answers = 0;
        let mut dump = Dump::new(order, first.seq, first.port, kind);
        let _ = dump.feed(bytes, &mut |body| {
            answers += 1;
            parse::stats(order, body).map(drop)
        });
        let _ = dump.feed(bytes, &mut |_| Ok(()));
        assert!(answers <= bytes.len() / HEADER);
    }
}

fn parse_body(order: ByteOrder, body: &[u8]) {
    let _ = parse::stats(order, body);
    let _ = parse::address(order, body);
    if let Ok(Some(route)) = parse::default_route(order, body) {
        assert_ne!(route.ifindex, 0);
    }
    let counters = parse::link_counters(order, body);
    if let Ok(Some(reading)) = &counters {
        assert_ne!(reading.ifindex, 0);
    }
    let hash = parse::link_hash(order, body);
    if let Ok(Some((link, raw))) = parse::link(order, body) {
        assert!(!raw.is_empty() && !raw.contains(&0) && raw.len() <= body.len());
        assert!(!link.name.is_empty() && link.name.len() <= 3 * raw.len());
        assert!(link.alias.len() <= 3 * body.len() && link.driver.len() + link.master_driver.len() <= 3 * body.len());
        assert!(link.altnames.iter().all(|name| !name.is_empty() && name.len() <= 3 * body.len()));
        assert!(link.mac.len() < 3 * 20 && link.lower != link.ifindex);
        assert!(matches!(hash, Ok(Some(_))));
        assert!(!matches!(counters, Ok(None)));
    }
}

pub fn netlink(bytes: &[u8]) {
    parse_datagram(ByteOrder::Little, bytes);
    parse_datagram(ByteOrder::Big, bytes);
}
