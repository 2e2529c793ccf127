//! What the names in an expression stand for. Nothing is copied that an expression does not ask for.

use std::{
    any::Any,
    borrow::Cow,
    sync::atomic::{AtomicUsize, Ordering},
};

use cel::{
    ExecutionError,
    common::{
        traits::{Container, Indexer},
        types::{
            CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelTimestamp, CelUInt,
            MAP_TYPE, Type,
        },
        value::{CowVal, StaticVal, Val},
    },
    context::VariableResolver,
};
use crossway_plugin_api::{Claims, Clock, Consumer, Ctx};
use http::HeaderMap;
use percent_encoding::percent_decode_str;
use pingora_http::RequestHeader;
use regex::Regex;
use serde_json::Value;

use super::binding::decoded;

/// Most values that one claim may hold, counting those within lists and objects: bounds what a token can make us do.
const MAX_VALUES: usize = 1024;
/// Most values that one evaluation may read from claims, those that it reads again in a loop included.
const MAX_READ: usize = 16 * MAX_VALUES;

/// How many values of claims an evaluation has read.
#[derive(Debug, Default)]
pub(super) struct Account(AtomicUsize);

impl Account {
    /// A claim as the expression sees it; `None` if it holds too many values, or too many have been read.
    fn read<'v>(&self, claim: &'v Value) -> Option<Box<dyn Val + 'v>> {
        let mut seen = 0;
        let value = value(claim, &mut seen)?;
        (self.0.fetch_add(seen, Ordering::Relaxed) + seen <= MAX_READ).then_some(value)
    }
}

/// The type of compiled patterns.
pub(super) static PATTERN: Type = Type::new_unspecified_type("pattern");

/// A regular expression, compiled at load.
#[derive(Debug, Clone)]
pub(super) struct Pattern(pub(super) Regex);

impl Val for Pattern {
    fn get_type(&self) -> &Type {
        &PATTERN
    }

    fn cel_type() -> &'static Type {
        &PATTERN
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Pattern {}

/// `text.matches(pattern)`.
#[expect(clippy::needless_pass_by_value, reason = "the form that the library asks for")]
pub(super) fn matches<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    match arguments.as_slice() {
        [text, pattern] => {
            let found = text.downcast_ref::<CelString>().zip(pattern.downcast_ref::<Pattern>());
            let found = found.map(|(text, Pattern(regex))| regex.is_match(text.inner()));
            found
                .map(|found| CowVal::owned(CelBool::from(found)))
                .ok_or_else(ExecutionError::missing_argument_or_target)
        }
        _ => Err(ExecutionError::missing_argument_or_target()),
    }
}

/// Finds the values of names for one request.
pub(super) struct Names<'a> {
    pub(super) req: &'a RequestHeader,
    pub(super) ctx: &'a Ctx,
    pub(super) clock: &'a Clock,
    pub(super) patterns: &'a [Pattern],
    pub(super) account: Account,
}

impl VariableResolver for Names<'_> {
    /// A name with dots is asked for whole before its first part is; `None` where there is no value of this name.
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        let Self { req, ctx, .. } = self;
        let consumer = ctx.consumer.as_deref();
        Some(match name {
            "request.method" => text(req.method.as_str()),
            "request.path" => text(&ctx.path),
            "request.host" => text(&ctx.host),
            "request.headers" => CowVal::owned(View::Headers(&req.headers)),
            "request.query" => CowVal::owned(View::Query(req.uri.query().unwrap_or_default())),
            "client.address" => CowVal::owned(CelString::from(ctx.client.to_string())),
            "consumer" => CowVal::owned(View::Consumer(consumer)),
            "consumer.name" => text(consumer?.name()),
            "consumer.groups" => groups(consumer?),
            "consumer.metadata" => CowVal::owned(View::Metadata(consumer)),
            "claims" => CowVal::owned(View::Claims(ctx.claims.as_deref(), &self.account)),
            "params" => CowVal::owned(View::Params(ctx)),
            "now" => now(self.clock)?,
            _ => match name.split_at_checked(1)? {
                ("@", number) => CowVal::Borrowed(self.patterns.get(number.parse::<usize>().ok()?)?),
                _ => {
                    let claim = ctx.claims.as_deref()?.members().get(name.strip_prefix("claims.")?)?;
                    CowVal::Owned(self.account.read(claim)?)
                }
            },
        })
    }
}

fn text(text: &str) -> CowVal<'_, '_> {
    CowVal::owned(CelString::from(text))
}

fn groups<'v>(consumer: &'v Consumer) -> CowVal<'v, 'v> {
    let groups = consumer.groups().iter().map(|group| Box::new(CelString::from(group.as_str())) as Box<dyn Val + 'v>);
    CowVal::owned(CelList::from(groups.collect::<Vec<_>>()))
}

fn now<'v>(clock: &Clock) -> Option<CowVal<'v, 'v>> {
    let millis = i64::try_from(clock.since_epoch().as_millis()).ok()?;
    let now = chrono::DateTime::from_timestamp_millis(millis)?;
    Some(CowVal::owned(CelTimestamp::from(now.fixed_offset())))
}

/// `None` if the claim holds more than [`MAX_VALUES`] values.
fn value<'v>(claim: &'v Value, seen: &mut usize) -> Option<Box<dyn Val + 'v>> {
    *seen += 1;
    if *seen > MAX_VALUES {
        return None;
    }
    Some(match claim {
        Value::Null => Box::new(CelNull),
        Value::Bool(value) => Box::new(CelBool::from(*value)),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => Box::new(CelInt::from(value)),
            (None, Some(value)) => Box::new(CelUInt::from(value)),
            (None, None) => Box::new(CelDouble::from(number.as_f64()?)),
        },
        Value::String(text) => Box::new(CelString::from(text.as_str())),
        Value::Array(items) => {
            Box::new(CelList::from(items.iter().map(|item| value(item, seen)).collect::<Option<Vec<_>>>()?))
        }
        Value::Object(members) => {
            let mut map = std::collections::HashMap::with_capacity(members.len().min(MAX_VALUES));
            for (name, member) in members {
                map.insert(CelMapKey::String(CelString::from(name.as_str())), value(member, seen)?);
            }
            Box::new(CelMap::from(map))
        }
    })
}

/// Values by name that are looked up when they are asked for. The check lets expressions ask for members and nothing else.
#[derive(Debug, Clone, Copy)]
enum View<'a> {
    Claims(Option<&'a Claims>, &'a Account),
    Consumer(Option<&'a Consumer>),
    Metadata(Option<&'a Consumer>),
    Headers(&'a HeaderMap),
    Query(&'a str),
    Params(&'a Ctx),
}

impl<'a> View<'a> {
    fn member<'v>(self, key: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        'a: 'v,
    {
        let name = key.downcast_ref::<CelString>().ok_or_else(|| wrong("a name is no text"))?;
        let name = name.inner();
        let missing = || ExecutionError::no_such_key(name);
        match self {
            Self::Claims(claims, account) => {
                let claim = claims.and_then(|claims| claims.members().get(name)).ok_or_else(missing)?;
                account.read(claim).ok_or_else(|| wrong("claims hold too many values"))
            }
            Self::Consumer(consumer) => match (consumer, name) {
                (Some(consumer), "name") => Ok(Box::new(CelString::from(consumer.name()))),
                (Some(consumer), "groups") => Ok(groups(consumer).into_owned()),
                _ => Err(missing()),
            },
            Self::Metadata(consumer) => {
                let noted = consumer.and_then(|consumer| consumer.metadata().get(name)).ok_or_else(missing)?;
                Ok(Box::new(CelString::from(noted.as_str())))
            }
            Self::Headers(headers) => header(headers, name).map(boxed),
            Self::Query(query) => parameter(query, name).map(boxed),
            Self::Params(ctx) => {
                let param = ctx.param(name).ok_or_else(missing)?;
                decoded(param).map(boxed).ok_or_else(|| wrong("a path parameter is no text"))
            }
        }
    }

    fn has(self, name: &str) -> bool {
        match self {
            Self::Claims(claims, _) => claims.is_some_and(|claims| claims.members().contains_key(name)),
            Self::Consumer(consumer) => consumer.is_some() && matches!(name, "name" | "groups"),
            Self::Metadata(consumer) => consumer.is_some_and(|consumer| consumer.metadata().contains_key(name)),
            Self::Headers(headers) => headers.contains_key(name),
            Self::Query(query) => pairs(query).any(|(key, _)| plain(key).is_some_and(|key| key == name)),
            Self::Params(ctx) => ctx.param(name).is_some(),
        }
    }
}

fn boxed<'v>(text: Cow<'v, str>) -> Box<dyn Val + 'v> {
    Box::new(CelString::from(text))
}

fn wrong(message: &str) -> ExecutionError {
    ExecutionError::function_error("_[_]", message)
}

/// A field's value; of several, all with commas between them (RFC 9110, section 5.3), so that a second one hides nothing.
fn header<'a>(headers: &'a HeaderMap, name: &str) -> Result<Cow<'a, str>, ExecutionError> {
    let mut values = headers.get_all(name).iter();
    let first = values.next().ok_or_else(|| ExecutionError::no_such_key(name))?;
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| wrong("a header field is no text"));
    let mut all = Cow::Borrowed(text(first.as_bytes())?);
    for value in values {
        let all = all.to_mut();
        all.push_str(", ");
        all.push_str(text(value.as_bytes())?);
    }
    Ok(all)
}

/// The value of a parameter that is there once; which of several an upstream would take is not known.
fn parameter<'a>(query: &'a str, name: &str) -> Result<Cow<'a, str>, ExecutionError> {
    let mut values = pairs(query).filter(|(key, _)| plain(key).is_some_and(|key| key == name)).map(|(_, value)| value);
    match (values.next(), values.next()) {
        (None, _) => Err(ExecutionError::no_such_key(name)),
        (Some(value), None) => plain(value).ok_or_else(|| wrong("a query parameter is no text")),
        (Some(_), Some(_)) => Err(wrong("a query parameter is there twice")),
    }
}

fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// A name or value of a query without its escapes; `None` if they are no UTF-8.
fn plain(text: &str) -> Option<Cow<'_, str>> {
    if text.contains('+') {
        let text = text.replace('+', " ");
        return percent_decode_str(&text).decode_utf8().ok().map(|text| Cow::Owned(text.into_owned()));
    }
    decoded(text)
}

impl Val for View<'_> {
    fn get_type(&self) -> &Type {
        &MAP_TYPE
    }

    fn cel_type() -> &'static Type {
        &MAP_TYPE
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(*self)
    }
}

impl Container for View<'_> {
    fn contains(&self, key: &dyn Val) -> Result<bool, ExecutionError> {
        let name = key.downcast_ref::<CelString>().ok_or_else(|| wrong("a name is no text"))?;
        Ok(self.has(name.inner()))
    }
}

impl Indexer for View<'_> {
    fn get<'b, 'v>(&'b self, key: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.member(key).map(CowVal::Owned)
    }

    fn steal<'v>(self: Box<Self>, key: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.member(key)
    }
}
