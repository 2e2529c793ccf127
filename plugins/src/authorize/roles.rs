//! What groups may do.

use crossway_plugin_api::{
    Claims, ConsumerDirectory, Ctx, InvalidConfig,
    config::{Glob, parse_method},
};
use http::Method;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::fields::below;

/// What a group may do. `{}`: everything.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Permission {
    /// Methods that it may use; `GET` stands for `HEAD` too. Without: any method.
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub methods: Option<Vec<String>>,
    /// Paths that it may ask for, in canonical form; `*` stands for any characters, slashes too. Without: any path.
    #[schemars(with = "Vec<Glob>", length(min = 1))]
    pub paths: Option<Vec<Glob>>,
}

/// A group and what it may do.
pub(super) struct Role {
    group: String,
    methods: Option<Vec<Method>>,
    paths: Option<Vec<Glob>>,
}

impl Role {
    pub(super) fn new(group: String, allowed: Permission) -> Result<Self, InvalidConfig> {
        let place = below("groups", &group);
        let methods = allowed.methods.map(|names| methods(&names, &format!("{place}/methods"))).transpose()?;
        if allowed.paths.as_ref().is_some_and(Vec::is_empty) {
            return Err(InvalidConfig::new(format!("{place}/paths"), EMPTY));
        }
        Ok(Self { group, methods, paths: allowed.paths })
    }

    /// Whether a caller of this group may make this request.
    pub(super) fn allows(&self, method: &Method, path: &str) -> bool {
        let asked = |methods: &Vec<Method>| {
            methods.contains(method) || (*method == Method::HEAD && methods.contains(&Method::GET))
        };
        self.methods.as_ref().is_none_or(asked)
            && self.paths.as_ref().is_none_or(|paths| paths.iter().any(|glob| glob.matches(path)))
    }

    /// Whether the caller is of this group: by the configuration, or by what its token says under `claim`.
    pub(super) fn has(&self, ctx: &Ctx, claim: Option<&str>) -> bool {
        let listed = ctx.consumer.as_ref().is_some_and(|consumer| consumer.groups().contains(&self.group));
        listed || claim.zip(ctx.claims.as_deref()).is_some_and(|(claim, claims)| self.is_in(claims, claim))
    }

    fn is_in(&self, claims: &Claims, claim: &str) -> bool {
        match claims.get(claim) {
            Some(Value::String(only)) => *only == self.group,
            Some(Value::Array(items)) => items.iter().any(|item| item.as_str() == Some(&self.group)),
            _ => false,
        }
    }

    /// A group that nobody can be of is a slip.
    pub(super) fn check_known(&self, consumers: &ConsumerDirectory) -> Result<(), InvalidConfig> {
        let known = || consumers.consumers().flat_map(|consumer| consumer.groups()).map(String::as_str);
        if known().any(|group| group == self.group) {
            return Ok(());
        }
        let field = below("groups", &self.group);
        Err(InvalidConfig::unknown(field, "is a group that no consumer has", &self.group, known()))
    }
}

pub(super) const EMPTY: &str = "is empty, so that nobody could pass";

fn methods(names: &[String], place: &str) -> Result<Vec<Method>, InvalidConfig> {
    if names.is_empty() {
        return Err(InvalidConfig::new(place, EMPTY));
    }
    let read = |(at, name): (usize, &String)| {
        parse_method(name).map_err(|reason| InvalidConfig::new(format!("{place}/{at}"), reason))
    };
    names.iter().enumerate().map(read).collect()
}
