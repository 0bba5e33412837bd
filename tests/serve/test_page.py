"""The web page in a real browser: what a person reads there is what a `Scorer` computes."""

import json
import shutil
import subprocess
import sys

import browser
import numpy as np
import pytest
from page_server import page_server
from paths import REPO

import siglip_jax
from siglip_jax.data.open import open_items
from siglip_jax.jobs import embed
from siglip_jax.search import open_embeddings, search

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(browser.missing()), reason=f"no browser: {browser.missing()}"),
]
FOLDER = REPO / "siglip_jax" / "emoji" / "pictures"
VAMPIRE, TOOLS, CIRCLE = (FOLDER / f"{n}.webp" for n in ("1f9db-1f3fb", "1f6e0-fe0f", "1f7e4"))
NAMED = "emoji again=siglip_emoji"
LABELS = ("vampire light skin tone", "hammer and wrench")
TAB, ENTER, BACK, RIGHT = "\ue004", "\ue007", "\ue003", "\ue014"


@pytest.fixture(scope="module")
def model():
    return siglip_jax.load("siglip_emoji")


@pytest.fixture(scope="module")
def scorer(model):
    return model.scorer(batch_size=2)


@pytest.fixture(scope="module")
def index(model, tmp_path_factory):
    """A finished job over the bundled images."""
    out = tmp_path_factory.mktemp("index") / "emoji"
    embed(open_items([str(FOLDER)]), out, model=model)
    return out


@pytest.fixture(scope="module")
def server(index):
    with page_server("--index", index, "--model", "siglip_emoji", "--model", NAMED) as address:
        yield address


@pytest.fixture(scope="module")
def driver():
    with browser.browser() as driver:
        yield driver


@pytest.fixture
def page(driver, server):
    page = browser.Page(driver, server)
    yield page
    assert page.complaints() == []


def enter(page, *labels):
    for label in labels:
        page.find("#label").send_keys(label + ENTER)


def check(page, scorer, images, labels, *, bias=0.0, templates=("{}",)):
    """Every bar is that of the `Scorer`, best first."""
    expected = scorer.score([str(image) for image in images], labels, templates=templates)
    for number, ranked in enumerate(expected.top()):
        shown = page.bars(number)
        assert [bar[0] for bar in shown] == [hit.label for hit in ranked]
        for (_, logit, percent, width), hit in zip(shown, ranked, strict=True):
            assert abs(logit - hit.logit) < 0.0051
            moved = 1 / (1 + np.exp(-(hit.logit + bias)))
            # A bar of nothing is two pixels wide, so that it is seen.
            assert abs(width - moved) < 0.01
            told = float(percent.strip("<>% ").replace(",", ""))
            assert abs(told - 100 * moved) < 0.11


def test_chosen_files_and_typed_labels_become_bars(page, scorer):
    page.choose(VAMPIRE, TOOLS)
    enter(page, *LABELS)
    page.settled(*LABELS, cards=2)
    check(page, scorer, [VAMPIRE, TOOLS], LABELS)
    assert LABELS[0] in page.find("#status").get_attribute("textContent")


@pytest.mark.parametrize("how", ["drop", "paste"])
def test_a_dropped_or_pasted_image(page, server, scorer, how):
    enter(page, *LABELS)
    page.drop(how, f"{server}static/examples/{VAMPIRE.name}", VAMPIRE.name)
    page.settled(*LABELS)
    check(page, scorer, [VAMPIRE], LABELS)


def test_bars_move_while_a_label_is_typed(page, scorer):
    page.choose(CIRCLE)
    enter(page, "a dog")
    page.settled("a dog")
    page.find("#label").send_keys("brown circle")  # and no Enter
    page.settled("a dog", "brown circle")
    check(page, scorer, [CIRCLE], ("a dog", "brown circle"))
    page.find("#label").send_keys(BACK * len(" circle"))
    page.settled("a dog", "brown")
    check(page, scorer, [CIRCLE], ("a dog", "brown"))


def test_the_bias_moves_bars_in_the_browser_alone(page, scorer):
    page.choose(TOOLS)
    enter(page, *LABELS)
    page.settled(*LABELS)
    asked = "performance.getEntriesByType('resource').filter(e => e.name.includes('v1/')).length"
    before = page.run(f"return {asked}")
    page.find("#bias").send_keys(RIGHT * 35)
    assert page.find("#bias-value").text == "+3.5"
    check(page, scorer, [TOOLS], LABELS, bias=3.5)
    page.find("#bias-reset").click()
    check(page, scorer, [TOOLS], LABELS)
    assert page.run(f"return {asked}") == before


def test_the_threshold_of_a_calibration_is_shown_and_moves_with_the_bars(driver, server):
    """What a server that has one says of its model, put into the answer of one that has none."""
    source = """const ask = fetch; window.fetch = async (...request) => {
      const answer = await ask(...request);
      if (!String(request[0]).endsWith("v1/models")) return answer;
      const models = await answer.json();
      models.data[0].calibration = { thresholds: { "brown circle": -1, "hammer and wrench": -2 } };
      return Response.json(models); }"""
    added = driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": source})
    try:
        page = browser.Page(driver, server)
        page.choose(TOOLS)
        enter(page, "hammer and wrench", "brown circle", "tools")
        page.settled("hammer and wrench", "brown circle", "tools")
        lines = """return [...document.querySelectorAll(".bars li")].map(item => [
          item.querySelector(".name").textContent, item.classList.contains("low"),
          item.querySelector(".track b").hidden, item.querySelector(".track b").style.left])"""
        # Its logit is -3.04, and that is below the threshold whatever the bias.
        for bias, left in ((0, 11.92), (4, 88.08)):
            page.find("#bias").send_keys(RIGHT * 10 * bias)
            best = page.run(lines)[0]
            assert best[:3] == ["hammer and wrench", True, False]
            assert float(best[3].rstrip("%")) == pytest.approx(left, abs=0.01)
        assert [each for each in page.run(lines) if each[0] == "tools"] == [
            ["tools", page.bars()[1][3] < 0.5, True, ""]
        ]
        assert page.find(".bars .unseen:last-child").get_attribute("textContent") == (
            "below the threshold"
        )
    finally:
        driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


def test_templates(page, scorer):
    page.choose(VAMPIRE)
    enter(page, *LABELS)
    page.settled(*LABELS)
    plain = page.bars()
    page.find("#templates-part summary").click()
    page.find("#templates").send_keys("an emoji of {}\n{}")
    page.wait(
        "document.querySelector('.logit').lastElementChild.textContent !== arguments[0]",
        page.run("return document.querySelector('.logit').lastElementChild.textContent"),
    )
    page.settled(*LABELS)
    assert page.bars() != plain
    check(page, scorer, [VAMPIRE], LABELS, templates=("an emoji of {}", "{}"))
    page.find("#templates").send_keys("\nno place for a label")
    page.wait("document.getElementById('problem').textContent.includes('must hold {} once')")
    page.complaints()  # a refused request is one


def test_with_a_keyboard_only(page, scorer):
    """From the top of the page by Tab and Enter: an example, its labels, one more, one less."""
    page.wait("document.querySelector('#examples li')")
    for _ in range(12):
        page.press(TAB)
        if page.focus().accessible_name.startswith("thumbs up"):
            break
    outline = page.focus().value_of_css_property("outline-style")
    assert outline == "solid", "the focus is not seen"
    page.press(ENTER)
    page.wait("document.querySelectorAll('.card .bars li').length === 8")
    for _ in range(12):
        page.press(TAB)
        if page.focus().get_attribute("id") == "label":
            break
    page.press(BACK)
    page.press("a red heart", ENTER)
    chips = [each.text.strip("✕\n ") for each in page.all("#chips li")]
    assert len(chips) == 8 and chips[-1] == "a red heart"
    page.settled(*chips)
    name = "1f44d-1f3fc.webp"
    check(page, scorer, [FOLDER / name], chips)
    # The way back from an input is the button that takes its last label away.
    page.run("document.querySelector('#chips li:last-child button').focus()")
    assert page.focus().accessible_name == "Remove a red heart"
    page.press(ENTER)
    page.settled(*chips[:-1])
    assert page.focus().get_attribute("id") == "label"


def test_whatever_can_be_reached_has_a_name(page):
    page.choose(VAMPIRE)
    enter(page, *LABELS)
    page.settled(*LABELS)
    page.find("#code-part summary").click()
    reached = page.all("a, button, input, select, textarea, summary, [tabindex]")
    assert len(reached) > 15
    nameless = [
        each.get_attribute("outerHTML")
        for each in reached
        if each.is_displayed() and not each.accessible_name
    ]
    assert nameless == []


@pytest.mark.parametrize("view", ["classify", "search"])
def test_a_phone_does_not_scroll_sideways(driver, server, view):
    page = browser.Page(driver, f"{server}#{view}", browser.PHONE)
    page.wait("!document.getElementById('views').hidden")
    if view == "classify":
        page.choose(VAMPIRE)
        enter(page, *LABELS, "Rindfleischetikettierungsüberwachungsaufgabenübertragungsgesetz" * 2)
        page.wait("document.querySelectorAll('.card .bars li').length === 3")
        page.find("#code-part summary").click()
    else:
        page.find("#query").send_keys("vampire" + ENTER)
        page.wait("document.querySelectorAll('.hit').length === 8")
    assert page.run("return document.documentElement.scrollWidth") == browser.PHONE[0]
    small = [
        each.get_attribute("outerHTML")
        for each in page.all("button, select, .button")
        if each.is_displayed() and min(each.size["height"], each.size["width"]) < 32
    ]
    assert small == [], "too small for a thumb"


@pytest.mark.parametrize("dark", [False, True])
def test_text_is_readable_in_light_and_dark(driver, server, dark):
    page = browser.Page(driver, server, dark=dark)
    page.choose(VAMPIRE)
    enter(page, *LABELS)
    page.settled(*LABELS)
    colours = page.run("""
      const ground = element => { for (let e = element; e; e = e.parentElement) {
        const colour = getComputedStyle(e).backgroundColor;
        if (!colour.startsWith("rgba(0, 0, 0, 0")) return colour } };
      return [...document.querySelectorAll("h1, h2, .help, .name, .logit, .percent, .chip, "
        + ".button, button:enabled, summary, input[type=text], nav a, figcaption")]
        .filter(e => e.checkVisibility()).map(e =>
          [e.className || e.tagName, getComputedStyle(e).color, ground(e)])""")
    assert len(colours) > 20
    assert [each for each in colours if browser.contrast(*each[1:]) < 4.5] == []
    bright = browser.contrast(
        page.run("return getComputedStyle(document.body).backgroundColor"), "rgb(255, 255, 255)"
    )
    assert (bright > 10) == dark


def test_what_the_server_refuses_is_said_beside_the_image(page, scorer, tmp_path):
    wrong = tmp_path / "wrong.png"
    wrong.write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    page.choose(wrong, VAMPIRE)
    enter(page, *LABELS)
    page.wait("document.querySelectorAll('.card')[0].querySelector('.wrong').textContent")
    page.wait("document.querySelectorAll('.card')[1].querySelectorAll('li').length === 2")
    assert page.find(".card .wrong").text == "a truncated or damaged PNG"
    ranked = scorer.score([str(VAMPIRE)], LABELS).top()[0]
    assert [bar[0] for bar in page.bars(1)] == [hit.label for hit in ranked]
    assert page.find("#problem").get_attribute("hidden")
    (tmp_path / "notes.txt").write_text("no image")
    page.choose(tmp_path / "notes.txt")
    page.wait("document.getElementById('problem').textContent === 'notes.txt: not an image'")
    assert any("400" in each for each in page.complaints())


def test_nothing_that_is_typed_or_named_becomes_html(page, tmp_path):
    hostile = '<img src=x onerror="document.title=1">'
    named = tmp_path / "<b>&amp;.webp"
    named.write_bytes(VAMPIRE.read_bytes())
    page.choose(named)
    enter(page, hostile)
    page.settled(hostile)
    assert page.find(".card .name").text == hostile
    assert page.find("figcaption span").text == named.name
    assert page.all("#chips img, .card b:not(.track b), .card .name *") == []
    page.run(
        "const s = document.createElement('script'); s.textContent = 'document.title = 1';"
        "document.body.append(s)"
    )
    assert page.run("return document.title") == "siglip_jax"
    assert "Content Security Policy" in "".join(page.complaints())


@pytest.mark.parametrize("language", ["curl", "python"])
def test_the_same_from_a_program(page, scorer, tmp_path, language):
    """The lines that the page shows are run, as a person would who has copied them."""
    if language == "curl" and not shutil.which("curl"):
        pytest.skip("no curl: apt-get install curl")
    image = tmp_path / "it's a; vampire.webp"
    image.write_bytes(VAMPIRE.read_bytes())
    labels = (*LABELS, '$HOME; `it\'s` "so"', "@vampire")
    page.choose(image)
    enter(page, *labels)
    page.settled(*labels)
    page.find("#code-part summary").click()
    page.find(f"[data-language={language}]").click()
    code = page.find("#code").text
    command = ["bash", "-c", code] if language == "curl" else [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    expected = scorer.score([str(image)], labels).top()[0]
    if language == "curl":
        scores = json.loads(done.stdout)["data"][0]["scores"]
        assert [score["label"] for score in scores] == [hit.label for hit in expected]
        np.testing.assert_allclose([s["logit"] for s in scores], [h.logit for h in expected], 1e-5)
    else:
        lines = [f"{image.name}  {hit.probability:6.1%}  {hit.label}" for hit in expected]
        assert done.stdout.splitlines() == lines


def test_the_model_is_chosen(page):
    page.wait("document.querySelectorAll('#model option').length")
    assert [each.text for each in page.all("#model option")] == ["siglip_emoji", "emoji again"]
    page.choose(VAMPIRE)
    enter(page, *LABELS)
    page.settled(*LABELS)
    page.find("#model option:last-child").click()
    page.settled(*LABELS)
    page.find("#code-part summary").click()
    assert "model=emoji again" in page.find("#code").text


def hits(page):
    found = page.run("""return [...document.querySelectorAll(".hit")].map(hit =>
      [hit.querySelector(".score").textContent, hit.querySelector(".key").textContent])""")
    return [tuple(each) for each in found]


def test_search_by_text_and_by_image(page, scorer, index):
    page.wait("!document.getElementById('views').hidden")
    page.find("#views a:last-child").click()
    assert page.find("#index-about").text == "8 images, as siglip_emoji sees them"
    embeddings = open_embeddings(index)
    page.find("#query").send_keys("vampire light skin tone" + ENTER)
    page.wait("[...document.querySelectorAll('.hit img')].filter(e => e.naturalWidth).length === 8")
    (found,) = search(embeddings, scorer.embed_texts(["vampire light skin tone"]), 8)
    assert [key for _, key in hits(page)] == [hit.row.key for hit in found]
    assert hits(page)[0] == ("91.9% 0.481", VAMPIRE.name)
    page.choose(CIRCLE, where="query-file")
    page.wait("document.querySelector('.hit .score')?.textContent.startsWith('1.0')")
    (found,) = search(embeddings, scorer.embed_images([str(CIRCLE)]), 8)
    assert [key for _, key in hits(page)] == [hit.row.key for hit in found]
    assert hits(page)[0] == ("1.000", CIRCLE.name)
    assert page.find("#query-image").text.splitlines()[0] == CIRCLE.name


def test_a_key_is_asked_for(driver, scorer):
    with page_server(key="open-sesame") as address:
        page = browser.Page(driver, address)
        page.wait("!document.getElementById('key-form').hidden")
        assert page.focus().get_attribute("id") == "key"
        page.choose(VAMPIRE)
        enter(page, *LABELS)
        page.find("#key").send_keys("wrong" + ENTER)
        page.wait("document.getElementById('problem').textContent.includes('key')")
        page.find("#key").clear()
        page.find("#key").send_keys("open-sesame" + ENTER)
        page.settled(*LABELS)
        check(page, scorer, [VAMPIRE], LABELS)
        assert not page.find("#key-form").is_displayed()
        page.find("#code-part summary").click()
        assert "open-sesame" not in page.driver.page_source
        assert "$API_KEY" in page.find("#code").text


def test_there_is_no_search_without_an_index_and_nothing_is_fetched_from_elsewhere(driver, server):
    files = (REPO / "siglip_jax" / "serve" / "page").iterdir()
    for path in sorted(files, key=lambda path: path.name):
        text = path.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text and "https:" not in text and "//cdn" not in text, path.name
        assert "innerHTML" not in text and 'onclick="' not in text and "<style" not in text
    page = browser.Page(driver, server)
    page.wait("document.querySelector('#examples li img')?.naturalWidth")
    names = page.run("return performance.getEntriesByType('resource').map(e => e.name)")
    assert [name for name in names if not name.startswith(server)] == []
