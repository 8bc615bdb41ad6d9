"""Pictures of an artifact in a browser: docs/images/gallery.png, gallery-dark-phone.png and card.png.

python docs/page_pictures.py ARTIFACT

Of a run folder that was distilled with --snapshots, after `baselines` and `score`. Needs a Chromium: `make browser`.
"""

import io
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from markdown import markdown
from PIL import Image
from playwright.sync_api import Browser, Page

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from fixtures.browser import start_browser  # noqa: E402

IMAGES = ROOT / "docs/images"
DESK, PHONE, CARD = {"width": 1280, "height": 1000}, {"width": 360, "height": 780}, {"width": 900, "height": 1500}
GAP = 16  # pixels between phones

# About as the Hub sets a card: its page around it is not ours to draw.
CARD_STYLE = """
body { font: 16px/1.6 system-ui, sans-serif; color: #1f2937; max-width: 740px; margin: 24px auto; }
h1 { font-size: 30px; margin: 0 0 12px } h2 { font-size: 23px; border-bottom: 1px solid #e5e7eb; padding-bottom: 4px }
img { max-width: 100%; } a { text-decoration: underline; color: inherit }
code { font: 13.5px/1.5 ui-monospace, monospace; background: #f3f4f6; border-radius: 4px; padding: 1px 4px }
pre { background: #f3f4f6; border-radius: 8px; padding: 12px 16px; overflow: auto } pre code { padding: 0 }
table { border-collapse: collapse; font-size: 14px }
th, td { border: 1px solid #e5e7eb; padding: 4px 10px; text-align: left }
"""


def main() -> None:
    """Draw all three pictures of the artifact that the command line names."""
    artifact = Path(sys.argv[1]).resolve()
    gallery = (artifact / "gallery/index.html").as_uri()
    with contextmanager(start_browser)() as browser:
        _save("gallery", [_shot(_opened(browser, gallery, DESK, "light"))])
        _save("gallery-dark-phone", _phones(browser, gallery))
        _save("card", [_card(browser, artifact / "README.md")])


def _opened(browser: Browser, address: str, size: dict[str, int], scheme: str) -> Page:
    page = browser.new_page(viewport=size, color_scheme=scheme)
    page.goto(address)
    page.wait_for_load_state("networkidle")
    return page


def _phones(browser: Browser, gallery: str) -> list[Image.Image]:
    """Draw a page on three phones: its top, one image with its teachers' labels, information density."""
    top, one, density = (_opened(browser, gallery, PHONE, "dark") for _ in range(3))
    one.locator(".pair").nth(2).click()
    one.wait_for_selector(".view canvas")
    density.get_by_role("heading", name="Information density").first.evaluate("heading => heading.scrollIntoView()")
    return [_shot(page) for page in (top, one, density)]


def _card(browser: Browser, path: Path) -> Image.Image:
    """Draw the first screens of a card, without the part that the Hub reads."""
    words = path.read_text("utf-8").split("---\n", 2)[2]
    body = markdown(words, extensions=["tables", "fenced_code", "md_in_html"])
    with tempfile.NamedTemporaryFile("w", suffix=".html", dir=path.parent, encoding="utf-8") as html:
        html.write(f"<!doctype html><meta charset='utf-8'><style>{CARD_STYLE}</style>{body}")
        html.flush()
        return _shot(_opened(browser, Path(html.name).as_uri(), CARD, "light"))


def _shot(page: Page) -> Image.Image:
    page.wait_for_timeout(500)  # what is still being drawn
    return Image.open(io.BytesIO(page.screenshot()))


def _save(name: str, shots: list[Image.Image]) -> None:
    """Save the pictures side by side, as one small file."""
    width = sum(shot.width for shot in shots) + GAP * (len(shots) - 1)
    joined = Image.new("RGB", (width, max(shot.height for shot in shots)), "white")
    left = 0
    for shot in shots:
        joined.paste(shot, (left, 0))
        left += shot.width + GAP
    joined.quantize(256, dither=Image.Dither.NONE).save(IMAGES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
