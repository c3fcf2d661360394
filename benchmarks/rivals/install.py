"""Puts the rivals into a cache: `python -m benchmarks.rivals.install`. What is there already costs nothing.

Each rival goes into a folder of its own there, under a name that is not taken before everything is in it.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.rivals.system import NotInstalled

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
CACHE = ROOT / "build/rivals"
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"


def maven_install(cache: Path, name: str) -> Path:
    """The jars that jars/NAME.xml names, with all that they need."""
    pom = HERE / f"jars/{name}.xml"
    maven = _tool("mvn", "Maven")
    java()

    def fill(folder: Path) -> None:
        flags = ["--quiet", "--batch-mode", f"-DoutputDirectory={folder}", "-DincludeScope=runtime"]
        _run([maven, *flags, "--file", str(pom), _COPY])

    return _once(_for_contents(cache / name, pom), fill)


def java() -> str:
    return _tool("java", "a Java runtime, 17 or newer,")


def go_install(folder: Path, module: str) -> Path:
    """The module's command."""
    go = _tool("go", "Go")
    return _once(folder, lambda new: _run([go, "install", module], GOBIN=str(new)))


def debian_install(folder: Path, package: str) -> Path:
    """The package and what it needs, unpacked beside the system instead of installed in it: no rights are needed, and
    nothing is started."""
    apt, dpkg = _tool("apt-get", "Debian's apt-get"), _tool("dpkg", "Debian's dpkg")

    def fill(new: Path) -> None:
        archives = new / "archives"
        (archives / "partial").mkdir(parents=True)
        flags = ["--yes", "--download-only", "--no-install-recommends", "--reinstall"]
        _run([apt, *flags, "-o", "Debug::NoLocking=1", "-o", f"Dir::Cache::archives={archives}", "install", package])
        for archive in sorted(archives.glob("*.deb")):
            _run([dpkg, "--extract", str(archive), str(new)])
        shutil.rmtree(archives)

    return _once(folder, fill)


def python_environment(cache: Path) -> Path:
    """The Python in which the applications run."""
    requirements = HERE / "requirements.txt"

    def fill(folder: Path) -> None:
        _run([sys.executable, "-m", "venv", str(folder)])
        flags = ["--quiet", "--constraint", str(ROOT / "requirements.lock"), "--requirement", str(requirements)]
        python = str(folder / "bin/python")
        _run([python, "-m", "pip", "install", *flags, "--editable", str(ROOT / "clients/python")])

    return _once(_for_contents(cache / "python", requirements), fill, movable=False) / "bin/python"


def _once(folder: Path, fill: Callable[[Path], None], *, movable: bool = True) -> Path:
    """`movable`: false for what holds its own path, which is marked when it is complete instead of renamed."""
    complete = folder / ".complete"
    if complete.exists():
        return folder
    new = folder.with_name(folder.name + ".new") if movable else folder
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    fill(new)
    (new / ".complete").touch()
    return new.rename(folder) if movable else new


def _for_contents(folder: Path, source: Path) -> Path:
    """Another folder when what is to be installed changes."""
    return folder.with_name(f"{folder.name}-{hashlib.sha256(source.read_bytes()).hexdigest()[:12]}")


def _tool(command: str, name: str) -> str:
    if path := shutil.which(command):
        return path
    raise NotInstalled(f"{name} is not there ({command})")


def _run(command: Sequence[str], **environment: str) -> None:
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
    if done.returncode:
        raise NotInstalled(f"{' '.join(command[:2])} failed: {(done.stderr or done.stdout).strip()[-1500:]}")


def main() -> None:
    """Installs all, and tells what cannot be. Exit code 1 if any cannot."""
    from benchmarks.rivals.systems import SYSTEMS

    failed = False
    for name, fill in [("Python", python_environment), *((system.name, system.install) for system in SYSTEMS)]:
        try:
            print(f"{name}: {fill(CACHE)}", flush=True)
        except NotInstalled as error:
            failed = True
            print(f"{name}: not installed: {error}", file=sys.stderr, flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
