"""Processes that are ended by their id, and ports nobody uses."""

import os
import signal
import socket
import subprocess
import time

PATIENCE = 30  # seconds until something that must happen has happened


class Process:
    """A program in a process group of its own."""

    def __init__(self, command, log, folder):
        self.log = log
        with open(log, "wb") as output:
            self.child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=folder, start_new_session=True
            )

    @property
    def pid(self):
        return self.child.pid

    def output(self):
        return self.log.read_text(errors="replace")

    def ended(self):
        return self.child.poll() is not None

    def wait(self, seconds):
        """The exit code, or `None` when it still runs after so many seconds."""
        try:
            return self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def end(self):
        for sign in (signal.SIGTERM, signal.SIGKILL):
            if self.ended():
                return
            os.killpg(self.child.pid, sign)
            self.wait(3)

    def wait_listening(self, port):
        """Waits until it accepts connections on this port of 127.0.0.1."""
        until(lambda: self.alive() and accepts(port), f"port {port} answers, see {self.log}")

    def alive(self):
        if self.ended():
            raise RuntimeError(f"ended with {self.child.returncode}: {self.output()[-2000:]}")
        return True


def until(condition, what, seconds=PATIENCE):
    """Waits for a condition and gives its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise RuntimeError(f"did not happen within {seconds} s: {what}")
        time.sleep(0.02)
    return value


def accepts(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def free_port():
    """A port of 127.0.0.1 that was free a moment ago, for programs that cannot choose one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
