"""No file of the repository holds a secret; detect-secrets reads them all."""

import re
import subprocess
from pathlib import Path

import pytest
from detect_secrets import SecretsCollection
from detect_secrets.settings import transient_settings

# Locks and the manifests of a lake hold hashes.
NOT_READ = re.compile(r"requirements/.*\.txt|\.secrets|stats/.*|tests/data/lake-0\.1/.*")
# Credentials of servers that accept any, and one that is refused; the hashes of the sample corpus and of settings.
PUBLIC = (
    r"embedded|local|testing|admin|unused|short|(passwords|secrets)\.json.*|"
    "(f393d09d07ea4d0e|3cb74bda3add43c8)[0-9a-f]{48}"
)
PLUGINS = (
    "ArtifactoryDetector AWSKeyDetector AzureStorageKeyDetector BasicAuthDetector GitHubTokenDetector JwtTokenDetector"
    " KeywordDetector NpmDetector OpenAIDetector PrivateKeyDetector SlackDetector StripeDetector"
)
SETTINGS = {
    "plugins_used": [
        *({"name": name} for name in PLUGINS.split()),
        {"name": "HexHighEntropyString", "limit": 3.0},
        {"name": "Base64HighEntropyString", "limit": 4.5},
    ],
    "filters_used": [
        {"path": "detect_secrets.filters.allowlist.is_line_allowlisted"},
        {"path": "detect_secrets.filters.heuristic.is_indirect_reference"},
        {"path": "detect_secrets.filters.heuristic.is_likely_id_string"},
        {"path": "detect_secrets.filters.heuristic.is_potential_uuid"},
        {"path": "detect_secrets.filters.heuristic.is_prefixed_with_dollar_sign"},
        {"path": "detect_secrets.filters.heuristic.is_sequential_string"},
        {"path": "detect_secrets.filters.heuristic.is_templated_secret"},
        {"path": "detect_secrets.filters.regex.should_exclude_secret", "pattern": [f"^({PUBLIC})$"]},
    ],
}


def found(*paths: Path) -> list[str]:
    """Return the kind and the place of each string that looks like a secret, without the string."""
    secrets = SecretsCollection()
    with transient_settings(SETTINGS):
        for path in paths:
            secrets.scan_file(str(path))
    return [f"{name}:{secret.line_number}: {secret.type}" for name, secret in secrets]


def test_no_file_holds_a_secret() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout: the files of the repository are unknown")
    names = [name for name in listed.stdout.split("\0") if name and not NOT_READ.fullmatch(name)]
    assert len(names) > 100
    assert found(*(Path(name) for name in names if Path(name).is_file())) == []


@pytest.mark.parametrize(
    "line",
    [
        "aws_key = '" + "AKIA" + "Z7QHDF4LWXPRT2MB'",
        "password = 'cor" + "rect-horse-7-battery'",
        "-----BEGIN RSA " + "PRIVATE KEY-----",
    ],
    ids=["aws", "password", "private-key"],
)
def test_a_secret_is_found(line: str, tmp_path: Path) -> None:
    (tmp_path / "settings.py").write_text(f"{line}\n")
    assert len(found(tmp_path / "settings.py")) >= 1
