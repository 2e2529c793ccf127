//! All conditions together, compiled.

use std::collections::BTreeMap;

use crossway_plugin_api::{Clock, ConsumerDirectory, Ctx, InvalidConfig, config::Network};
use pingora_http::RequestHeader;

use super::{
    Config,
    binding::Binding,
    claims::{ClaimRule, check_path},
    expression::Expression,
    roles::{EMPTY, Role},
    scopes::Scopes,
};
use crate::fields::below;

/// The conditions, cheapest first; each that is given must hold.
pub(super) struct Rules {
    networks: Option<Vec<Network>>,
    consumers: Option<Vec<String>>,
    roles: Option<Vec<Role>>,
    groups_claim: Option<String>,
    scopes: Option<Scopes>,
    claims: Option<Vec<ClaimRule>>,
    bindings: Option<Vec<Binding>>,
    expression: Option<Expression>,
    /// Whether some condition is about the caller.
    pub(super) need_caller: bool,
}

/// Compiles each entry of a setting.
fn compiled<V, T>(
    written: BTreeMap<String, V>,
    compile: fn(String, V) -> Result<T, InvalidConfig>,
) -> Result<Vec<T>, InvalidConfig> {
    written.into_iter().map(|(name, value)| compile(name, value)).collect()
}

fn at_expression(reason: String) -> InvalidConfig {
    InvalidConfig::new("expression", reason)
}

impl Rules {
    pub(super) fn compile(config: Config, known: &ConsumerDirectory) -> Result<Self, InvalidConfig> {
        let Config { scopes, claims, groups, groups_claim, consumers, networks, params, expression } = config;
        let is_about_caller =
            scopes.is_some() || claims.is_some() || groups.is_some() || consumers.is_some() || params.is_some();
        if !is_about_caller && networks.is_none() && expression.is_none() && groups_claim.is_none() {
            return Err(InvalidConfig::new("", "has no condition"));
        }
        let rules = Self {
            networks,
            roles: groups.map(|groups| compiled(groups, Role::new)).transpose()?,
            claims: claims.map(|claims| compiled(claims, ClaimRule::new)).transpose()?,
            bindings: params.map(|params| compiled(params, Binding::new)).transpose()?,
            expression: expression.as_deref().map(Expression::compile).transpose().map_err(at_expression)?,
            consumers,
            groups_claim,
            scopes,
            need_caller: is_about_caller,
        };
        rules.check(known)?;
        let reads_caller = rules.expression.as_ref().is_some_and(|expression| expression.reads_caller);
        Ok(Self { need_caller: is_about_caller || reads_caller, ..rules })
    }

    /// What nobody could ever pass is a slip.
    fn check(&self, known: &ConsumerDirectory) -> Result<(), InvalidConfig> {
        for (setting, length) in [
            ("networks", self.networks.as_ref().map(Vec::len)),
            ("consumers", self.consumers.as_ref().map(Vec::len)),
            ("groups", self.roles.as_ref().map(Vec::len)),
            ("claims", self.claims.as_ref().map(Vec::len)),
            ("params", self.bindings.as_ref().map(Vec::len)),
        ] {
            if length == Some(0) {
                return Err(InvalidConfig::new(setting, EMPTY));
            }
        }
        self.scopes.as_ref().map_or(Ok(()), Scopes::check)?;
        for (at, name) in self.consumers.iter().flatten().enumerate() {
            if known.named(name).is_none() {
                let all = known.consumers().map(|consumer| consumer.name());
                let reason = format!("names `{name}`, a consumer that there is not");
                return Err(InvalidConfig::unknown(format!("consumers/{at}"), reason, name, all));
            }
        }
        match &self.groups_claim {
            Some(_) if self.roles.is_none() => {
                Err(InvalidConfig::new("groups_claim", "has no effect without `groups`"))
            }
            Some(path) => check_path(path, "groups_claim"),
            None => self.roles.iter().flatten().try_for_each(|role| role.check_known(known)),
        }
    }

    /// The path parameters that conditions read, each with the setting that names it.
    pub(super) fn params(&self) -> impl Iterator<Item = (&str, String)> {
        let bound =
            self.bindings.iter().flatten().map(|binding| (binding.param.as_str(), below("params", &binding.param)));
        let read = self.expression.iter().flat_map(|expression| &expression.params);
        bound.chain(read.map(|name| (name.as_str(), "expression".to_owned())))
    }

    /// Whether all conditions hold. The error says which one does not: for the log.
    pub(super) fn hold(&self, req: &RequestHeader, ctx: &Ctx, clock: &Clock) -> Result<(), &'static str> {
        if self.networks.as_ref().is_some_and(|networks| !networks.iter().any(|net| net.contains(ctx.client))) {
            return Err("the client's address is in none of the networks");
        }
        if self.consumers.as_ref().is_some_and(|names| !is_one_of(names, ctx)) {
            return Err("the consumer is not among those that may come in");
        }
        if self.roles.as_ref().is_some_and(|roles| !self.some_role_allows(roles, req, ctx)) {
            return Err("no group of the caller allows this method and path");
        }
        let claims = ctx.claims.as_deref();
        if self.scopes.as_ref().is_some_and(|scopes| !claims.is_some_and(|claims| scopes.hold(claims))) {
            return Err("the token lacks a scope");
        }
        if !self.claims.iter().flatten().all(|rule| claims.is_some_and(|claims| rule.holds(claims))) {
            return Err("a claim of the token does not say what it must");
        }
        if !self.bindings.iter().flatten().all(|binding| binding.holds(ctx)) {
            return Err("a path parameter is not the caller's");
        }
        match self.expression.as_ref().map_or(Ok(true), |expression| expression.holds(req, ctx, clock)) {
            Ok(true) => Ok(()),
            Ok(false) => Err("the expression is false"),
            Err(why) => Err(why),
        }
    }

    fn some_role_allows(&self, roles: &[Role], req: &RequestHeader, ctx: &Ctx) -> bool {
        let claim = self.groups_claim.as_deref();
        roles.iter().any(|role| role.allows(&req.method, &ctx.path) && role.has(ctx, claim))
    }
}

fn is_one_of(names: &[String], ctx: &Ctx) -> bool {
    ctx.consumer.as_ref().is_some_and(|consumer| names.iter().any(|name| name == consumer.name()))
}
