"""TOML files that users give: configuration files, files of pipelines, and prices."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

from jobs.config import flat_schema, preset_names, resolve
from jobs.config.given import gather
from jobs.errors import InputError
from jobs.lake import store
from jobs.prices.book import VARIABLE, load_prices
from nightjar import pipelines, settings
from tests.fuzz.damage import damage, random_text
from tests.fuzz.registry import Case, family

_ODD = (
    *("nan", "inf", "-inf", "1e400", "-1", "0", "1.5", "9" * 5000, "0x1F", "1_000", "true", "false", '""', '"x"'),
    *("[]", "{}", "[1, 'a']", "[[]]", "{a = 1}", "1979-05-27", "1979-05-27T07:32:00Z", "07:32:00", "9999-99-99"),
    *(
        "'''\n'''",
        '"\\u0000"',
        '"\\ud800"',
        '"\u202e"',
        "[" * 3000,
        "x",
        "",
        "2020-02-29",
        '"漢字"',
        "'" + "a" * 3000 + "'",
    ),
)
_ODD_LINES = (
    "[",
    "[]",
    "[a",
    "[[pipeline]]",
    "= 1",
    "a = 1",
    "a.b.c = 2",
    "'' = 3",
    "[train]",
    "[train.seed]",
    "# é",
    "\x00",
)
_KEYS: dict[str, tuple[str, ...]] = {
    "schedule": ('"0 2 * * *"', '"@daily"', '"* * 30 2 *"', '"x"', '"0 2 * *"', '"99 * * * *"', '"0 0 31 2 *"'),
    "timezone": ('"UTC"', '"Europe/Berlin"', '"../etc/passwd"', '"/etc"', '"Nowhere/X"', '"UTC\\u0000"'),
    "assets": ('["a"]', '["s3://b/k"]', '[""]', '["a", "a"]', '["://"]', '["x-y://"]', '["file:///a b"]', '["é"]'),
    "description": ('"All"', '"a\\nb"', '"\\u001b[31m"'),
    "tags": ('["a"]', '["a", "a"]', '[""]', '["' + "x" * 101 + '"]', '["a,b"]'),
    "max_active_runs": ("1", "2", "1000", "1001"),
    "skip_unchanged": ('"scheduled"', '"all"', '"never"', '"sometimes"'),
    "max_wait_hours": ("1", "24.5", "1e9"),
}
_NOTIFIERS = (
    "airflow.providers.smtp.notifications.smtp.SmtpNotifier",
    *(
        "json.JSONDecoder",
        "json.none",
        "none.None",
        "",
        ".",
        "..",
        ".x",
        "os.path.join",
        "a b.C",
        "json.tool.x.Y",
        "\\u0000.X",
    ),
)


def _lines(rng: Random, table: str, values: Iterable[tuple[str, str]]) -> list[str]:
    """Return a table with these values, of which a few are odd."""
    lines = [f"[{table}]"]
    for key, value in values:
        shown = rng.choice(_ODD) if rng.random() < 0.06 else value
        lines.append(f"{rng.choice((key,) * 30 + (f'{key}x', json.dumps(key), 'x.y', ''))} = {shown}")
    if rng.random() < 0.04:
        lines.append(rng.choice(_ODD_LINES))
    return lines


def _settings(rng: Random) -> list[str]:
    """Return tables with settings of runs, most of them the defaults."""
    schema = flat_schema()
    lines: list[str] = []
    for key in rng.sample(sorted(schema), rng.choice((0, 1, 1, 2, 6))):
        section, _, name = key.rpartition(".")
        value = schema[key].get("default")
        shown = json.dumps(value) if value is not None else rng.choice(_ODD)
        lines += _lines(rng, section, [(name, shown)]) if section else [f"{name} = {shown}", *lines]
    return lines


def _first_lines(rng: Random, corpora: Iterable[str]) -> list[str]:
    """Return the values before the first table."""
    lines = []
    if rng.random() < 0.8:
        lines.append(f"corpus = {rng.choice((*corpora, *rng.sample(_ODD, 1)))}")
    if rng.random() < 0.5:
        lines.append(f"preset = {rng.choice((*map(json.dumps, (*preset_names(), 'none')), *rng.sample(_ODD, 1)))}")
    return lines


def _file(rng: Random, path: Path, lines: Iterable[str]) -> str:
    """Write a file, of which a half is damaged; return a description."""
    data, how = damage(rng, "\n".join(lines).encode(errors="surrogatepass"))
    path.write_bytes(data)
    return f"{path.name}, {how}: {data[:600]!r}"


@family("config-file")
def _config_file(rng: Random, folder: Path) -> Case:
    """The settings of a run from a file, with the command line's, as `nightjar run` takes them."""
    path = folder / rng.choice(("c.toml", "C.TOML", "c", "c .txt"))
    pipeline = _pipeline(rng) if rng.random() < 0.2 else []
    corpora = ('"t.txt"', '["a.txt", "b"]', "[]", '[""]', '["a", 1]', '"a\\nb"')
    shown = _file(rng, path, [*_first_lines(rng, corpora), *_settings(rng), *pipeline])

    def read() -> None:
        given = gather(str(path), (), store.read_bytes, {})
        resolve(given.corpus or "t.txt", given.preset or "tiny", given.values, given.places)

    return Case(shown, read)


def _pipeline(rng: Random) -> list[str]:
    keys = rng.sample(sorted(_KEYS), rng.choice((0, 1, 1, 2, 4)))
    lines = _lines(rng, "pipeline", [(key, rng.choice(_KEYS[key])) for key in keys])
    if rng.random() < 0.3:
        values = [("on", rng.choice(('["failure"]', "[]", '"failure"', '["x"]', '["promotion", "rejection"]')))]
        values += [("notifier", f'"{rng.choice(_NOTIFIERS)}"')]
        values += [
            (rng.choice(("to", "s", "object_hook", "context")), rng.choice(('"a@b"', '"{{ x"', "1")))
        ] * rng.randrange(2)
        lines += [
            f"[{each}]" if each == "[pipeline.notify]" else each for each in _lines(rng, "pipeline.notify", values)
        ]
    return lines


@family("pipelines")
def _pipelines(rng: Random, folder: Path) -> Case:
    """A folder of pipelines, as Airflow's DAG processor reads it, and the settings of their runs.

    What is wrong with a file is one line, and the pipeline has no schedule; no other pipeline comes to harm.
    """
    names = rng.sample(
        ("night.toml", "other.toml", "default.toml", "local.toml", "runs.toml", "train_llm.toml", "é.toml", "a b.toml",
         ".hidden.toml", "x" * 64 + ".toml", "-a.toml", "reap_clusters.toml", "a.TOML", "a.toml~", ".toml"),
        rng.choice((1, 1, 2, 3)),
    )  # fmt: skip
    corpora = (
        '"s3://b/t"',
        '"/texts"',
        '["/a", "s3://b/c"]',
        '"relative"',
        '["/a", "b"]',
        '"~/a"',
        '"C:/x"',
        '"/a\\nb"',
    )
    shown = [
        _file(rng, folder / name, [*_first_lines(rng, corpora), *_settings(rng), *_pipeline(rng)]) for name in names
    ]
    if rng.random() < 0.1:
        (folder / "folder.toml").mkdir()
        (folder / "nowhere.toml").symlink_to("nowhere")
    (folder / "whole.toml").write_text('corpus = "/texts"\n[pipeline]\nschedule = "0 2 * * *"\n')

    def read() -> None:
        configs, mistakes = pipelines.load_all(settings.Settings(pipelines=folder), Path("dags").absolute())
        by_name = {config.name: config for config in configs}
        assert by_name["whole"].schedule() is not None, "the whole file"
        assert {config.wrong for config in configs} - {""} <= set(mistakes), "a mistake that is not shown"
        for config in configs:
            if not config.wrong:
                config.schedule()
                resolve(config.corpus or "/texts", config.preset, config.values)
                for notification in config.table.notify:
                    with suppress(InputError):
                        notification.make()
        for line in mistakes:
            assert line.isprintable(), f"a line that cannot be shown: {line!r}"
            assert len(line) <= 2000, f"{len(line)} characters: {line}"
        if mistakes:
            raise InputError(mistakes[0])

    return Case("; ".join(shown), read)


@family("prices")
def _prices(rng: Random, folder: Path) -> Case:
    """The prices of a file of the user's, and what an instance costs by them."""
    lines: list[str] = []
    for _ in range(rng.choice((0, 1, 2, 4))):
        kind = rng.choice(("ec2", "ec2", "emr", "ebs", "nat", "endpoint", "ec3"))
        values: Mapping[str, Any] = {
            "kind": json.dumps(kind),
            "region": '"us-east-1"',
            **({"item": '"m7i.xlarge"'} if kind in ("ec2", "emr", "ebs") or rng.random() < 0.1 else {}),
            **({"market": rng.choice(('"spot"', '"on demand"', '"other"'))} if rng.random() < 0.3 else {}),
            "usd": rng.choice(("0.2", "0", "0.2016", "1e-7", "1", '"1"')),
            **({"date": str(datetime.date(2026, 1, rng.randint(1, 28)))} if rng.random() < 0.5 else {}),
            **({"source": json.dumps(random_text(rng, 3), ensure_ascii=False)} if rng.random() < 0.3 else {}),
        }
        lines += [re.sub(r"^\[price\]$", "[[price]]", line) for line in _lines(rng, "price", values.items())]
    path = folder / "p.toml"
    shown = _file(rng, path, lines)

    def read() -> None:
        book = load_prices(environ={VARIABLE: str(path)})
        book.rate("m7i.xlarge", "spot", "us-east-1", 32)
        assert all(str(price) for price in book)

    return Case(shown, read)
