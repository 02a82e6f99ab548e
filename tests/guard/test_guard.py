"""The guard sees a difference in every part of the results, and refuses wrong arguments in one line."""

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.guard.compare import compare
from tests.guard.runs import ENGINES, NAMES, Tree, checkout, select
from tests.support.waiting import PATIENCE_SECONDS

CSV = '"step","valid_loss","cpu_load","step_milliseconds_p50","tokens_per_second"\n20,4.5,{0},{0},{0}\n40,4.25,1,2,3\n'


def write_dataset(lake: Path, kind: str, fingerprint: str, random_part: str) -> None:
    folder = lake / "datasets" / kind / fingerprint
    names = [f"shards/{i:05d}-{random_part}.arrow" for i in range(2)]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{kind} {name[:12]}")
    manifest = {"kind": kind, "files": [{"name": name} for name in (*names, "stats.json")]}
    (folder / "_manifest.json").write_text(json.dumps(manifest))


def write_lake(lake: Path, fingerprint: str, random_part: str, run: str, load: float) -> Path:
    """A lake of one run, in which only names and measurements vary."""
    for kind in ("tokens", "windows", "embeddings"):
        write_dataset(lake, kind, fingerprint, random_part)
    files = {
        "config.json": run, "model/config.json": "{}", "model/model.safetensors": "weights",
        "train/checkpoints/00000020/model.safetensors": run, "generate/generated.txt": "text",
        "stats/metrics.csv": CSV.format(load),
    }  # fmt: skip
    for name, content in files.items():
        path = lake / "runs" / run / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return lake


@pytest.fixture
def lakes(tmp_path: Path) -> tuple[Path, Path]:
    base = write_lake(tmp_path / "base", "aa", 12 * "a", "guard", 0.5)
    return base, write_lake(tmp_path / "today", "bb", 12 * "b", "project/pipeline/guard", 0.75)


def differences(lakes: tuple[Path, Path]) -> dict[str, str]:
    return {what: difference for what, difference, _ in compare(*lakes, has_embeddings=True) if difference}


def test_names_and_measurements_may_differ(lakes):
    assert differences(lakes) == {}
    whats = [each.what for each in compare(*lakes, has_embeddings=True)]
    assert whats == ["token shards", "window shards", "embeddings", "weights", "generated text", "metrics"]


@pytest.mark.parametrize(
    ("what", "pattern"),
    [
        ("token shards", "datasets/tokens/*/shards/00001-*"),
        ("window shards", "datasets/windows/*/shards/00001-*"),
        ("embeddings", "datasets/embeddings/*/shards/00001-*"),
        ("weights", "runs/**/model/model.safetensors"),
        ("generated text", "runs/**/generated.txt"),
    ],
)
def test_a_changed_file_is_a_difference(lakes, what, pattern):
    (path,) = lakes[1].glob(pattern)
    path.write_text("changed")
    found = differences(lakes)
    assert list(found) == [what]
    assert " became " in found[what]


@pytest.mark.parametrize(
    ("old", "new", "difference"),
    [
        ("40,4.25", "40,4.26", "valid_loss in row 2: 4.25 became 4.26"),
        ("valid_loss", "validation_loss", "missing: valid_loss"),
        ("cpu_load", "load", "missing: cpu_load"),
        ("40,4.25,1,2,3\n", "", "step in row 2 is missing"),
        ("40,4.25,1,2,3\n", "40,4.25,1,2,3\n60,4.0,1,2,3\n", "step in row 3 is new"),
        (CSV.format(0.75), "", "no rows in today"),
    ],
)
def test_a_changed_table_of_metrics_is_a_difference(lakes, old, new, difference):
    (path,) = lakes[1].glob("runs/**/metrics.csv")
    path.write_text(path.read_text().replace(old, new))
    assert differences(lakes) == {"metrics": difference}


def test_a_new_column_is_named_and_no_difference(lakes):
    (path,) = lakes[1].glob("runs/**/metrics.csv")
    path.write_text("\n".join(f'"{i}",{line}' for i, line in enumerate(path.read_text().splitlines())))
    assert differences(lakes) == {}
    assert compare(*lakes, has_embeddings=True)[-1].note.endswith("; new: 0")


def test_an_order_of_shards_is_a_difference(lakes):
    (path,) = lakes[1].glob("datasets/tokens/*/_manifest.json")
    manifest = json.loads(path.read_text())
    manifest["files"].reverse()
    path.write_text(json.dumps(manifest))
    assert differences(lakes) == {"token shards": "shards/00000.arrow became shards/00001.arrow"}


def test_results_that_no_side_has_are_a_difference(tmp_path):
    assert len(differences((tmp_path, tmp_path))) == 6


def test_runs_are_selected_by_name_case_and_engine():
    assert select([]) == NAMES
    assert len(NAMES) == 10
    assert select(["tiny", "diloco/spark"]) == ["tiny/inline", "tiny/spark", "diloco/spark"]
    assert select(["spark"]) == [name for name in NAMES if name.endswith("/spark")]
    assert {name.partition("/")[2] for name in NAMES} == set(ENGINES)


def test_a_run_that_fails_tells_its_exit_code_and_its_last_line(tmp_path):
    tree = Tree(Path.cwd(), tmp_path / "lakes")
    tree.check_imports()
    failure = tree.run("tiny/inline", tmp_path / "no-corpus")
    assert failure.startswith("exit code 2: nightjar: ")
    assert "no-corpus" in failure


def test_a_package_from_elsewhere_is_refused(tmp_path):
    with pytest.raises(RuntimeError, match="instead of the package"):
        Tree(tmp_path, tmp_path).check_imports()


def test_a_worktree_is_removed_after_a_failure(tmp_path):
    git = ("git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c")
    for arguments in ("init", "--quiet"), ("commit", "--quiet", "--allow-empty", "--message=a"):
        subprocess.run([*git, *arguments], check=True)
    with suppress(KeyboardInterrupt), checkout(tmp_path, "HEAD", tmp_path / "tree") as root:
        assert (root / ".git").exists()
        raise KeyboardInterrupt
    listed = subprocess.run([*git, "worktree", "list"], capture_output=True, text=True, check=True).stdout
    assert listed.count("\n") == 1
    assert not (tmp_path / "tree").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "BASE=<commit>"),
        (["no-such-commit"], "'no-such-commit' is no commit of this repository"),
        (["HEAD", "--only", "huge"], "no run is called 'huge'"),
        (["HEAD", "--keep", "."], ". exists already"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(arguments, message):
    done = subprocess.run(
        [sys.executable, "-m", "tests.guard", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
