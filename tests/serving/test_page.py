"""The page of bert serve, and those of bert attention and bert explain, in a headless Chromium.

With PICTURE_FLAGS="--model_dir=... --lines_file=..." the last test makes docs/serving.png of such a
server; docs/serving.md says which models it shows.
"""

import json
import os

import pytest
from browser import needs_chromium, open_browser
from conftest import ROOT, run_stage
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.support.ui import WebDriverWait
from served_models import TASKS, call, make_model, server

pytestmark = [pytest.mark.slow, needs_chromium]

LINES = ["a song of joy and peace", "woe unto the house of violence", "the people rejoice"]
# Heading of a card -> what a model of it does, and the name of the model.
CARDS = {
    "How alike two texts are": ("encode", "encoder"),
    "Nearest lines": ("search", "encoder"),
    "Label of a text": ("classify", "classifier"),
    "Entities in a text": ("tag", "tagger"),
    "Answer to a question": ("answer", "answerer"),
    "Words for [MASK]": ("fill", "filler"),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    parent = tmp_path_factory.mktemp("models")
    return {name: make_model(parent / name, name) for name in TASKS}


@pytest.fixture(scope="module")
def url(models, tmp_path_factory):
    lines = tmp_path_factory.mktemp("lines") / "lines.txt"
    lines.write_text("\n".join(LINES) + "\n")
    flags = [f"--model_dir={directory}" for directory in models.values()]
    flags += [f"--fill_mask_dir=filler={models['encoder']}", f"--lines_file={lines}"]
    with server(*flags, "--max_characters=200") as (_, address):
        yield address


@pytest.fixture(scope="module")
def shared():
    with open_browser() as browser:
        yield browser


@pytest.fixture
def browser(shared):
    """The browser, wide and light; after each test nothing was logged as an error."""
    shared.prefer("light")
    shared.resize(1000)
    shared.errors()
    shared.origins()
    yield shared
    assert shared.errors() == []


@pytest.fixture
def page(browser, url):
    page = Page(browser)
    browser.open(f"{url}/")
    page.wait(lambda: len(page.regions()) == len(CARDS))
    return page


class Page:
    """The page of bert serve, as someone at a keyboard and a screen reader has it."""

    def __init__(self, browser):
        self.browser, self.driver = browser, browser.driver

    def wait(self, condition):
        """Returns what a condition gives when it is true."""
        return WebDriverWait(self.driver, 60, 0.05).until(lambda _: condition())

    def regions(self):
        """Returns the cards by their accessible names."""
        found = self.driver.find_elements("css selector", "#models section")
        assert {one.aria_role for one in found} <= {"region"}
        return {one.accessible_name: one for one in found}

    def reach(self, card, name, role):
        """Presses Tab until the element of a card has the focus that is named so; returns it."""
        region = self.regions()[card]
        for _ in range(100):
            self.press(Keys.TAB)
            focus = self.driver.execute_script(
                "return arguments[0].contains(document.activeElement) && document.activeElement",
                region,
            )
            if focus and (focus.accessible_name, focus.aria_role) == (name, role):
                return focus
        raise AssertionError(f"{card}: no {role} {name!r} on the way of the Tab key")

    def press(self, *keys):
        """Presses keys one after the other, wherever the focus is."""
        ActionChains(self.driver).send_keys(*keys).perform()

    def type(self, card, name, text):
        """Goes to a field by keyboard, and puts a text in place of what it has."""
        field = self.reach(card, name, "textbox")
        ActionChains(self.driver).key_down(Keys.CONTROL).send_keys("a").key_up(
            Keys.CONTROL
        ).send_keys(text).perform()
        assert field.get_property("value") == text

    def ask(self, card):
        """Presses a card's button by keyboard; returns what is told of the answer then."""
        self.reach(card, "Ask", "button")
        self.press(Keys.ENTER)
        return self.told(card)

    def look(self, card):
        """Shows the attention of a card's text by keyboard; returns what is told of it."""
        self.reach(card, "Show attention", "button")
        self.press(Keys.ENTER)
        return self.told(card, 1)

    def told(self, card, place=0):
        """Returns the element that a screen reader reads aloud when it has changed, filled."""
        region = self.regions()[card]

        def filled():
            found = region.find_elements("css selector", "[role=status]")
            return len(found) > place and found[place].text and found[place]

        return self.wait(filled)

    def rows(self, element):
        """Returns names and numbers of the bars in an element."""
        names = [one.text for one in element.find_elements("css selector", "dt")]
        numbers = [one.text for one in element.find_elements("css selector", "dd.number")]
        assert len(names) == len(numbers)
        return list(zip(names, numbers))


def asked(url, card, body):
    """Returns what the API answers where a card asks."""
    verb, name = CARDS[card]
    status, content, _ = call(f"{url}/v1/models/{name}/{verb}", body)
    assert status == 200
    reply = json.loads(content)
    [key] = reply.keys() - {"model"}
    return reply[key][0]


def percent(share):
    return f"{100 * share:.1f} %"


def test_a_label_with_probabilities(page, url):
    card, text = "Label of a text", "the people rejoice with gladness"
    page.type(card, "Text", text)
    told = page.ask(card)
    expected = asked(url, card, {"texts": [text]})
    assert told.text.startswith(f"Label: {expected['label']}\n")
    best = sorted(expected["probabilities"].items(), key=lambda one: -one[1])
    assert page.rows(told) == [(label, percent(share)) for label, share in best]


def test_entities_are_marked(page, url):
    card, text = "Entities in a text", "\U0001f600 woe unto the house of joy"  # two code units
    page.driver.execute_script(
        "document.querySelectorAll('textarea').forEach((one) => { one.value = arguments[0]; })",
        text,
    )
    told = page.ask(card)
    expected = asked(url, card, {"texts": [text]})
    assert expected
    marks = told.find_elements("css selector", "mark")
    assert [one.text for one in marks] == [f"{one['text']}{one['type']}" for one in expected]
    shown = told.find_element("css selector", "p.text")
    for mark in marks:
        page.driver.execute_script("arguments[0].lastChild.remove()", mark)
    assert shown.text == text


def test_an_answer_is_marked(page, url):
    card = "Answer to a question"
    question, context = "who rejoice", "woe unto the house. the people rejoice with gladness"
    page.type(card, "Question", question)
    page.type(card, "Text", context)
    told = page.ask(card)
    expected = asked(url, card, {"questions": [{"question": question, "context": context}]})
    assert expected["text"]
    [mark] = told.find_elements("css selector", "mark")
    assert mark.text == expected["text"] == context[expected["start"] : expected["end"]]
    assert f"Answer: {mark.text} ({percent(expected['probability'])})" in told.text


def test_the_nearest_lines(page, url):
    card, text = "Nearest lines", "the people rejoice"
    page.type(card, "Text", text)
    told = page.ask(card)
    expected = asked(url, card, {"texts": [text]})
    assert expected[0]["text"] == text
    assert page.rows(told) == [(one["text"], f"{one['cosine']:.3f}") for one in expected]
    assert "of 3 lines" in page.regions()[card].text


def test_candidates_for_masks(page, url):
    card, text = "Words for [MASK]", "the [MASK] of [MASK] rejoice"
    page.type(card, "Text", text)
    told = page.ask(card)
    expected = asked(url, card, {"texts": [text]})
    assert [one.text for one in told.find_elements("css selector", "h3")] == [
        "[MASK] 1",
        "[MASK] 2",
    ]
    assert page.rows(told) == [
        (one["word"], percent(one["probability"])) for of_mask in expected for one in of_mask
    ]


def test_how_alike_two_texts_are_by_control_and_enter(page):
    card = "How alike two texts are"
    page.type(card, "First text", "woe")
    page.type(card, "Second text", "woe")
    ActionChains(page.driver).key_down(Keys.CONTROL).send_keys(Keys.ENTER).key_up(
        Keys.CONTROL
    ).perform()
    assert page.rows(page.told(card)) == [("cosine similarity", "1.000")]


def test_attention_by_keyboard(page, url):
    card, text = "Words for [MASK]", "the [MASK] rejoice"
    page.type(card, "Text", text)
    told = page.look(card)
    _, content, _ = call(f"{url}/v1/models/filler/attend", {"texts": [text]})
    [found] = json.loads(content)["attention"]

    def most(layer, head, token):
        row = found["weights"][layer][head][token]
        best = sorted(range(len(row)), key=lambda place: -row[place])[:5]
        return [(found["tokens"][place], percent(row[place])) for place in best]

    page.reach(card, "Layer", "combobox")
    page.press("0")
    page.reach(card, "Head", "combobox")
    page.press("2")
    assert page.rows(told) == most(0, 2, 1)
    group = page.regions()[card].find_element("css selector", "fieldset")
    assert (group.aria_role, group.accessible_name) == ("group", "Token")
    radio = page.reach(card, found["tokens"][1], "radio")
    page.press(Keys.ARROW_RIGHT)
    assert not radio.is_selected()
    assert page.driver.switch_to.active_element.accessible_name == "[MASK]"
    assert told.text.startswith("[MASK] takes in most of:")
    assert page.rows(told) == most(0, 2, 2)


def test_a_text_that_is_too_long(page):
    page.driver.execute_script(
        "document.querySelectorAll('textarea').forEach((one) => { one.value = 'woe '.repeat(54); })"
    )
    card = "Label of a text"
    for name in ("Ask", "Show attention"):
        page.reach(card, name, "button")
        page.press(Keys.ENTER)
        [logged] = page.wait(page.browser.errors)  # Chromium's own line for such a status
        assert "413" in logged
        assert page.told(card).text == (
            "Error: texts[0]: 216 characters; expected at most 200; cut it into parts"
        )


def test_every_control_has_a_role_and_a_name(page):
    for card in CARDS:
        if card != "Nearest lines":
            page.look(card)
    found = page.driver.find_elements(
        "css selector", "main a, #models button, #models input, select, textarea"
    )
    named = {(one.aria_role, one.accessible_name) for one in found}
    assert all(name for _, name in named), named
    assert {role for role, _ in named} == {"link", "button", "radio", "combobox", "textbox"}
    headings = page.driver.find_elements("css selector", "h1, h2")
    assert [one.text for one in headings if one.is_displayed()] == ["bert serve", *CARDS]
    assert page.driver.find_element("css selector", "html").get_attribute("lang") == "en"
    assert page.driver.title == "bert serve"


def test_nothing_leaves_the_server_and_nobody_needs_good_eyes(page, url, tmp_path):
    for scheme in ("light", "dark"):
        page.browser.prefer(scheme)
        for width in (1000, 320):
            page.browser.resize(width)
            page.browser.open(f"{url}/#ask")
            page.wait(lambda: len(page.regions()) == len(CARDS))
            for card in CARDS:
                page.told(card)
            for button in page.driver.find_elements("css selector", "button.second"):
                button.click()
            page.wait(
                lambda: len(page.driver.find_elements("css selector", "fieldset")) == len(CARDS) - 1
            )
            page.browser.picture(tmp_path / f"page_{scheme}_{width}.png")
            assert not page.browser.is_wider_than_the_window()
            faint = {name: one for name, one in page.browser.contrasts().items() if one < 4.5}
            assert faint == {}
    background = "return getComputedStyle(document.body).backgroundColor"
    assert page.driver.execute_script(background) == "rgb(21, 24, 28)"
    assert page.browser.origins() == {url}


def test_a_server_with_a_token(browser, models, tmp_path):
    (tmp_path / "token").write_text("a-secret\n")
    flags = f"--model_dir={models['classifier']}", f"--token_file={tmp_path / 'token'}"
    with server(*flags) as (_, url):
        browser.open(f"{url}/")
        page = Page(browser)
        field = page.wait(
            lambda: (found := browser.driver.find_element("id", "token")).is_displayed() and found
        )
        assert field.accessible_name == "This server asks for its token"
        field.send_keys("wrong\n")
        status = browser.driver.find_element("id", "status")
        page.wait(lambda: "expected Bearer and this server's token" in status.text)
        field.clear()
        field.send_keys("a-secret\n")
        page.wait(lambda: list(page.regions()) == ["Label of a text"])
        assert not field.is_displayed()
        assert page.ask("Label of a text").text.startswith("Label: ")
        assert all("401" in one for one in browser.errors())


# --- Pages that commands write ---


def command_pages(models, tmp_path):
    """Writes a page of bert attention and one of bert explain; returns paths and shown texts."""
    pair = {"text": "the people </script> rejoice", "text_b": "with <b>gladness</b>"}
    pages = {tmp_path / "attention.html": ["people"], tmp_path / "explanation.html": pair.values()}
    for command, path in zip(("attention", "explain"), pages):
        flags = {"bert_dir": models["classifier"], **pair, "output_file": path}
        result = run_stage(command, flags)
        assert result.returncode == 0, result.stderr
    return pages


def test_pages_of_commands_open_without_errors(browser, models, tmp_path):
    for path, expected in command_pages(models, tmp_path).items():
        for scheme in ("light", "dark"):
            browser.prefer(scheme)
            for width in (1100, 320):
                browser.resize(width)
                browser.open(path.as_uri())
                browser.picture(tmp_path / f"{path.stem}_{scheme}_{width}.png")
                assert not browser.is_wider_than_the_window()
                faint = {name: one for name, one in browser.contrasts().items() if one < 4.5}
                assert faint == {}
        controls = browser.driver.find_elements("css selector", "a, button, select, summary")
        assert controls
        assert all(one.accessible_name for one in controls if one.is_displayed())
        shown = browser.driver.find_element("css selector", "body").text
        assert all(text in shown for text in expected)  # as text, what looks like HTML, too
        assert browser.driver.find_elements("css selector", "b") == []
    assert browser.origins() == set()


def test_the_picture_of_the_docs(browser, models, tmp_path):
    flags = os.environ.get("PICTURE_FLAGS")
    there = flags.split() if flags else [f"--model_dir={models['classifier']}"]
    out = ROOT / "docs" / "serving.png" if flags else tmp_path / "serving.png"
    with server(*there) as (_, url):
        browser.resize(760)
        browser.open(f"{url}/#ask")
        page = Page(browser)
        page.wait(lambda: page.regions() and all(page.told(card) for card in page.regions()))
        browser.driver.find_elements("css selector", "button.second")[-1].click()
        page.wait(lambda: browser.driver.find_elements("css selector", "fieldset"))
        browser.picture(out)
    assert out.read_bytes().startswith(b"\x89PNG")
