//! Where the keys of an issuer come from, and keeping them fresh.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use crossway_plugin_api::{Ask, Deps, Fetch, Task, check_secure_url};
use http::{HeaderMap, StatusCode, header};
use prometheus::IntCounter;
use serde_json::Value;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};

use super::keys::KeySet;

/// Longest answer that is read, in bytes.
const MAX_BODY: usize = 512 << 10;
/// Wait after a first failure; it doubles with each further one.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Longest wait after a failure.
const LAST_RETRY: Duration = Duration::from_mins(1);

/// Where keys are fetched, and how often. What differs in any of it is another state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// The issuer, exactly as the discovery document must name it.
    pub(super) issuer: String,
    /// Its key set, where it was given.
    pub(super) jwks_url: Option<String>,
    /// Whether URLs without TLS are good enough.
    pub(super) plain_http: bool,
    /// Longest time between two fetches.
    pub(super) refresh: Duration,
    /// Shortest time between two fetches.
    pub(super) cool_down: Duration,
    /// How long keys are used after the last fetch that went well.
    pub(super) max_stale: Duration,
    /// Time for one request.
    pub(super) timeout: Duration,
}

/// The keys of an issuer.
pub(super) enum Source {
    /// They stand in the configuration.
    Fixed(Arc<KeySet>),
    /// They are fetched.
    Fetched(Arc<Kept>),
}

/// Keys, and the number of the set: another number, other keys.
pub(super) type Numbered = (u64, Arc<KeySet>);

impl Source {
    /// The keys in hand, if they may still be used.
    pub(super) fn keys(&self) -> Option<Numbered> {
        match self {
            Self::Fixed(keys) => Some((0, Arc::clone(keys))),
            Self::Fetched(kept) => kept.state.keys(),
        }
    }

    /// The number of the set in hand, if it may still be used.
    pub(super) fn number(&self) -> Option<u64> {
        match self {
            Self::Fixed(_) => Some(0),
            Self::Fetched(kept) => kept.state.number(),
        }
    }

    /// Waits for the first attempt to fetch keys, if it is still going on.
    pub(super) async fn first(&self) {
        if let Self::Fetched(kept) = self {
            let mut attempts = kept.state.attempts.subscribe();
            let _ = timeout(kept.state.patience(), attempts.wait_for(|attempt| attempt.ended > 0)).await;
        }
    }

    /// Has the keys fetched, if the last time was long enough ago, and waits for it.
    pub(super) async fn renewed(&self) {
        if let Self::Fetched(kept) = self {
            kept.state.renewed().await;
        }
    }
}

/// Keys and the work that keeps them fresh; the work ends when the last plugin that wants them is gone.
pub(super) struct Kept {
    state: Arc<State>,
    _task: Task,
}

impl Kept {
    /// The keys by this plan: those that other plugins, or the one before a reload, have fetched already.
    pub(super) fn find(plan: &Plan, deps: &Deps) -> Arc<Self> {
        deps.state.get_or_make(&format!("jwt keys {plan:?}"), || {
            let state = Arc::new(State::new(plan.clone()));
            let counters = [deps.metrics.counter("jwt", "fetched"), deps.metrics.counter("jwt", "unreachable")];
            let work = keep_fresh(Arc::clone(&state), Arc::clone(&deps.fetch), counters);
            Self { state, _task: deps.tasks.spawn(work) }
        })
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "keys of {}", self.state.plan.issuer)
    }
}

/// How often it was tried to fetch keys.
#[derive(Debug, Clone, Copy, Default)]
struct Attempts {
    begun: u64,
    ended: u64,
}

struct State {
    plan: Plan,
    keys: ArcSwapOption<Numbered>,
    /// What the times below count from.
    epoch: Instant,
    /// Milliseconds until which the keys may be used.
    good_until: AtomicU64,
    /// Number of the set; 0 before the first.
    number: AtomicU64,
    /// Milliseconds at which the last attempt began.
    began: AtomicU64,
    attempts: watch::Sender<Attempts>,
    wanted: Notify,
}

impl State {
    fn new(plan: Plan) -> Self {
        Self {
            plan,
            keys: ArcSwapOption::empty(),
            epoch: Instant::now(),
            good_until: AtomicU64::new(0),
            number: AtomicU64::new(0),
            began: AtomicU64::new(0),
            attempts: watch::Sender::default(),
            wanted: Notify::new(),
        }
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn is_usable(&self) -> bool {
        self.millis() < self.good_until.load(Ordering::Acquire)
    }

    fn keys(&self) -> Option<Numbered> {
        let found = self.keys.load();
        found.as_deref().filter(|_| self.is_usable()).cloned()
    }

    fn number(&self) -> Option<u64> {
        self.is_usable().then(|| self.number.load(Ordering::Acquire))
    }

    /// Longest that a request waits for keys: two requests to the issuer.
    fn patience(&self) -> Duration {
        self.plan.timeout * 2
    }

    fn has_cooled_down(&self) -> bool {
        let since = self.millis().saturating_sub(self.began.load(Ordering::Acquire));
        u128::from(since) >= self.plan.cool_down.as_millis()
    }

    async fn renewed(&self) {
        let mut attempts = self.attempts.subscribe();
        let Attempts { begun, ended } = *attempts.borrow_and_update();
        if begun == ended {
            if !self.has_cooled_down() {
                return;
            }
            self.wanted.notify_one();
        }
        let _ = timeout(self.patience(), attempts.wait_for(|now| now.ended > ended)).await;
    }

    fn take(&self, keys: KeySet) {
        let same = self.keys.load().as_deref().is_some_and(|(_, known)| known.is_same(&keys));
        if !same {
            let number = self.number.load(Ordering::Acquire) + 1;
            self.keys.store(Some(Arc::new((number, Arc::new(keys)))));
            self.number.store(number, Ordering::Release);
        }
        let stale = u64::try_from(self.plan.max_stale.as_millis()).unwrap_or(u64::MAX);
        self.good_until.store(self.millis().saturating_add(stale), Ordering::Release);
    }

    /// One attempt. Gives the time until the next.
    async fn attempt(&self, fetch: &dyn Fetch, failures: &mut u32) -> Result<Duration, String> {
        self.began.store(self.millis(), Ordering::Release);
        self.attempts.send_modify(|attempts| attempts.begun += 1);
        let fetched = fetched(&self.plan, fetch).await;
        let outcome = match fetched {
            Ok((keys, age)) => {
                self.take(keys);
                *failures = 0;
                let least = self.plan.cool_down.min(self.plan.refresh);
                Ok(age.unwrap_or(self.plan.refresh).clamp(least, self.plan.refresh))
            }
            Err(why) => {
                *failures = failures.saturating_add(1);
                Err(why)
            }
        };
        self.attempts.send_modify(|attempts| attempts.ended += 1);
        outcome
    }
}

fn retry_after(failures: u32, refresh: Duration) -> Duration {
    let doubled = FIRST_RETRY.saturating_mul(1 << failures.saturating_sub(1).min(6));
    doubled.min(LAST_RETRY).min(refresh)
}

/// Fetches keys for as long as somebody wants them: one fetch at a time, whoever asks for it.
async fn keep_fresh(state: Arc<State>, fetch: Arc<dyn Fetch>, [good, bad]: [IntCounter; 2]) {
    let mut failures = 0;
    loop {
        let was_down = failures > 0;
        let wait = match state.attempt(&*fetch, &mut failures).await {
            Ok(wait) => {
                good.inc();
                if was_down {
                    tracing::info!(issuer = state.plan.issuer, "the issuer's keys are there again");
                }
                wait
            }
            Err(why) => {
                bad.inc();
                // Once for each outage, and again after every 64 attempts.
                if failures % 64 == 1 {
                    tracing::warn!(issuer = state.plan.issuer, reason = why, "the issuer's keys cannot be fetched");
                }
                retry_after(failures, state.plan.refresh)
            }
        };
        let next = Instant::now() + wait;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(next) => break,
                () = state.wanted.notified() => {
                    // Two requests may have asked for the fetch that has just ended.
                    if state.has_cooled_down() {
                        break;
                    }
                }
            }
        }
    }
}

/// The keys by the plan, and how long their issuer says that they are fresh. The error is for the log.
async fn fetched(plan: &Plan, fetch: &dyn Fetch) -> Result<(KeySet, Option<Duration>), String> {
    let url = match &plan.jwks_url {
        Some(url) => url.clone(),
        None => discovered(plan, fetch).await?,
    };
    let (body, headers) = get(plan, fetch, &url).await?;
    let keys = KeySet::read(&body).map_err(|reason| format!("{url}: the key set {reason}"))?;
    Ok((keys, max_age(&headers)))
}

/// The URL of the key set, from the issuer's metadata (`OpenID` Connect Discovery 1.0, section 4).
async fn discovered(plan: &Plan, fetch: &dyn Fetch) -> Result<String, String> {
    let url = format!("{}/.well-known/openid-configuration", plan.issuer.trim_end_matches('/'));
    let (body, _) = get(plan, fetch, &url).await?;
    let metadata: Value = serde_json::from_slice(&body).map_err(|_| format!("{url}: not JSON"))?;
    if metadata.get("issuer").and_then(Value::as_str) != Some(&plan.issuer) {
        return Err(format!("{url}: the metadata are of another issuer"));
    }
    let jwks = metadata.get("jwks_uri").and_then(Value::as_str).ok_or_else(|| format!("{url}: no `jwks_uri`"))?;
    check_secure_url(jwks, plan.plain_http).map_err(|reason| format!("{url}: `jwks_uri` {reason}"))?;
    Ok(jwks.to_owned())
}

async fn get(plan: &Plan, fetch: &dyn Fetch, url: &str) -> Result<(bytes::Bytes, HeaderMap), String> {
    let ask = Ask { timeout: plan.timeout, max_body: MAX_BODY, ..Ask::get(url) };
    let told = fetch.fetch(ask).await.map_err(|error| format!("{url}: {error}"))?;
    if told.status != StatusCode::OK {
        return Err(format!("{url}: status {}", told.status.as_u16()));
    }
    Ok((told.body, told.headers))
}

/// `max-age` of an answer (RFC 9111, section 5.2.2.1); none where it must not be kept at all.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let fields = headers.get_all(header::CACHE_CONTROL).into_iter().filter_map(|value| value.to_str().ok());
    let mut found = None;
    for directive in fields.flat_map(|text| text.split(',')).map(str::trim) {
        if directive.eq_ignore_ascii_case("no-store") || directive.eq_ignore_ascii_case("no-cache") {
            return Some(Duration::ZERO);
        }
        if let Some((name, value)) = directive.split_once('=')
            && name.eq_ignore_ascii_case("max-age")
        {
            found = value.trim_matches('"').parse().ok().map(Duration::from_secs);
        }
    }
    found
}
