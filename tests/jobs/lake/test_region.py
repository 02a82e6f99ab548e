"""The region of a process, which boto3 must not have to guess."""

import subprocess
import sys

import pytest
from botocore.utils import InstanceMetadataRegionFetcher

from jobs.lake import region, store


@pytest.fixture
def nowhere(monkeypatch):
    for name in region.VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", region.VARIABLES)
def test_either_variable_names_the_region_of_s3(name, nowhere, monkeypatch):
    """boto3 alone reads one of them, and asks us-east-1 without it."""
    monkeypatch.setenv(name, "eu-west-1")
    store.environment_client.cache_clear()
    client = store.environment_client()
    store.environment_client.cache_clear()
    assert client.meta.region_name == "eu-west-1"


def test_a_profile_names_the_region(nowhere, monkeypatch, tmp_path):
    (tmp_path / "config").write_text("[default]\nregion = ap-south-1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    assert region.find_region() == "ap-south-1"


def test_an_instance_says_its_region_and_no_other_machine_is_asked(nowhere, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(InstanceMetadataRegionFetcher, "retrieve_region", lambda _: asked.append(1) or "eu-north-1")
    monkeypatch.setattr(region, "_VENDOR", tmp_path / "vendor")
    assert region.find_region() is None
    (tmp_path / "vendor").write_text("QEMU\n")
    assert region.find_region() is None
    assert not asked
    (tmp_path / "vendor").write_text("Amazon EC2\n")
    assert region.find_region() == "eu-north-1"


def test_looking_for_the_region_imports_boto3_only_if_it_must():
    code = "import sys, jobs.lake.region as r; r.find_region(); print('botocore' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
