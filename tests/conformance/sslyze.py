"""sslyze (PyPI): the TLS of a listener against Mozilla's intermediate configuration, and known weaknesses.

Only that the certificate is self-signed may be found.
"""

import json

from bench import Unavailable
from bench.packages import environment
from bench.processes import PATIENCE, free_port
from bench.running import listener, passing_to, tls_settings

PACKAGE = "sslyze==6.3.1"
LONGEST = 10 * PATIENCE
# What sslyze calls the finding that the certificate is signed by nobody it knows.
SELF_SIGNED = "certificate_path_validation"
# Weaknesses by command: the field of its result that must be false.
WEAKNESSES = {
    "heartbleed": "is_vulnerable_to_heartbleed",
    "openssl_ccs_injection": "is_vulnerable_to_ccs_injection",
    "tls_compression": "supports_compression",
    "session_renegotiation": "is_vulnerable_to_client_renegotiation_dos",
}
REFUSED = ["ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"]
SPOKEN = ["tls_1_2", "tls_1_3"]


def judge(bench):
    tls = tls_settings(bench)
    if tls is None:
        raise Unavailable("this gateway knows no `tls` on a listener")
    port = bench.gateway({"listeners": [listener(tls=tls)], **passing_to(free_port())}).port()
    scan(bench, port)


def scan(bench, port):
    """Judges what listens on this port."""
    program = environment(bench, "sslyze", [PACKAGE]) / "sslyze"
    report = bench.reports / "report.json"
    command = [program, "--mozilla_config=intermediate", f"--json_out={report}", f"127.0.0.1:{port}"]
    run = bench.start(command, "sslyze")
    if run.wait(LONGEST) is None or not report.exists():
        return bench.case("sslyze ends", f"it did not, or wrote no report: {run.output()[-500:]}")
    report_mozilla(bench, run.output())
    servers = json.loads(report.read_text())["server_scan_results"]
    if len(servers) != 1 or servers[0]["scan_status"] != "COMPLETED":
        return bench.case("the scan is complete", str(servers)[:500])
    report_scan(bench, servers[0]["scan_result"])


def report_mozilla(bench, output):
    """What is printed as `* name: finding` below the verdict, or a verdict without findings."""
    _, found, verdict = output.partition("COMPLIANCE AGAINST")
    if not found:
        return bench.case("Mozilla's intermediate configuration", "sslyze gave no verdict")
    findings = [line.strip()[2:] for line in verdict.splitlines() if line.strip().startswith("* ")]
    bad = [finding for finding in findings if not finding.startswith(f"{SELF_SIGNED}:")]
    judged = findings or "OK - Compliant" in verdict
    problem = "; ".join(bad) if bad else None if judged else f"no findings, and not compliant: {verdict[:300]}"
    bench.case("Mozilla's intermediate configuration", problem, "but for the self-signed certificate" if findings else None)


def report_scan(bench, results):
    def result(command):
        return (results[command] or {}).get("result") or {}

    for version in REFUSED + SPOKEN:
        accepted = result(f"{version}_cipher_suites").get("accepted_cipher_suites")
        wrong = accepted is None or bool(accepted) != (version in SPOKEN)
        names = [suite["cipher_suite"]["name"] for suite in accepted or []]
        bench.case(f"{version} is {'spoken' if version in SPOKEN else 'refused'}", f"accepted: {names}" if wrong else None)
    for command, field in WEAKNESSES.items():
        value = result(command).get(field)
        bench.case(f"{command}: not {field}", None if value is False else f"it is {value}")
    robot = result("robot").get("robot_result", "no result")
    bench.case("robot", None if robot.startswith("NOT_VULNERABLE") else robot)
    extended = result("tls_extended_master_secret").get("supports_ems_extension")
    bench.case("extended master secret", None if extended else f"supported: {extended}")
