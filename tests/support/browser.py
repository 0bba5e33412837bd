"""A headless Chromium, and a page as a person sees and uses it."""

import contextlib
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PHONE, DESK = (390, 844), (1280, 900)
_WAIT = 60  # seconds, on a machine that is busy


def missing() -> str:
    """What is to be installed before a browser can be driven; nothing if all is there."""
    try:
        import selenium  # noqa: F401
    except ImportError:
        return 'pip install selenium, or ".[dev]"'
    if not (_chromium() and shutil.which("chromedriver")):
        return "apt-get install chromium chromium-driver"
    return ""


def _chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if (found := shutil.which(name))), None)


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """selenium's driver of a browser that is closed at the end."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = _chromium() or ""
    # Root has no sandbox, and containers little of /dev/shm.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


class Page:
    """The page of a service, open in a browser."""

    def __init__(
        self, driver: Any, address: str, size: tuple[int, int] = DESK, *, dark: bool = False
    ) -> None:
        self.driver, self.address = driver, address
        driver.get_log("browser")  # what an earlier page has said
        width, height = size
        phone = width < 600
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        still = {"name": "prefers-reduced-motion", "value": "reduce"}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme, still]})
        driver.get("about:blank")  # a fragment alone would not load it anew
        driver.get(address)

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements("css selector", selector)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def wait(self, script: str, *arguments: Any) -> Any:
        """What an expression of JavaScript gives, once it is true."""
        from selenium.webdriver.support.ui import WebDriverWait

        said = f"`{script}` did not come true; the page says:\n"
        try:
            return WebDriverWait(self.driver, _WAIT, 0.05).until(
                lambda driver: driver.execute_script(f"return {script}", *arguments)
            )
        except Exception as error:
            raise AssertionError(said + self.find("body").text) from error

    def press(self, *keys: str) -> None:
        """Keys to whatever has the focus."""
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def focus(self) -> Any:
        return self.driver.switch_to.active_element

    def choose(self, *files: Path | str, where: str = "files") -> None:
        """Files in the dialog that a file field opens."""
        self.find(f"#{where}").send_keys("\n".join(map(str, files)))

    def drop(self, event: str, address: str, name: str, kind: str = "image/webp") -> None:
        """A file of the service as it is dropped ("drop") or pasted ("paste")."""
        self.driver.execute_async_script(
            """const [event, address, name, type, done] = arguments;
            fetch(address).then(answer => answer.blob()).then(blob => {
              const data = new DataTransfer();
              data.items.add(new File([blob], name, { type }));
              const options = { bubbles: true, cancelable: true };
              document.body.dispatchEvent(event === "drop"
                ? new DragEvent(event, { ...options, dataTransfer: data })
                : new ClipboardEvent(event, { ...options, clipboardData: data }));
              done();
            });""",
            event,
            address,
            name,
            kind,
        )

    def bars(self, card: int = 0) -> list[tuple[str, float, str, float]]:
        """Of an image: label, logit, percentage, and how much of its track each bar takes."""
        return [
            (label, float(logit.replace("\N{MINUS SIGN}", "-")), percent, width)
            for label, logit, percent, width in self.run(
                """return [...document.querySelectorAll(".card")][arguments[0]]
                ?.querySelectorAll(".bars li").values().map(item => [
                  item.querySelector(".name").textContent,
                  item.querySelector(".logit").lastElementChild.textContent,
                  item.querySelector(".percent").textContent,
                  item.querySelector(".track i").getBoundingClientRect().width
                    / item.querySelector(".track").getBoundingClientRect().width,
                ]).toArray() ?? []""",
                card,
            )
        ]

    def settled(self, *labels: str, cards: int = 1) -> None:
        """Waits until all images have bars of these labels, in any order."""
        self.wait(
            """(() => { const cards = [...document.querySelectorAll(".card")];
            return cards.length === arguments[1] && cards.every(card =>
              card.getAttribute("aria-busy") === "false" &&
              [...card.querySelectorAll(".name")].map(name => name.textContent).sort().join("\\n")
                === arguments[0].toSorted().join("\\n")) })()""",
            list(labels),
            cards,
        )

    def complaints(self) -> list[str]:
        """What the browser's console says, as it does of what a policy refuses."""
        return [entry["message"] for entry in self.driver.get_log("browser")]


def contrast(first: str, second: str) -> float:
    """Of two opaque colours as CSS gives them, from 1 to 21, by WCAG's formula.

    >>> round(contrast("rgb(0, 0, 0)", "rgb(255, 255, 255)"))
    21
    """

    def luminance(colour: str) -> float:
        parts = colour[colour.index("(") + 1 : -1].split(",")
        levels = [float(part) / 255 for part in parts[:3]]
        linear = [
            level / 12.92 if level <= 0.03928 else math.pow((level + 0.055) / 1.055, 2.4)
            for level in levels
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)
