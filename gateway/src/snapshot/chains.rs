//! Chains: the plugins of a route in their order, built.

use std::{collections::HashMap, sync::Arc};

use crossway_plugin_api::{Needs, PluginConfig as _, config::parse_method};
use http::Method;

use super::{Compiler, below};
use crate::{
    chain::{Chain, Link, MAX_LINKS},
    config::{
        PluginEntry,
        route::{Route as RouteConfig, When},
    },
    when::Condition,
};

/// A link, and where its plugin's settings stand.
struct Placed {
    place: String,
    link: Link,
}

/// A list of plugins.
struct Section<'c> {
    /// Where it stands.
    place: String,
    /// What it is called: the same after a reload, wherever it then stands.
    name: String,
    entries: &'c [PluginEntry],
}

impl<'c> Section<'c> {
    fn global(entries: &'c [PluginEntry]) -> Self {
        Self { place: "/plugins".into(), name: "plugins".into(), entries }
    }

    fn chain(name: &str, entries: &'c [PluginEntry]) -> Self {
        Self { place: below("/chains", name), name: format!("chain {name}"), entries }
    }

    fn route(pointer: &str, route: &'c RouteConfig) -> Self {
        Self { place: format!("{pointer}/plugins"), name: format!("route {}", route.name), entries: &route.plugins }
    }

    /// What an entry of this list is called.
    fn entry(&self, entry: &PluginEntry) -> Arc<str> {
        match &entry.id {
            Some(id) => format!("id {id}"),
            None => format!("{} in {}", entry.plugin.name(), self.name),
        }
        .into()
    }
}

impl Compiler<'_> {
    pub(super) fn global_chain(&mut self) -> Chain {
        let loaded = self.loaded;
        let (links, _) = self.links(&[Section::global(&loaded.config.plugins)], &[]);
        self.bounded("/plugins", "the list", links)
    }

    /// Chains that no route uses are built too, so that what is wrong in them is said.
    pub(super) fn unused_chains(&mut self) {
        let loaded = self.loaded;
        let used = |name: &String| loaded.config.routes.iter().any(|r| r.chain.as_ref() == Some(name));
        for (name, entries) in loaded.config.chains.iter().filter(|(name, _)| !used(name)) {
            self.links(&[Section::chain(name, entries)], &[]);
        }
    }

    /// The chain of a route: the global plugins, the named chain's, its own. And whether it has all of them: without one
    /// that could not be built, nothing can be said of what the chain lacks.
    pub(super) fn route_chain(&mut self, pointer: &str, route: &RouteConfig, params: &[Arc<str>]) -> (Chain, bool) {
        let config = &self.loaded.config;
        let mut sections: Vec<Section<'_>> = vec![Section::global(&config.plugins)];
        let mut is_known = true;
        if let Some(name) = &route.chain {
            match config.chains.get(name) {
                Some(entries) => sections.push(Section::chain(name, entries)),
                None => {
                    is_known = false;
                    let known: Vec<&str> = config.chains.keys().map(String::as_str).collect();
                    self.unknown(&format!("{pointer}/chain"), "chain", name, &known);
                }
            }
        }
        self.check_without(pointer, route, &sections);
        sections.push(Section::route(pointer, route));
        let (links, is_whole) = self.links(&sections, &route.without);
        if is_whole && is_known {
            self.check_callers(pointer, route, &links);
        }
        self.check_params(route, params, &links);
        let is_whole = is_whole && is_known && links.len() <= MAX_LINKS;
        (self.bounded(pointer, &format!("the route `{}`", route.name), links), is_whole)
    }

    /// A plugin that judges callers stands behind one that says who is calling, and says so in the request phase: before
    /// it, it would refuse everybody.
    fn check_callers(&mut self, pointer: &str, route: &RouteConfig, links: &[Placed]) {
        let tells = |needs: &Needs| needs.authenticates && !needs.authenticates_late;
        let mut is_known = false;
        for Placed { place, link } in links {
            let needs = link.plugin.needs();
            if needs.caller && !is_known {
                let message = format!("`{}` judges a caller, and no plugin before it authenticates", link.name);
                let sources = &self.loaded.sources;
                let mut diagnostic = sources.error_at_key(place, message);
                if !place.starts_with(&format!("{pointer}/")) {
                    diagnostic = diagnostic.also(sources, &format!("{pointer}/name"), "on this route");
                }
                let all: Vec<Needs> = links.iter().map(|placed| placed.link.plugin.needs()).collect();
                let help = match (route.auth, all.iter().any(tells)) {
                    _ if all.iter().any(|needs| needs.authenticates_late) && !all.iter().any(tells) => {
                        "the plugin that authenticates here looks at the body, which comes after this: put one such as `api_key` before it"
                    }
                    (_, true) => "put it behind the plugin that authenticates",
                    (Some(_), false) => "take `auth: none` away, and put a plugin such as `api_key` before it",
                    (None, false) => "put a plugin such as `api_key` before it",
                };
                self.add(place, diagnostic.help(help));
            }
            if !is_known && link.when.as_ref().is_some_and(Condition::needs_caller) {
                let place = format!("{}/when", place.rsplit_once('/').map_or("", |(entry, _)| entry));
                self.error(&place, "looks at the caller, and no plugin before it authenticates");
            }
            is_known |= tells(&needs);
        }
    }

    /// Every path parameter that a plugin reads is one of the route's.
    fn check_params(&mut self, route: &RouteConfig, params: &[Arc<str>], links: &[Placed]) {
        let known: Vec<&str> = params.iter().map(AsRef::as_ref).collect();
        for Placed { place, link } in links {
            for needed in link.plugin.needs().params.iter().filter(|needed| !known.contains(&needed.name.as_str())) {
                let kind = format!("path parameter on the route `{}` with the name", route.name);
                self.unknown(&format!("{place}/{}", needed.field), &kind, &needed.name, &known);
            }
        }
    }

    /// A chain of these links, or an empty one if they are too many.
    fn bounded(&mut self, pointer: &str, whose: &str, links: Vec<Placed>) -> Chain {
        let (count, metrics) = (links.len(), Arc::clone(self.around.metrics));
        if count <= MAX_LINKS {
            return Chain::new(links.into_iter().map(|placed| placed.link).collect(), metrics);
        }
        self.error(pointer, format!("{whose} has {count} plugins, more than the {MAX_LINKS} that one route may have"));
        Chain::new(Vec::new(), metrics)
    }

    fn check_without(&mut self, pointer: &str, route: &RouteConfig, inherited: &[Section<'_>]) {
        let ids: Vec<&str> =
            inherited.iter().flat_map(|section| section.entries).filter_map(|e| e.id.as_deref()).collect();
        for (at, id) in route.without.iter().enumerate().filter(|(_, id)| !ids.contains(&id.as_str())) {
            self.unknown(&format!("{pointer}/without/{at}"), "inherited plugin with the id", id, &ids);
        }
    }

    /// The links of all entries, and whether each could be built.
    fn links(&mut self, sections: &[Section<'_>], without: &[String]) -> (Vec<Placed>, bool) {
        let mut links = Vec::new();
        let mut is_whole = true;
        let mut ids: HashMap<String, String> = HashMap::new();
        for section in sections {
            for (at, entry) in section.entries.iter().enumerate() {
                if entry.id.as_ref().is_some_and(|id| without.contains(id)) {
                    continue;
                }
                let pointer = format!("{}/{at}", section.place);
                self.check_identity(&pointer, entry, &mut ids);
                self.deps.entry = section.entry(entry);
                match self.link(&pointer, entry) {
                    Some(link) => links.push(Placed { place: below(&pointer, link.name), link }),
                    None => is_whole = false,
                }
            }
        }
        (links, is_whole)
    }

    /// An entry's identity is its `id`, else its plugin's name; on one route it must be unique.
    fn check_identity(&mut self, pointer: &str, entry: &PluginEntry, ids: &mut HashMap<String, String>) {
        let name = entry.plugin.name();
        let (identity, place) = match &entry.id {
            Some(id) => (id.clone(), format!("{pointer}/id")),
            None => (name.to_owned(), below(pointer, name)),
        };
        let Some(first) = ids.insert(identity.clone(), place.clone()) else { return };
        let sources = &self.loaded.sources;
        let diagnostic = if entry.id.is_some() {
            sources.error(&place, format!("another plugin of this route has the id `{identity}`"))
        } else {
            sources
                .error_at_key(&place, format!("the plugin `{name}` stands twice on a route"))
                .help("give each its own `id`, or leave an inherited one out with `without`")
        };
        let diagnostic = diagnostic.also(sources, &first, "the other stands here");
        self.add(&place, diagnostic);
    }

    fn link(&mut self, pointer: &str, entry: &PluginEntry) -> Option<Link> {
        let name = entry.plugin.name();
        let when = entry.when.as_ref().map(|when| self.condition(&format!("{pointer}/when"), when));
        match entry.plugin.clone().build(&self.deps) {
            Ok(plugin) => {
                if !entry.required && !plugin.needs().authenticates {
                    let place = format!("{pointer}/required");
                    self.error(&place, format!("has no effect on the plugin `{name}`, which does not authenticate"));
                }
                let id = entry.id.as_deref().map(Into::into);
                Some(Link { name, id, plugin, when, on_error: entry.on_error, required: entry.required })
            }
            Err(invalid) => {
                let settings = below(pointer, name);
                let place = if invalid.field.is_empty() { settings } else { format!("{settings}/{}", invalid.field) };
                self.error(&place, invalid.reason);
                None
            }
        }
    }

    pub(super) fn condition(&mut self, pointer: &str, when: &When) -> Condition {
        Condition {
            methods: self.methods(&format!("{pointer}/methods"), &when.methods),
            paths: when.paths.clone(),
            headers: self.header_globs(&format!("{pointer}/headers"), &when.headers),
            query: when.query.clone().into_iter().collect(),
            client: when.client.clone(),
            groups: when.groups.clone(),
            claims: when.claims.clone().into_iter().collect(),
        }
    }

    /// Methods by name (RFC 9110, section 9.1): case counts.
    pub(super) fn methods(&mut self, pointer: &str, names: &[String]) -> Vec<Method> {
        let mut methods = Vec::new();
        for (at, name) in names.iter().enumerate() {
            match parse_method(name) {
                Ok(method) => methods.push(method),
                Err(wrong) => self.error(&format!("{pointer}/{at}"), wrong),
            }
        }
        methods
    }
}
