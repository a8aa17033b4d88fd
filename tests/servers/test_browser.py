"""The examples with a web page, in a browser."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from examples.web import EXAMPLES, running
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from .server import SOON, Server

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
SCREENSHOTS = os.environ.get("WIPPY_QUEUE_SCREENSHOTS")
"""A folder for pictures of the pages, as those in ``docs/_static``."""

pytestmark = [
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromium-driver"),
    # Selenium leaves the sockets that it is done with to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--force-prefers-reduced-motion",
    "--hide-scrollbars",
    "--window-size=1000,900",
)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """Start a browser with an empty profile."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for argument in (*ARGUMENTS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(argument)
    # What a script of a page prints as an error is looked at by `page`.
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


class Page:
    """The page in the browser."""

    def __init__(self, driver: webdriver.Chrome, server: Server, example: str) -> None:
        self.driver = driver
        self.server = server
        self.example = example

    def open(self, path: str = "") -> None:
        """Load a page."""
        self.driver.get(f"http://127.0.0.1:{self.server.port}/{path}")

    def one(self, selector: str, *, under: WebElement | None = None) -> WebElement:
        """Return the first such element."""
        return (under or self.driver).find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        """Return all such elements."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def wait(self, happened: Callable[[], object]) -> None:
        """Wait until something is so."""
        WebDriverWait(self.driver, 2 * SOON, poll_frequency=0.05).until(
            lambda _: happened(), f"{self.driver.page_source}\n{self.server.output}"
        )

    def counts(self) -> tuple[str, str, str]:
        """Return what is done, stored and rejected, as it is shown."""
        percent, stored, rejected = (
            self.one(f"#{each}").text for each in ("percent", "stored", "rejected")
        )
        return percent, stored, rejected

    def letter(self, line: int) -> WebElement:
        """Return the rejected row of a line."""
        [found] = [
            each
            for each in self.all(".letter")
            if self.one(".line", under=each).text == f"Line {line}"
        ]
        return found

    def upload(self, file: Path) -> None:
        """Upload a file by the form, and wait for its page."""
        self.open()
        self.one("input[type=file]").send_keys(str(file))
        self.one("button.primary").click()
        self.wait(lambda: self.all("#progress"))

    def picture(self, name: str) -> None:
        """Keep a picture of the page."""
        if SCREENSHOTS:
            theme = "dark" if self.example == "django_import" else "light"
            features = [{"name": "prefers-color-scheme", "value": theme}]
            self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
            path = Path(SCREENSHOTS, f"{self.example.removesuffix('_import')}-{name}.png")
            self.driver.save_screenshot(path)

    def has_no_error(self) -> bool:
        """Return whether no script failed; answers that say so are part of some tests."""
        return not [
            each for each in self.driver.get_log("browser") if each["source"] == "javascript"
        ]


@pytest.fixture(params=["flask_import", "django_import"])
def page(
    request: pytest.FixtureRequest, chromium: webdriver.Chrome, tmp_path: Path
) -> Iterator[Page]:
    """Give the browser, and a server that runs an example."""
    with running(request.param, tmp_path) as site:
        page = Page(chromium, site.server, request.param)
        yield page
        chromium.get("about:blank")
        assert page.has_no_error()
        assert not site.server.find("Traceback"), site.server.output


def sample(page: Page) -> Path:
    """Return the sample of an example, which has 400 rows, 6 of them wrong."""
    return EXAMPLES / page.example / "bookshop" / "static" / "books.csv"


def test_it_shows_its_progress(page: Page) -> None:
    """The page of an upload counts up by itself, from less than all to all rows."""
    page.open()
    page.picture("upload")
    page.upload(sample(page))
    page.wait(lambda: re.fullmatch(r"[3-7]\d %", page.one("#percent").text))
    page.picture("progress")
    assert page.one("#status").text == "Importing…"
    assert page.one("#stalled").is_displayed() is False
    page.wait(lambda: page.counts() == ("100 %", "394", "6"))
    assert page.one("#status").text == "Done, with rejected rows"
    assert page.one("[role=progressbar]").get_attribute("aria-valuenow") == "100"
    page.open()
    assert [each.text for each in page.all(".uploads span")] == ["394 of 400 stored"]


def test_rejected_rows_are_corrected_and_replayed(page: Page) -> None:
    """A correction is stored, a replay is rejected again, and what is being written stays."""
    page.upload(sample(page))
    page.wait(lambda: page.counts() == ("100 %", "394", "6"))
    page.picture("rejected")
    letter = page.letter(59)
    assert page.one(".text", under=letter).text == "price: must be an amount such as 12.50"
    price = page.one("[name=price]", under=letter)
    assert (price.get_attribute("value"), price.get_attribute("aria-invalid")) == ("twelve", "true")
    price.clear()
    price.send_keys("12.00")

    other = page.letter(122)
    page.one("[value=replay]", under=other).click()
    page.wait(lambda: other not in page.all(".letter") and len(page.all(".letter")) == 6)
    page.wait(lambda: page.counts() == ("100 %", "394", "6"))
    assert page.one(".text", under=page.letter(122)).text == "title: is missing"

    assert price.get_attribute("value") == "12.00"
    price.send_keys(Keys.ENTER)
    page.wait(lambda: page.counts() == ("100 %", "395", "5"))
    assert len(page.all(".letter")) == 5

    page.one("#letters .headline button").click()
    page.wait(lambda: page.counts()[1:] == ("395", "5") and len(page.all(".letter")) == 5)


def test_what_is_no_list_of_books_is_refused(page: Page, tmp_path: Path) -> None:
    """The form says what is wrong with a file."""
    (tmp_path / "people.csv").write_text("name,isbn\nAda,1\n")
    page.open()
    page.one("input[type=file]").send_keys(str(tmp_path / "people.csv"))
    assert page.one("#chosen").text == "people.csv"
    page.one("button.primary").click()
    page.wait(lambda: page.all("[role=alert]"))
    assert page.one("[role=alert]").text == "The first line names no column title, price, stock."


def test_a_restart_is_survived(page: Page, tmp_path: Path) -> None:
    """What the memory driver has lost with its process is imported again from the page."""
    page.upload(sample(page))
    page.wait(lambda: page.counts()[0] != "0 %")
    page.server.process.kill()
    page.wait(lambda: page.one("#status").text == "The server does not answer. Trying again…")
    with running(page.example, tmp_path, page.server.port) as again:
        page.wait(lambda: page.one("#stalled").is_displayed())
        page.one("#stalled button").click()
        page.wait(lambda: page.counts() == ("100 %", "394", "6"))
        assert not again.server.find("Traceback"), again.server.output
