//! `/openapi.json`: the OpenAPI document, written while it is sent, from the route table and the types in `json`.

use std::io;

use super::JSON;
use super::gate::STATUSES;
use super::gate::access::changes_something;
use super::json::{Field, Out, SCALARS, SHAPES};
use super::params::{Param, ParamKind, ParamLocation, UNIX_RANGE};
use super::route::Route;
use crate::config;

/// Headers of error answers: status, name, type.
const PROBLEM_HEADERS: [(u16, &str, &str); 3] =
    [(401, "WWW-Authenticate", "string"), (405, "Allow", "string"), (429, "Retry-After", "integer")];

const BEARER_DESCRIPTION: &str = "The access token, which `net-pulse token` prints on the machine itself. Changes need \
                                  it, and with --private reading does too. Root and the user of the service need none \
                                  over loopback on the machine itself, in HTTP/1.1 and without a proxy.";

/// Descriptions of error answers. All have the type `Problem`, except 422, which has `Problems`.
const PROBLEMS: [(u16, &str); 19] = [
    (400, "The request cannot be fulfilled; the answer says why"),
    (401, "The access token is missing or wrong"),
    (403, "A page of another origin may not change anything here"),
    (404, "The path or the interface does not exist"),
    (405, "The path does not have this method"),
    (408, "The client took too long to send the request"),
    (409, "A flag or the environment sets the setting, or the present state does not allow the change"),
    (413, "The body is larger than any request needs"),
    (414, "The URL is too long"),
    (417, "The header Expect is not supported"),
    (421, "The header Host is not a name of this machine"),
    (422, "Parameters or body are not valid; the answer lists all errors"),
    (429, "Too many wrong tokens came from this address"),
    (431, "The headers are too long"),
    (500, "An error in the program"),
    (502, "The program gave no answer"),
    (503, "Not possible at the moment"),
    (504, "The program gave no answer in time"),
    (507, "Not enough free space"),
];

pub fn document(out: Out, routes: &[Route]) -> io::Result<()> {
    write!(
        out,
        r#"{{"openapi":"3.1.0","info":{{"title":"Net-Pulse","version":"{}","description":{},"license":{{"name":"MIT","identifier":"MIT"}}}},"paths":{{"#,
        env!("CARGO_PKG_VERSION"),
        json_string(env!("CARGO_PKG_DESCRIPTION")),
    )?;
    let mut paths: Vec<&str> = routes.iter().map(|route| route.path).collect();
    paths.dedup();
    for (at, path) in paths.iter().enumerate() {
        write!(out, "{}{}:{{", comma(at), json_string(path))?;
        for (at, route) in routes.iter().filter(|route| route.path == *path).enumerate() {
            write!(out, "{}", comma(at))?;
            operation(out, route)?;
        }
        out.write_all(b"}")?;
    }
    out.write_all(br#"},"components":{"schemas":{"#)?;
    shapes(out)?;
    out.write_all(br#"},"responses":{"#)?;
    problem_responses(out)?;
    write!(
        out,
        r#"}},"securitySchemes":{{"bearer":{{"type":"http","scheme":"bearer","description":{}}}}}}}}}"#,
        json_string(BEARER_DESCRIPTION)
    )
}

fn shapes(out: Out) -> io::Result<()> {
    for (at, shape) in SHAPES.iter().enumerate() {
        write!(
            out,
            r#"{}"{}":{{"type":"object","description":{},"properties":{{"#,
            comma(at),
            shape.name,
            json_string(shape.doc.trim())
        )?;
        let mut required = Vec::new();
        for (at, Field { name, mut kind, doc, optional }) in shape.fields().enumerate() {
            if optional {
                kind = unwrap_type(&kind, "Option").unwrap_or(&kind).to_string();
            } else {
                required.push(json_string(name));
            }
            write!(out, r#"{}"{name}":"#, comma(at))?;
            schema(out, &kind, doc)?;
        }
        write!(out, r#"}},"required":[{}]}}"#, required.join(","))?;
    }
    Ok(())
}

fn problem_responses(out: Out) -> io::Result<()> {
    for (at, (status, doc)) in PROBLEMS.iter().enumerate() {
        let shape = if *status == 422 { "Problems" } else { "Problem" };
        let header = PROBLEM_HEADERS.iter().find(|(known, ..)| known == status);
        let headers = header.map_or(String::new(), |(_, name, kind)| {
            format!(r#""headers":{{"{name}":{{"required":true,"schema":{{"type":"{kind}"}}}}}},"#)
        });
        write!(out, r#"{}"{status}":{{"description":{},{headers}"content":"#, comma(at), json_string(doc))?;
        write!(out, r##"{{"{JSON}":{{"schema":{{"$ref":"#/components/schemas/{shape}"}}}}}}}}"##)?;
    }
    Ok(())
}

fn operation(out: Out, route: &Route) -> io::Result<()> {
    let method = route.method.to_ascii_lowercase();
    let id: String = route.path.chars().map(|each| if each.is_ascii_alphanumeric() { each } else { '_' }).collect();
    write!(out, r#""{method}":{{"operationId":"{method}{id}","summary":{}"#, json_string(route.summary))?;

    let security = if changes_something(route.method) { r#"{"bearer":[]}"# } else { r#"{},{"bearer":[]}"# };
    write!(out, r#","security":[{security}]"#)?;
    parameters(out, route)?;
    answers(out, route)
}

fn parameters(out: Out, route: &Route) -> io::Result<()> {
    let shown = route.params.iter().filter(|param| param.location != ParamLocation::StartupMember);
    let (in_body, outside_body): (Vec<&Param>, Vec<&Param>) = shown.partition(|param| param.location.is_in_body());
    if !outside_body.is_empty() {
        out.write_all(br#","parameters":["#)?;
        for (at, param) in outside_body.iter().enumerate() {
            let required = param.location == ParamLocation::Path;
            write!(
                out,
                r#"{}{{"name":"{}","in":"{}","required":{required},"description":{},"schema":{}}}"#,
                comma(at),
                param.name,
                param.location.name(),
                json_string(param.doc),
                parameter_schema(param),
            )?;
        }
        out.write_all(b"]")?;
    }
    if !in_body.is_empty() {
        let members: Vec<String> =
            in_body.iter().map(|param| format!(r#""{}":{}"#, param.name, parameter_schema(param))).collect();
        let required_params = in_body.iter().filter(|param| !param.location.is_optional());
        let required: Vec<String> = required_params.map(|param| json_string(param.name)).collect();
        // Without a required member, a misspelt name would go unnoticed, so unknown members are refused.
        let others = if required.is_empty() { r#","additionalProperties":false"# } else { "" };
        write!(
            out,
            r#","requestBody":{{"required":true,"content":{{"{JSON}":{{"schema":{{"type":"object","properties":{{{}}},"required":[{}]{others}}}}}}}}}"#,
            members.join(","),
            required.join(","),
        )?;
    }
    Ok(())
}

fn answers(out: Out, route: &Route) -> io::Result<()> {
    out.write_all(br#","responses":{"200":{"description":"Success","content":{"#)?;
    let (media_types, shapes): (Vec<&str>, Vec<&str>) = route.answers.iter().partition(|answer| answer.contains('/'));
    if !shapes.is_empty() {
        write!(out, r#""{JSON}":{{"schema":"#)?;
        any_of(out, &shapes)?;
        out.write_all(b"}")?;
    }
    for (at, media) in media_types.iter().enumerate() {
        let kind = if *media == JSON { "object" } else { "string" };
        write!(out, r#"{}"{media}":{{"schema":{{"type":"{kind}"}}}}"#, comma(at + shapes.len()))?;
    }
    out.write_all(b"}}")?;
    for status in problem_statuses(route) {
        if (route.path, status) == ("/health", 503) {
            // The only error answer that may have the type of the 200 answer.
            write!(out, r#","503":{{"description":"The service is unhealthy","content":{{"{JSON}":{{"schema":"#)?;
            any_of(out, &["Health", "Problem"])?;
            out.write_all(b"}}}")?;
            continue;
        }
        write!(out, r##","{status}":{{"$ref":"#/components/responses/{status}"}}"##)?;
    }
    out.write_all(b"}}")
}

/// Error statuses of a route: the ones in its row, those that any route may have, those of the gate, and those that
/// follow from its method and parameters.
pub fn problem_statuses(route: &Route) -> Vec<u16> {
    let has = |location| route.params.iter().any(|param| param.location == location);
    let mut problems = route.problems.to_vec();
    problems.extend([401, 405, 429, 500]);
    // The gate refuses requests before it knows the route; 403 only concerns changes.
    let changes = changes_something(route.method);
    problems.extend(STATUSES.into_iter().filter(|status| *status != 403 || changes));
    problems.extend(has(ParamLocation::Path).then_some(404));
    let has_body = route.params.iter().any(|param| param.location.is_in_body());
    problems.extend((has_body || has(ParamLocation::Query)).then_some(422));
    problems.sort();
    problems.dedup();
    problems
}

fn comma(at: usize) -> &'static str {
    if at == 0 { "" } else { "," }
}

fn json_string(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

/// Schema of a parameter.
fn parameter_schema(param: &Param) -> String {
    let schema = base_schema(param);
    match param.location {
        ParamLocation::NullableMember => {
            format!(r#"{{"description":{},"anyOf":[{schema},{{"type":"null"}}]}}"#, json_string(param.doc))
        }
        _ => schema,
    }
}

fn base_schema(param: &Param) -> String {
    match param.kind {
        ParamKind::Integer { low, high, default } => {
            let default = default.map_or(String::new(), |default| format!(r#","default":{default}"#));
            format!(r#"{{"type":"integer","minimum":{low},"maximum":{high}{default}}}"#)
        }
        ParamKind::Decimal { low, high } => decimal_schema(low, high),
        ParamKind::Word(words) => {
            let default = words.first().map_or(String::new(), |word| json_string(word));
            format!(r#"{{"type":"string","enum":[{}],"default":{default}}}"#, json_strings(words))
        }
        ParamKind::Time => {
            const YEARS: &str = r#""pattern":"^(19[7-9]|[2-9][0-9]{2})[0-9]-""#;
            format!(
                r#"{{"description":"RFC 3339 with Z or an offset, a local date-time without one, a date, Unix seconds, or from 100000000000 on Unix milliseconds","anyOf":[{{"type":"string","format":"date-time",{YEARS}}},{{"type":"string","format":"date",{YEARS}}},{{"type":"integer","minimum":{},"maximum":{}}}]}}"#,
                UNIX_RANGE.0,
                UNIX_RANGE.1 * 1000 + 999
            )
        }
        ParamKind::Text if param.location == ParamLocation::Path => r#"{"type":"string","minLength":1}"#.to_string(),
        ParamKind::Text => r#"{"type":"string"}"#.to_string(),
        ParamKind::ShortText { max_chars: most } => {
            format!(r#"{{"type":"string","maxLength":{most},"pattern":"{NO_CONTROL_CHARACTERS}"}}"#)
        }
        ParamKind::Texts { max_items: None } => r#"{"type":"array","items":{"type":"string"}}"#.to_string(),
        ParamKind::Texts { max_items: Some(most) } => {
            format!(r#"{{"type":"array","items":{{"type":"string"}},"maxItems":{most}}}"#)
        }
        ParamKind::Words(words) => {
            format!(r#"{{"type":"array","items":{{"type":"string","enum":[{}]}}}}"#, json_strings(words))
        }
        ParamKind::Switch => r#"{"type":"boolean"}"#.to_string(),
        ParamKind::Setting(setting) => match setting.kind {
            config::SettingType::Integer(low, high) => {
                format!(r#"{{"type":"integer","minimum":{low},"maximum":{high}}}"#)
            }
            config::SettingType::Decimal(low, high) => decimal_schema(low, high),
            config::SettingType::Word(words) => format!(r#"{{"type":"string","enum":[{}]}}"#, json_strings(words)),
            config::SettingType::Switch => r#"{"type":"boolean"}"#.to_string(),
            config::SettingType::List => {
                r#"{"type":"array","items":{"type":"string","pattern":"^[^,]*[^, ][^,]*$"}}"#.to_string()
            }
            _ => format!(r#"{{"type":"string","pattern":"{NO_CONTROL_CHARACTERS}"}}"#),
        },
    }
}

fn decimal_schema(low: f64, high: f64) -> String {
    let [low, high] = [low, high].map(config::format_decimal);
    format!(r#"{{"type":"number","minimum":{low},"maximum":{high}}}"#)
}

/// Pattern for text without control characters, as in `params`.
const NO_CONTROL_CHARACTERS: &str = r"^[^\\u0000-\\u001f\\u007f-\\u009f]*$";

fn json_strings(words: &[&str]) -> String {
    words.iter().map(|word| json_string(word)).collect::<Vec<_>>().join(",")
}

/// `X` of `Wrapper<X>`.
fn unwrap_type<'a>(kind: &'a str, wrapper: &str) -> Option<&'a str> {
    kind.strip_prefix(wrapper)?.strip_prefix('<')?.strip_suffix('>')
}

fn any_of(out: Out, shapes: &[&str]) -> io::Result<()> {
    if let [only] = shapes {
        return schema(out, only, None);
    }
    out.write_all(br#"{"anyOf":["#)?;
    for (at, shape) in shapes.iter().enumerate() {
        out.write_all(comma(at).as_bytes())?;
        schema(out, shape, None)?;
    }
    out.write_all(b"]}")
}

/// Schema of a Rust type in `json`, named as in its declaration.
fn schema(out: Out, kind: &str, doc: Option<&str>) -> io::Result<()> {
    out.write_all(b"{")?;
    if let Some(doc) = doc {
        write!(out, r#""description":{},"#, json_string(doc))?;
    }
    if let Some(inner) = unwrap_type(kind, "Option") {
        out.write_all(br#""anyOf":["#)?;
        schema(out, inner, None)?;
        out.write_all(br#",{"type":"null"}]"#)?;
    } else if let Some(inner) = unwrap_type(kind, "Vec") {
        out.write_all(br#""type":"array","items":"#)?;
        schema(out, inner, None)?;
    } else if let Some(inner) = unwrap_type(kind, "ByName").or_else(|| unwrap_type(kind, "Ordered")) {
        out.write_all(br#""type":"object","additionalProperties":"#)?;
        schema(out, inner, None)?;
    } else if let Some((_, scalar)) = SCALARS.iter().find(|(name, _)| *name == kind) {
        out.write_all(scalar.trim_start_matches('{').trim_end_matches('}').as_bytes())?;
    } else {
        write!(out, r##""$ref":"#/components/schemas/{kind}""##)?;
    }
    out.write_all(b"}")
}
