"""Wheels that do not fit the nodes are refused, and the message names the fix. The wheels are fake files."""

import hashlib
from pathlib import Path

import boto3
import pytest

from infra.emr.server import embedded_emr
from infra.emr.settings import EmrSettings
from jobs.errors import LakeError
from jobs.lake.layout import Lake
from nightjar.packaging import lock
from nightjar.packaging.build import PackageError
from nightjar.packaging.wheelhouse import copy_folder
from nightjar.packaging.wheels import Target, check_folder, check_names

X86, ARM = Target("x86_64", "cpu"), Target("aarch64", "cpu")
GPU = Target("x86_64", "cuda")
PURE, NATIVE, TORCH = (
    "boto3-1.2-py3-none-any.whl",
    "numpy-2.4.6-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
    "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl",
)
GOOD = {PURE, NATIVE, TORCH}


def digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


LOCK = f"""boto3==1.2 \\
    --hash=sha256:{digest(PURE)}
    # via -r requirements/job.in
colorama==0.4.6 ; sys_platform == 'win32' \\
    --hash=sha256:{"2" * 64}
numpy==2.4.6 ; python_full_version < '3.12' \\
    --hash=sha256:{"3" * 64} \\
    --hash=sha256:{digest(NATIVE)}
numpy==2.5.5 ; python_full_version >= '3.12' \\
    --hash=sha256:{"4" * 64}
pyspark==4.0.2 \\
    --hash=sha256:{"5" * 64}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / ("f" * 64)
    place.mkdir()
    for name in GOOD:
        (place / name).write_text(name)
    return place


def test_lock_is_read_by_distribution() -> None:
    pins = lock.read(LOCK)
    assert [pin.version for pin in pins["numpy"]] == ["2.4.6", "2.5.5"]
    assert pins["numpy"][0].hashes == {"3" * 64, digest(NATIVE)}
    assert [pin.name for pin in X86.pins(LOCK)] == ["boto3", "numpy"]
    assert lock.without(LOCK, {"numpy", "pyspark", "colorama"}) == LOCK[: LOCK.index("colorama")]


def test_fitting_wheels_are_accepted(folder: Path) -> None:
    assert check_names(GOOD, X86, LOCK, "2.13.0")["numpy"] == NATIVE
    assert check_folder(folder, X86, LOCK, "2.13.0") == {name: digest(name) for name in sorted(GOOD)}


@pytest.mark.parametrize(
    ("target", "without", "added", "message"),
    [
        (ARM, None, None, r"numpy-.*x86_64.whl does not run on aarch64 .* ARCH=aarch64 BUILD=cpu"),
        (X86, NATIVE, "numpy-2.4.6-cp312-cp312-manylinux_2_28_x86_64.whl", r"cp312.* does not run on .* Python 3.11"),
        (X86, NATIVE, "numpy-2.4.6-cp311-cp311-manylinux_2_39_x86_64.whl", "does not run"),
        (X86, NATIVE, "numpy-2.4.6-cp311-cp311-macosx_14_0_arm64.whl", "does not run"),
        (
            X86,
            NATIVE,
            "numpy-2.4.5-cp311-cp311-manylinux_2_28_x86_64.whl",
            "the locked numpy 2.4.6; download it with: make",
        ),
        (X86, NATIVE, None, r"no wheel for numpy; download it with: make package-wheelhouse ARCH=x86_64 BUILD=cpu"),
        (X86, TORCH, None, "no wheel for torch"),
        (
            X86,
            TORCH,
            "torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl",
            r"has no \+cpu in its version.* torch 2.13.0\+cpu",
        ),
        (X86, TORCH, "torch-2.12.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl", "is not torch 2.13.0"),
        (X86, None, "nvidia_cudnn_cu13-9.1-py3-none-manylinux_2_27_x86_64.whl", "is part of CUDA"),
        (GPU, None, None, "is a CPU build, but the nodes have GPUs; .* BUILD=cuda"),
        (X86, None, "gguf-0.19.0.tar.gz", "gguf-0.19.0.tar.gz is not a wheel"),
    ],
)
def test_wheels_that_do_not_fit_are_refused(
    target: Target, without: str | None, added: str | None, message: str
) -> None:
    names = (GOOD - {without}) | ({added} if added else set())
    with pytest.raises(PackageError, match=message):
        check_names(names, target, LOCK, "2.13.0")


def test_torch_for_a_newer_driver_is_refused() -> None:
    """PyPI's own build is for CUDA 13, whose driver the releases do not have."""
    names = {PURE, NATIVE, "torch-2.13.0+cu126-cp311-cp311-manylinux_2_28_x86_64.whl"}
    assert check_names(names, GPU, LOCK, "2.13.0")["torch"]
    for build in ("", "+cu130"):
        wheels = {PURE, NATIVE, f"torch-2.13.0{build}-cp311-cp311-manylinux_2_28_x86_64.whl"}
        with pytest.raises(PackageError, match=r"is not the build \+cu126: the GPU driver of the EMR release is too"):
            check_names(wheels, GPU, LOCK, "2.13.0")


def test_torch_with_another_hash_is_refused(folder: Path) -> None:
    def pin(*hashes: str) -> lock.Pin:
        return lock.Pin("torch", "2.13.0+cpu", None, frozenset(hashes))

    assert check_folder(folder, X86, LOCK, "2.13.0", [pin(digest(TORCH))])
    assert check_folder(folder, X86, LOCK, "2.13.0", [pin()])  # its hash is not known
    with pytest.raises(PackageError, match=r"torch-.* has a hash that is not in requirements/torch-cpu\.txt"):
        check_folder(folder, X86, LOCK, "2.13.0", [pin("0" * 64)])


def test_changed_wheel_is_refused(folder: Path) -> None:
    (folder / NATIVE).write_text("something else")
    with pytest.raises(PackageError, match=r"numpy-.* has a hash that is not in requirements/job.txt"):
        check_folder(folder, X86, LOCK, "2.13.0")


def test_wheelhouse_is_copied_to_a_lake_on_disk(folder: Path, tmp_path: Path) -> None:
    (folder / "SHA256SUMS").write_text("sums")
    place = Lake((tmp_path / "my lake").as_uri()).wheelhouse(folder.name)
    copy_folder(folder, place)
    copied = tmp_path / "my lake" / "wheelhouses" / folder.name
    assert {path.name: path.read_text() for path in copied.iterdir()} == {**{n: n for n in GOOD}, "SHA256SUMS": "sums"}
    (tmp_path / "file").touch()
    with pytest.raises(LakeError, match="cannot be uploaded to file://"):
        copy_folder(folder, (tmp_path / "file" / "lake").as_uri())


def test_wheelhouse_is_copied_to_s3(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with embedded_emr(EmrSettings(buckets=("lakes",), state_dir=tmp_path / "emr")) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        copy_folder(folder, Lake("s3://lakes/my lake").wheelhouse(folder.name))
        found = boto3.client("s3").list_objects_v2(Bucket="lakes")["Contents"]
        assert {each["Key"] for each in found} == {f"my lake/wheelhouses/{folder.name}/{name}" for name in GOOD}
        with pytest.raises(LakeError, match=r"cannot be uploaded to s3://nobodys/.*NoSuchBucket"):
            copy_folder(folder, "s3://nobodys/wheelhouses/x")
