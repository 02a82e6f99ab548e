"""Find Java 17 or 21, which Spark needs, in the places where Debian, Ubuntu and macOS install it."""

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


@dataclass(frozen=True)
class Java:
    """A Java that runs.

    Attributes:
        home: The JAVA_HOME.
        version: The feature release, such as 17.
    """

    home: Path
    version: int

    @property
    def fits(self) -> bool:
        """Whether Spark supports this version."""
        return self.version in VERSIONS


def probe(executable: str | Path) -> Java | None:
    """Run a ``java`` and return its version and home.

    Args:
        executable: The program; may be a link, a shim, or the stub that macOS has in place of a missing Java.

    Returns:
        The Java, or None if the program does not run or is not Java.
    """
    command = [str(executable), "-XshowSettings:properties", "-version"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    properties = dict(
        re.findall(r"^\s*(java\.home|java\.specification\.version) = (.+?)\s*$", done.stderr, re.MULTILINE)
    )
    if len(properties) < 2:
        return None
    # The version of Java 8 is 1.8.
    version = properties["java.specification.version"].removeprefix("1.")
    return Java(Path(properties["java.home"]), int(version)) if version.isdecimal() else None


def find(environment: Mapping[str, str], patterns: Sequence[str] = PATTERNS) -> tuple[Java | None, list[Java]]:
    """Find the first Java that fits, from JAVA_HOME, then PATH, then `patterns`.

    Args:
        environment: The variables JAVA_HOME and PATH.
        patterns: Glob patterns of more ``java`` programs.

    Returns:
        The first Java that fits, or None; and those found before it, whose versions do not fit.
    """
    rejected: list[Java] = []
    for executable in _candidates(environment, patterns):
        java = probe(executable)
        if java is not None and java.fits:
            return java, rejected
        if java is not None:
            rejected.append(java)
    return None, rejected


def find_or_install(environment: Mapping[str, str], patterns: Sequence[str] = PATTERNS) -> Java | str:
    """Find a Java that fits, or install one if that needs no password.

    Args:
        environment: The variables JAVA_HOME and PATH.
        patterns: Glob patterns of more ``java`` programs.

    Returns:
        The Java, or one line for the user: the problem and what to do.
    """
    java, rejected = find(environment, patterns)
    if java is None and apt.install_one_of(*(f"openjdk-{version}-jre-headless" for version in VERSIONS)):
        java, rejected = find(environment, patterns)
    if java is not None:
        return java
    found = "; ".join(f"{other.home} is Java {other.version}" for other in rejected)
    return f"no Java 17 or 21 ({found or 'none found at all'}): {INSTALL_HINT}"


def _candidates(environment: Mapping[str, str], patterns: Sequence[str]) -> Iterator[str]:
    """Yield every ``java`` program once, even if several links lead to it."""
    seen = set()
    for executable in _all_candidates(environment, patterns):
        real = os.path.realpath(executable)
        if real not in seen and os.access(real, os.X_OK):
            seen.add(real)
            yield executable


def _all_candidates(environment: Mapping[str, str], patterns: Sequence[str]) -> Iterator[str]:
    if environment.get("JAVA_HOME"):
        yield str(Path(environment["JAVA_HOME"]) / "bin" / "java")
    in_path = shutil.which("java", path=environment.get("PATH"))
    if in_path:
        yield in_path
    if os.access(MACOS_FINDER, os.X_OK):
        yield from _macos_homes()
    for pattern in patterns:
        yield from sorted(glob.glob(os.path.expanduser(pattern)))  # noqa: PTH111, PTH207 - patterns with ~, not paths


def _macos_homes() -> Iterator[str]:
    for version in VERSIONS:
        done = subprocess.run([MACOS_FINDER, "-v", str(version)], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            yield str(Path(done.stdout.strip()) / "bin" / "java")
