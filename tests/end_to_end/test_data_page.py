"""The page of tools/check_data.py in a real browser, opened from disk."""

import importlib.util
import json
from pathlib import Path

import pytest
from browsing import ACCESSIBLE, DESK, PHONE, ask, find, run_scripts, show
from PIL import Image
from small_report import SCRIPT

TOOL = Path(__file__).parents[2] / "tools" / "check_data.py"


@pytest.fixture(scope="module")
def data_page(tmp_path_factory):
    """Of ten images in each of two splits, of which one is in both and one has a box without height."""
    folder = tmp_path_factory.mktemp("data")
    for split in ("train", "val"):
        content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": SCRIPT}]}
        for number in range(10):
            name = f"<b>{number}.png"
            (folder / split).mkdir(exist_ok=True)
            colour = (200, 20 * number, len(split) if number else 0)
            Image.new("RGB", (64, 48), colour).save(folder / split / name)
            image = {"id": number, "file_name": name, "width": 64, "height": 48}
            content["images"].append(image)
            box = {"id": number, "image_id": number, "category_id": 1, "iscrowd": 0, "area": 200}
            content["annotations"].append({**box, "bbox": [8, 9, 20, 10 if number else 0]})
        (folder / f"{split}.json").write_text(json.dumps(content))
    spec = importlib.util.spec_from_file_location("check_data", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.main([str(folder), "--page", str(folder / "page.html")]) == 0
    return folder / "page.html"


@pytest.fixture
def opened(browser, data_page):
    show(browser, DESK)
    browser.get_log("browser"), browser.get_log("performance")
    browser.get(data_page.as_uri())
    return browser


@pytest.mark.parametrize("with_scripts", [True, False], ids=["scripts", "no scripts"])
def test_it_shows_all_and_loads_nothing(opened, with_scripts):
    run_scripts(opened, with_scripts)
    try:
        opened.refresh()
        seen = "[...document.querySelectorAll('#images img')].filter(i => i.checkVisibility() &&"
        assert (
            ask(opened, f"{seen} i.complete && i.naturalWidth > 200 && i.width > 100).length") == 12
        )
        assert len(find(opened, "#odd img")) == 2
        bars = find(opened, "#counts .bar")
        assert len(bars) == 2 * (1 + 9) and all(bar.size["width"] > 60 for bar in bars)
        assert SCRIPT in find(opened, "#counts table")[1].text
        assert "train: <b>0.png; val: <b>0.png" in find(opened, "#duplicates")[0].text
        assert ask(opened, "document.scripts.length") == 0
        assert opened.get_log("browser") == []
        events = [json.loads(e["message"])["message"] for e in opened.get_log("performance")]
        asked = {
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        }
        assert opened.current_url in asked
        assert all(url == opened.current_url or url.startswith("data:") for url in asked)
    finally:
        run_scripts(opened, True)


def test_accessibility(opened):
    assert {rule for rule, of in ACCESSIBLE.items() if ask(opened, of) is not True} == set()


def test_a_phone_shows_it_without_scrolling_sideways(opened):
    show(opened, PHONE)
    widths = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    assert len(set(ask(opened, widths))) == 1
