//! Texts with the route's path parameters in them.

use crossway_plugin_api::Ctx;

/// A path or URL with `{name}` for path parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    /// A parameter, by its place in the pattern.
    Param(usize),
}

impl Template {
    /// Reads a template; `names` are the parameters of the route's path. `{rest}` may be written `{rest...}` too.
    ///
    /// Errors: the rest of a sentence that begins with the text.
    pub fn parse(text: &str, names: &[impl AsRef<str>]) -> Result<Self, String> {
        check_host(text)?;
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, braced) = rest.split_at(at);
            let (inner, after) = braced
                .strip_prefix('{')
                .and_then(|inner| inner.split_once('}'))
                .ok_or("has a brace without its other half")?;
            let name = inner.strip_suffix("...").unwrap_or(inner);
            let index = names.iter().position(|known| known.as_ref() == name).ok_or_else(|| unknown(inner, names))?;
            if !before.is_empty() {
                parts.push(Part::Text(before.into()));
            }
            parts.push(Part::Param(index));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.into()));
        }
        Ok(Self { parts })
    }

    /// The text, if it has no parameters.
    pub fn constant(&self) -> Option<&str> {
        match &*self.parts {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The text for one request. Where a `{rest...}` matched the prefix without its trailing slash, the slash before it
    /// is left out here too.
    pub fn render(&self, ctx: &Ctx) -> String {
        if let Some(text) = self.constant() {
            return text.to_owned();
        }
        let value = |index: usize| {
            let range = ctx.params.values.get(index)?;
            Some((ctx.path.get(range.clone())?, range.end == ctx.path.len() && !ctx.path.ends_with('/')))
        };
        let mut out = String::with_capacity(ctx.path.len() + 64);
        let mut is_gap = false;
        for part in &self.parts {
            match part {
                // Two slashes around nothing are one: `//` at the start of a URL would name a host.
                Part::Text(text) if is_gap && out.ends_with('/') => {
                    out.push_str(text.strip_prefix('/').unwrap_or(text));
                }
                Part::Text(text) => out.push_str(text),
                Part::Param(index) => {
                    let (text, is_slash_missing) = value(*index).unwrap_or_default();
                    if text.is_empty() && is_slash_missing && out.len() > 1 && out.ends_with('/') {
                        out.pop();
                    }
                    out.push_str(text);
                    is_gap = text.is_empty();
                    continue;
                }
            }
            is_gap = false;
        }
        out
    }
}

/// A caller must not choose where a redirect leads: what a URL's host ends in is written, and so is its beginning.
fn check_host(text: &str) -> Result<(), String> {
    if text.starts_with('{') {
        return Err("begins with a parameter, so that callers could choose any target".into());
    }
    let Some((_, rest)) = text.split_once("://") else { return Ok(()) };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.ends_with('}') || authority.contains("}:") {
        return Err("has a host that ends in a parameter, so that callers could choose any".into());
    }
    Ok(())
}

fn unknown(name: &str, names: &[impl AsRef<str>]) -> String {
    if names.is_empty() {
        return format!("has the parameter `{{{name}}}`, but the route's path has none");
    }
    let known: Vec<String> = names.iter().map(|known| format!("`{{{}}}`", known.as_ref())).collect();
    format!("has the parameter `{{{name}}}`, but the route's path has only {}", known.join(", "))
}
