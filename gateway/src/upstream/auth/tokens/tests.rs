use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use crossway_plugin_api::{Ask, NoAnswer, Told};
use http::{HeaderMap, StatusCode};
use serde_json::json;

use super::*;
use crate::telemetry::metrics::Metrics;

/// Gives `token-1`, `token-2` and so on, after a moment; or the same one always; or none.
#[derive(Debug, Default)]
struct Fake {
    asked: AtomicUsize,
    is_down: bool,
    is_always_the_same: bool,
}

#[async_trait]
impl Fetch for Fake {
    async fn fetch(&self, _: Ask) -> Result<Told, NoAnswer> {
        let asked = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
        if self.is_down {
            return Err(NoAnswer::Timeout);
        }
        let number = if self.is_always_the_same { 1 } else { asked };
        let body = json!({"access_token": format!("token-{number}"), "token_type": "Bearer"}).to_string();
        Ok(Told { status: StatusCode::OK, headers: HeaderMap::new(), body: body.into() })
    }
}

fn tokens(fake: &Arc<Fake>, cool_down: &str) -> Arc<Tokens> {
    let fetch: Arc<dyn Fetch> = Arc::clone(fake) as _;
    let deps = Deps { fetch, ..Deps::default() };
    deps.tasks.start(&tokio::runtime::Handle::current());
    let all = json!({"token_url": "https://idp", "client_id": "gw", "client_secret": "s", "cool_down": cool_down});
    let plan = Plan::new("erp", &serde_json::from_value(all).unwrap());
    Tokens::find(plan, &deps, Metrics::new().upstream_auth("erp"))
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn is(proof: &Proof, token: &str) -> bool {
    *proof == Proof::bearer(token).unwrap()
}

#[tokio::test]
async fn one_question_for_all_who_wait() {
    let fake = Arc::<Fake>::default();
    let tokens = tokens(&fake, "1h");
    let all: Vec<_> = (0..50)
        .map(|_| {
            let tokens = Arc::clone(&tokens);
            tokio::spawn(async move { tokens.proof(soon()).await.unwrap() })
        })
        .collect();
    for one in all {
        assert!(is(&one.await.unwrap(), "token-1"));
    }
    assert_eq!(fake.asked.load(Ordering::SeqCst), 1);
    assert!(tokens.left().unwrap() > Duration::from_mins(4));
}

#[tokio::test]
async fn a_failure_is_not_asked_about_again_before_its_time() {
    let fake = Arc::new(Fake { is_down: true, ..Fake::default() });
    let tokens = tokens(&fake, "1h");
    for _ in 0..10 {
        let Err(Fault::UpstreamAuth { retry_after }) = tokens.proof(soon()).await else { panic!("no token") };
        assert!((3500..=3600).contains(&retry_after), "{retry_after}");
    }
    assert_eq!(fake.asked.load(Ordering::SeqCst), 1);
    assert_eq!((tokens.state.metrics.missing.get(), tokens.state.metrics.failed.get()), (10, 1));
    assert_eq!(tokens.proof(Instant::now()).await.err(), Some(Fault::Deadline));
}

/// Where the refresh comes late, as on a machine that is very busy.
#[tokio::test]
async fn a_token_that_is_over_is_replaced_at_once() {
    let fake = Arc::<Fake>::default();
    let tokens = tokens(&fake, "1h");
    assert!(is(&tokens.proof(soon()).await.unwrap(), "token-1"));
    tokens.state.token.store(None);
    assert!(is(&tokens.proof(soon()).await.unwrap(), "token-2"));
}

#[tokio::test]
async fn a_refused_token_is_replaced_once_and_only_if_it_is_the_one_in_hand() {
    let fake = Arc::<Fake>::default();
    let tokens = tokens(&fake, "10ms");
    let first = tokens.proof(soon()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let many = futures_util::future::join_all((0..20).map(|_| tokens.is_replaced(&first, soon()))).await;
    assert!(many.iter().all(|replaced| *replaced));
    assert!(is(&tokens.proof(soon()).await.unwrap(), "token-2"));
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(tokens.is_replaced(&first, soon()).await, "it is replaced already");
    assert_eq!(fake.asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_refused_token_that_cannot_be_replaced_stays() {
    let same = Arc::new(Fake { is_always_the_same: true, ..Fake::default() });
    for (fake, cool_down, asked) in [(same, "10ms", 2), (Arc::default(), "1h", 1)] {
        let tokens = tokens(&fake, cool_down);
        let first = tokens.proof(soon()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!tokens.is_replaced(&first, soon()).await);
        assert!(is(&tokens.proof(soon()).await.unwrap(), "token-1"));
        assert_eq!(fake.asked.load(Ordering::SeqCst), asked);
    }
}

#[test]
fn times_of_the_next_question() {
    let (second, minute) = (Duration::from_secs(1), Duration::from_mins(1));
    assert_eq!(refresh_after(10 * minute, minute, 0.0), 9 * minute);
    assert_eq!(refresh_after(10 * minute, minute, 1.0), 9 * minute + minute / 4);
    assert_eq!(refresh_after(second, minute, 0.0), second / 2, "at most half of its life");
    assert_eq!(refresh_after(second, Duration::ZERO, 1.0), second);
    let waits: Vec<_> = (1..8).map(|failures| retry_after(failures, 5 * second, 0.0).as_secs()).collect();
    assert_eq!(waits, [5, 10, 20, 40, 60, 60, 60]);
    assert_eq!(retry_after(u32::MAX, 5 * minute, 0.0), 5 * minute);
    assert_eq!(retry_after(1, 4 * second, 1.0), 5 * second);
    assert!((0.0..=1.0).contains(&by_chance()));
}
