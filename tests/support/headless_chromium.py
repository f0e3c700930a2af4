"""A browser without a window, driven through the DevTools protocol over two pipes: no port, no further package."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# WebGL in software, for machines without a graphics card.
FLAGS = (
    "--headless --no-sandbox --disable-gpu-sandbox --use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader "
    "--remote-debugging-pipe --no-first-run --disable-background-networking --disable-dev-shm-usage --hide-scrollbars"
)
PATIENCE_S = 60


def find_chromium() -> str | None:
    """The program, if this machine has one."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Page:
    """One page in a browser of its own; everything that it logs, throws or asks for is kept.

    Attributes:
        complaints: errors and warnings of the console, exceptions, violations of the page's policy.
        requests: addresses that it asked for.
    """

    def __init__(self, program: str, *, width: int = 1100, height: int = 900, dark: bool = False) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._number, self._buffer = 0, b""
        (read_commands, self._write), (self._read, write_answers) = os.pipe(), os.pipe()

        def hand_over() -> None:
            # The browser reads commands from 3 and answers on 4. Copies first: either number may be one of ours.
            commands, answers = os.dup(read_commands), os.dup(write_answers)
            commands, answers = os.dup(commands), os.dup(answers)
            os.dup2(commands, 3)
            os.dup2(answers, 4)

        # Chromium refuses to start where the path of its socket exceeds 107 characters, as a test's own folder may.
        self._profile = tempfile.TemporaryDirectory(prefix="page-", ignore_cleanup_errors=True)
        self._process = subprocess.Popen(
            [program, *FLAGS.split(), f"--user-data-dir={self._profile.name}", "about:blank"],
            close_fds=False,
            # Killed, it leaves its temporary files behind: in the profile they are removed with it.
            env={**os.environ, "TMPDIR": self._profile.name},
            preexec_fn=hand_over,
            start_new_session=True,
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        os.close(read_commands)
        os.close(write_answers)
        target = self._send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._write)
        os.close(self._read)
        self._profile.cleanup()

    def open(self, path: Path) -> None:
        """Load a file and wait until it is there."""
        self.send("Page.navigate", url=path.as_uri())
        self.wait_for(f"document.readyState === 'complete' && location.href === {json.dumps(path.as_uri())}")

    def evaluate(self, expression: str) -> object:
        """The value of an expression in the page; a promise is waited for."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise AssertionError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Until an expression is true."""
        end = time.monotonic() + PATIENCE_S
        while not self.evaluate(condition):
            if time.monotonic() > end:
                raise AssertionError(f"not true after {PATIENCE_S} s: {condition}; {self.complaints}")
            time.sleep(0.05)

    def press(self, key: str, code: int) -> None:
        """A key, where the focus is."""
        about = {"key": key, "code": key, "windowsVirtualKeyCode": code, "text": "\r" if key == "Enter" else ""}
        self.send("Input.dispatchKeyEvent", type="keyDown", **about)
        self.send("Input.dispatchKeyEvent", type="keyUp", **about)

    def screenshot(self, path: Path, selector: str | None = None) -> Path:
        """A picture of what is shown, or of one element."""
        more: dict[str, object] = {}
        if selector is not None:
            box = f"document.querySelector({json.dumps(selector)}).getBoundingClientRect()"
            x, y, w, h = self.evaluate(f"(b => [b.x + scrollX, b.y + scrollY, b.width, b.height])({box})")
            more = {"clip": {"x": x, "y": y, "width": w, "height": h, "scale": 1}, "captureBeyondViewport": True}
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png", **more)["data"]))
        return path

    def send(self, method: str, **parameters: object) -> dict:
        """A command to the page."""
        return self._send(method, session=self._session, **parameters)

    def _send(self, method: str, *, session: str | None = None, **parameters: object) -> dict:
        self._number += 1
        command = {"id": self._number, "method": method, "params": parameters}
        os.write(self._write, json.dumps(command | ({"sessionId": session} if session else {})).encode() + b"\0")
        while True:
            message = self._next()
            if message.get("id") == self._number:
                if "error" in message:
                    raise AssertionError(f"{method}: {message['error']}")
                return message["result"]
            self._note(message)

    def _next(self) -> dict:
        while b"\0" not in self._buffer:
            if not select.select([self._read], [], [], PATIENCE_S)[0]:
                raise AssertionError(f"the browser said nothing for {PATIENCE_S} s")
            piece = os.read(self._read, 1 << 20)
            if not piece:
                raise AssertionError("the browser ended")
            self._buffer += piece
        first, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(first)

    def _note(self, message: dict) -> None:
        method, what = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(what["exceptionDetails"])[:500])
        elif method == "Runtime.consoleAPICalled" and what["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(what["args"])[:500])
        elif method == "Log.entryAdded" and what["entry"]["level"] in ("error", "warning"):
            self.complaints.append(what["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(what["request"]["url"])
