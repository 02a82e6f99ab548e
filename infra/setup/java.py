"""Finds the Java that Spark runs on: 17 or 21, wherever Debian, Ubuntu or macOS put it."""

import glob
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.setup import apt

VERSIONS = (17, 21)

USUAL_PLACES = (
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


@dataclass(frozen=True)
class Java:
    """A Java that answered.

    Attributes:
        home: Its JAVA_HOME.
        version: Its feature release, such as 17.
    """

    home: Path
    version: int

    @property
    def fits(self) -> bool:
        """Whether Spark runs on it."""
        return self.version in VERSIONS


def probe(executable: str | Path) -> Java | None:
    """Asks a ``java`` for its version and its home.

    Args:
        executable: The program; it may be a link, a shim, or the stub that macOS has where there is no Java.

    Returns:
        What it said, or None where it does not run or is no Java.
    """
    command = [str(executable), "-XshowSettings:properties", "-version"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    said = dict(re.findall(r"^\s*(java\.home|java\.specification\.version) = (.+?)\s*$", done.stderr, re.MULTILINE))
    if len(said) < 2:
        return None
    # Java 8 calls itself 1.8.
    version = said["java.specification.version"].removeprefix("1.")
    return Java(Path(said["java.home"]), int(version)) if version.isdecimal() else None


def find(environment: Mapping[str, str], places: Sequence[str] = USUAL_PLACES) -> tuple[Java | None, list[Java]]:
    """Finds the first Java that fits: JAVA_HOME, then PATH, then the usual places.

    Args:
        environment: Where JAVA_HOME and PATH are looked up.
        places: Patterns of further ``java`` programs.

    Returns:
        The one that fits, or None, and those passed over on the way because of their version.
    """
    passed_over: list[Java] = []
    for executable in _candidates(environment, places):
        java = probe(executable)
        if java is not None and java.fits:
            return java, passed_over
        if java is not None:
            passed_over.append(java)
    return None, passed_over


def find_or_install(environment: Mapping[str, str], places: Sequence[str] = USUAL_PLACES) -> Java | str:
    """Finds a Java that fits, or installs one where that needs no password.

    Args:
        environment: Where JAVA_HOME and PATH are looked up.
        places: Patterns of further ``java`` programs.

    Returns:
        The Java, or one line for the user that says what is wrong and what to do.
    """
    java, passed_over = find(environment, places)
    if java is None and apt.install_one_of(*(f"openjdk-{version}-jre-headless" for version in VERSIONS)):
        java, passed_over = find(environment, places)
    if java is not None:
        return java
    found = "; ".join(f"{other.home} is Java {other.version}" for other in passed_over)
    return f"no Java 17 or 21 ({found or 'none found at all'}): {INSTALL_HINT}"


def _candidates(environment: Mapping[str, str], places: Sequence[str]) -> Iterator[str]:
    """Every ``java`` worth asking, each program once."""
    seen = set()
    for executable in _all_candidates(environment, places):
        real = os.path.realpath(executable)
        if real not in seen and os.access(real, os.X_OK):
            seen.add(real)
            yield executable


def _all_candidates(environment: Mapping[str, str], places: Sequence[str]) -> Iterator[str]:
    if environment.get("JAVA_HOME"):
        yield str(Path(environment["JAVA_HOME"]) / "bin" / "java")
    in_path = shutil.which("java", path=environment.get("PATH"))
    if in_path:
        yield in_path
    if os.access(MACOS_FINDER, os.X_OK):
        yield from _macos_homes()
    for place in places:
        yield from sorted(glob.glob(os.path.expanduser(place)))  # noqa: PTH111, PTH207 - patterns with ~, not paths


def _macos_homes() -> Iterator[str]:
    for version in VERSIONS:
        done = subprocess.run([MACOS_FINDER, "-v", str(version)], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            yield str(Path(done.stdout.strip()) / "bin" / "java")
