"""Programs from PyPI, each in a virtual environment of its own below target/conformance/."""

import os
import pathlib
import shutil
import subprocess
import sys

from bench import Unavailable

# The last virtualenv that makes environments for Python 2.
VIRTUALENV = "virtualenv==20.21.1"


def environment(bench, name, requirements, constraints=(), python=None):
    """The `bin` folder of an environment with these packages; made once. `python` is an older interpreter."""
    folder = bench.downloads / name
    done, wanted = folder / "installed.txt", "\n".join([*requirements, *constraints, ""])
    if not done.exists() or done.read_text() != wanted:
        print(f"installing {' '.join(requirements)} into {folder}", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        if python:
            tools = environment(bench, "virtualenv", [VIRTUALENV])
            install([tools / "virtualenv", "-q", "-p", python, folder])
        else:
            install([sys.executable, "-m", "venv", folder])
        limits = folder / "constraints.txt"
        limits.write_text("\n".join(constraints) + "\n")
        install([folder / "bin" / "python", "-m", "pip", "-q", "install", "-c", limits, *requirements])
        done.write_text(wanted)
    return folder / "bin"


def install(command):
    try:
        ran = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    except OSError as error:
        raise Unavailable(f"{command[0]}: {error}") from error
    if ran.returncode:
        raise Unavailable(f"{' '.join(str(part) for part in command)}: {(ran.stderr or ran.stdout)[-1500:]}")


def python2():
    """Path of a Python 2.7, or `None`."""
    pyenv = pathlib.Path(os.environ.get("PYENV_ROOT", pathlib.Path.home() / ".pyenv"))
    candidates = sorted(pyenv.glob("versions/2.7*/bin/python2.7"))
    found = [shutil.which(name) for name in ("python2.7", "pypy2", "pypy", "python2")]
    for path in [*candidates, *filter(None, found)]:
        asked = subprocess.run([path, "-c", "import sys; print(sys.version_info[0])"], capture_output=True, text=True)
        if asked.stdout.strip() == "2":
            return path
    return None
