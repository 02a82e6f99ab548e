"""The plots as PNG files, drawn by resvg-py."""

import builtins
import struct

import pytest

from jobs.lake import store
from jobs.lake.layout import Lake
from jobs.lake.uri import join
from jobs.results.pictures import ZOOM, draw, picture_of, write_pictures
from jobs.results.report import read_report
from jobs.results.svg import WIDTH, Bars, Curves, Line
from tests.support.results import finish


@pytest.fixture
def report(tmp_path):
    return read_report(finish(Lake((tmp_path / "lake").as_uri()).run("one")))


def test_each_plot_is_a_picture(report, tmp_path):
    uris = write_pictures(report, tmp_path.as_uri())
    assert uris[0] == join(tmp_path.as_uri(), "loss.png")
    assert len(set(uris)) == 14
    for uri in uris:
        data = store.read_bytes(uri)
        assert data.startswith(b"\x89PNG")
        width, height = struct.unpack(">II", data[16:24])
        assert width == ZOOM * (WIDTH + 40)
        assert height > 100


def test_hostile_titles_and_labels_are_text():
    plot = Curves("n", "<b> & \0\ud800 title", "<u>", (Line("<i>&", ((1.0, 2.0), (2.0, 3.0))),))
    assert "<b>" not in picture_of(plot)
    assert draw(picture_of(plot)) is not None
    bars = Bars("n", "title", "s", ("duration",), (("\0\x1b<\ud800\uffff", (1.0,)),))
    assert draw(picture_of(bars)) is not None


def test_a_machine_without_the_library_has_no_pictures(report, tmp_path, monkeypatch):
    real = builtins.__import__

    def missing(name, *rest):
        if name == "resvg_py":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    assert write_pictures(report, (tmp_path / "out").as_uri()) == []
