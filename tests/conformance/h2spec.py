"""h2spec --strict: HTTP/2 (RFC 9113) and HPACK (RFC 7541), without TLS and with it.

Needs --suite DIR, a folder with the program h2spec (https://github.com/summerwind/h2spec).
"""

import sys
import xml.etree.ElementTree as Tree

from bench import Unavailable
from bench.processes import free_port
from bench.running import listener, passing_to, tls_settings

LONGEST = 600  # seconds


def judge(bench):
    program = bench.from_suite("h2spec")
    if program is None:
        raise Unavailable("give --suite DIR, a folder with a built h2spec")
    port = free_port()
    bench.start([sys.executable, bench.own("backend.py"), port], "backend").wait_listening(port)
    tls = tls_settings(bench)
    gateway = bench.gateway({"listeners": [listener("h2c", http2=True)], **passing_to(port)})
    run(bench, program, "h2c", gateway.port("h2c"), [])
    if tls:
        gateway = bench.gateway({"listeners": [listener("tls", tls=tls)], **passing_to(port)})
    if tls:
        run(bench, program, "tls", gateway.port("tls"), ["-t", "-k"])
    else:
        print("left out: over TLS, which this gateway does not know")


def run(bench, program, label, port, options):
    report = bench.reports / f"{label}.xml"
    command = [program, "--strict", "-h", "127.0.0.1", "-p", port, "-j", report, *options]
    if bench.only:
        command.append(bench.only)
    run = bench.start(command, f"h2spec-{label}")
    if run.wait(LONGEST) is None or not report.exists():
        return bench.case(f"{label}: h2spec ends", f"it did not, or wrote no report: {run.output()[-500:]}")
    for suite in Tree.parse(report).iter("testsuite"):
        for case in suite.iter("testcase"):
            name = f"{label} {case.get('package')} {case.get('classname')}"
            wrong = next((found for kind in ("failure", "error", "skipped") for found in case.iter(kind)), None)
            bench.case(name, None if wrong is None else " ".join((wrong.text or wrong.tag).split()))
