//! What somebody may have meant.

/// Longest name that is compared, in bytes.
const MAX_NAME: usize = 64;

/// The candidate nearest to a name, if one is near: at most one slip in three characters.
pub fn suggest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > MAX_NAME {
        return None;
    }
    let plain = name.to_lowercase().replace('-', "_");
    let allowed = plain.chars().count().div_ceil(3);
    candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= MAX_NAME && *candidate != name)
        .map(|candidate| (strsim::damerau_levenshtein(&plain, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_candidate_within_reach_is_suggested() {
        let keys = ["timeouts", "retry", "tls", "endpoints"];
        for (name, expected) in [
            ("timeout", Some("timeouts")),
            ("Retry", Some("retry")),
            ("rerty", Some("retry")),
            ("end-points", Some("endpoints")),
            ("balance", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(suggest(name, keys), expected, "{name}");
        }
        assert_eq!(suggest(&"x".repeat(65), keys), None);
    }
}
