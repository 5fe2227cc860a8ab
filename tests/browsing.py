"""Chromium, driven over a page: what is seen, said, pressed and asked for."""

import base64
import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    # Also without a swap file of shared memory, as in a container.
    "--disable-dev-shm-usage",
    # A page that still moves while it scrolls smoothly is clicked at a wrong place.
    "--force-prefers-reduced-motion",
)
PHONE, DESK = (360, 740), (1280, 900)


def open_browser(profile: Path):
    """A browser with an empty profile; without Chromium the test is skipped, or fails if it is required."""
    binary = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if not binary or not driver:
        problem = "no chromium and chromedriver on the PATH"
        if os.environ.get("SSL_BACKBONES_BROWSER") == "required":
            pytest.fail(problem)
        pytest.skip(problem)
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    # What the page asks the network for, and what it writes on the console.
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService(driver))


def show(browser, size, **features):
    width, height = size
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    media = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})


def run_scripts(browser, run):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not run})


def screenshot(browser):
    found = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(found["data"]))).convert("L"))


def ask(browser, expression):
    """The value of an expression, which the debugger evaluates even where the page may run no script."""
    arguments = {"expression": expression, "returnByValue": True}
    answer = browser.execute_cdp_cmd("Runtime.evaluate", arguments)
    assert "exceptionDetails" not in answer, answer
    return answer["result"].get("value")


def find(browser, selector):
    return browser.find_elements("css selector", selector)


def press(browser, choice):
    """Choose a filter as a person does, who clicks on its words."""
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser, duration=0).scroll_to_element(choice).click(choice).perform()
    assert choice.is_selected()


def keys(browser, *pressed):
    from selenium.webdriver.common.action_chains import ActionChains

    actions = ActionChains(browser, duration=0)
    for key in pressed:
        actions.send_keys(key)
    actions.perform()


def active(browser, expression="outerHTML"):
    return ask(browser, f"document.activeElement.{expression}")


ACCESSIBLE = {
    "a language": "document.documentElement.lang === 'en'",
    "one title": "document.querySelectorAll('h1').length === 1",
    "landmarks": "['header', 'nav', 'main', 'footer'].every(n => document.querySelector(n))",
    "headings in order": "[...document.querySelectorAll('h1, h2, h3, h4')].map(h => +h.tagName[1])"
    ".every((level, i, all) => i === 0 ? level === 1 : level <= all[i - 1] + 1)",
    "pictures in words": "[...document.images].every(i => i.alt.length > 10)",
    "plots in words": "[...document.querySelectorAll('svg:not([aria-hidden])')]"
    ".every(s => s.getAttribute('role') === 'img' && s.getAttribute('aria-label').length > 10)",
    "labels": "[...document.querySelectorAll('input')].every(i => i.labels.length === 1"
    " && i.labels[0].textContent.trim())",
    "legends": "[...document.querySelectorAll('fieldset')].every(f => f.querySelector('legend'))",
    "captions": "[...document.querySelectorAll('table')].every(t => t.caption.textContent.trim())",
    "scopes": "[...document.querySelectorAll('th')].every(h => ['col', 'row'].includes(h.scope))",
    "a head for each row": "[...document.querySelectorAll('tbody tr')].every("
    "r => r.cells[0].tagName === 'TH')",
    "as many cells as heads": "[...document.querySelectorAll('table')].every(t => !t.tHead ||"
    " [...t.rows].every(r => r.cells.length === t.tHead.rows[0].cells.length))",
    "unique ids": "(ids => new Set(ids).size === ids.length)("
    "[...document.querySelectorAll('[id]')].map(e => e.id))",
    "named sections": "[...document.querySelectorAll('[aria-labelledby]')].every("
    "e => document.getElementById(e.getAttribute('aria-labelledby')))",
    "links that lead somewhere": "[...document.querySelectorAll('a')].every("
    "a => document.querySelector(a.getAttribute('href')))",
    "named groups": "[...document.querySelectorAll('[role=group]')].every("
    "e => e.getAttribute('aria-label').trim())",
    "places to scroll have names": "[...document.querySelectorAll('div[tabindex], pre')].every("
    "e => e.getAttribute('role') === 'group' && e.tabIndex === 0)",
    "few landmarks": "!document.querySelector('[role=region]')",
    "named buttons": "[...document.querySelectorAll('button')].every(b => b.textContent.trim())",
    "targets large enough to touch": "[...document.querySelectorAll('.filters label, summary')]"
    ".every(e => !e.checkVisibility() || e.getBoundingClientRect().height >= 24)",
}
"""Expressions that are true of an accessible page, by what each is of."""
