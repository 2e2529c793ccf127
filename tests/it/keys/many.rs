//! Very many keys.

use redb::{Database, TableDefinition};

use super::*;

/// As the bound has it.
const MANY: u32 = 100_000;
/// Memory that they may take.
const MEMORY: u64 = 64 << 20;
/// How long a start with them may take. An unoptimized build reads them several times more slowly than a release, which is
/// what the bound of 2 s is for.
const START: Duration = if cfg!(debug_assertions) { Duration::from_secs(10) } else { Duration::from_secs(2) };

/// Puts keys into the file of a gateway that does not run, in the form that it must be able to read for ever.
fn fill(path: &std::path::Path) {
    const KEYS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("api_keys");
    let database = Database::open(path).unwrap();
    let transaction = database.begin_write().unwrap();
    let mut table = transaction.open_table(KEYS).unwrap();
    for at in 0..MANY {
        // Digests are even: so are these.
        let number = u128::from(at).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        let sha256 = format!("{number:032x}{at:032x}");
        let id = format!("k{at:011}");
        let record = format!(
            r#"{{"id":"{id}","consumer":"acme","sha256":"{sha256}","created":1700000000,"expires":4102444800,"label":"made for the test"}}"#
        );
        table.insert(id.as_str(), record.as_bytes()).unwrap();
    }
    drop(table);
    transaction.commit().unwrap();
}

/// Memory that the process has, in bytes.
fn memory(gateway: &Gateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
fn a_hundred_thousand_keys_are_no_burden() {
    let upstream = Upstream::echo();
    let mut gateway = Gateway::start(&config(&upstream, LOCAL));
    let (id, key) = create(&gateway, r#"{"consumer": "acme"}"#);
    assert_eq!(with_key(&gateway, &key).status, 200);
    let before = memory(&gateway);
    gateway.signal("TERM");
    assert!(gateway.wait().success());
    fill(&gateway.folder().join("store.redb"));
    let began = Instant::now();
    gateway.start_again();
    let took = began.elapsed();
    assert_eq!(with_key(&gateway, &key).status, 200);
    let more = memory(&gateway).saturating_sub(before);
    println!("{MANY} keys: start {took:?}, {} MiB more", more >> 20);
    assert_eq!(gateway.metric("crossway_issued_keys"), f64::from(MANY + 1));
    assert!(took < START, "{took:?}");
    assert!(more < MEMORY, "{more} bytes");
    let page = gateway.admin("GET /api/keys?limit=1000&after=k00000050000").json();
    assert_eq!(page["keys"].as_array().unwrap().len(), 1000);
    assert_eq!(page["keys"][0]["id"], "k00000050001");
    assert_eq!(gateway.admin(&format!("DELETE /api/keys/{id}")).status, 200);
    with_key(&gateway, &key).assert_problem(401, "api_key_invalid");
}
