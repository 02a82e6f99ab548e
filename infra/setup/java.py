"""Find Java 17 or 21, which Spark needs, in the places where Debian, Ubuntu and macOS install it."""

import glob
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from infra.setup import apt
from infra.setup.packages import SetupError

VERSIONS = (17, 21)
PATTERNS = (
    "/usr/lib/jvm/*/bin/java",
    "/Library/Java/JavaVirtualMachines/*/Contents/Home/bin/java",
    "/opt/homebrew/opt/openjdk@*/bin/java",
    "/usr/local/opt/openjdk@*/bin/java",
    "/opt/homebrew/opt/openjdk/bin/java",
    "~/Library/Java/JavaVirtualMachines/*/Contents/Home/bin/java",
    "~/.sdkman/candidates/java/*/bin/java",
)
MACOS_FINDER = "/usr/libexec/java_home"
INSTALL_HINT = (
    "install Java 17 or 21 (Debian and Ubuntu: sudo apt-get install openjdk-17-jre-headless; macOS: brew install "
    "openjdk@17) or set JAVA_HOME"
)


class Java(NamedTuple):
    """An installed Java: its JAVA_HOME, and its feature release, such as 17."""

    home: Path
    version: int


def probe(executable: str | Path) -> Java | None:
    """Run an executable ``java``, and return the Java that it belongs to.

    Return None if it is not a real Java. macOS has a stub with this name if no Java is installed.
    """
    command = [str(executable), "-XshowSettings:properties", "-version"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = dict(re.findall(r"^\s*java\.(home|specification\.version) = (.+?)\s*$", done.stderr, re.MULTILINE))
    # The version of Java 8 is 1.8.
    version = found.get("specification.version", "").removeprefix("1.")
    return Java(Path(found["home"]), int(version)) if version.isdecimal() and "home" in found else None


def find(environment: Mapping[str, str], patterns: Sequence[str] = PATTERNS) -> tuple[Java | None, list[Java]]:
    """Return the first Java with a version in `VERSIONS`, and a list of Javas with other versions found before it.

    JAVA_HOME is searched first, then PATH, then `patterns`. Return None instead of a Java if no version fits.
    """
    rejected: list[Java] = []
    seen = set()
    for executable in _candidates(environment, patterns):
        real = os.path.realpath(executable)  # several links may lead to one program
        if real in seen or not os.access(real, os.X_OK):
            continue
        seen.add(real)
        java = probe(executable)
        if java is not None and java.version in VERSIONS:
            return java, rejected
        if java is not None:
            rejected.append(java)
    return None, rejected


def find_or_install(environment: Mapping[str, str], patterns: Sequence[str] = PATTERNS) -> Java:
    """Find a Java with a version in `VERSIONS`, or install one if that needs no password.

    Raises:
        SetupError: if there is no such Java, and none could be installed. The message lists Javas of other versions.
    """
    java, rejected = find(environment, patterns)
    if java is None and apt.install_one_of(*(f"openjdk-{version}-jre-headless" for version in VERSIONS)):
        java, rejected = find(environment, patterns)
    if java is not None:
        return java
    found = "; ".join(f"{other.home} is Java {other.version}" for other in rejected)
    raise SetupError(f"no Java 17 or 21 ({found or 'none found at all'}): {INSTALL_HINT}")


def _candidates(environment: Mapping[str, str], patterns: Sequence[str]) -> Iterator[str]:
    if environment.get("JAVA_HOME"):
        yield str(Path(environment["JAVA_HOME"]) / "bin" / "java")
    if in_path := shutil.which("java", path=environment.get("PATH")):
        yield in_path
    if os.access(MACOS_FINDER, os.X_OK):
        for version in VERSIONS:
            done = subprocess.run([MACOS_FINDER, "-v", str(version)], capture_output=True, text=True, check=False)
            if done.returncode == 0:
                yield str(Path(done.stdout.strip()) / "bin" / "java")
    for pattern in patterns:
        yield from sorted(glob.glob(os.path.expanduser(pattern)))  # noqa: PTH111, PTH207 - patterns with ~, not paths
