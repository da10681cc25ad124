"""From a bare machine to the demo or the tests, in one command; needs only Python 3.11 and pip.

    python3 bootstrap.py demo [options of `medssl demo`]
    python3 bootstrap.py test [options of `tox`]

It installs the system libraries that Qt and OpenGL need (or prints the line for an administrator and goes
on with what can run without them), makes `.venv` here, and runs. What is already there is not installed
again, so the second run needs no network. Standard library only: nothing is installed when it starts.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"

# Debian package -> the library or program that shows it is there.
SYSTEM = {
    "libgl1": "libGL.so.1",
    "libegl1": "libEGL.so.1",
    "libglib2.0-0": "libgthread-2.0.so.0",
    "libfontconfig1": "libfontconfig.so.1",
    "libdbus-1-3": "libdbus-1.so.3",
    "libxkbcommon0": "libxkbcommon.so.0",
    "libxkbcommon-x11-0": "libxkbcommon-x11.so.0",
    "libxcb-cursor0": "libxcb-cursor.so.0",
    "libxcb-icccm4": "libxcb-icccm.so.4",
    "libxcb-keysyms1": "libxcb-keysyms.so.1",
    "libxcb-shape0": "libxcb-shape.so.0",
    "xvfb": "Xvfb",
    "xauth": "xauth",
    "libgl1-mesa-dri": "/usr/lib/*/dri/swrast_dri.so",  # software OpenGL
}
# Without Qt's libraries not even the pytest plugins that import it can load.
WITHOUT_WINDOWS = "-p no:pytest-qt -p no:xvfb -m 'not slow and not benchmark and not gui'"
# What each command installs into .venv. tox makes its own environment for the tests.
INSTALLS = {"demo": ["-e", ".[cpu,gui,demo]"], "test": ["tox"]}


def main(command: str, options: list[str]) -> int:
    """Prepare and run; the exit code is that of the command."""
    missing = install_system_packages()
    install_python_packages(command)
    if command == "demo":
        return run([VENV / "bin" / "medssl", "demo", *options])
    if missing:
        say("tests that open a window are left out")
        os.environ["PYTEST_ADDOPTS"] = WITHOUT_WINDOWS
    return run([VENV / "bin" / "tox", "run", *options], folder=ROOT)


def install_system_packages() -> list[str]:
    """Install what is missing where the user may; return what is still missing."""
    missing = absent()
    if not missing:
        return []
    line = f"apt-get install --no-install-recommends {' '.join(missing)}"
    if not shutil.which("apt-get"):
        say(f"this system lacks what Debian 12 calls: {' '.join(missing)}; install its own packages of these")
        return missing
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if sudo and not (shutil.which("sudo") and run([*sudo, "true"], quiet=True) == 0):
        say(f"system packages are missing. An administrator can type:\n    sudo {line}\nGoing on without.")
        return missing
    say("installing system packages: " + " ".join(missing))
    apt = [*sudo, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"]
    run([*apt, "update"])
    run([*apt, "install", "-y", "--no-install-recommends", *missing])
    if missing := absent():
        say(f"these could not be installed: {' '.join(missing)}. Try:\n    {line}\nGoing on without.")
    return missing


def absent() -> list[str]:
    """The packages of `SYSTEM` whose library or program is not found."""
    return [package for package, proof in SYSTEM.items() if not is_present(proof)]


def is_present(proof: str) -> bool:
    """Whether a library loads, a program is on the path, or a file pattern matches."""
    if proof.startswith("/"):
        return any(Path("/").glob(proof[1:]))
    if ".so" not in proof:
        return shutil.which(proof) is not None
    try:
        ctypes.CDLL(proof)
    except OSError:
        return False
    return True


def install_python_packages(command: str) -> None:
    """Fill .venv for a command, unless the same was installed from the same files before."""
    if not PYTHON.exists():
        say(f"making {VENV}")
        # Without pip: Debian's Python lacks ensurepip. The pip that is here installs into it.
        venv.create(VENV, with_pip=False, symlinks=True)
    files = [ROOT / name for name in ("setup.cfg", "setup.py", "pyproject.toml", "constraints.txt")]
    digest = hashlib.sha256(b"\0".join(file.read_bytes() for file in files) + str(ROOT).encode()).hexdigest()
    stamp = VENV / f"installed-{command}.json"
    wanted = {"files": digest, "install": INSTALLS[command], "python": sys.version}
    if stamp.exists() and json.loads(stamp.read_text()) == wanted:
        return
    say(f"installing {' '.join(INSTALLS[command])} into {VENV}; this takes minutes, once")
    pip = [sys.executable, "-m", "pip", "--python", str(PYTHON), "install", "--quiet", "--no-input"]
    if run([*pip, "-c", ROOT / "constraints.txt", "pip", *INSTALLS[command]], folder=ROOT):
        sys.exit(f"error: pip could not install {' '.join(INSTALLS[command])}: see its message above")
    stamp.write_text(json.dumps(wanted))


def run(command: list[str | Path], folder: Path | None = None, quiet: bool = False) -> int:
    """Run a program and return its exit code."""
    if not quiet:
        say(shlex.join(map(str, command)))
    return subprocess.run(command, cwd=folder, capture_output=quiet, check=False).returncode


def say(message: str) -> None:
    """One line to the person who waits."""
    print(f"[bootstrap] {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    if len(sys.argv) == 1 or sys.argv[1] not in INSTALLS:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], sys.argv[2:]))
