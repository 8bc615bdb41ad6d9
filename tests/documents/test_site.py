"""The documents as a site: built strictly, whole, and without anything from elsewhere."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest
from fixtures.browser import start_browser
from fixtures.documents import ROOT

PAGES = sorted(
    path
    for folder in (".", "docs", "recipes", "results", "benchmarks", "fadrm_hf/methods")
    for path in (ROOT / folder).glob("*.md")
)
FETCHED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}


class Page(HTMLParser):
    """What a page links to, what it fetches, and the anchors that it has."""

    def __init__(self, text):
        super().__init__()
        self.links, self.fetched, self.anchors = [], [], {""}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        if FETCHED.get(tag) in given:
            self.fetched.append(given[FETCHED[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site's folder, and its pages by path."""
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(build, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, {path: Page(path.read_text("utf-8")) for path in folder.rglob("*.html")}


def test_every_document_is_a_page(site):
    folder, pages = site
    names = {path.relative_to(folder).as_posix() for path in pages}
    assert {f"{path.stem}.html" for path in (ROOT / "docs").glob("*.md")} <= names
    assert {"results/TABLES.html", "fadrm_hf/methods/index.html", "CONTRIBUTING.html"} <= names


def test_every_link_leads_to_what_is_there(site):
    folder, pages = site
    dead = []
    for path, page in pages.items():
        for link in (
            page.links + page.fetched if path.name != "404.html" else []
        ):  # whose links are those of a server's root
            target, _, anchor = unquote(link).partition("#")
            if re.match(r"[a-z]+:", target):
                continue
            there = (path.parent / target).resolve() if target else path
            if not there.is_file() or (there in pages and anchor not in pages[there].anchors):
                dead.append(f"{path.relative_to(folder)}: {link}")
    assert dead == []


def test_nothing_is_fetched_from_elsewhere(site):
    folder, pages = site
    assert [link for page in pages.values() for link in page.fetched if re.match(r"([a-z]+:)?//", link)] == []
    styles = [path.read_text("utf-8") for path in folder.rglob("*.css")]
    assert styles and not any(re.search(r"@import|url\(\s*['\"]?(https?:)?//", style) for style in styles)


def test_names_of_the_library_are_explained_where_they_are_used(site):
    folder, pages = site
    api = pages[folder / "api.html"].anchors
    assert {"fadrm_hf.load_distilled", "fadrm_hf.Distilled.batches", "fadrm_hf.errors.ConfigError"} <= api
    linked = {link.partition("#")[2] for link in pages[folder / "new_method.html"].links if "api.html" in link}
    assert {"fadrm_hf.Method", "fadrm_hf.recovery.recover.Recovery"} <= linked
    assert linked <= api | {""}


# Blocks of code wider than their frame; those with a line that was broken; the page's own width.
CODE = """() => {
  const blocks = [...document.querySelectorAll("pre > code")];
  const numLines = (block) => {
    const { lineHeight, paddingTop, paddingBottom } = getComputedStyle(block);
    const height = block.clientHeight - parseFloat(paddingTop) - parseFloat(paddingBottom);
    return Math.round(height / parseFloat(lineHeight));
  };
  const numWritten = (block) => block.textContent.trimEnd().split("\\n").length;
  return {
    number: blocks.length,
    cut: blocks.filter((block) => block.scrollWidth > block.clientWidth).map((block) => block.textContent),
    broken: blocks.filter((block) => numLines(block) > numWritten(block)).map((block) => block.textContent),
    width: document.documentElement.scrollWidth,
  };
}"""
FACE = """() => {
  const [ground, text, link] = [document.body, document.querySelector("p"), document.querySelector("p a")];
  return [getComputedStyle(ground).backgroundColor, ...[text, link].map((each) => getComputedStyle(each).color)];
}"""


@pytest.fixture(scope="module")
def browser():
    yield from start_browser()


def luminance(colour):
    """Of "rgb(r, g, b)", as WCAG 2 defines it."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(share * part for share, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize(("scheme", "ground"), [("light", "rgb(250, 249, 247)"), ("dark", "rgb(19, 23, 27)")])
def test_it_has_the_face_of_the_galleries_and_code_is_whole_at_1280_pixels(site, browser, scheme, ground):
    folder, pages = site
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    for name in ("index.html", "operations.html", "new_method.html"):
        page.goto((folder / name).as_uri())
        code = page.evaluate(CODE)
        assert code["number"] > 3 and (code["cut"], code["broken"], code["width"]) == ([], [], 1280), name
    shown, *colours = page.evaluate(FACE)
    assert shown == ground
    contrasts = [sorted((luminance(shown), luminance(colour))) for colour in colours]
    assert all((high + 0.05) / (low + 0.05) > 4.5 for low, high in contrasts), (shown, colours)
    assert page.locator("a.md-logo img").first.get_attribute("src").endswith("images/mark.svg")
    assert "https://arxiv.org/abs/2506.24125" in pages[folder / "index.html"].links
    page.close()


def slugs(text):
    """The anchors that GitHub gives to headings."""
    plain = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    titles = (title.lower().strip() for title in re.findall(r"^#+ (.*)$", plain, re.MULTILINE))
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_between_files_of_the_repository_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\((?![a-z]+:)([^)\s]+)\)", text):
        target, _, anchor = link.partition("#")
        there = (page.parent / target) if target else page
        assert there.exists(), link
        assert not anchor or anchor in slugs(there.read_text("utf-8")), link
