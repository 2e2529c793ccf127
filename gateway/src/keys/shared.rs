//! Keys in the server that gateways share.
//!
//! Every change gets the next number of a counter, and a set of the ids sorted by it says what has changed since. So a
//! gateway asks for what is newer than what it has, a few times a second, and gets nearly always nothing. All of it has one
//! hash tag, so that scripts work on a cluster.

use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use redis::{Script, ScriptInvocation};
use ring::rand::{SecureRandom as _, SystemRandom};

use super::{
    kept::{Change, KeyStore, NotMade, Seen, Use, parse},
    table::Table,
};
use crate::store::{Shared, StoreError};

/// A hash with the life of the store (`epoch`) and the number of its last change (`version`).
const STATE: &str = "crossway:{keys}:state";
/// Records by id, as JSON.
const RECORDS: &str = "crossway:{keys}:records";
/// Ids by the number of their last change.
const ORDER: &str = "crossway:{keys}:order";
/// Last uses by id.
const USES: &str = "crossway:{keys}:used";
/// Most keys of one exchange: few enough for a short time-out.
const PIECE: usize = 200;

/// What has changed after ARGV[2], if ARGV[1] is the store's life; all of it otherwise. At most ARGV[3] keys.
static CHANGES: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local state = redis.call('HMGET', KEYS[1], 'epoch', 'version')
if not state[1] then return {'', '0', '0'} end
local since = ARGV[2]
if state[1] ~= ARGV[1] or tonumber(state[2]) < tonumber(since) then since = '-1' end
local found = {state[1], state[2], since}
local ids = redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. since, '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[3])
for at = 1, #ids, 2 do
  found[#found + 1] = ids[at]
  found[#found + 1] = ids[at + 1]
  found[#found + 1] = redis.call('HGET', KEYS[2], ids[at]) or ''
  found[#found + 1] = redis.call('HGET', KEYS[4], ids[at]) or '0'
end
return found",
    )
});

/// Makes the changes ARGV[3..], each an id, the number it is changed from, and a record; none if one has changed meanwhile
/// or there would be more than ARGV[1] keys. ARGV[2] is the life of a store that has none.
static CHANGE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local new = 0
for at = 3, #ARGV, 3 do
  local is = tonumber(redis.call('ZSCORE', KEYS[3], ARGV[at]) or '0')
  if is ~= tonumber(ARGV[at + 1]) then return {'changed'} end
  if is == 0 then new = new + 1 end
end
if new > 0 and redis.call('HLEN', KEYS[2]) + new > tonumber(ARGV[1]) then return {'full'} end
redis.call('HSETNX', KEYS[1], 'epoch', ARGV[2])
local made = {'made'}
for at = 3, #ARGV, 3 do
  local version = redis.call('HINCRBY', KEYS[1], 'version', 1)
  redis.call('HSET', KEYS[2], ARGV[at], ARGV[at + 2])
  redis.call('ZADD', KEYS[3], version, ARGV[at])
  made[#made + 1] = tostring(version)
end
return made",
    )
});

/// Keeps the last uses ARGV, pairs of an id and a time, of keys that are there.
static USE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
for at = 1, #ARGV, 2 do
  local known = tonumber(redis.call('HGET', KEYS[4], ARGV[at]) or '0')
  if known < tonumber(ARGV[at + 1]) and redis.call('HEXISTS', KEYS[2], ARGV[at]) == 1 then
    redis.call('HSET', KEYS[4], ARGV[at], ARGV[at + 1])
  end
end
return 0",
    )
});

/// Drops the keys ARGV. Nobody need hear of it: every gateway drops the same ones by its own clock.
static FORGET: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
for at = 1, #ARGV do
  redis.call('HDEL', KEYS[2], ARGV[at])
  redis.call('ZREM', KEYS[3], ARGV[at])
  redis.call('HDEL', KEYS[4], ARGV[at])
end
return 0",
    )
});

/// The last uses of ARGV.
static USES_OF: LazyLock<Script> = LazyLock::new(|| Script::new("return redis.call('HMGET', KEYS[4], unpack(ARGV))"));

/// Keys in the server.
#[derive(Debug)]
pub(super) struct OnServer(Arc<Shared>);

/// One answer of [`CHANGES`].
struct Piece {
    epoch: String,
    version: u64,
    /// The keys are those of another life of the store, from its beginning.
    anew: bool,
    keys: Vec<(String, u64, String, u64)>,
}

impl Piece {
    fn read(answer: &[String], seen: &Seen) -> Option<Self> {
        let [epoch, version, since, rest @ ..] = answer else { return None };
        let key = |part: &[String]| match part {
            [id, version, record, used] => {
                Some((id.clone(), version.parse().ok()?, record.clone(), used.parse().unwrap_or(0)))
            }
            _ => None,
        };
        let keys = rest.chunks(4).map(key).collect::<Option<_>>()?;
        let anew = since == "-1" || *epoch != seen.epoch;
        Some(Self { epoch: epoch.clone(), version: version.parse().ok()?, anew, keys })
    }
}

impl OnServer {
    pub(super) fn new(store: Arc<Shared>) -> Self {
        Self(store)
    }

    async fn run<T: redis::FromRedisValue>(
        &self,
        script: &Script,
        with: impl FnOnce(&mut ScriptInvocation<'_>),
    ) -> Result<T, StoreError> {
        let mut connection = self.0.connection();
        let mut call = script.prepare_invoke();
        for key in [STATE, RECORDS, ORDER, USES] {
            call.key(key);
        }
        with(&mut call);
        self.0.within(call.invoke_async(&mut connection)).await
    }

    async fn piece(&self, seen: &Seen) -> Result<Piece, StoreError> {
        let answer: Vec<String> = self
            .run(&CHANGES, |call| {
                call.arg(&seen.epoch).arg(seen.version).arg(PIECE);
            })
            .await?;
        Piece::read(&answer, seen).ok_or_else(|| StoreError::Failed("an answer that makes no sense".into()))
    }
}

/// Takes a piece in; whether it was the last one.
fn apply(table: &Table, seen: &mut Seen, piece: Piece) -> bool {
    let last = piece.keys.len() < PIECE;
    // A store without a life may have lost one that was never seen, only written to.
    let lost = piece.epoch.is_empty() && table.len() > 0;
    if piece.anew || lost {
        if lost || !seen.epoch.is_empty() {
            tracing::warn!("the shared store has begun anew: keys that are not in it are refused");
        }
        seen.fresh = Some(piece.keys.iter().map(|(id, ..)| id.as_str().into()).collect());
    }
    seen.epoch = piece.epoch;
    seen.version = piece.keys.last().filter(|_| !last).map_or(piece.version, |(_, version, ..)| *version);
    for (id, version, text, used) in piece.keys {
        let Some(record) = parse(&id, text.as_bytes()) else { continue };
        match &mut seen.fresh {
            Some(fresh) => {
                fresh.insert(record.id.clone());
                table.set(record, version, used);
            }
            None => table.put(record, version, used),
        }
    }
    if last && let Some(fresh) = seen.fresh.take() {
        table.retain(|record| fresh.contains(&record.id));
    }
    last
}

#[async_trait]
impl KeyStore for OnServer {
    async fn read(&self, table: &Arc<Table>, seen: &mut Seen) -> Result<(), StoreError> {
        loop {
            let piece = self.piece(seen).await?;
            if apply(table, seen, piece) {
                return Ok(());
            }
        }
    }

    async fn write(&self, changes: &[Change], most: u64) -> Result<Vec<u64>, NotMade> {
        let mut epoch = [0; 16];
        SystemRandom::new().fill(&mut epoch).map_err(|_| StoreError::Failed(super::NoRandom.to_string()))?;
        let epoch = format!("{:032x}", u128::from_be_bytes(epoch));
        let texts: Vec<String> = changes
            .iter()
            .map(|change| serde_json::to_string(&change.record))
            .collect::<Result<_, _>>()
            .map_err(|error| StoreError::Failed(error.to_string()))?;
        let answer: Vec<String> = self
            .run(&CHANGE, |call| {
                call.arg(most).arg(&epoch);
                for (Change { record, from }, text) in changes.iter().zip(&texts) {
                    call.arg(&*record.id).arg(*from).arg(text);
                }
            })
            .await?;
        match answer.split_first() {
            Some((word, versions)) if word == "made" => Ok(versions.iter().filter_map(|v| v.parse().ok()).collect()),
            Some((word, _)) if word == "full" => Err(NotMade::TooMany),
            _ => Err(NotMade::Changed),
        }
    }

    async fn keep_uses(&self, uses: &[Use]) -> Result<(), StoreError> {
        for piece in uses.chunks(PIECE) {
            let _: i64 = self
                .run(&USE, |call| {
                    for (id, used) in piece {
                        call.arg(&**id).arg(*used);
                    }
                })
                .await?;
        }
        Ok(())
    }

    async fn uses(&self, ids: &[Box<str>]) -> Result<Vec<u64>, StoreError> {
        let mut all = Vec::with_capacity(ids.len());
        for piece in ids.chunks(PIECE) {
            let uses: Vec<Option<u64>> = self
                .run(&USES_OF, |call| {
                    for id in piece {
                        call.arg(&**id);
                    }
                })
                .await?;
            all.extend(uses.into_iter().map(Option::unwrap_or_default));
        }
        Ok(all)
    }

    async fn forget(&self, ids: &[Box<str>]) -> Result<(), StoreError> {
        for piece in ids.chunks(PIECE) {
            let _: i64 = self
                .run(&FORGET, |call| {
                    for id in piece {
                        call.arg(&**id);
                    }
                })
                .await?;
        }
        Ok(())
    }
}
