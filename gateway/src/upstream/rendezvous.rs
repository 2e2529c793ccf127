//! Rendezvous hashing: for each key every place has a number, worked out from the two of them alone, and the lowest wins.
//!
//! Chosen over a ring of points: a place that leaves or comes moves only the keys that it had or gets, whatever the
//! weights; the shares are exact and not as even as the points happen to fall; there is nothing to build or to keep; and
//! a weight may change at any moment, as it does while an endpoint starts slowly. The price is a look at every place,
//! some twenty nanoseconds each.

use std::hash::Hasher as _;

use siphasher::sip::SipHasher13;

/// The hash of some bytes, the same on every machine and in every version: gateways that share their clients agree.
pub fn hash(parts: &[&[u8]]) -> u64 {
    let mut hasher = SipHasher13::new();
    for part in parts {
        // The length first: two parts must not pass for two others.
        hasher.write(&(part.len() as u64).to_le_bytes());
        hasher.write(part);
    }
    hasher.finish()
}

/// What it costs a key to go to a place of this weight, which is more than 0: the cheapest place is the key's. Of many
/// keys a place gets the share that its weight has in the sum (an exponential draw for each place, of which the least is
/// taken).
#[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
pub fn cost(key: u64, place: u64, weight: f64) -> f64 {
    const STEPS: f64 = (1_u64 << 53) as f64;
    let drawn = ((mixed(key ^ place) >> 11) as f64 + 0.5) / STEPS;
    -drawn.ln() / weight
}

/// The place with the lowest cost.
pub fn cheapest<T>(key: u64, places: impl Iterator<Item = (T, u64, f64)>) -> Option<T> {
    let mut best: Option<(T, f64)> = None;
    for (item, place, weight) in places {
        let cost = cost(key, place, weight);
        if best.as_ref().is_none_or(|(_, least)| cost < *least) {
            best = Some((item, cost));
        }
    }
    best.map(|(item, _)| item)
}

/// Spreads every bit over all of them (the last steps of `SplitMix64`).
fn mixed(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEYS: u64 = 5000;

    /// Which place each key has; places are told apart by their number.
    fn owners(places: &[(u64, u16)]) -> Vec<u64> {
        let place = |&(name, weight): &(u64, u16)| (name, hash(&[&name.to_le_bytes()]), f64::from(weight));
        let owner = |key: u64| cheapest(hash(&[&key.to_le_bytes()]), places.iter().map(place)).unwrap();
        (0..KEYS).map(owner).collect()
    }

    fn share(owners: &[u64], name: u64) -> f64 {
        let count = owners.iter().filter(|owner| **owner == name).count();
        f64::from(u32::try_from(count).unwrap()) / f64::from(u32::try_from(owners.len()).unwrap())
    }

    #[test]
    fn the_hash_never_changes() {
        assert_eq!(hash(&[b"acme"]), 0xc395_0887_ee8e_faa8, "an upgrade of the gateway must not move anybody");
        assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]

        #[test]
        fn shares_are_those_of_the_weights(weights in proptest::collection::vec(1_u16..100, 1..12)) {
            let places: Vec<_> = (0..).zip(weights.iter().copied()).collect();
            let owners = owners(&places);
            let total: f64 = weights.iter().map(|w| f64::from(*w)).sum();
            for (name, weight) in places {
                let wanted = f64::from(weight) / total;
                let spread = (wanted * (1.0 - wanted) / 5000.0).sqrt();
                prop_assert!((share(&owners, name) - wanted).abs() <= 6.0 * spread + 1e-9, "{name}: {}", share(&owners, name));
            }
        }

        #[test]
        fn who_leaves_moves_only_its_own_keys(weights in proptest::collection::vec(1_u16..100, 2..12), gone in any::<proptest::sample::Index>()) {
            let places: Vec<_> = (0..).zip(weights).collect();
            let gone = gone.index(places.len());
            let mut rest = places.clone();
            let (name, _) = rest.remove(gone);
            for (before, after) in owners(&places).into_iter().zip(owners(&rest)) {
                prop_assert!(before == after || before == name);
            }
        }

        #[test]
        fn who_grows_takes_keys_and_nobody_else_does(weights in proptest::collection::vec(1_u16..100, 2..8), more in 1_u16..100) {
            let places: Vec<_> = (0..).zip(weights).collect();
            let mut grown = places.clone();
            grown[0].1 += more;
            for (before, after) in owners(&places).into_iter().zip(owners(&grown)) {
                prop_assert!(before == after || after == 0);
            }
        }
    }
}
