"""Bearer tokens that the load carries, and the keys to verify them."""

import shutil
import subprocess

from . import Failure

# New tokens in each round: enough for its CPU time to be told apart, few enough to be signed in a moment.
NEW_TOKENS = 3000


def prepare(env):
    """Makes a key: `rsa.pem` and `jwks.json` are for those who verify. Keeps one token for those who show the same."""
    if not shutil.which("openssl"):
        raise Failure("openssl is needed, for a key to sign tokens with (apt-get install openssl)")
    made, private, public = (env["dir"] / name for name in ("rsa-private.pem", "rsa.der", "rsa.pem"))
    for command in (
        ["genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", made],
        ["pkcs8", "-topk8", "-nocrypt", "-in", made, "-outform", "DER", "-out", private],
        ["pkey", "-in", made, "-pubout", "-out", public],
    ):
        subprocess.run(["openssl", *command], check=True)
    env["token"] = tokens(env, 0, 1, "--jwks", str(env["dir"] / "jwks.json")).strip()


def new_tokens(env, index):
    """A file of tokens that nobody has seen, for the round with this index; all proxies get the same."""
    path = env["dir"] / f"tokens-{index}"
    if not path.exists():
        path.write_text(tokens(env, 1 + index * NEW_TOKENS, NEW_TOKENS))
    return path


def tokens(env, first, count, *more):
    command = [env["bin"]["crossway-peers"], "tokens", "--key", str(env["dir"] / "rsa.der")]
    command += ["--first", str(first), "--count", str(count), *more]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
