//! Packs `www/` for the binary: each file stripped and compressed once, here, with a tag of its content; three are joined,
//! and one is divided among the others. The same files give the same bytes on every machine: no times, no paths, sorted by
//! name.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs, io};

#[path = "src/http/strip.rs"]
mod strip;

/// A script is UTF-8 in any case, and a style sheet is what its page is.
const TYPES: [(&str, &str); 6] = [
    ("html", "text/html; charset=utf-8"),
    ("css", "text/css"),
    ("js", "text/javascript"),
    ("svg", "image/svg+xml"),
    ("json", "application/json"),
    ("webmanifest", "application/manifest+json"),
];

/// The scripts of the first view, each after those that it imports from. They are sent as the last of them: together they
/// are smaller, and a router answers one request in place of three. A name at the top of one is in none of the others.
const FIRST_VIEW: [&str; 3] = ["format.js", "chart.js", "app.js"];

/// One table of what the page says. It is not sent: the parts that a script imports take the place of the import, so that
/// no view waits for another file, and the first one has no words of the others.
const TEXTS: &str = "texts.js";

fn main() -> io::Result<()> {
    let out = env::var("OUT_DIR").map_err(io::Error::other)?;
    // A directory stands for everything in it, so that new and removed files are seen too.
    println!("cargo::rerun-if-changed=www");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/http/strip.rs");

    let mut sources = BTreeMap::new();
    for entry in fs::read_dir("www")? {
        let name = entry?.file_name().into_string().map_err(|name| io::Error::other(format!("www/{name:?}")))?;
        // Notes, tests and editors' leftovers are not the page's.
        if let Some(media) = media(&name) {
            let source = fs::read_to_string(Path::new("www").join(&name))?;
            sources.insert(name, (media, source));
        }
    }
    hand_out_texts(&mut sources)?;
    join_first_view(&mut sources);

    let mut list = String::from("&[\n");
    for (name, (media, source)) in &sources {
        let stripped = strip::strip(name, source)
            .ok_or_else(|| io::Error::other(format!("www/{name}: see what src/http/strip.rs asks of it")))?;
        fs::write(Path::new(&out).join(name), &stripped)?;
        let packed = pack(stripped.as_bytes())?;
        fs::write(Path::new(&out).join(format!("{name}.gz")), &packed)?;
        let tag = fingerprint(&packed) >> 32;
        let _ = writeln!(
            list,
            "Asset {{ path: \"/{name}\", media: \"{media}\", tag: \"\\\"{tag:08x}\\\"\", \
             packed: include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{name}.gz\")) }},"
        );
    }
    list.push_str("]\n");
    fs::write(Path::new(&out).join("assets.rs"), list)
}

fn media(name: &str) -> Option<&'static str> {
    let (_, ending) = name.rsplit_once('.')?;
    TYPES.iter().find(|(known, _)| *known == ending).map(|(_, media)| *media)
}

/// A page's file by its name: what it is, and its text.
type Sources = BTreeMap<String, (&'static str, String)>;

/// Imports stand on lines of their own.
fn imports(line: &str, name: &str) -> bool {
    line.starts_with("import ") && line.contains(&format!("\"./{name}\""))
}

fn hand_out_texts(sources: &mut Sources) -> io::Result<()> {
    let Some((_, table)) = sources.remove(TEXTS) else { return Ok(()) };
    // Each part as `NAME = {...};`, with the comment on the next, which is taken out like all others.
    let parts: Vec<&str> = table.split("\nexport const ").skip(1).collect();
    let part = |name: &str| parts.iter().find(|part| part.split(' ').next() == Some(name));
    for (file, (_, source)) in sources.iter_mut() {
        let mut whole = String::new();
        for line in source.lines() {
            if !imports(line, TEXTS) {
                whole.push_str(&format!("{line}\n"));
                continue;
            }
            for name in line.split(['{', '}']).nth(1).unwrap_or_default().split(',').map(str::trim) {
                let part = part(name).ok_or_else(|| io::Error::other(format!("www/{file}: no {name} in {TEXTS}")))?;
                whole.push_str(&format!("const {part}\n"));
            }
        }
        *source = whole;
    }
    Ok(())
}

fn join_first_view(sources: &mut Sources) {
    let [.., whole] = FIRST_VIEW;
    let together: String =
        FIRST_VIEW.iter().filter_map(|name| sources.remove(*name)).map(|(_, source)| source).collect();
    let own = together.lines().filter(|line| !FIRST_VIEW.iter().any(|name| imports(line, name)));
    let script = own.map(|line| format!("{line}\n")).collect();
    for (_, source) in sources.values_mut() {
        let imported = |line: &str| match FIRST_VIEW.iter().find(|name| imports(line, name)) {
            Some(name) => format!("{}\n", line.replace(name, whole)),
            None => format!("{line}\n"),
        };
        *source = source.lines().map(imported).collect();
    }
    sources.insert(whole.to_string(), ("text/javascript", script));
}

/// Zopfli writes neither a time nor a name, and saves a twentieth of what zlib makes of the same.
fn pack(plain: &[u8]) -> io::Result<Vec<u8>> {
    let mut packed = Vec::new();
    zopfli::compress(zopfli::Options::default(), zopfli::Format::Gzip, plain, &mut packed)?;
    Ok(packed)
}

/// FNV-1a: tells versions of a file apart, and guards nothing.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}
