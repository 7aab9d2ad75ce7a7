"""A real browser without a window: Debian's Chromium through its driver, whose protocol is JSON over HTTP."""

import base64
import contextlib
import json
import re
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

#: What installs it.
INSTALL = "apt-get install chromium chromium-driver"
#: How the protocol names the id of an element.
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


class NoBrowser(Exception):
    """There is none here; the text says what is missing."""


class Browser:
    """One Chromium with one page; a context manager.

    Parameters
    ----------
    folder
        For its profile, logs and downloads.
    has_webgl
        Whether pages get WebGL, by software.
    """

    def __init__(self, folder: Path, *, has_webgl: bool = True) -> None:
        driver, chromium = shutil.which("chromedriver"), shutil.which("chromium")
        if driver is None or chromium is None:
            raise NoBrowser(f"no chromium with its driver here: {INSTALL}")
        self.downloads = folder / "downloads"
        self.downloads.mkdir(parents=True)
        self._process = subprocess.Popen(
            [driver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        try:
            self._url = f"http://127.0.0.1:{self._port()}"
            self._url += f"/session/{self._begin(chromium, folder / 'profile', has_webgl=has_webgl)}"
        except BaseException:
            self._process.kill()
            raise

    def _port(self) -> int:
        for line in self._process.stdout:
            if found := re.search(r"started successfully on port (\d+)", line):
                return int(found[1])
        raise NoBrowser("chromedriver does not start")

    def _begin(self, chromium: str, profile: Path, *, has_webgl: bool) -> str:
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1400,1000"]
        arguments += ["--disable-dev-shm-usage", "--no-first-run", f"--user-data-dir={profile}"]
        arguments.append("--enable-unsafe-swiftshader" if has_webgl else "--disable-3d-apis")
        wanted = {
            "goog:chromeOptions": {
                "binary": chromium,
                "args": arguments,
                "prefs": {
                    "download.default_directory": str(self.downloads),
                    "download.prompt_for_download": False,
                    "profile.default_content_setting_values.automatic_downloads": 1,
                },
            },
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        return self._asked("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]

    def _asked(self, method: str, path: str, content: dict | None = None):
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(self._url + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            return json.loads(answer.read())["value"]

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._asked("DELETE", "")
        self._process.terminate()
        self._process.wait(10)
        self._process.stdout.close()

    def open(self, path: Path) -> None:
        """Open a file of the disk."""
        self._asked("POST", "/url", {"url": path.as_uri()})

    def run(self, script: str, *arguments):
        """Run a script of the test in the page, and return its value."""
        return self._asked("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, script: str, timeout_s: float = 20.0) -> None:
        """Wait until a script gives true."""
        until = time.monotonic() + timeout_s
        while not self.run(script):
            assert time.monotonic() < until, f"never true: {script}"
            time.sleep(0.05)

    def devtools(self, command: str, **parameters):
        """Give a command of the DevTools protocol."""
        return self._asked("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def size(self, width: int, height: int, *, scale: float = 1.0) -> None:
        """Make the window so large, in CSS pixels, on a screen with `scale` pixels to each."""
        screen = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 600}
        self.devtools("Emulation.setDeviceMetricsOverride", **screen)

    def scheme(self, name: str) -> None:
        """Have the user prefer ``light`` or ``dark``."""
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def click(self, selector: str) -> None:
        """Click an element as a person does."""
        found = self._asked("POST", "/element", {"using": "css selector", "value": selector})
        self._asked("POST", f"/element/{found[_ELEMENT]}/click", {})

    def press(self, *keys: str) -> None:
        """Press keys, one after the other."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._asked("POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def point(self, x: int, y: int) -> None:
        """Move the pointer, in pixels of the window."""
        move = {"type": "pointerMove", "x": x, "y": y, "duration": 0}
        self._asked("POST", "/actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": [move]}]})

    def picture(self, path: Path) -> Path:
        """Save what is seen."""
        path.write_bytes(base64.b64decode(self._asked("GET", "/screenshot")))
        return path

    def complaints(self) -> list[str]:
        """Return what the console has said since the last time: errors, and what the policy forbade.

        How fast the driver of WebGL is does not count: here it is software.
        """
        said = [entry["message"] for entry in self._asked("POST", "/se/log", {"type": "browser"})]
        return [line for line in said if "GL Driver Message (OpenGL, Performance" not in line]

    def requests(self) -> list[str]:
        """Return what was asked for since the last time, by whatever scheme."""
        found = []
        for entry in self._asked("POST", "/se/log", {"type": "performance"}):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                found.append(message["params"]["request"]["url"])
        return found

    def downloaded(self, name: str, timeout_s: float = 20.0) -> Path:
        """Return a file that was downloaded."""
        until = time.monotonic() + timeout_s
        while not (self.downloads / name).is_file():
            assert time.monotonic() < until, f"{name} was not downloaded: {list(self.downloads.iterdir())}"
            time.sleep(0.1)
        return self.downloads / name
