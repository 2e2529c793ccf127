//! Plugins within plugins: lists of those that establish who is calling.

use std::{borrow::Cow, fmt, sync::Arc};

use crossway_plugin_api::{Ctx, Deps, Fault, InvalidConfig, Needs, Outcome, Plugin, PluginConfig as _};
use pingora_http::{RequestHeader, ResponseHeader};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error as _, IntoDeserializer as _, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::{Map, Value, json};

use crate::AnyPlugin;

/// Fewest and most plugins in one list.
const LENGTH: std::ops::RangeInclusive<usize> = 2..=8;
/// Most lists within each other.
const MAX_DEPTH: usize = 4;
/// Name of the one definition in the schema: lists within lists refer to it.
const DEFINITION: &str = "plugin";

impl AnyPlugin {
    /// Reads the settings under a key that has been read already, in place, so that an error keeps its path.
    pub fn under_key<'de, A: MapAccess<'de>>(name: &str, map: &mut A) -> Result<Self, A::Error> {
        Self::deserialize(MapAccessDeserializer::new(Key { name, map }))
    }

    /// The schema of each plugin's settings, by name.
    pub fn properties(generator: &mut SchemaGenerator) -> Map<String, Value> {
        let plugins = Self::json_schema(generator);
        let mut properties = Map::new();
        for variant in plugins.get("oneOf").and_then(Value::as_array).into_iter().flatten() {
            let described = variant.get("description");
            for (name, settings) in variant.get("properties").and_then(Value::as_object).into_iter().flatten() {
                let mut settings = settings.clone();
                if let (Some(text), Some(object)) = (described, settings.as_object_mut()) {
                    object.insert("description".into(), text.clone());
                }
                properties.insert(name.clone(), settings);
            }
        }
        properties
    }

    fn entries(&self) -> Option<&Entries> {
        match self {
            Self::AllOf(list) => Some(list.entries()),
            Self::AnyOf(list) => Some(list.entries()),
            _ => None,
        }
    }
}

/// A key that has been read already, and the mapping that its value comes from: what serde takes for a variant.
struct Key<'k, A> {
    name: &'k str,
    map: &'k mut A,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Key<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        seed.deserialize(self.name.into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

/// A plugin with its settings and nothing beside it.
#[derive(Debug, Clone)]
struct Entry(AnyPlugin);

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(OnePlugin)
    }
}

struct OnePlugin;

impl<'de> Visitor<'de> for OnePlugin {
    type Value = Entry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a plugin with its settings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entry, A::Error> {
        let name: String = map.next_key()?.ok_or_else(|| A::Error::custom("has no plugin"))?;
        let plugin = AnyPlugin::under_key(&name, &mut map)?;
        match map.next_key::<String>()? {
            None => Ok(Entry(plugin)),
            Some(_) => Err(A::Error::custom("has more than one plugin")),
        }
    }
}

/// A list of plugins that establish who is calling.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub(crate) struct Entries(Vec<Entry>);

impl Entries {
    /// Builds all of them. Those that do not establish who is calling, or want bodies, are refused.
    pub(crate) fn build(self, deps: &Deps) -> Result<Members, InvalidConfig> {
        if let Some(place) = self.below(MAX_DEPTH) {
            return Err(InvalidConfig::new(place, format!("stands within {MAX_DEPTH} lists already")));
        }
        if !LENGTH.contains(&self.0.len()) {
            let reason = format!("must name {} to {} plugins", LENGTH.start(), LENGTH.end());
            return Err(InvalidConfig::new("", reason));
        }
        let members = self.0.into_iter().enumerate().map(|(at, Entry(plugin))| member(at, plugin, deps));
        Ok(Members(members.collect::<Result<_, _>>()?))
    }

    /// Where a list stands within `left` others.
    fn below(&self, left: usize) -> Option<String> {
        self.0.iter().enumerate().find_map(|(at, Entry(plugin))| {
            let list = plugin.entries()?;
            let place = format!("{at}/{}", plugin.name());
            match left.checked_sub(1) {
                None | Some(0) => Some(place),
                Some(left) => list.below(left).map(|rest| format!("{place}/{rest}")),
            }
        })
    }
}

fn member(at: usize, plugin: AnyPlugin, deps: &Deps) -> Result<Member, InvalidConfig> {
    let name = plugin.name();
    let plugin = plugin.build(deps).map_err(|InvalidConfig { field, reason }| {
        let field = if field.is_empty() { format!("{at}/{name}") } else { format!("{at}/{name}/{field}") };
        InvalidConfig { field, reason }
    })?;
    let needs = plugin.needs();
    match unfit(&needs) {
        None => Ok(Member { needs, plugin }),
        Some(reason) => Err(InvalidConfig::new(format!("{at}/{name}"), reason)),
    }
}

/// Why a plugin cannot stand in a list, if it cannot.
fn unfit(needs: &Needs) -> Option<&'static str> {
    if !needs.authenticates {
        return Some("does not authenticate: it cannot stand in this list");
    }
    let wants_bodies = needs.request_body.is_some() || needs.response_body.is_some();
    wants_bodies.then_some("needs whole bodies, which it does not get in this list")
}

impl JsonSchema for Entries {
    fn schema_name() -> Cow<'static, str> {
        "Entries".into()
    }

    fn inline_schema() -> bool {
        true
    }

    /// The items refer to a definition, because plugins of lists may be lists.
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        if !generator.definitions().contains_key(DEFINITION) {
            // Lists that are met on the way find that there is one.
            generator.definitions_mut().insert(DEFINITION.into(), Value::Bool(true));
            let properties = AnyPlugin::properties(generator);
            let definition = json!({
                "type": "object", "additionalProperties": false, "properties": properties,
                "description": "A plugin that establishes who is calling, with its settings.",
            });
            generator.definitions_mut().insert(DEFINITION.into(), definition);
        }
        schemars::json_schema!({
            "type": "array", "minItems": LENGTH.start(), "maxItems": LENGTH.end(),
            "items": { "$ref": format!("#/$defs/{DEFINITION}") },
        })
    }
}

pub(crate) struct Member {
    needs: Needs,
    pub(crate) plugin: Arc<dyn Plugin>,
}

/// The plugins of a list, built.
pub(crate) struct Members(Box<[Member]>);

/// Which members of which lists have let a request in: those whose later phases run.
#[derive(Debug, Clone, Default)]
struct LetIn(Vec<(usize, u8)>);

impl Members {
    #[cfg(test)]
    pub(crate) fn of(plugins: Vec<Arc<dyn Plugin>>) -> Self {
        Self(plugins.into_iter().map(|plugin| Member { needs: plugin.needs(), plugin }).collect())
    }

    /// The members in order, each with its bit.
    pub(crate) fn each(&self) -> impl DoubleEndedIterator<Item = (u8, &Member)> {
        self.0.iter().enumerate().map(|(at, member)| (1 << at, member))
    }

    /// The phases that some member takes part in.
    pub(crate) fn needs(&self) -> Needs {
        let some = |takes: fn(&Needs) -> bool| self.0.iter().any(|member| takes(&member.needs));
        Needs {
            request: true,
            upstream_request: some(|needs| needs.upstream_request),
            response: some(|needs| needs.response),
            done: some(|needs| needs.done),
            authenticates: true,
            client_certificate: some(|needs| needs.client_certificate),
            secret_query: self.0.iter().flat_map(|member| member.needs.secret_query.clone()).collect(),
            secret_headers: self.0.iter().flat_map(|member| member.needs.secret_headers.clone()).collect(),
            ..Needs::default()
        }
    }

    /// What tells this list from the others that a request meets.
    fn identity(&self) -> usize {
        self.0.as_ptr() as usize
    }

    /// Notes which members have let the request in.
    pub(crate) fn let_in(&self, ctx: &mut Ctx, bits: u8) {
        let needs = self.needs();
        if needs.upstream_request || needs.response || needs.done {
            ctx.extensions.get_or_insert_default::<LetIn>().0.push((self.identity(), bits));
        }
    }

    fn entered(&self, ctx: &Ctx) -> impl DoubleEndedIterator<Item = &Member> + use<'_> {
        let noted = ctx.extensions.get::<LetIn>().into_iter().flat_map(|noted| &noted.0);
        let bits = noted.filter(|(list, _)| *list == self.identity()).fold(0, |all, (_, bits)| all | bits);
        self.each().filter(move |(bit, _)| bits & bit != 0).map(|(_, member)| member)
    }

    pub(crate) fn on_upstream_request(&self, req: &mut RequestHeader, ctx: &mut Ctx) -> Result<(), Fault> {
        let mut takers = self.entered(ctx).filter(|member| member.needs.upstream_request);
        takers.try_for_each(|member| member.plugin.on_upstream_request(req, ctx))
    }

    pub(crate) fn on_response(&self, res: &mut ResponseHeader, ctx: &mut Ctx) -> Result<(), Fault> {
        let mut takers = self.entered(ctx).rev().filter(|member| member.needs.response);
        takers.try_for_each(|member| member.plugin.on_response(res, ctx))
    }

    pub(crate) fn on_done(&self, outcome: &Outcome, ctx: &Ctx) {
        for member in self.entered(ctx).filter(|member| member.needs.done) {
            member.plugin.on_done(outcome, ctx);
        }
    }
}

/// Hands the later phases on to those members that have let the request in.
macro_rules! later_phases {
    ($members:ident) => {
        fn on_upstream_request(
            &self,
            req: &mut pingora_http::RequestHeader,
            ctx: &mut crossway_plugin_api::Ctx,
        ) -> Result<(), crossway_plugin_api::Fault> {
            self.$members.on_upstream_request(req, ctx)
        }

        fn on_response(
            &self,
            res: &mut pingora_http::ResponseHeader,
            ctx: &mut crossway_plugin_api::Ctx,
        ) -> Result<(), crossway_plugin_api::Fault> {
            self.$members.on_response(res, ctx)
        }

        fn on_done(&self, outcome: &crossway_plugin_api::Outcome, ctx: &crossway_plugin_api::Ctx) {
            self.$members.on_done(outcome, ctx);
        }
    };
}
pub(crate) use later_phases;

#[cfg(test)]
mod tests {
    use crossway_plugin_api::BodyNeed;

    use super::*;

    #[test]
    fn a_member_authenticates_and_needs_no_body() {
        let knows = Needs { authenticates: true, ..Needs::default() };
        let body = || Some(BodyNeed::any(1));
        assert_eq!(unfit(&knows), None);
        assert!(unfit(&Needs::default()).is_some());
        assert!(unfit(&Needs { request_body: body(), ..knows.clone() }).is_some());
        assert!(unfit(&Needs { response_body: body(), ..knows }).is_some());
    }
}
