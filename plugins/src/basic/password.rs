//! Hashes of passwords: Argon2id in the PHC string format.

use argon2::{
    Argon2, Params, Version,
    password_hash::{
        CustomizedPasswordHasher as _, PasswordVerifier as _,
        phc::{Output, PasswordHash},
    },
};
use ring::rand::{SecureRandom as _, SystemRandom};

/// Longest password, in bytes.
pub(super) const MAX_PASSWORD: usize = 512;
/// Most memory that checking one password may take, in KiB: so many times the checks that run at once are held.
const MAX_MEMORY: u32 = 64 << 10;
/// Least memory, in KiB: below it guessing is cheap.
const MIN_MEMORY: u32 = 8 << 10;
const MAX_PASSES: u32 = 8;
const MAX_LANES: u32 = 4;

/// Hashes a password with a fresh salt: Argon2id with 19 MiB and two passes, in the PHC string format. Errors: the rest of
/// a sentence about the password.
pub fn hash_password(password: &[u8]) -> Result<String, &'static str> {
    if password.is_empty() {
        return Err("is empty");
    }
    if password.len() > MAX_PASSWORD {
        return Err("is longer than 512 bytes");
    }
    if password.iter().any(u8::is_ascii_control) {
        return Err("has control characters, which no user name and password may have (RFC 7617, section 2)");
    }
    let mut salt = [0; 16];
    SystemRandom::new().fill(&mut salt).map_err(|_| "cannot be hashed: there is no randomness")?;
    hashed(password, &salt, Params::DEFAULT).map_err(|_| "cannot be hashed")
}

pub(super) fn hashed(password: &[u8], salt: &[u8], params: Params) -> Result<String, argon2::password_hash::Error> {
    let hash: PasswordHash = Argon2::default().hash_password_with_params(password, salt, params)?;
    Ok(hash.to_string())
}

/// Whether a text is a hash that passwords can be checked against within bounds: Argon2id version 19, 8 to 64 MiB, up to 8
/// passes, up to 4 lanes, a salt of 8 bytes and a hash of 16 at least. Errors: the rest of a sentence about the text, with
/// nothing of it.
pub fn check_hash(text: &str) -> Result<(), &'static str> {
    read(text).map(drop)
}

/// A hash that was checked when it was loaded.
#[derive(Clone)]
pub(super) struct Hash(PasswordHash);

/// Reads a hash within the bounds of [`check_hash`].
pub(super) fn read(text: &str) -> Result<Hash, &'static str> {
    const FORM: &str = "is not a password hash: `crossway hash-password` makes one";
    let hash = PasswordHash::new(text).map_err(|_| FORM)?;
    if hash.algorithm != argon2::ARGON2ID_IDENT {
        return Err("is not a hash of Argon2id: `crossway hash-password` makes one");
    }
    if hash.version != Some(Version::V0x13.into()) {
        return Err("is a hash of another version of Argon2 than 19");
    }
    let params = Params::try_from(&hash).map_err(|_| FORM)?;
    let (Some(salt), Some(output)) = (&hash.salt, &hash.hash) else { return Err(FORM) };
    if salt.len() < 8 || output.len() < 16 {
        return Err("has a salt of less than 8 bytes, or a hash of less than 16");
    }
    let memory = (MIN_MEMORY..=MAX_MEMORY).contains(&params.m_cost());
    if !memory || params.t_cost() > MAX_PASSES || params.p_cost() > MAX_LANES {
        return Err("has costs out of bounds: 8 to 64 MiB (`m`), up to 8 passes (`t`), up to 4 lanes (`p`)");
    }
    Ok(Hash(hash))
}

impl Hash {
    /// Whether this is the password; takes milliseconds of computing.
    pub(super) fn fits(&self, password: &[u8]) -> bool {
        Argon2::default().verify_password(password, &self.0).is_ok()
    }

    /// A hash of no password at all, as costly to check as this one.
    pub(super) fn of_nobody(&self) -> Self {
        let mut decoy = self.0.clone();
        // No password that anybody could find has a hash of zeros.
        decoy.hash = Output::new(&vec![0; decoy.hash.as_ref().map_or(32, Output::len)]).ok();
        Self(decoy)
    }

    /// How much work it is to check a password.
    pub(super) fn cost(&self) -> u64 {
        Params::try_from(&self.0).map_or(0, |params| u64::from(params.m_cost()) * u64::from(params.t_cost()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(memory: u32, passes: u32, lanes: u32) -> String {
        of_length(memory, passes, lanes, 32)
    }

    fn of_length(memory: u32, passes: u32, lanes: u32, length: usize) -> String {
        hashed(b"secret", b"0123456789abcdef", Params::new(memory, passes, lanes, Some(length)).unwrap()).unwrap()
    }

    #[test]
    fn a_password_fits_its_hash_only() {
        let text = hash_password("pässword".as_bytes()).unwrap();
        assert!(text.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{text}");
        assert_ne!(hash_password("pässword".as_bytes()).unwrap(), text, "salts are fresh");
        let hash = read(&text).unwrap();
        assert!(hash.fits("pässword".as_bytes()));
        assert!(!hash.fits(b"password") && !hash.fits(b""));
        assert!(!hash.of_nobody().fits("pässword".as_bytes()));
        assert_eq!(hash.of_nobody().cost(), hash.cost());
    }

    #[test]
    fn passwords_that_cannot_be_sent_are_not_hashed() {
        for wrong in [&b""[..], b"a\nb", b"a\0", &[b'x'; 513]] {
            assert!(hash_password(wrong).is_err());
        }
    }

    #[test]
    fn only_argon2id_within_bounds_is_taken() {
        let good = with(8 << 10, 1, 1);
        assert_eq!(check_hash(&good), Ok(()));
        let (bcrypt, parts) = ("$2b$12$abcdefghijklmnopqrstuu7Q1V5bZ0h8W1Xh0H8V8m1eH0i8xYz8K", good.split('$').count());
        assert_eq!(parts, 6);
        for wrong in [
            "",
            "secret",
            bcrypt,
            &good.replace("argon2id", "argon2i"),
            &good.replace("argon2id", "argon2d"),
            &good.replace("v=19", "v=16"),
            &good.replace("$v=19", ""),
            &good.replace("m=8192", "m=4294967295"),
            &good.replace("t=1", "t=9"),
            &good.replace("p=1", "p=5"),
            good.rsplit_once('$').unwrap().0,
            good.rsplitn(3, '$').nth(2).unwrap(),
            &format!("{good}\n"),
            &with(4 << 10, 1, 1),
            &of_length(8 << 10, 1, 1, 12),
        ] {
            assert!(check_hash(wrong).is_err(), "{wrong}");
        }
    }
}
