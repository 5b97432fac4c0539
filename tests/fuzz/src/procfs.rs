//! Files of /proc and /sys: every parser reads every input.

use net_pulse::source::text;

pub fn procfs(bytes: &[u8]) {
    for line in text::lines(bytes) {
        for (_, name) in [text::ipv4_default(line), text::ipv6_default(line)].into_iter().flatten() {
            assert!(!name.is_empty() && name.len() < line.len());
        }
        if let Some(address) = text::inet6_address(line) {
            assert!(address.ip.is_ipv6() && address.prefix <= 128);
        }
        let _ = text::operstate(line);
        assert!(!matches!(text::speed(line), Some(0 | u32::MAX)));
        assert!(text::mac_text(line).len() < 3 * 20);
        assert!(text::number(line).is_none() || text::trim(line).len() == line.trim_ascii().len());
    }
    let _ = (text::meminfo(bytes), text::uptime(bytes), text::resident(bytes), text::hex(bytes));
    let (busy, all, _) = text::cpu(bytes);
    assert!(busy <= all);
    assert!(text::devtype(bytes).len() <= 3 * bytes.len());
}
