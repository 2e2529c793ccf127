use super::*;

fn members(list: &[&str]) -> Vec<Member> {
    list.iter().map(|a| Member::parse(a, 80).unwrap()).collect()
}

fn settings(rule: Rule) -> Settings {
    Settings {
        transport: Transport { tls: None, http2: false },
        rule,
        slow_start: None,
        names: Names::default(),
        tags: None,
    }
}

fn in_turn() -> Settings {
    settings(Rule::InTurn)
}

fn in_flight(pool: &Pool) -> Vec<(String, usize)> {
    pool.endpoints().iter().map(|e| (e.address.to_string(), e.state.in_flight())).collect()
}

fn next(pool: &Pool) -> Arc<Endpoint> {
    pool.choose(&Wish::default(), &Tried::default(), Instant::now()).unwrap()
}

fn tried(list: &[&str]) -> Tried {
    let mut tried = Tried::default();
    for address in list {
        tried.add(address.parse().unwrap());
    }
    tried
}

#[test]
fn what_a_reload_keeps_keeps_its_state() {
    let registry = Arc::new(Registry::default());
    let before = registry.pool("erp", members(&["127.0.0.1:1", "127.0.0.1:2"]), in_turn());
    let busy = next(&before);
    let _guard = busy.enter(Instant::now()).unwrap();
    let same = registry.pool("erp", members(&["127.0.0.1:1", "127.0.0.1:2"]), in_turn());
    assert!(Arc::ptr_eq(&before, &same));
    let grown = registry.pool("erp", members(&["127.0.0.1:1", "127.0.0.1:3"]), in_turn());
    assert_eq!(in_flight(&grown), [("127.0.0.1:1".to_owned(), 1), ("127.0.0.1:3".to_owned(), 0)]);
    let ages: Vec<_> = grown.endpoints().iter().map(|e| e.state.warmth.age(Instant::now()).is_some()).collect();
    assert_eq!(ages, [false, true], "only the endpoint that has come is new");
    let heavier = members(&["127.0.0.1:1"]).into_iter().map(|m| m.with(9, 3)).collect();
    let heavier = registry.pool("erp", heavier, settings(Rule::LessBusy));
    assert_eq!((in_flight(&heavier)[0].1, next(&heavier).weight, next(&heavier).priority), (1, 9, (3, 0)));
    let versioned = Settings { transport: Transport { tls: None, http2: true }, ..in_turn() };
    let versioned = registry.pool("erp", members(&["127.0.0.1:1"]), versioned);
    assert_eq!(in_flight(&versioned)[0].1, 0, "endpoints of another protocol are others");
    let other = registry.pool("crm", members(&["127.0.0.1:1"]), in_turn());
    assert_eq!(in_flight(&other)[0].1, 0);
}

#[test]
fn a_retry_goes_elsewhere_where_it_can() {
    let registry = Arc::new(Registry::default());
    for rule in [Rule::InTurn, Rule::LessBusy, Rule::ByHash] {
        let three = members(&["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]);
        let pool = registry.pool("erp", three, settings(rule));
        for hash in 0..32 {
            let wish = Wish { hash: Some(hash), sticky: None };
            let chosen = pool.choose(&wish, &tried(&["127.0.0.1:1", "127.0.0.1:3"]), Instant::now()).unwrap();
            assert_eq!(chosen.address.port(), 2, "{rule:?}");
        }
        let alone = registry.pool("one", members(&["127.0.0.1:1"]), settings(rule));
        let wish = Wish::default();
        assert_eq!(alone.choose(&wish, &tried(&["127.0.0.1:1"]), Instant::now()).unwrap().address.port(), 1);
    }
}

#[test]
fn whether_there_is_another_endpoint_is_known() {
    let registry = Arc::new(Registry::default());
    let pool = registry.pool("erp", members(&["127.0.0.1:1", "127.0.0.1:2"]), in_turn());
    let has = |list: &[&str]| pool.has_another(&tried(list), Instant::now());
    assert_eq!((has(&[]), has(&["127.0.0.1:1"]), has(&["127.0.0.1:1", "127.0.0.1:2"])), (true, true, false));
    for _ in 0..8 {
        let both = tried(&["127.0.0.1:1", "127.0.0.1:2"]);
        let chosen = pool.choose(&Wish::default(), &both, Instant::now()).unwrap();
        assert_eq!(chosen.address.port(), 1, "not the last one where there is another");
    }
}

#[test]
fn a_budget_belongs_to_a_name() {
    let registry = Registry::default();
    let budget = registry.budget("erp");
    assert!(Arc::ptr_eq(&budget, &registry.budget("erp")) && !Arc::ptr_eq(&budget, &registry.budget("crm")));
}

#[test]
fn a_slow_start_begins_with_a_tenth() {
    let registry = Arc::new(Registry::default());
    for rule in [Rule::InTurn, Rule::LessBusy, Rule::ByHash] {
        let slow = Settings { slow_start: Some(Duration::from_hours(1)), ..settings(rule) };
        let _before = registry.pool("erp", members(&["127.0.0.1:1"]), slow.clone());
        let grown = registry.pool("erp", members(&["127.0.0.1:1", "127.0.0.1:2"]), slow);
        let wish = |at: u64| Wish { hash: Some(rendezvous::hash(&[&at.to_le_bytes()])), sticky: None };
        let count = |now: Instant| {
            (0..2200).filter(|at| grown.choose(&wish(*at), &Tried::default(), now).unwrap().address.port() == 2).count()
        };
        let now = Instant::now();
        let (first, half, whole) =
            (count(now), count(now + Duration::from_mins(30)), count(now + Duration::from_mins(61)));
        assert!((130..280).contains(&first), "{rule:?}: {first} of 2200 at a tenth");
        assert!((620..850).contains(&half), "{rule:?}: {half} of 2200 at a half");
        assert!((1000..1200).contains(&whole), "{rule:?}: {whole} of 2200");
    }
}

#[test]
fn those_of_one_name_keep_their_tags() {
    let registry = Arc::new(Registry::default());
    let sticky = Settings { tags: Some(Tags::new(Some("a key"))), ..in_turn() };
    let pool = registry.pool("erp", members(&["127.0.0.1:1", "127.0.0.1:2"]), sticky.clone());
    for endpoint in pool.endpoints() {
        let wish = Wish { sticky: endpoint.tag, hash: None };
        for _ in 0..3 {
            assert_eq!(pool.choose(&wish, &Tried::default(), Instant::now()).unwrap().address, endpoint.address);
        }
    }
    let tag = pool.endpoints()[1].tag;
    let drained = members(&["127.0.0.1:1", "127.0.0.1:2"]).into_iter().enumerate();
    let drained = drained.map(|(at, m)| m.with(u16::from(at == 0), u8::try_from(at).unwrap())).collect();
    let drained = registry.pool("erp", drained, sticky);
    let ports = |wish: Wish| drained.choose(&wish, &Tried::default(), Instant::now()).unwrap().address.port();
    assert_eq!(ports(Wish { sticky: tag, hash: None }), 2, "a drained endpoint keeps who comes back");
    assert!((0..8).all(|_| ports(Wish::default()) == 1) && ports(Wish { sticky: Some(1), hash: None }) == 1);
}
