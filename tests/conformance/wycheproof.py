"""Project Wycheproof's JSON Web Signatures, judged by the code of `jwt` that reads and verifies tokens.

Needs --suite DIR, a folder with json_web_signature_test.json (https://github.com/C2SP/wycheproof, testvectors_v1). What they
sign are no claims, so that no gateway would take them as tokens: the test plugins/src/jwt/tests/web_signatures.rs stands in
for one.
"""

import json
import pathlib

from bench import Unavailable

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
LONGEST = 1800  # seconds, the time to compile included
TEST = "jwt::tests::web_signatures::each_signature_is_judged_rightly"

# Where the suite says otherwise, by number, and why we stay with what we do.
KNOWN = {
    346: "signed with PS384 by a key whose `alg` is PS256: a key that says for what it is serves nothing else",
    350: "the same",
    347: "a key on P-521, which is not supported",
    351: "the same",
    367: "called not valid, but the same text as case 357, which is",
    370: "the same",
    372: "called valid, with a character in it that base64url does not have",
    373: "the same",
}


def judge(bench):
    suite = bench.from_suite("json_web_signature_test.json")
    if suite is None:
        raise Unavailable("give --suite DIR, a folder with json_web_signature_test.json")
    command = ["env", f"CROSSWAY_TEST_WEB_SIGNATURES={suite}", "RUST_BACKTRACE=0", "cargo", "test", "--quiet", "--locked"]
    command += ["--manifest-path", ROOT / "Cargo.toml", "-p", "crossway-plugins", "--lib", TEST]
    run = bench.start(command + ["--", "--exact", "--nocapture"], "tests")
    ended = run.wait(LONGEST)
    seen = [json.loads(line) for line in run.output().splitlines() if line.startswith('{"case"')]
    for one in seen:
        number, wrong = one["case"], one["wrong"]
        if wrong and number in KNOWN:
            bench.case(f"{number} {one['name']}", note=f"{wrong}: {KNOWN[number]}")
        else:
            bench.case(f"{number} {one['name']}", wrong)
    expected = json.loads(suite.read_text())["numberOfTests"]
    if ended != 0 or len(seen) != expected:
        bench.case("all cases are judged", f"{len(seen)} of {expected}: see {run.log}")
