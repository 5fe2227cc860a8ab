"""A report in a real browser: what eyes, keyboards, phones and screen readers need."""

import numpy as np
import pytest
from browsing import ACCESSIBLE, DESK, PHONE, active, ask, keys, screenshot, show


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_light_and_dark_are_readable(browser, page, size):
    """Text, and lines of plots, stand out from what is behind them; the shades are those asked for."""
    shades = {}
    for scheme in ("light", "dark"):
        show(browser, size, prefers_color_scheme=scheme)
        ask(browser, "document.querySelector('#curves').scrollIntoView()")
        pixels = screenshot(browser)
        shades[scheme] = np.median(pixels)
        # Curves, axes and words, and not a single shade.
        assert pixels.shape == size[::-1] and pixels.std() > 8
        assert [contrast for contrast in contrasts(browser) if contrast[0] < 4.5] == []
    assert shades["light"] > 235 and shades["dark"] < 40


CONTRASTS = """
(() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return canvas.getImageData(0, 0, 1, 1).data;
  };
  const luminance = (colour) => {
    const [r, g, b] = [...rgba(colour)].map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (rgba(colour)[3] === 255) return colour;
    }
    return 'white';
  };
  const found = [];
  for (const e of document.querySelectorAll('body *')) {
    const words = [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
    if (!words || !e.checkVisibility() || ['SCRIPT', 'STYLE'].includes(e.tagName)) continue;
    const style = getComputedStyle(e);
    const shade = e instanceof SVGElement ? style.fill : style.color;
    const pair = [luminance(shade), luminance(behind(e))].sort((a, b) => b - a);
    found.push([(pair[0] + 0.05) / (pair[1] + 0.05), e.tagName, e.textContent.trim().slice(0, 40)]);
  }
  return found;
})()
"""


def contrasts(browser):
    """WCAG's contrast ratio of every visible text to what is behind it."""
    found = ask(browser, CONTRASTS)
    assert len(found) > 300
    return found


def test_a_phone_shows_it_without_scrolling_sideways(browser, page):
    show(browser, PHONE)
    ask(browser, "document.querySelectorAll('details').forEach(d => d.open = true)")
    widths = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    assert len(set(ask(browser, widths))) == 1
    # The verdict is read from above: the run, its AP, the difference.
    row = ask(
        browser,
        "[...document.querySelectorAll('.verdict tbody tr')[1].children]"
        ".map(e => Math.round(e.getBoundingClientRect().left))",
    )
    assert len(set(row)) == 1


def test_the_keyboard_reaches_everything_and_its_place_is_seen(page):
    from selenium.webdriver.common.keys import Keys

    keys(page, Keys.TAB)
    assert active(page, "className") == "skip"
    assert ask(page, "document.activeElement.getBoundingClientRect().top") >= 0
    keys(page, Keys.ENTER)
    assert active(page, "id") == "main"
    reached = set()
    for _ in range(150):
        keys(page, Keys.TAB)
        reached.add(active(page, "tagName"))
        outline = ask(
            page,
            "(e => getComputedStyle(e.matches('.filters input') ? e.nextElementSibling : e)"
            ".outlineStyle)(document.activeElement)",
        )
        if active(page, "tagName") == "BODY":
            break
        assert outline == "solid", active(page)
    assert reached >= {"BUTTON", "SUMMARY", "INPUT", "DIV"}


@pytest.mark.parametrize("rule", ACCESSIBLE)
def test_accessibility(page, rule):
    assert ask(page, ACCESSIBLE[rule]) is True


def test_the_checks_of_accessibility_notice_what_is_amiss(page):
    """Each rule fails on a page in which just that is spoilt."""
    spoilt = {
        "a language": "document.documentElement.lang = ''",
        "one title": "document.querySelector('h1').remove()",
        "headings in order": "document.querySelector('h2').outerHTML = '<h4>x</h4>'",
        "pictures in words": "document.images[0].alt = ''",
        "labels": "document.querySelector('label').replaceWith(...document.querySelector('label')"
        ".childNodes)",
        "captions": "document.querySelector('caption').textContent = ''",
        "scopes": "document.querySelector('th').removeAttribute('scope')",
        "as many cells as heads": "document.querySelector('td').remove()",
        "named groups": "document.querySelector('[role=group]').setAttribute('aria-label', '')",
        "places to scroll have names": "document.querySelector('pre').removeAttribute('role')",
        "few landmarks": "document.querySelector('[role=group]').setAttribute('role', 'region')",
        "unique ids": "document.querySelector('h2').id = 'curves'",
    }
    for rule, harm in spoilt.items():
        page.get(page.current_url)
        assert ask(page, ACCESSIBLE[rule]) is True
        ask(page, f"void ({harm})")
        assert ask(page, ACCESSIBLE[rule]) is False, rule
