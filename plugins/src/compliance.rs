//! What every plugin of the registry must keep to.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    sync::Arc,
};

use crossway_plugin_api::{
    Claims, ClientCertificate, Consumer, ConsumerDirectory, Credential, Ctx, Decision, Deps, Digest256, NoServer,
    PluginConfig as _, SharedStore, config::Sha256Hex,
};
use ring::digest::{SHA256, digest};
use serde_json::{Map, Value, json};

use crate::{
    AnyPlugin,
    testing::{ctx, request, run},
};

fn read(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The example of a plugin: its text, and the configuration in it.
fn example(name: &str) -> (String, Value) {
    let text = read(&format!("../conf/plugins/{name}.yaml"));
    let value = serde_yaml::from_str(&text).unwrap();
    (text, value)
}

/// The settings of every entry of the plugin on the example's routes.
fn entries(name: &str) -> Vec<Value> {
    let (_, config) = example(name);
    let routes = config["routes"].as_array().unwrap().clone();
    let plugins = routes.iter().flat_map(|route| route["plugins"].as_array().unwrap().clone());
    let found: Vec<Value> = plugins.filter_map(|entry| entry.get(name).cloned()).collect();
    assert!(!found.is_empty(), "the example of {name} does not use it");
    found
}

fn entry(name: &str, settings: &Value) -> Result<AnyPlugin, String> {
    serde_json::from_value(json!({ name: settings })).map_err(|e| e.to_string())
}

/// The consumers of an example.
fn deps(name: &str) -> Deps {
    let (_, config) = example(name);
    let mut consumers = ConsumerDirectory::default();
    for consumer in config["consumers"].as_array().into_iter().flatten() {
        let groups = consumer["groups"].as_array().into_iter().flatten();
        let groups: Vec<String> = groups.map(|group| group.as_str().unwrap().to_owned()).collect();
        let holder = Arc::new(Consumer::new(consumer["name"].as_str().unwrap(), &groups, BTreeMap::new()).unwrap());
        assert!(consumers.add(&holder));
        let keys = consumer["credentials"].as_array().into_iter().flatten().filter_map(|c| c.get("api_key"));
        for key in keys {
            let digest = Sha256Hex::parse(key["sha256"].as_str().unwrap()).unwrap();
            consumers.add_credential(Credential::ApiKey(digest.0), &holder).unwrap();
        }
    }
    let shared = config["stores"]["shared"].is_object().then(|| Arc::new(NoServer) as Arc<dyn SharedStore>);
    Deps { consumers: Arc::new(consumers), shared, ..Deps::default() }
}

/// The schemas of the plugins' settings, by name.
fn schemas() -> Map<String, Value> {
    let settings = schemars::generate::SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true);
    let schema = settings.into_generator().into_root_schema_for::<AnyPlugin>().to_value();
    let mut found = Map::new();
    for variant in schema["oneOf"].as_array().unwrap() {
        let properties = variant["properties"].as_object().unwrap();
        assert_eq!((properties.len(), &variant["type"]), (1, &json!("object")), "one plugin in each alternative");
        assert!(variant["description"].is_string(), "{variant}");
        found.extend(properties.clone());
    }
    found
}

/// Calls `visit` for each object with fields of its own, this one and all inside it.
fn objects(path: &str, schema: &Value, visit: &mut dyn FnMut(&str, &Value)) {
    if schema.get("properties").is_some() {
        visit(path, schema);
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        objects(&format!("{path}/{name}"), field, visit);
    }
    for inner in ["items", "additionalProperties"].iter().filter_map(|key| schema.get(key)) {
        objects(path, inner, visit);
    }
}

const CANARY: &str = "sings-in-the-mine";

/// Puts the canary at every place whose schema says that its text may be secret; returns how many there are.
fn plant(schema: &Value, value: &mut Value) -> usize {
    let secret = schema["writeOnly"] == true || schema["description"].as_str().is_some_and(|d| d.contains("A secret"));
    match value {
        Value::String(text) if secret => {
            CANARY.clone_into(text);
            1
        }
        Value::Array(items) => items.iter_mut().map(|item| plant(&schema["items"], item)).sum(),
        Value::Object(fields) => {
            let below = |name: &str| schema["properties"].get(name).unwrap_or(&schema["additionalProperties"]);
            fields.iter_mut().map(|(name, field)| plant(below(name), field)).sum()
        }
        _ => 0,
    }
}

#[test]
fn names_are_sorted_and_are_those_of_the_schema() {
    let listed: Vec<&str> = AnyPlugin::NAMES.to_vec();
    let in_schema: Vec<String> = schemas().keys().cloned().collect();
    assert!(listed.is_sorted());
    assert_eq!(listed, in_schema);
}

#[test]
fn every_example_builds_and_goes_by_its_name() {
    for name in AnyPlugin::NAMES {
        let (text, _) = example(name);
        assert!(text.starts_with("# yaml-language-server: $schema=../gateway.schema.json\n"), "{name}");
        for settings in entries(name) {
            let plugin = entry(name, &settings).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(plugin.name(), *name);
            assert_eq!(plugin.build(&deps(name)).err(), None, "{name}");
        }
    }
}

#[test]
fn there_is_no_example_without_a_plugin() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../conf/plugins");
    let files: BTreeSet<String> =
        fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(files, AnyPlugin::NAMES.iter().map(|name| format!("{name}.yaml")).collect());
}

#[test]
fn examples_show_every_setting() {
    for (name, schema) in schemas() {
        let used = entries(&name);
        for (field, _) in schema["properties"].as_object().into_iter().flatten() {
            assert!(used.iter().any(|settings| settings.get(field).is_some()), "{name}: {field} is not shown");
        }
    }
}

#[test]
fn unknown_fields_are_refused() {
    for (name, schema) in schemas() {
        let mut settings = entries(&name).swap_remove(0);
        // Of a list of plugins, the settings of the first.
        let place = match &mut settings {
            Value::Array(items) => items[0].as_object_mut().unwrap().values_mut().next().unwrap(),
            fields => fields,
        };
        place["no_such_field"] = json!(1);
        let refusal = entry(&name, &settings).unwrap_err();
        assert!(refusal.contains("no_such_field"), "{name}: {refusal}");
        objects(&name, &schema, &mut |path, object| {
            assert_eq!(object["additionalProperties"], false, "{path} takes unknown fields");
        });
    }
}

#[test]
fn every_field_is_described_and_in_snake_case() {
    for (name, schema) in schemas() {
        objects(&name, &schema, &mut |path, object| {
            for (field, about) in object["properties"].as_object().unwrap() {
                assert!(about["description"].as_str().is_some_and(|d| d.len() > 10), "{path}/{field} is not described");
                let snake = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
                assert!(field.bytes().all(snake), "{path}/{field}");
            }
        });
    }
}

#[test]
fn schemas_are_plain() {
    for (name, schema) in schemas() {
        let text = schema.to_string().replace(r##"{"$ref":"#/$defs/plugin"}"##, "");
        for word in ["anyOf", "oneOf", "allOf", "$ref", "$defs"] {
            assert!(!text.contains(word), "the schema of {name} has {word}");
        }
    }
}

#[test]
fn debug_shows_no_secret() {
    let mut planted = 0;
    for (name, schema) in schemas() {
        for mut settings in entries(&name) {
            planted += plant(&schema, &mut settings);
            let shown = format!("{:?}", entry(&name, &settings).unwrap());
            assert!(!shown.contains(CANARY), "{name} shows a secret: {shown}");
        }
    }
    assert!(planted > 0, "no example has a secret, so that nothing was checked");
}

#[test]
fn the_demo_key_opens_the_example() {
    let (text, _) = example("api_key");
    let key = "demo-key-of-acme";
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, key.as_bytes()).as_ref());
    assert!(deps("api_key").consumers.by_api_key(&crossway_plugin_api::Digest256(bytes)).is_some());
    assert!(text.contains(key));
}

#[tokio::test]
async fn the_demo_token_opens_the_example() {
    let (text, _) = example("jwt");
    let token = text.lines().find_map(|line| line.strip_prefix("#   ey")).unwrap();
    let plugin = entry("jwt", &entries("jwt")[0]).unwrap().build(&deps("jwt")).unwrap();
    let mut req = request("GET", &[("Authorization", &format!("Bearer ey{token}"))]);
    let mut ctx = ctx();
    assert!(run(&plugin, &mut req, &mut ctx).await.is_none(), "{:?}", ctx.refusal);
}

#[test]
fn the_readme_has_a_row_for_each_plugin() {
    let readme = read("README.md");
    for name in AnyPlugin::NAMES {
        let rows = readme.lines().filter(|line| line.starts_with(&format!("| `{name}` |"))).collect::<Vec<_>>();
        assert_eq!(rows.len(), 1, "{name}");
        assert!(rows[0].contains(&format!("../conf/plugins/{name}.yaml")), "{name}");
    }
}

/// The codes that the readme documents, with their statuses.
fn documented() -> BTreeSet<(String, u16)> {
    let readme = read("README.md");
    let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let rows = readme.lines().filter(|line| line.starts_with("| `")).map(cells);
    rows.filter_map(|row| Some((row[1].trim_matches('`').to_owned(), row[2].parse().ok()?))).collect()
}

/// The refusal that a plugin, as its example sets it up, gives to a request with these fields, and perhaps a token. Who
/// sends no field has a certificate that nobody knows.
async fn refusal(
    name: &str,
    settings: &Value,
    fields: &[(&'static str, &str)],
    claims: Option<Claims>,
) -> Option<(String, u16)> {
    let plugin = entry(name, settings).unwrap().build(&deps(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    let client_certificate = fields.is_empty().then(|| Arc::new(stranger()));
    let mut ctx = Ctx { client_certificate, claims: claims.map(Arc::new), ..ctx() };
    // Where a service would have to be asked, there is a fault in its place.
    let (Decision::Respond(reply) | Decision::Absent(reply)) =
        plugin.on_request(&mut request("OPTIONS", fields), &mut ctx).await.ok()?
    else {
        return None;
    };
    reply.code().map(|code| (code.to_owned(), reply.status.as_u16()))
}

/// A token of the second issuer in the example of `jwt`, without the scopes that it asks for.
const POOR_TOKEN: &str = concat!(
    "eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCJ9.",
    "eyJpc3MiOiJodHRwczovL2RlbW8uZXhhbXBsZS5jb20iLCJhdWQiOiJvcmRlcnMtYXBpIiwic3ViIjoiYWNtZS1hcHAiLCJzY29wZSI6InByb2ZpbGUiLCJ0ZW5hbnQiOiJhY21lIiwiZXhwIjo0MTAyNDQ0ODAwfQ.",
    "zTxRlpopp7BOPdB1-v8u0wqp97G8G3xAAa_4dEEowdyDUVieLmygq7avFN4nOmdn85C7VDUSPyuD_srbqumuBQ",
);

fn stranger() -> ClientCertificate {
    ClientCertificate {
        subject: "CN=stranger".into(),
        issuer: String::new(),
        serial: String::new(),
        dns: Vec::new(),
        uris: Vec::new(),
        emails: Vec::new(),
        sha256: Digest256([0; 32]),
    }
}

/// Codes that no single request brings up, with their statuses; the tests of their plugins do.
const RARE: [(&str, u16); 8] = [
    ("basic_busy", 503),
    ("concurrency_full", 503),
    ("concurrency_limited", 429),
    ("forward_auth_consumer_unknown", 403),
    ("introspection_scope_missing", 403),
    ("rate_limit_unavailable", 503),
    ("rate_limited", 429),
    ("signature_window_full", 503),
];

/// Every code of the readme comes up with its status, and no other.
#[tokio::test]
async fn refusals_carry_documented_codes() {
    let poor = format!("Bearer {POOR_TOKEN}");
    let probes: [&[(&'static str, &str)]; 10] = [
        &[],
        &[("X-API-Key", "wrong")],
        &[("Authorization", "Basic d3Jvbmc=")],
        &[("Authorization", "Bearer")],
        &[("Authorization", "Bearer wrong")],
        &[("Authorization", "Bearer one"), ("Authorization", "Bearer two")],
        &[("Authorization", &poor)],
        &[("X-Hub-Signature-256", "wrong")],
        &[("Origin", "https://evil.test"), ("Access-Control-Request-Method", "PUT")],
        &[("X-API-Key", "demo-key-of-acme"), ("X-Partner-Key", "demo-key-of-operations")],
    ];
    let mut seen: BTreeSet<_> = RARE.into_iter().map(|(code, status)| (code.to_owned(), status)).collect();
    let examples = AnyPlugin::NAMES.iter().flat_map(|name| entries(name).into_iter().map(move |entry| (name, entry)));
    for (name, settings) in examples {
        for fields in probes {
            for claims in [None, Some(Claims::default())] {
                seen.extend(refusal(name, &settings, fields, claims).await);
            }
        }
    }
    assert_eq!(seen, documented());
}

/// Texts in the source that look like codes and are names in messages of others.
const FOREIGN: [&str; 3] = ["access_token", "client_id", "jwks_uri"];

/// The source of a plugin, without its tests and attributes.
fn source(name: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src").join(name);
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let code = files.filter(|path| path.is_file() && path.file_name().is_some_and(|file| file != "tests.rs"));
    let before_tests = |text: String| text.split("mod tests {").next().unwrap_or_default().to_owned();
    let text: String = code.map(|path| before_tests(fs::read_to_string(path).unwrap())).collect();
    text.lines().filter(|line| !line.trim().starts_with("#[")).collect()
}

/// A code that no probe brings up is found in the source: it is the only kind of text there that looks like one and is
/// no name of a setting or a plugin.
#[test]
fn codes_in_the_source_are_documented() {
    /// The name of a claim.
    const CLAIM: &str = "token_type";
    // Codes of one word look like anything; the contract itself makes one answer of several.
    let is_found = |code: &String| code.contains('_') && code != "credential_missing";
    let known: BTreeSet<String> = documented().into_iter().map(|(code, _)| code).filter(is_found).collect();
    let mut found = BTreeSet::new();
    for (name, schema) in schemas() {
        let written = schema.to_string();
        let is_code = |text: &str| {
            let word =
                text.contains('_') && !text.ends_with('_') && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            word && text != CLAIM
                && !FOREIGN.contains(&text)
                && !written.contains(&format!("\"{text}\""))
                && !AnyPlugin::NAMES.contains(&text)
        };
        let source = source(&name);
        found.extend(source.split('"').filter(|text| is_code(text)).map(str::to_owned));
    }
    assert_eq!(found, known);
}
