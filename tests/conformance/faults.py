"""What upstreams can do to a gateway: our own tests of it, as a table with what became of the requests.

The tests are tests/it/faults/table.rs; they are compiled first, and then run against the gateway that is judged. What is
about rates and times follows, under a steady load (bench/paced.py), where `crossway-peers` stands beside the gateway.
"""

import pathlib

from bench import paced

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
LONGEST = 3600  # seconds, the time to compile included
COLUMNS = ["row", "what happens", "sent", "answered", "lost", "duplicated", "mixed", "notes", "verdict"]


def judge(bench):
    command = ["env", f"CROSSWAY_TEST_PROGRAM={bench.binary}", "RUST_BACKTRACE=0", "cargo", "test", "--quiet", "--locked"]
    command += ["--manifest-path", ROOT / "Cargo.toml", "-p", "crossway", "--test", "it", "faults::table"]
    run = bench.start(command + ["--", "--nocapture", "--test-threads", "1"], "tests")
    ended = run.wait(LONGEST)
    # What a test prints may stand behind what the runner has printed on the same line.
    lines = [line[line.index("row|") :] for line in run.output().splitlines() if "row|" in line]
    rows = sorted(line.split("|")[1:] for line in lines)
    rows = [row for row in rows if len(row) == len(COLUMNS) and (not bench.only or bench.only in row[0])]
    show(rows)
    for name, what, *_counts, notes, verdict in rows:
        bench.case(f"{name} {what}", None if verdict == "PASS" else notes)
    if ended != 0:
        bench.case("all tests end well", f"see {run.log}")
    paced.judge(bench)


def show(rows):
    widths = [max([len(cell) for cell in column]) for column in zip(COLUMNS, *rows)]
    for row in [COLUMNS, *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    print()
