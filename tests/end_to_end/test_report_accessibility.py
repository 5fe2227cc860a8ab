"""A report in a real browser: what eyes, keyboards, phones and screen readers need."""

import numpy as np
import pytest
from browsing import DESK, PHONE, active, ask, keys, screenshot, show


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
