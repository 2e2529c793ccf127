//! Compression of responses, checked and compiled.

use std::sync::Arc;

use super::Compiler;
use crate::{coding::Compression, config::route::Route as RouteConfig};

impl Compiler<'_> {
    /// What responses are compressed with; `None` where they are not.
    pub(super) fn compression(&mut self) -> Option<Arc<Compression>> {
        let config = self.loaded.config.compression.as_ref()?;
        self.once("/compression/algorithms", config.algorithms.iter().map(|algorithm| algorithm.name()));
        self.once("/compression/types", config.types.iter().map(String::as_str));
        let metrics = self.around.metrics;
        let algorithms = config.algorithms.iter().map(|&a| (a, metrics.compressed(a.name()))).collect();
        Some(Arc::new(Compression::new(algorithms, config.min_size.0, &config.types)))
    }

    /// The same for one route, which may do without.
    pub(super) fn route_compression(&mut self, pointer: &str, config: &RouteConfig) -> Option<Arc<Compression>> {
        if config.compression == Some(true) && self.compression.is_none() {
            let help = "add the section `compression` at the top; with it, every route compresses";
            self.error_with_help(
                &format!("{pointer}/compression"),
                "has no effect without the section `compression`",
                help,
            );
        }
        self.compression.clone().filter(|_| config.compression != Some(false))
    }

    /// Reports what stands twice in a list.
    fn once<'t>(&mut self, pointer: &str, list: impl Iterator<Item = &'t str>) {
        let mut seen = Vec::new();
        for (at, name) in list.enumerate() {
            if seen.contains(&name) {
                self.error(&format!("{pointer}/{at}"), format!("`{name}` stands twice in the list"));
            }
            seen.push(name);
        }
    }
}
