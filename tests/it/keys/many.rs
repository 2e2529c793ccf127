//! Very many keys.

use redb::{Database, TableDefinition};

use super::*;

/// As the bound has it.
const MANY: u32 = 100_000;
/// Memory that they may take.
const MEMORY: u64 = 64 << 20;
/// How much work a start with them may be, in time of a processor: others may have it meanwhile. An unoptimized build reads
/// them several times more slowly than a release, which is what the bound of 2 s is for; `benches/keys` measures that.
const START: Duration = if cfg!(debug_assertions) { Duration::from_secs(10) } else { Duration::from_secs(2) };

/// Puts keys into the file of a gateway that does not run, in the form that it must be able to read for ever. Every second
/// one has been used.
fn fill(path: &std::path::Path) {
    const KEYS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("api_keys");
    const USES: TableDefinition<'_, &str, u64> = TableDefinition::new("api_keys_used");
    let database = Database::open(path).unwrap();
    let transaction = database.begin_write().unwrap();
    let mut table = transaction.open_table(KEYS).unwrap();
    let mut uses = transaction.open_table(USES).unwrap();
    uses.insert("a key that is gone", 1_800_000_000).unwrap();
    for at in 0..MANY {
        // Digests are even: so are these.
        let number = u128::from(at).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        let sha256 = format!("{number:032x}{at:032x}");
        let id = format!("k{at:011}");
        let record = format!(
            r#"{{"id":"{id}","consumer":"acme","sha256":"{sha256}","created":1700000000,"expires":4102444800,"label":"made for the test"}}"#
        );
        table.insert(id.as_str(), record.as_bytes()).unwrap();
        if at % 2 == 0 {
            uses.insert(id.as_str(), 1_700_000_000 + u64::from(at)).unwrap();
        }
    }
    drop((table, uses));
    transaction.commit().unwrap();
}

/// Memory that the process has, in bytes.
fn memory(gateway: &Gateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Time that the process has had on processors.
fn work(gateway: &Gateway) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", gateway.pid())).unwrap();
    // Behind the name in parentheses, user and system time are fields 14 and 15, in hundredths of a second.
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let hundredths = fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap());
    Duration::from_millis(hundredths.sum::<u64>() * 10)
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
    gateway.start_again();
    let took = work(&gateway);
    assert_eq!(with_key(&gateway, &key).status, 200);
    let more = memory(&gateway).saturating_sub(before);
    println!("{MANY} keys: start {took:?}, {} MiB more", more >> 20);
    assert_eq!(gateway.metric("crossway_issued_keys"), f64::from(MANY + 1));
    assert!(took < START, "{took:?}");
    assert!(more < MEMORY, "{more} bytes");
    let page = gateway.admin("GET /api/keys?limit=1000&after=k00000050000").json();
    assert_eq!(page["keys"].as_array().unwrap().len(), 1000);
    let last_uses: Vec<_> = page["keys"].as_array().unwrap().iter().map(|key| key["last_used"].as_str()).collect();
    assert_eq!(page["keys"][0]["id"], "k00000050001");
    assert_eq!(last_uses[..4], [None, Some("2023-11-15T12:06:42Z"), None, Some("2023-11-15T12:06:44Z")]);
    assert!(last_uses.chunks(2).all(|pair| pair[0].is_none() && pair[1].is_some()));
    assert_eq!(gateway.admin(&format!("DELETE /api/keys/{id}")).status, 200);
    with_key(&gateway, &key).assert_problem(401, "api_key_invalid");
}
