//! Compresses the files of `www/` for the binary. Comments and indentation are removed (`src/http/strip.rs`), the three
//! scripts of the first view are joined into one, and each script gets its part of `texts.js`. Each file gets an ETag
//! from its content. The build is reproducible: the output has no times and no paths, and is sorted by name.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs, io};

#[path = "src/http/strip.rs"]
mod strip;

/// Media type by file name ending. Only HTML needs a charset: JavaScript modules and JSON are always UTF-8, and a style
/// sheet has the charset of the page that links to it.
const TYPES: [(&str, &str); 6] = [
    ("html", "text/html; charset=utf-8"),
    ("css", "text/css"),
    ("js", "text/javascript"),
    ("svg", "image/svg+xml"),
    ("json", "application/json"),
    ("webmanifest", "application/manifest+json"),
];

/// The scripts of the first view, each after the scripts that it imports from. They are joined under the name of the
/// last one: the joined file compresses better, and the router answers one request instead of three. A top-level name
/// of one script must not appear at the top level of another.
const FIRST_VIEW: [&str; 3] = ["format.js", "chart.js", "app.js"];

/// The table of the page's texts. It is not served: each `import` line is replaced by the parts that it imports. So no
/// view waits for another file, and the first view does not contain the texts of the other views.
const TEXTS: &str = "texts.js";

fn main() -> io::Result<()> {
    let out = env::var("OUT_DIR").map_err(io::Error::other)?;
    // Cargo watches a directory with everything in it, so it also notices new and removed files.
    println!("cargo::rerun-if-changed=www");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/http/strip.rs");

    let mut sources = BTreeMap::new();
    for entry in fs::read_dir("www")? {
        let name = entry?.file_name().into_string().map_err(|name| io::Error::other(format!("www/{name:?}")))?;
        // Skip files that are not part of the page, such as README.md and backup files of editors.
        if let Some(media) = media_type(&name) {
            let source = fs::read_to_string(Path::new("www").join(&name))?;
            sources.insert(name, (media, source));
        }
    }
    inline_texts(&mut sources)?;
    join_first_view(&mut sources);

    let mut list = String::from("&[\n");
    for (name, (media, source)) in &sources {
        let stripped = strip::strip(name, source)
            .ok_or_else(|| io::Error::other(format!("www/{name}: it breaks a rule of src/http/strip.rs")))?;
        // Only the tests of `src/http/inflate.rs` read the unpacked file.
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

fn media_type(name: &str) -> Option<&'static str> {
    let (_, ending) = name.rsplit_once('.')?;
    TYPES.iter().find(|(known, _)| *known == ending).map(|(_, media)| *media)
}

/// The files of the page: file name to (media type, text).
type Sources = BTreeMap<String, (&'static str, String)>;

/// Whether the line imports from `name`. Each import must fit on one line.
fn is_import_of(line: &str, name: &str) -> bool {
    line.starts_with("import ") && line.contains(&format!("\"./{name}\""))
}

/// Replaces each import from `texts.js` by the imported parts.
fn inline_texts(sources: &mut Sources) -> io::Result<()> {
    let Some((_, table)) = sources.remove(TEXTS) else { return Ok(()) };
    // A part is `NAME = {...};` and the comment of the part after it. `strip` removes that comment later.
    let parts: Vec<&str> = table.split("\nexport const ").skip(1).collect();
    let part = |name: &str| parts.iter().find(|part| part.split(' ').next() == Some(name));
    for (file, (_, source)) in sources.iter_mut() {
        let mut text = String::new();
        for line in source.lines() {
            if !is_import_of(line, TEXTS) {
                text.push_str(&format!("{line}\n"));
                continue;
            }
            for name in line.split(['{', '}']).nth(1).unwrap_or_default().split(',').map(str::trim) {
                let part = part(name).ok_or_else(|| io::Error::other(format!("www/{file}: no {name} in {TEXTS}")))?;
                text.push_str(&format!("const {part}\n"));
            }
        }
        *source = text;
    }
    Ok(())
}

/// Joins the scripts of the first view, and makes all other scripts import from the joined file.
fn join_first_view(sources: &mut Sources) {
    let [.., joined_name] = FIRST_VIEW;
    let joined: String = FIRST_VIEW.iter().filter_map(|name| sources.remove(*name)).map(|(_, source)| source).collect();
    let lines = joined.lines().filter(|line| !FIRST_VIEW.iter().any(|name| is_import_of(line, name)));
    let script = lines.map(|line| format!("{line}\n")).collect();
    for (_, source) in sources.values_mut() {
        let redirected = |line: &str| match FIRST_VIEW.iter().find(|name| is_import_of(line, name)) {
            Some(name) => format!("{}\n", line.replace(name, joined_name)),
            None => format!("{line}\n"),
        };
        *source = source.lines().map(redirected).collect();
    }
    sources.insert(joined_name.to_string(), ("text/javascript", script));
}

/// Compresses with Zopfli: its gzip header has no time and no file name, and its output is 5 % smaller than that of
/// zlib.
fn pack(plain: &[u8]) -> io::Result<Vec<u8>> {
    let mut packed = Vec::new();
    zopfli::compress(zopfli::Options::default(), zopfli::Format::Gzip, plain, &mut packed)?;
    Ok(packed)
}

/// FNV-1a hash, 64 bits. It tells versions of a file apart; it is not for security.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}
