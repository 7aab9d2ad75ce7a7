"""A real browser without a window: Debian's Chromium through its driver, by selenium."""

import contextlib
import json
import shutil
import time
from pathlib import Path

#: What installs it.
INSTALL = "apt-get install chromium chromium-driver; pip install selenium"


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
        try:
            from selenium import webdriver
            from selenium.webdriver.chrome.service import Service
        except ImportError:
            raise NoBrowser(f"no selenium here: {INSTALL}") from None
        program, chromium = shutil.which("chromedriver"), shutil.which("chromium")
        if program is None or chromium is None:
            raise NoBrowser(f"no chromium with its driver here: {INSTALL}")
        self.downloads = folder / "downloads"
        self.downloads.mkdir(parents=True)
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        for argument in (
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1400,1000"),
            *("--disable-dev-shm-usage", "--no-first-run", f"--user-data-dir={folder / 'profile'}"),
            "--enable-unsafe-swiftshader" if has_webgl else "--disable-3d-apis",
        ):
            options.add_argument(argument)
        prefs = {
            "download.default_directory": str(self.downloads),
            "download.prompt_for_download": False,
            "profile.default_content_setting_values.automatic_downloads": 1,
        }
        options.add_experimental_option("prefs", prefs)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self._driver = webdriver.Chrome(options=options, service=Service(program))

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._driver.quit()

    def open(self, path: Path) -> None:
        """Open a file of the disk."""
        self._driver.get(path.as_uri())

    def run(self, script: str, *arguments):
        """Run a script of the test in the page, and return its value."""
        return self._driver.execute_script(script, *arguments)

    def wait(self, script: str, timeout_s: float = 20.0) -> None:
        """Wait until a script gives true."""
        until = time.monotonic() + timeout_s
        while not self.run(script):
            assert time.monotonic() < until, f"never true: {script}"
            time.sleep(0.05)

    def devtools(self, command: str, **parameters):
        """Give a command of the DevTools protocol."""
        return self._driver.execute_cdp_cmd(command, parameters)

    def size(self, width: int, height: int, *, scale: float = 1.0) -> None:
        """Make the window so large, in CSS pixels, on a screen with `scale` pixels to each."""
        screen = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 600}
        self.devtools("Emulation.setDeviceMetricsOverride", **screen)

    def scheme(self, name: str) -> None:
        """Have the user prefer ``light`` or ``dark``."""
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def click(self, selector: str) -> None:
        """Click an element as a person does."""
        self._driver.find_element("css selector", selector).click()

    def press(self, *keys: str) -> None:
        """Press keys, one after the other."""
        from selenium.webdriver import ActionChains

        ActionChains(self._driver, duration=0).send_keys(*keys).perform()

    def point(self, x: int, y: int) -> None:
        """Move the pointer, in pixels of the window."""
        from selenium.webdriver.common.actions.action_builder import ActionBuilder

        moved = ActionBuilder(self._driver, duration=0)
        moved.pointer_action.move_to_location(x, y)
        moved.perform()

    def picture(self, path: Path) -> Path:
        """Save what is seen."""
        path.write_bytes(self._driver.get_screenshot_as_png())
        return path

    def complaints(self) -> list[str]:
        """Return what the console has said since the last time: errors, and what the policy forbade.

        How fast the driver of WebGL is does not count: here it is software.
        """
        said = [entry["message"] for entry in self._driver.get_log("browser")]
        return [line for line in said if "GL Driver Message (OpenGL, Performance" not in line]

    def requests(self) -> list[str]:
        """Return what was asked for since the last time, by whatever scheme."""
        found = []
        for entry in self._driver.get_log("performance"):
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
