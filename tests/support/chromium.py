"""A headless Chromium for the tests of pages, driven over the DevTools protocol through two pipes: no driver, no port.

Protocol: https://chromedevtools.github.io/devtools-protocol/. With ``--remote-debugging-pipe`` Chromium reads JSON
messages from file descriptor 3 and writes them to 4, each ended by a zero byte.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)
WEBGL = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]

ANSWER_SECONDS = 400
"""Longest wait for an answer: drawing in software takes a minute where many processes share a core."""


class Chromium:
    """One browser with one page."""

    def __init__(self, *options: str, width: int = 1500, height: int = 1100) -> None:
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        to_child, self._out = os.pipe()
        self._in, from_child = os.pipe()
        command = [
            CHROMIUM, "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-dev-shm-usage",
            "--no-first-run", "--disable-extensions", "--disable-background-networking",
            "--force-device-scale-factor=1",
            f"--user-data-dir={self._profile.name}", f"--window-size={width},{height}", *options, "about:blank",
        ]  # fmt: skip
        # The child needs the pipes as descriptors 3 and 4; a shell moves them there and becomes the browser.
        script = f'exec "$@" 3<&{to_child} 4>&{from_child}'
        self._process = subprocess.Popen(
            ["bash", "-c", script, "chromium", *command],
            pass_fds=(to_child, from_child),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_child)
        os.close(from_child)
        self._buffer, self._count = b"", 0
        self.console: list[str] = []
        self._session = ""
        target = next(
            one for one in self._call("Target.getTargets")["targetInfos"] if one["type"] == "page"
        )["targetId"]  # fmt: skip
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def open(self, page: Path, seconds: float = 900) -> None:
        """Load a file and wait until its script says that it is ready."""
        self._call("Page.navigate", url=page.resolve().as_uri())
        self.wait("document.body && document.body.dataset.ready", seconds)

    def wait(self, expression: str, seconds: float = 30) -> Any:
        """The value of an expression as soon as it is true."""
        end = time.monotonic() + seconds
        while not (value := self.value(expression)):
            assert time.monotonic() < end, f"not true within {seconds} s: {expression}; console: {self.console}"
            time.sleep(0.1)
        return value

    def value(self, expression: str) -> Any:
        """Evaluate JavaScript; promises are awaited."""
        answer = self._call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def set(self, element: str, value: str) -> None:
        """Give a control a value as a user does, with its events."""
        self.value(
            f"(() => {{ const e = document.getElementById({json.dumps(element)});"
            f" if (e.type === 'checkbox') e.checked = {json.dumps(value)} === 'on'; else e.value = {json.dumps(value)};"
            " for (const t of ['input', 'change']) e.dispatchEvent(new Event(t, {bubbles: true})); })()"
        )
        self.settle()

    def settle(self) -> None:
        """Let two frames pass, so that what an event asked for is drawn."""
        self.value("new Promise((r) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(r, 50))))")

    def mouse(self, x: float, y: float, click: bool = False) -> None:
        """Move the pointer, and press its left button if asked to."""
        self._call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        for kind in ("mousePressed", "mouseReleased") if click else ():
            self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)
        self.settle()

    def screenshot(self, path: Path, whole: bool = False) -> bytes:
        """A PNG picture of the window, or of the whole page."""
        answer = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))
        return path.read_bytes()

    def errors(self) -> list[str]:
        """What the console reported as an error or a violation of the page's policy, and every request it made."""
        self.settle()
        return self.console

    def close(self) -> None:
        """End the browser."""
        try:
            self._session = ""
            self._call("Browser.close")
        except (OSError, AssertionError):
            self._process.terminate()
        self._process.wait(timeout=30)
        os.close(self._in)
        os.close(self._out)
        self._profile.cleanup()

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._count:
                assert "error" not in answer, (method, answer.get("error"))
                return answer["result"]
            self._note(answer)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], ANSWER_SECONDS)
            assert ready, "Chromium does not answer"
            more = os.read(self._in, 1 << 20)
            assert more, "Chromium has ended"
            self._buffer += more
        text, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(text)

    def _note(self, event: dict[str, Any]) -> None:
        method, params = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.console.append(json.dumps(params["exceptionDetails"])[:2000])
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.console.append(params["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
            self.console.append(json.dumps(params["args"])[:2000])
        elif method == "Network.requestWillBeSent":
            url = params["request"]["url"]
            if not url.startswith(("file:", "data:", "blob:", "about:")):
                self.console.append(f"request to {url}")
