"""The pages in a real browser: what they show and how they answer, to eyes, keyboards, screen readers and phones."""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch
from fixtures.browser import PATIENCE, start_browser
from fixtures.galleries import CLASSES, HOSTILE, LARGE_CLASSES, make_gallery, make_large_gallery, snapshot_images
from markdown_it import MarkdownIt

from fadrm_hf.artifact.manifest import read_manifest, write_manifest
from fadrm_hf.artifact.reading import read_images, read_soft_labels
from fadrm_hf.cli import main
from fadrm_hf.data.views import LabelViews, render_views
from fadrm_hf.report.gallery.serving import served

DESK, PHONE = {"width": 1200, "height": 900}, {"width": 360, "height": 740}
PIXEL = """async ([selector, x, y]) => {
  const tile = document.querySelector(selector);
  const style = getComputedStyle(tile);
  const image = new Image();
  image.src = style.backgroundImage.slice(5, -2);
  await image.decode();
  const [columns, lines] = style.backgroundSize.split(" ").map((size) => parseFloat(size) / 100);
  const place = style.backgroundPosition.split(" ").map((share) => parseFloat(share) / 100);
  const side = [image.width / columns, image.height / lines];
  const canvas = document.createElement("canvas");
  canvas.width = image.width;
  canvas.height = image.height;
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const left = Math.round(place[0] * (image.width - side[0])) + x;
  const top = Math.round(place[1] * (image.height - side[1])) + y;
  return [...context.getImageData(left, top, 1, 1).data].slice(0, 3);
}"""

DRAWN = """canvas => [canvas.width, canvas.clientWidth, getComputedStyle(canvas).imageRendering,
  [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data]]"""
IS_DRAWN = """() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(
  [...document.querySelectorAll(".view canvas")].every(
    (canvas) => canvas.getContext("2d").getImageData(1, 1, 1, 1).data[3] === 255)))))"""


@pytest.fixture(scope="module")
def browser():
    yield from start_browser()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_gallery(tmp_path_factory.mktemp("page") / "trees")


@dataclass
class Visit:
    """A page in a browser of its own, and what it asked for and complained of."""

    page: "Page"  # noqa: F821
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()

    def focused(self) -> str:
        return self.page.evaluate("document.activeElement.getAttribute('aria-label') ?? document.activeElement.id")

    def hear(self, message: str) -> None:
        """What the browser says of the page, but for its advice to tests that read pixels often."""
        if "willReadFrequently" not in message:
            self.complaints.append(message)

    def sections(self) -> list[str]:
        return self.page.locator(".class:visible").evaluate_all("all => all.map(each => each.dataset.label)")


@pytest.fixture
def visit(browser):
    """Opens pages, each with a storage and a clipboard of its own."""
    opened = []

    def open_page(address, ready=".tile", **options):
        context = browser.new_context(**({"viewport": DESK, "color_scheme": "light"} | options))
        context.set_default_timeout(PATIENCE)
        found = Visit(context.new_page())
        opened.append((context, found))
        found.page.on("request", lambda request: found.requests.append(request.url))
        found.page.on("console", lambda message: found.hear(message.text))
        found.page.on("pageerror", lambda error: found.complaints.append(str(error)))
        found.page.goto(address.as_uri() if isinstance(address, Path) else address)
        found.page.wait_for_selector(ready)
        return found

    yield open_page
    complaints = [complaint for _, found in opened for complaint in found.complaints]
    for context, _ in opened:
        context.close()
    assert complaints == []


@pytest.fixture
def page(made, visit):
    return visit(made / "gallery/index.html")


def audit(page) -> list[str]:
    """What axe finds wrong, with the elements."""
    from axe_playwright_python.sync_playwright import Axe

    # Preloaded are style sheets, by requests that the page does not allow.
    found = Axe().run(page, options={"preload": False}).response["violations"]
    return [f"{rule['id']}: {[node['html'][:120] for node in rule['nodes']]}" for rule in found]


def slide(page, selector, value):
    page.locator(selector).evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')); }", value
    )


# What is shown


def test_it_opens_from_disk_and_asks_nobody_else(page, made):
    assert page.page.locator(".pair").count() == 8
    assert page.page.title() == page.text("h1") == "trees distilled by FADRM, 2 images per class"
    assert "8 images of 8 × 8 pixels in 4 classes, distilled from example/trees by FADRM" in page.text("#lede")
    folder = (made / "gallery").as_uri()
    asked = [request for request in page.requests if not request.startswith("data:")]
    assert asked and all(request.startswith(folder) for request in asked)
    assert {Path(request).name for request in asked} >= {"index.html", "start-00000.webp", "recovered-00000.webp"}


def test_a_hostile_name_is_text(page):
    assert page.page.locator("h3", has_text="onerror").inner_text().startswith(HOSTILE)
    assert page.page.locator("main img, dialog img").count() == 0 and page.page.locator("main script").count() == 0
    page.page.locator(".pair").nth(2).click()
    assert page.text("#detail-title").startswith(HOSTILE)
    assert "taken" not in page.page.title()


def test_scripts_and_pictures_from_elsewhere_are_refused(made, visit):
    found = visit(made / "gallery/index.html")
    blocked = found.page.evaluate("""() => new Promise((done) => {
      const refused = [];
      document.addEventListener("securitypolicyviolation", (event) => {
        refused.push(event.effectiveDirective);
        if (refused.length === 3) done(refused.sort());
      });
      document.body.append(Object.assign(document.createElement("img"), { src: "https://example.org/a.png" }));
      const script = Object.assign(document.createElement("script"), { textContent: "document.title = 'taken'" });
      document.body.append(script);
      fetch("https://example.org/").catch(() => {});
    })""")
    assert blocked == ["connect-src", "img-src", "script-src-elem"]
    assert found.page.title() != "taken"
    found.complaints.clear()  # the browser tells of each refusal


def test_tiles_show_their_own_image_at_every_stage(made, visit):
    """Served, since a browser tells no pixels of files from disk. Class 2, image 0: row 2."""
    images, _ = read_images(made)
    with served(made / "gallery") as address:
        found = visit(address)
        tile, origin = (f'.pair[data-row="2"] .tile.{kind}' for kind in ("now", "origin"))
        assert found.text("#stage-name") == "recovered image"
        for x, y in ((0, 0), (7, 3), (2, 7)):
            assert found.page.evaluate(PIXEL, [tile, x, y]) == images[2, :, y, x].tolist()
            assert found.page.evaluate(PIXEL, [origin, x, y]) == (255 - images[2, :, y, x]).tolist()
        slide(found.page, "#stage", 2)
        assert found.text("#stage-name") == "iteration 500, after the residual (available for 4 images)"
        assert found.page.evaluate(PIXEL, [tile, 1, 1]) == snapshot_images(2)[2, :, 1, 1].tolist()
        assert found.page.locator(".tile.unknown").count() == 4  # of the second images nothing was kept
        slide(found.page, "#stage", 0)
        assert found.page.evaluate(PIXEL, [tile, 1, 1]) == (255 - images[2, :, 1, 1]).tolist()
        assert found.page.locator(".tile.unknown").count() == 0


def test_views_are_drawn_and_labelled_as_the_teachers_saw_them(made, visit):
    images, _ = read_images(made)
    with served(made / "gallery") as address:
        found = visit(address)
        found.page.locator('.pair[data-row="5"]').click()
        assert found.page.locator(".view").count() == 3
        found.page.wait_for_function(IS_DRAWN)
        for epoch in range(3):
            rows = read_soft_labels(made, epoch)
            index = rows["image"].tolist().index(5)
            columns = {name: torch.from_numpy(column[index : index + 1]) for name, column in rows.items()}
            expected = render_views(images, LabelViews.from_columns(columns))[0].permute(1, 2, 0).numpy()
            canvas = found.page.locator(".view canvas").nth(2 * epoch + 1)
            side, shown, rendering, drawn = canvas.evaluate(DRAWN)
            assert (side, shown % side, rendering) == (8, 0, "pixelated"), "its own size, enlarged by whole numbers"
            pixels = np.array(drawn).reshape(8, 8, 4)[..., :3]
            # A browser's interpolation is another; mirrored, shifted or mixed otherwise, noise is 60 levels apart.
            assert np.abs(pixels - expected).mean() < 4, epoch
            said = found.page.locator(".said").nth(epoch).locator("li")
            share = torch.from_numpy(rows["logits"][index]).double().softmax(0).max().item()
            best = int(rows["logits"][index].argmax())
            assert said.nth(0).locator(".name").inner_text() == CLASSES.names[best]
            assert said.nth(0).locator(".number").inner_text() == f"{100 * share:.1f} %"
            assert said.count() == 4


def test_measured_numbers_are_on_the_page(page):
    rows = page.page.locator("#accuracy tbody tr").all_inner_texts()
    assert [re.search(r"\d+\.\d ± \d\.\d", row)[0] for row in rows] == ["62.0 ± 2.0", "55.0 ± 2.0", "91.0 ± 2.0"]
    widths = page.page.locator("#accuracy .filled").evaluate_all("bars => bars.map(bar => bar.style.width)")
    assert widths == ["62%", "55%", "91%"]
    curves = page.page.locator("#course svg")
    assert curves.count() == 2 and curves.nth(0).locator("circle").count() == 4
    assert (
        curves.nth(0).get_attribute("aria-label") == "Entropy of features (bits): 5.500 at the start, 5.200 at the end"
    )
    assert "6.200 ± 0.100 bits" in page.text("#scores")


HUB = """<!doctype html><meta charset="utf-8"><style>
body { width: 740px; margin: 0; font: 16px/1.6 sans-serif } img { max-width: 100%; height: auto }
table { border-collapse: collapse; font-size: 14px } th, td { padding: 4px 10px }
</style><body>"""  # about as the Hub sets a card


def test_the_card_fits_the_column_of_the_hub(made, browser, tmp_path):
    """Results are in the first screen, below the picture, and no table is wider than the page, the folded ones too."""
    text = (made / "README.md").read_text("utf-8").split("---\n", 2)[2]
    copytree(made / "assets", tmp_path / "assets")
    (tmp_path / "card.html").write_text(HUB + MarkdownIt("commonmark").enable("table").render(text), "utf-8")
    page = browser.new_page(viewport={"width": 740, "height": 900})
    page.goto((tmp_path / "card.html").as_uri())
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    tables = page.locator("table").evaluate_all("all => all.map(each => each.getBoundingClientRect().right)")
    assert len(tables) == 6 and max(tables) <= 740
    widths = page.locator("img").evaluate_all("all => all.map(each => [each.naturalWidth > 600, each.width])")
    assert widths and all(is_sharp and width == 620 for is_sharp, width in widths)
    assert page.locator("h2:has-text('Results') ~ table").first.bounding_box()["y"] < 900
    page.close()


# How it answers


def test_classes_are_searched_and_chosen(page):
    page.page.keyboard.press("/")
    assert page.focused() == "search"
    page.page.keyboard.type("CED")
    assert page.sections() == ["2"] and page.text("#found") == "1 of 4 classes"
    page.page.locator("#search").fill("n1")
    assert page.sections() == ["1"]
    page.page.locator("#search").fill("nothing of the kind")
    assert page.sections() == [] and page.text("#found") == "0 of 4 classes"
    page.page.locator("#class").select_option("3")
    assert page.sections() == ["3"] and page.page.locator("#search").input_value() == ""
    page.page.locator("#class").select_option("")
    assert page.sections() == ["0", "1", "2", "3"] and page.text("#found") == "4 classes"


def test_a_keyboard_reaches_everything(page):
    keys = page.page.keyboard
    keys.press("Tab")
    assert page.page.evaluate("document.activeElement.textContent") == "Skip to the images"
    page.page.locator("#stage").focus()
    keys.press("Tab")
    assert page.focused() == "ash, image 1"
    keys.press("ArrowRight")
    assert page.focused() == "ash, image 2"
    keys.press("Tab")  # one stop for each class
    assert page.focused() == f"{HOSTILE}, image 1"
    keys.press("Shift+Tab")
    keys.press("Enter")
    assert page.page.locator("#detail").is_visible() and page.text("#detail-title") == "ash, image 2"
    keys.press("ArrowRight")
    assert page.text("#detail-title") == f"{HOSTILE}, image 1"
    keys.press("ArrowLeft")
    page.page.locator("#detail-stage").focus()
    keys.press("ArrowLeft")
    assert page.page.locator("#detail-stage").get_attribute("aria-valuetext").startswith("iteration 500, after")
    assert page.text("#detail-title") == "ash, image 2", "arrows on the slider move the slider"
    keys.press("Escape")
    assert not page.page.locator("#detail").is_visible() and page.focused() == "ash, image 2"


def test_code_is_copied(made, visit):
    found = visit(made / "gallery/index.html", permissions=["clipboard-read", "clipboard-write"])
    found.page.evaluate("window.setTimeout = () => 0")  # a button says for two seconds that it has copied
    buttons = found.page.get_by_role("button", name=re.compile("^Copy: "))
    codes = found.page.locator("#use code").all_inner_texts()
    assert len(codes) == buttons.count() == 3 and codes[2].startswith("fadrm-hf train-student trees")
    for place, code in enumerate(codes):
        buttons.nth(place).click()
        found.page.get_by_role("status").filter(has_text="Copied").nth(place).wait_for(state="attached")
        assert found.page.evaluate("navigator.clipboard.readText()") == code


def test_the_theme_is_that_of_the_machine_until_one_is_chosen(made, visit):
    found = visit(made / "gallery/index.html", color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    assert found.page.evaluate(ground) == "rgb(19, 23, 27)"
    found.page.locator("#theme").click()
    assert found.page.evaluate(ground) == "rgb(250, 249, 247)"
    found.page.reload()
    assert found.page.evaluate(ground) == "rgb(250, 249, 247)"
    assert found.text("#theme") == "Dark", "the theme that it leads to"


@pytest.mark.parametrize(("scheme", "viewport"), [("light", DESK), ("dark", PHONE)])
def test_nothing_stands_in_the_way_of_screen_readers_and_phones(made, visit, scheme, viewport):
    found = visit(made / "gallery/index.html", viewport=viewport, color_scheme=scheme)
    assert audit(found.page) == []
    assert found.page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    found.page.locator(".pair").first.click()
    found.page.wait_for_selector(".view")
    assert audit(found.page) == []
    assert found.page.evaluate("document.querySelector('#detail').scrollWidth <= innerWidth")


SIDES = """section => [...section.querySelectorAll(".strip")].map((strip) => {
  const [box, style] = [strip.getBoundingClientRect(), getComputedStyle(strip)];
  return [box.left, box.top, style.borderTopColor, strip.querySelectorAll(".tile").length];
})"""
LEGEND = "all => all.map(each => getComputedStyle(each).borderTopColor)"


@pytest.fixture(scope="module")
def compared(made, tmp_path_factory):
    """The page of two artifacts, the second with another recipe."""
    folder = tmp_path_factory.mktemp("compared")
    other = make_gallery(folder / "others", snapshots=False)
    manifest = read_manifest(other)
    method = manifest.config["method"] | {"alpha": 0.25}
    write_manifest(other, replace(manifest, config=manifest.config | {"method": method}))
    assert main(["gallery", str(made), str(other), "--output", str(folder / "page")]) == 0
    return folder / "page/index.html"


@pytest.mark.parametrize(("scheme", "viewport"), [("light", DESK), ("dark", PHONE)])
def test_several_artifacts_are_compared(compared, visit, scheme, viewport):
    found = visit(compared, ready="#measured article", viewport=viewport, color_scheme=scheme)
    assert "62.0 ± 2.0 %" in found.text("#accuracy") and found.page.locator("#accuracy article").count() == 3
    assert found.page.locator("#differences tbody tr").all_inner_texts() == ["method.alpha\t0.5\t0.25"]
    found.page.locator("#images").scroll_into_view_if_needed()
    classes = found.page.locator(".class")
    classes.first.locator(".tile").first.wait_for()
    assert classes.count() == 4 and classes.first.locator(".strip p").all_inner_texts() == ["trees", "others"]
    (left, top, colour, num), (right, below, another, same) = classes.first.evaluate(SIDES)
    assert top == below and left < right and num == same == 2, "beside each other, also on a phone"
    assert [colour, another] == found.page.locator("#artifacts li").evaluate_all(LEGEND) and colour != another
    assert audit(found.page) == []
    assert found.page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    found.page.locator("#search").fill("elm")
    assert found.text("#found") == "1 of 4 classes"


def test_a_comparison_leads_to_what_it_compares(compared, visit):
    found = visit(compared, ready="#measured article")
    links = found.page.locator("#artifacts strong a").evaluate_all("all => all.map(each => each.getAttribute('href'))")
    assert links == ["../others/gallery/index.html"], "the other artifact is in a folder that is not next to the page"
    found.page.locator("#artifacts strong a").click()
    assert found.page.title() == "trees distilled by FADRM, 2 images per class"


BOXES = """() => {
  const boxOf = (each) => {
    const { left, right, top, width } = each.getBoundingClientRect();
    return [left, right, top, width];
  };
  const pair = document.querySelector(".pair");
  return {
    area: boxOf(document.querySelector("#classes")),
    tables: [...document.querySelectorAll("table")].map(boxOf),
    classes: [...document.querySelectorAll(".class")].map(boxOf),
    pair: [...pair.children].map(boxOf),
    marks: [...pair.children].map((tile) => getComputedStyle(tile).boxShadow.split(")")[0] + ")"),
    legend: [...document.querySelectorAll(".legend .key")].map((key) => getComputedStyle(key).backgroundColor),
  };
}"""


def test_few_images_fill_the_width_and_say_which_is_real(page):
    """Of 8 pixels, two of each of four classes: enlarged by a whole number, all classes in one line."""
    found = page.page.evaluate(BOXES)
    left, right, _, width = found["area"]
    assert len({top for _, _, top, _ in found["classes"]}) == 1
    (origin, now), tile = found["pair"], found["pair"][0][3]
    assert tile % 8 == 0 and 8 * tile > 0.75 * width, "eight images take most of the line"
    assert origin[0] == now[0] and origin[2] < now[2], "the real patch above, what became of it below"
    assert found["marks"] == found["legend"] and len(set(found["legend"])) == 2
    assert all(box[:2] == [left, right] for box in found["tables"]), "tables and images end at the same line"


def test_where_it_comes_from_is_at_the_top(page):
    facts = dict(part.split("\n", 1) for part in page.page.locator("#facts > div").all_inner_texts())
    assert facts["Source"] == "example/trees" and facts["Licence"] == "other"
    assert facts["Cost"].startswith("90.2 s\n") and facts["Size"].startswith("images ")
    links = page.page.locator("#facts a").evaluate_all("all => all.map(each => each.href)")
    assert links == ["https://huggingface.co/datasets/example/trees", "https://example.org/terms"]


def rendering(page) -> str:
    return page.locator(".tile").first.evaluate("tile => getComputedStyle(tile).imageRendering")


def test_pixels_of_small_images_stay_square(visit, made):
    assert rendering(visit(made / "gallery/index.html").page) == "pixelated"


def test_fifty_thousand_images_are_shown_as_they_come_into_sight(visit, tmp_path):
    """`benchmarks/gallery.py` measures how fast."""
    found = visit(make_large_gallery(tmp_path))
    assert found.page.locator(".class").count() == LARGE_CLASSES
    assert rendering(found.page) == "auto", "thumbnails are no pixels of images"
    assert len({request for request in found.requests if request.endswith(".webp")}) <= 4, "sheets not yet needed"
    height = found.page.evaluate("document.documentElement.scrollHeight")
    found.page.locator("#search").fill("class 999")
    assert found.sections() == ["999"]
    found.page.wait_for_selector('.class[data-label="999"] .pair')
    found.page.locator("#search").fill("")
    found.page.evaluate("document.querySelector('[data-label=\"999\"]').scrollIntoView()")
    found.page.wait_for_selector('.class[data-label="999"] .pair')
    found.page.wait_for_function("document.querySelectorAll('.pair').length < 2000")
    moved = abs(found.page.evaluate("document.documentElement.scrollHeight") - height)
    assert moved < 20, "of 700,000 pixels, nothing jumps"
    slide(found.page, "#stage", 0)
    assert found.text("#stage-name") == "real patch"
