"""Autobahn's testsuite: WebSockets (RFC 6455) and their compression (RFC 7692), through the gateway and without it.

The suite plays the client against an echo server, then the server against an echo client. A case passes when its
result through the gateway is as good as the result without it.

The suite is a package for Python 2.7, which must be there. With --suite DIR, `wstest` of that folder is taken.
"""

import json

from bench import Unavailable
from bench.packages import environment, python2
from bench.processes import free_port
from bench.running import listener, passing_to

LONGEST = 3600  # seconds for one direction
SUITE = ["autobahntestsuite==25.10.1"]
# The suite pins what it names itself; these are the last versions for Python 2 of what those ask for.
LAST = [
    "wsaccel==0.6.2", "ujson==2.0.3", "constantly==15.1.0", "Automat==20.2.0", "PyHamcrest<2", "cffi==1.14.6",
    "pycparser==2.21", "hyperlink==21.0.0", "attrs==21.4.0", "idna==2.10", "typing==3.10.0.0", "pyasn1==0.4.8",
    "pyasn1-modules==0.2.8", "ipaddress==1.0.23", "enum34==1.1.10",
]  # fmt: skip
# From good to bad; everything else is a failure.
RANKS = {"OK": 0, "INFORMATIONAL": 0, "NON-STRICT": 1, "UNIMPLEMENTED": 1}


def judge(bench):
    wstest = bench.from_suite("wstest") or installed(bench)
    cases = [bench.only] if bench.only else ["*"]
    suite_plays_client(bench, wstest, cases)
    suite_plays_server(bench, wstest, cases)


def installed(bench):
    python = python2()
    if python is None:
        raise Unavailable(
            "autobahntestsuite needs Python 2.7, and there is none: give --suite DIR with a wstest, or run "
            "`scripts/conformance websockets`"
        )
    return environment(bench, "autobahn", SUITE, LAST, python) / "wstest"


def routed(bench, port):
    telemetry = {"access_log": {"to": "stdout"}}
    config = {"listeners": [listener()], "telemetry": telemetry, **passing_to(port, websocket={"idle": "5m"})}
    return bench.gateway(config).port()


def suite_plays_client(bench, wstest, cases):
    port = free_port()
    echo = bench.start([wstest, "-m", "testeeserver", "-w", f"ws://127.0.0.1:{port}"], "echo-server")
    echo.wait_listening(port)
    through = routed(bench, port)
    servers = [
        {"agent": "direct", "url": f"ws://127.0.0.1:{port}"},
        {"agent": "gateway", "url": f"ws://127.0.0.1:{through}"},
    ]
    folder = bench.reports / "suite-is-client"
    spec = written(bench, "client", {"outdir": str(folder), "servers": servers, "cases": cases, "exclude-cases": []})
    suite = bench.start([wstest, "-m", "fuzzingclient", "-s", spec], "fuzzing-client")
    compare(bench, "client", folder, suite.wait(LONGEST) == 0)
    echo.end()


def suite_plays_server(bench, wstest, cases):
    port = free_port()
    folder = bench.reports / "suite-is-server"
    settings = {"url": f"ws://127.0.0.1:{port}", "outdir": str(folder), "webport": 0, "cases": cases}
    spec = written(bench, "server", {**settings, "exclude-cases": []})
    suite = bench.start([wstest, "-m", "fuzzingserver", "-s", spec], "fuzzing-server")
    suite.wait_listening(port)
    ended = True
    for agent, reached in (("direct", port), ("gateway", routed(bench, port))):
        command = [wstest, "-m", "testeeclient", "-w", f"ws://127.0.0.1:{reached}", "-i", agent]
        ended &= bench.start(command, f"echo-client-{agent}").wait(LONGEST) == 0
    compare(bench, "server", folder, ended)
    suite.end()


def written(bench, name, spec):
    path = bench.scratch / f"{name}.json"
    path.write_text(json.dumps(spec))
    return path


def compare(bench, role, folder, ended):
    bench.case(f"suite as {role}: every case ends", None if ended else f"it did not within {LONGEST} s, or failed")
    index = folder / "index.json"
    results = json.loads(index.read_text()) if index.exists() else {}
    agents = {name.partition("/")[0]: found for name, found in results.items()}
    direct, through = agents.get("direct", {}), agents.get("gateway", {})
    if not direct:
        bench.case(f"suite as {role}: a report", f"there is none in {folder}")
    for case in sorted(direct, key=lambda number: [int(part) for part in number.split(".")]):
        alone, gateway = verdict(direct[case]), verdict(through.get(case, {}))
        bench.case(f"suite as {role}, case {case}", *judged(alone, gateway))


def judged(alone, gateway):
    """The problem, and what is to be noted."""
    if worst(alone) > max(RANKS.values()):
        return f"cannot be judged: {' and '.join(alone)} without the gateway", None
    if any(rank(b) > rank(a) for a, b in zip(alone, gateway)):
        return f"{' and '.join(gateway)}; without the gateway {' and '.join(alone)}", None
    return None, None if worst(gateway) == 0 else f"{' and '.join(gateway)}, as without the gateway"


def rank(result):
    return RANKS.get(result, 9)


def worst(results):
    return max(rank(result) for result in results)


def verdict(result):
    """How the case went, and how the connection was closed."""
    return [result.get("behavior", "no result"), result.get("behaviorClose", "no result")]
