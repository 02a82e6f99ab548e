"""Chromium in tests, by its DevTools protocol: open pages, run scripts in them, see errors and requests."""

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from websockets.sync.client import ClientConnection, connect

from infra.direct import OPENER
from tests.support.waiting import PATIENCE_SECONDS, until

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


_TEXTS = """[document, ...[...document.querySelectorAll('iframe')].map((each) => each.contentDocument)]
    .map((each) => [each?.location.href, each?.body?.innerText])"""
"""An expression: the addresses and texts of a page and of its frames."""


@dataclass
class Browser:
    """A tab of a headless Chromium, with the requests and the errors of its pages so far."""

    connection: ClientConnection
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    _number: int = 0

    def command(self, method: str, **params: Any) -> Any:
        """Send a command and return its result."""
        self._number += 1
        self.connection.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            message = json.loads(self.connection.recv(timeout=PATIENCE_SECONDS))
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]
            self._note(message)

    def _note(self, message: Any) -> None:
        method, params = message.get("method"), message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.errors.append(str(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
            self.errors.append(f"{params.get('stackTrace', {}).get('callFrames')}: {params['args']}")
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(f"{params['entry'].get('url')}: {params['entry']['text']}")

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression in the page."""
        found = self.command("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, expression: str, seconds: float = PATIENCE_SECONDS) -> Any:
        """Wait until an expression has a value that counts as true, and return it."""
        deadline = time.monotonic() + seconds
        while not (value := self.evaluate(f"(() => {{ try {{ return {expression} }} catch {{ return null }} }})()")):
            assert time.monotonic() < deadline, (expression, self.evaluate(_TEXTS), self.requests[-5:])
            time.sleep(0.2)
        return value

    def open(self, url: str) -> None:
        """Open a page and wait until it is loaded."""
        self.evaluate("window.isLeft = true")
        self.command("Page.navigate", url=url)
        self.wait("!window.isLeft && document.readyState === 'complete'")

    def log_in(self, url: str, token: str) -> None:
        """Set the cookie that Airflow's login sets."""
        self.command("Network.setCookie", name="_token", value=token, url=url, httpOnly=True, sameSite="Lax")

    def resize(self, width: int, height: int, scale: float = 1) -> None:
        """Set the size of the window, and how many pixels of the screen one of the page has."""
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )

    def picture(self, file: Path, most_height: int | None = None) -> None:
        """Write a picture of the window; with `most_height`, of the page down to there. The suffix names the format."""
        options: dict[str, Any] = {"format": file.suffix[1:]}
        if most_height is not None:
            width, height = self.evaluate("[innerWidth, document.documentElement.scrollHeight]")
            clip = {"x": 0, "y": 0, "width": width, "height": min(height, most_height), "scale": 1}
            options |= {"captureBeyondViewport": True, "clip": clip}
        file.write_bytes(base64.b64decode(self.command("Page.captureScreenshot", **options)["data"]))

    def hosts(self) -> set[str]:
        """Return the hosts that pages have sent requests to."""
        addresses = (urlsplit(each) for each in self.requests)
        return {each.hostname or "" for each in addresses if each.scheme not in ("data", "blob", "about")}


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Run a headless Chromium with a profile of its own."""
    assert CHROMIUM is not None
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--no-first-run",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", f"--user-data-dir={profile}", "about:blank",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            port = _port_of(profile / "DevToolsActivePort")
            with OPENER.open(f"http://127.0.0.1:{port}/json") as answer:
                target = next(each for each in json.load(answer) if each["type"] == "page")
            with connect(target["webSocketDebuggerUrl"], max_size=None, proxy=None) as connection:
                tab = Browser(connection)
                for domain in ("Page", "Network", "Runtime", "Log"):
                    tab.command(f"{domain}.enable")
                yield tab
        finally:
            process.terminate()


def _port_of(file: Path) -> int:
    until(lambda: file.exists() and file.read_text().strip(), what="Chromium has started")
    return int(file.read_text().splitlines()[0])
