"""Lakes with runs, datasets and champions of a few bytes, for what garbage collection deletes and keeps."""

from collections.abc import Sequence

from jobs.lake import store
from jobs.lake.champion import Change, change_champion, read_champion
from jobs.lake.gc import DAY_SECONDS
from jobs.lake.layout import MANIFEST, Lake, Run
from jobs.lake.manifest import Manifest
from jobs.lake.uri import join

LATER = 10 * DAY_SECONDS


def publish(folder: str, name: str = "data", content: bytes = b"x" * 100) -> None:
    """Write a folder with one file and its manifest."""
    store.publish_manifest(folder, Manifest("kind", "f", (store.write_file(folder, name, content),), {}))


def make_run(lake: Lake, number: int, pipeline: str = "poems", tokens: str | None = None) -> Run:
    """Write a finished run with datasets, a checkpoint and a cluster of its own."""
    run, name = lake.run(f"night-{number:02d}", pipeline), f"{pipeline}{number}"
    store.write_bytes(run.config, b"{}")
    used = {"tokens": tokens or f"t{name}", "windows": f"w{name}"}
    for kind, fingerprint in used.items():
        if not store.exists(join(lake.dataset(kind, fingerprint), MANIFEST)):
            publish(lake.dataset(kind, fingerprint))
    store.write_json(run.datasets, used)
    store.write_json(join(run.clusters, "0001.json"), {"number": 1, "cluster_id": f"j-{name}"})
    store.write_bytes(join(lake.logs, f"j-{name}/steps/s-1/stderr.gz"), b"log" * 50)
    store.write_bytes(join(run.checkpoints, "00000100/weights"), b"w" * 500)
    for folder in (run.model, run.train, run.generate):
        publish(folder)
    return run


def make_champion(lake: Lake, run: Run, pipeline: str = "poems") -> str:
    """Make a run the champion of a pipeline, and return the name of its model."""
    model = run.run_id.encode().hex().ljust(64, "0")
    publish(join(lake.models, model), "model.safetensors", run.run_id.encode())
    found = lake.pipeline(pipeline)
    change = Change("promoted", model, run.folder, "2026-11-26", "airflow: scheduled", "better")
    assert change_champion(found, *read_champion(found), change)
    return model


def check(lake: Lake, runs: Sequence[Run]) -> None:
    """Check that runs have everything that they need."""
    for run in runs:
        used = [lake.dataset(kind, name) for kind, name in store.read_json(run.datasets).items()]
        for folder in (run.model, run.train, run.generate, *used):
            verify(folder)
        assert store.exists(run.config)
    champion, _ = read_champion(lake.pipeline("poems"))
    assert champion
    for model in {each.model for each in champion.history}:
        folder = join(lake.models, model)
        verify(folder)


def verify(folder: str) -> None:
    """Check that a folder has a manifest, and the files that it lists."""
    manifest = store.read_manifest(folder)
    assert manifest, folder
    store.verify_sizes(folder, manifest)
