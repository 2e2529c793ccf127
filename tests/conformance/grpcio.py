"""grpcio (PyPI): Python's gRPC client and server with the gateway between them, without TLS and with it.

Its parts are in tests/conformance/grpcio/.
"""

from bench.packages import environment

LONGEST = 300  # seconds


def judge(bench):
    folder = bench.own("").parent / "grpcio"
    requirements = (folder / "requirements.txt").read_text().split()
    python = environment(bench, "grpcio", requirements) / "python"
    command = [python, "-B", folder / "run.py", "--bin", bench.binary]
    run = bench.start(command + (["--only", bench.only] if bench.only else []), "grpcio")
    ended = run.wait(LONGEST)
    for line in run.output().splitlines():
        word, _, case = line.partition(" ")
        if word in ("ok", "FAILED"):
            bench.case(case.strip(), case.strip() if word == "FAILED" else None)
    if ended is None:
        bench.case("the cases end", f"not within {LONGEST} s")
