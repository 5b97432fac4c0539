//! Text for people: counts with their nouns, and text from outside made safe to print.

/// The first `max_chars` characters of a text from outside (a request, an interface name, another program), safe to
/// print. Control characters, line ends and marks that change the direction of writing become `?`.
pub fn printable(text: &str, max_chars: usize) -> String {
    let safe = |each: char| {
        let bidi = matches!(each, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if each.is_control() || bidi { '?' } else { each }
    };
    text.chars().take(max_chars).map(safe).collect()
}

/// The singular for 1, else the plural. Not for unit symbols (s, min, MB): these have no plural.
pub fn plural(count: u64, one: &'static str, many: &'static str) -> &'static str {
    if count == 1 { one } else { many }
}

/// `1 sample`, `2 samples`
pub fn counted(count: u64, one: &'static str, many: &'static str) -> String {
    format!("{count} {}", plural(count, one, many))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_replaced_and_long_text_is_cut() {
        let check = |text, expect| assert_eq!(printable(text, 6), expect);
        check("eth0", "eth0");
        check("äöü€", "äöü€");
        check("a\u{1b}[2Jbcd", "a?[2Jb");
        check("a\nb\u{202e}c\u{2066}", "a?b?c?");
        check("", "");
    }

    #[test]
    fn counts_with_singular_and_plural() {
        let check = |count, expect| assert_eq!(counted(count, "sample", "samples"), expect);
        check(0, "0 samples");
        check(1, "1 sample");
        check(2, "2 samples");
        check(21, "21 samples");
    }
}
