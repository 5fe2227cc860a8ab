"""A report in a real browser: nothing is loaded or run that should not be, and sorting and filters work."""

import base64
import json

import pytest
from browsing import active, ask, find, keys, press, run_scripts
from small_report import CLASSES, SCRIPT, write_run

from ssl_backbones.report.comparing.building import build
from ssl_backbones.report.page.html_page import format_page


def names(browser):
    """Of the images that can be seen."""
    return ask(
        browser,
        "[...document.querySelectorAll('.example')].filter(e => e.checkVisibility())"
        ".map(e => e.querySelector('strong').textContent)",
    )


def examples_with(browser, tag):
    return ask(
        browser,
        f"[...document.querySelectorAll('.example.{tag}')]"
        ".map(e => e.querySelector('strong').textContent)",
    )


def test_it_opens_without_a_word_on_the_console_and_asks_no_network(page):
    assert page.get_log("browser") == []
    events = [json.loads(e["message"])["message"] for e in page.get_log("performance")]
    asked = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert asked and all(url.startswith(("file:", "data:")) for url in asked)
    assert [url for url in asked if url.startswith("file:")] == [page.current_url]


def test_the_report_of_a_real_run(page, digits, tmp_path):
    run, other = write_run(tmp_path / "run", digits), write_run(tmp_path / "other", digits, 0.82)
    (tmp_path / "crashed").mkdir()
    report = build([run, other, tmp_path / "crashed"], resamples=50)
    (tmp_path / "page.html").write_text(format_page(report, num_pictures=1))
    page.get((tmp_path / "page.html").as_uri())
    assert page.get_log("browser") == []
    (verdict,) = find(page, "#verdict")
    assert "to say whether box AP of other and run differs: −30.0 points" in verdict.text
    assert "crashed has no box AP to compare." in verdict.text
    for selector in ("#curves .panel svg", "#recall .panel svg", ".example img"):
        assert find(page, selector)[0].size["height"] > 60
    assert "no learning curves" in find(page, "#curves .problem")[0].text


def test_names_that_are_scripts_are_shown_and_not_run(page):
    assert page.title == f"run 0, run {SCRIPT} – report"
    assert page.execute_script("return document.scripts.length") == 1
    text = page.execute_script("return document.body.innerText")
    assert text.count(SCRIPT) > 10
    # A script that got past the escaping would be stopped all the same.
    page.execute_script(
        "const script = document.createElement('script'); script.textContent = 'document.title = 1';"
        "document.body.append(script)"
    )
    assert page.title.startswith("run 0")
    assert "Content Security Policy" in page.get_log("browser")[0]["message"]


def test_the_verdict_the_curves_and_the_pictures_are_seen(page):
    (verdict,) = find(page, "#verdict")
    assert "53.9" in verdict.text and "−1.9 to +0.4" in verdict.text
    assert "no difference shown" in verdict.text
    for selector in (
        "#curves .panel svg",
        "#recall .panel svg",
        "#errors .panel svg",
        ".example img",
    ):
        sizes = [element.size for element in find(page, selector)]
        assert sizes and all(s["width"] > 100 and s["height"] > 60 for s in sizes), selector
    assert ask(page, "[...document.images].every(i => i.complete && i.naturalWidth > 100)")


def column(browser, table, number):
    return ask(
        browser,
        f"[...document.querySelectorAll('#classes table')[{table}].tBodies[0].rows]"
        f".map(row => row.cells[{number}].textContent)",
    )


def test_tables_are_sorted_by_a_click_and_say_so(page):
    heads = page.find_elements("css selector", "#classes table:first-of-type thead th")[:8]
    name, objects, ap = heads[:3]
    assert [head.get_attribute("aria-sort") for head in heads] == ["none"] * 8
    assert column(page, 0, 2) == ["30.0", "–", "50.0"]
    ap.find_element("css selector", "button").click()
    assert column(page, 0, 2) == ["50.0", "30.0", "–"]
    assert ap.get_attribute("aria-sort") == "descending"
    status = "document.getElementById('sorted').textContent"
    assert ask(page, status) == "sorted by AP run 0, descending"
    ap.find_element("css selector", "button").click()
    # What has no value comes last all the same.
    assert column(page, 0, 2) == ["30.0", "50.0", "–"]
    assert ap.get_attribute("aria-sort") == "ascending"
    name.find_element("css selector", "button").click()
    assert column(page, 0, 0) == sorted(CLASSES, key=str.lower)
    assert [name.get_attribute("aria-sort"), ap.get_attribute("aria-sort")] == ["ascending", "none"]
    assert objects.get_attribute("aria-sort") == "none"
    # Rows stay whole, and the other tables as they were.
    assert column(page, 0, 1) == ["17", "24", "10"]
    assert column(page, 1, 0) == list(CLASSES)


@pytest.mark.parametrize("with_scripts", [True, False], ids=["scripts", "no scripts"])
def test_pictures_are_filtered_with_and_without_scripts(browser, page, with_scripts):
    run_scripts(browser, with_scripts)
    browser.get(browser.current_url)
    # Without scripts, headings are no buttons.
    assert bool(ask(browser, "document.querySelectorAll('thead button').length")) == with_scripts
    every = names(browser)
    assert len(every) == len(set(every)) > 5
    for legend in ("group", "class", "error"):
        choices = find(browser, f"input[name={legend}-0]")
        assert len(choices) > 3
        for choice in choices[1:]:
            press(browser, choice)
            tag = choice.get_attribute("value")
            assert sorted(names(browser)) == sorted(examples_with(browser, tag))
        press(browser, choices[0])
        assert names(browser) == every
    # Filters hold together.
    press(browser, find(browser, "input[name=group-0]")[1])
    press(browser, find(browser, "input[name=error-0]")[-1])
    both = set(examples_with(browser, "best-0")) & set(examples_with(browser, "error-none"))
    assert set(names(browser)) == both and len(both) < len(every)
    # How many there are is said, without scripts as well.
    heard = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    said = " ".join(str(node.get("name", {}).get("value", "")).strip() for node in heard)
    assert f"{len(both)} of the pictures match the filter." in said


def test_without_scripts_all_is_there_but_the_sorting(browser, page):
    run_scripts(browser, False)
    browser.get(browser.current_url)
    assert find(browser, ".example img")[0].size["height"] > 100
    assert find(browser, "#curves .panel svg")[0].size["height"] > 100
    assert "53.9" in find(browser, "#verdict")[0].text
    find(browser, "#provenance summary")[-1].click()
    assert f"model: {SCRIPT}" in find(browser, "#provenance details:last-of-type pre")[-1].text
    assert browser.get_log("browser") == []


def test_arrows_change_a_filter_and_enter_sorts(page):
    from selenium.webdriver.common.keys import Keys

    ask(page, "document.querySelector('input[name=class-0]').focus()")
    keys(page, Keys.ARROW_RIGHT)
    value = active(page, "value")
    assert value.startswith("class-")
    assert sorted(names(page)) == sorted(examples_with(page, value))
    ask(page, "document.querySelectorAll('#classes thead button')[2].focus()")
    keys(page, Keys.ENTER)
    assert column(page, 0, 2) == ["50.0", "30.0", "–"]


def test_it_prints(page):
    found = page.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    assert base64.b64decode(found["data"]).startswith(b"%PDF")
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert not any(element.is_displayed() for element in find(page, "nav, .filters"))
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
