"""Where the programs come from."""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess

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


def find_nginx():
    """Path of nginx, installed first where that is possible; `None` where it is not."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    if found := shutil.which("nginx", path=path):
        return found
    if os.geteuid() == 0 and shutil.which("apt-get"):
        note("installing nginx")
        # RUNLEVEL=1 keeps the package from starting a server of its own.
        env = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        for command in (["update", "-q"], ["install", "-qy", "--no-install-recommends", "nginx-light"]):
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(["apt-get", *command], env=env, capture_output=True, timeout=180, check=False)
    return shutil.which("nginx", path=path)
