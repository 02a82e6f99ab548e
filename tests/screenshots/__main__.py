"""``make screenshots``: run Airflow with four runs, and write pictures of the pages of runs into a folder."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from infra.lake import sample_corpus
from tests.support.browser import CHROMIUM, Browser, browser
from tests.support.nights import Nights, nights
from tests.support.pages import views

SIZES = {"desktop": (1280, 800, 1), "phone": (390, 844, 2)}
"""Width, height and pixels of the screen for each of the page."""
MOST_HEIGHT = 3600
FIRST = {"preset": "tiny", "train.eval_every": 25, "train.workers": 2}
SECOND = {"train.learning_rate": 3e-2, "train.seed": 7}
LIVE_SECONDS = 40
"""How long the run in progress trains before its picture is taken."""


def main() -> int:
    """Write the pictures and print their names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("screenshots"), help="the folder (default: screenshots)")
    options = parser.parse_args()
    if CHROMIUM is None:
        sys.stderr.write("screenshots: there is no Chromium in PATH; install it\n")
        return 2
    options.output.mkdir(parents=True, exist_ok=True)
    corpus = sample_corpus.shakespeare(Path(".cache"))
    with tempfile.TemporaryDirectory(prefix="nightjar-screenshots-") as name:
        folder = Path(name)
        with nights(folder, corpus, FIRST, SECOND) as scene, browser(folder / "profile") as tab:
            time.sleep(LIVE_SECONDS)
            tab.log_in(scene.user.airflow.url, scene.user.token)
            for size in SIZES:
                for theme in ("light", "dark"):
                    take(tab, scene, size, theme, options.output)
    return 0


def take(tab: Browser, scene: Nights, size: str, theme: str, output: Path) -> None:
    """Write the pictures of all views in one size and theme."""
    base = f"{scene.user.airflow.url}/nightjar"
    width, height, scale = SIZES[size]
    tab.resize(width, height, scale)
    tab.open(f"{base}/runs")
    tab.evaluate(f"localStorage.setItem('theme', '{theme}')")
    for view, address in views(scene.runs).items():
        tab.open(f"{base}{address}")
        save(tab, output / f"{view.replace(' ', '-')}-{size}-{theme}.png", MOST_HEIGHT)
    tab.open(f"{scene.user.airflow.url}/plugin/nightjar-runs")
    tab.wait("document.querySelector('iframe').contentDocument.querySelectorAll('tr[data-run]').length === 4")
    save(tab, output / f"in-airflow-{size}-{theme}.png")


def save(tab: Browser, file: Path, most_height: int | None = None) -> None:
    """Write one picture and print its name."""
    time.sleep(0.3)  # the fonts and the theme are there
    tab.picture(file, most_height)
    sys.stdout.write(f"{file}\n")


if __name__ == "__main__":
    sys.exit(main())
