"""What judges stand on: processes that end with the run, the gateway, backends, packages of others.

A judge is a file `tests/conformance/<name>.py` with a function `judge(bench)` that calls `bench.case` for each case.
"""

import pathlib
import shutil
import tempfile

from bench.processes import Process
from bench.running import Gateway

HERE = pathlib.Path(__file__).resolve().parent


class Unavailable(Exception):
    """The judge cannot judge here: something is missing that is not the gateway's fault."""


class Bench:
    """One run of one judge."""

    def __init__(self, name, binary, suite, downloads, only):
        self.name, self.binary, self.suite, self.downloads, self.only = name, binary, suite, downloads, only
        self.passed = self.failed = 0
        self.processes = []

    def __enter__(self):
        self.downloads.mkdir(parents=True, exist_ok=True)
        self.reports = self.downloads / "reports" / self.name
        shutil.rmtree(self.reports, ignore_errors=True)
        self.reports.mkdir(parents=True)
        self.scratch = pathlib.Path(tempfile.mkdtemp(prefix="crossway-conformance-"))
        return self

    def __exit__(self, *_error):
        self.end()

    def end(self):
        """Ends what was started, and clears up."""
        for process in reversed(self.processes):
            process.end()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def case(self, name, problem=None, note=None):
        """Counts and prints a case: passed, unless there is a problem."""
        if problem:
            self.failed += 1
            print(f"FAILED  {name}: {problem}", flush=True)
        else:
            self.passed += 1
            print(f"passed  {name}{f' ({note})' if note else ''}", flush=True)

    def summary(self):
        """Prints the figures; gives the exit code."""
        print(f"passed {self.passed}, failed {self.failed}")
        return 1 if self.failed or not self.passed else 0

    def start(self, command, label):
        """Starts a program that ends with the run; what it prints goes to a file beside the reports."""
        process = Process([str(part) for part in command], self.reports / f"{label}.log", self.scratch)
        self.processes.append(process)
        return process

    def gateway(self, config):
        """Starts the gateway with this configuration (listeners on port 0) and waits until it is ready."""
        number = sum(isinstance(process, Gateway) for process in self.processes)
        gateway = Gateway(self.binary, config, self.scratch / f"gateway-{number}", self.reports / f"gateway-{number}.log")
        self.processes.append(gateway)
        gateway.wait_ready()
        return gateway

    def own(self, name):
        """Path of a program of ours that judges start."""
        return HERE / name

    def from_suite(self, program):
        """A program from the folder given with --suite, or `None`."""
        path = self.suite / program if self.suite else None
        return path if path and path.exists() else None
