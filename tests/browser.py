"""A headless Chromium for tests of pages: Debian's, driven through Selenium."""

import base64
import contextlib
import json
import os
import pathlib
import shutil
import tempfile
import urllib.parse

import pytest
from selenium import webdriver

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if os.environ.get("REQUIRE_CHROMIUM"):  # as .ci/run does: there a skipped test is a failed one
    assert CHROMIUM, "REQUIRE_CHROMIUM is set, but there is no chromium"
    assert DRIVER, "REQUIRE_CHROMIUM is set, but there is no chromedriver"
needs_chromium = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="no chromium and chromedriver; on Debian: apt-get install chromium chromium-driver",
)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Of each element that has text of its own: what it is, its color, and what it stands on.
_COLORS = """
const found = [];
for (const one of document.querySelectorAll("body *")) {
  const own = [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  if (!own || !one.checkVisibility() || one.closest("script, style, noscript, select")) continue;
  const layers = [];
  for (let under = one; under; under = under.parentElement)
    layers.push(getComputedStyle(under).backgroundColor);
  found.push([one.outerHTML.slice(0, 80), getComputedStyle(one).color, layers]);
}
const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
canvas.canvas.width = canvas.canvas.height = 1;
return found.map(([name, color, layers]) => {
  const seen = [];
  for (const top of [null, color]) {
    canvas.fillStyle = "white";
    canvas.fillRect(0, 0, 1, 1);
    for (const layer of [...layers].reverse().concat(top ? [top] : [])) {
      canvas.fillStyle = layer;
      canvas.fillRect(0, 0, 1, 1);
    }
    seen.push([...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3));
  }
  return [name, ...seen];
});
"""


class Browser:
    """A browser with one page; `driver` is Selenium's."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, url):
        """Opens a page anew, even if only what stands after # differs."""
        self.driver.get("about:blank")
        self.driver.get(url)

    def prefer(self, scheme):
        """Asks for "light" or "dark"."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def resize(self, width, height=900):
        """Sets the size of the window, in CSS pixels; narrower than Chromium's windows may be."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def picture(self, path):
        """Writes the whole page as a .png file."""
        how = {"format": "png", "captureBeyondViewport": True}
        data = self.driver.execute_cdp_cmd("Page.captureScreenshot", how)["data"]
        pathlib.Path(path).write_bytes(base64.b64decode(data))

    def errors(self):
        """Returns what the page has logged as an error since the last call."""
        return [
            one["message"] for one in self.driver.get_log("browser") if one["level"] == "SEVERE"
        ]

    def origins(self):
        """Returns where requests went since the last call: scheme://host:port.

        Chromium's own pages and what stands in the page itself (data:) are no requests.
        """
        urls = []
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                urls.append(urllib.parse.urlsplit(message["params"]["request"]["url"]))
            elif message["method"] == "Network.webSocketCreated":
                urls.append(urllib.parse.urlsplit(message["params"]["url"]))
        ours = ("chrome", "data", "about", "file", "blob")
        return {f"{one.scheme}://{one.netloc}" for one in urls if one.scheme not in ours}

    def is_wider_than_the_window(self):
        """Returns whether there is something to scroll to at the right."""
        return self.driver.execute_script(
            "return document.documentElement.scrollWidth > document.documentElement.clientWidth"
        )

    def contrasts(self):
        """Returns the contrast of each text with what it stands on, 1 to 21, as WCAG 2 has it."""
        return {name: _contrast(*colors) for name, *colors in self.driver.execute_script(_COLORS)}


def _contrast(background, text):
    light, dark = sorted(map(_luminance, (background, text)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(color):
    parts = [value / 255 for value in color]
    parts = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
    return sum(share * part for share, part in zip((0.2126, 0.7152, 0.0722), parts))


@contextlib.contextmanager
def open_browser():
    """Starts a browser that knows nothing of earlier ones."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with tempfile.TemporaryDirectory() as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
        try:
            yield Browser(driver)
        finally:
            driver.quit()
