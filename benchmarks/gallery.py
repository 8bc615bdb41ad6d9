"""A gallery in a real browser: how long it takes to open, search, slide and scroll through, and what it holds.

The gallery of an artifact is regenerated elsewhere, then opened from disk in the Chromium of this machine (`make
browser`). Seconds are those until what was asked for is drawn; the longest pause is the longest time, while the whole
page is scrolled through screen by screen, in which the page could not answer.

    .venv/bin/python benchmarks/gallery.py runs/fadrm-in1k-ipc50
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import psutil
from playwright.sync_api import Page

from fadrm_hf.artifact.manifest import read_manifest
from fadrm_hf.report.gallery.sheets import RECORD
from fadrm_hf.report.gallery.writing import PAGE, write_gallery
from fadrm_hf.runtime.files import read_json, write_json
from fadrm_hf.runtime.machine import describe_machine, library_versions
from fadrm_hf.runtime.progress import Reporter
from fadrm_hf.runtime.run_folder import WorkFolder

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from fixtures.browser import start_browser

DESK = {"width": 1200, "height": 900}
SECONDS_PER_SCREEN = 0.1  # about as fast as a wheel is turned
# The sheets of the images on the screen are decoded, and two frames have passed.
DRAWN = """async () => {
  const seen = [...document.querySelectorAll(".tile")].filter((tile) => {
    const box = tile.getBoundingClientRect();
    return box.bottom > 0 && box.top < innerHeight;
  });
  const addresses = new Set(seen.map((tile) => tile.style.backgroundImage.slice(5, -2)));
  await Promise.all([...addresses].map((address) => Object.assign(new Image(), { src: address }).decode()));
  const frame = () => new Promise((done) => requestAnimationFrame(done));
  await frame().then(frame);
  return seen.length;
}"""
WATCH = """() => {
  window.pauses = [];
  new PerformanceObserver((list) => window.pauses.push(...list.getEntries().map((entry) => entry.duration)))
    .observe({ type: "longtask" });
}"""


def seconds_of(page: Page, ask: Callable[[], object], shown: str) -> float:
    """Trigger an action, and wait until its result is drawn."""
    started = time.perf_counter()
    ask()
    page.wait_for_selector(shown)
    assert page.evaluate(DRAWN) > 0
    return time.perf_counter() - started


def scroll_through(page: Page) -> dict[str, float]:
    """Scroll to the last class; return how much of the page exists at once and the longest time it does not answer."""
    page.evaluate(WATCH)
    height, most, started = page.evaluate("document.documentElement.scrollHeight"), 0, time.perf_counter()
    steps = range(0, int(height), DESK["height"])
    for top in steps:
        page.evaluate("(top) => window.scrollTo(0, top)", top)
        time.sleep(SECONDS_PER_SCREEN)
        most = max(most, page.evaluate("document.querySelectorAll('.pair').length"))
    page.evaluate(DRAWN)
    pauses = page.evaluate("window.pauses")
    return {
        "screens": len(steps), "seconds": time.perf_counter() - started, "most_images_at_once": most,
        "longest_pause_seconds": max(pauses, default=0.0) / 1000, "pauses_over_50_ms": len(pauses),
    }  # fmt: skip


def memory_of_browser() -> int:
    """Return the bytes that belong to the browser's processes alone."""
    children = psutil.Process().children(recursive=True)
    return sum(child.memory_full_info().uss for child in children if "chrom" in child.name())


def measure(page: Page, address: str, last: int, name: str) -> dict[str, object]:
    """Measure every figure of one page."""
    fetched: list[str] = []
    page.on("request", lambda request: fetched.append(request.url.rpartition("/")[2]))
    opened = seconds_of(page, lambda: page.goto(address), ".pair")
    at_first = sum(url.endswith(".webp") for url in fetched)
    memory = memory_of_browser()
    wanted = f'.class[data-label="{last}"] .pair'
    searched = seconds_of(page, lambda: page.locator("#search").fill(name), wanted)
    page.locator("#search").fill("")
    slid = seconds_of(page, lambda: page.locator("#stage").fill("0"), ".pair")
    page.locator("#stage").fill(page.locator("#stage").get_attribute("max") or "0")
    return {
        "open_seconds": opened, "sheets_at_first": at_first, "browser_bytes_at_first": memory,
        "search_seconds": searched, "slide_seconds": slid, "scrolled": scroll_through(page),
        "browser_bytes_after": memory_of_browser(),
    }  # fmt: skip


def draw(artifact: Path, place: Path) -> dict[str, object]:
    """Regenerate the gallery of an artifact elsewhere, from its shards if they are still there."""
    started, before = time.perf_counter(), time.process_time()
    work = WorkFolder(artifact).path
    write_gallery(artifact, read_manifest(artifact), work if work.is_dir() else None, place, reporter=Reporter())
    made = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - before}
    files = [file for file in place.iterdir() if file.is_file()]
    pictures = read_json(place / RECORD)
    return {
        "thumbnail_side": pictures["side"], "stages": [stage["name"] for stage in pictures["stages"]],
        "made_again": made, "bytes": sum(file.stat().st_size for file in files), "files": len(files),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path, help="run folder")
    parser.add_argument("--name", help="of the file in results/; the artifact's folder if not given")
    arguments = parser.parse_args()
    folder = arguments.artifact.resolve()
    manifest = read_manifest(folder)
    names = manifest.classes.names
    record = {"classes": len(names), "images": manifest.num_images, "size": manifest.pixels.size}
    with tempfile.TemporaryDirectory() as place, contextmanager(start_browser)() as browser:
        drawn = draw(folder, Path(place))
        page = browser.new_page(viewport=DESK)
        found = measure(page, (Path(place) / PAGE).as_uri(), len(names) - 1, names[-1])
    record |= drawn | found
    for key, value in record.items():
        print(f"{key:<24}{value}")
    machine = {"machine": describe_machine(), "versions": library_versions()}
    write_json(Path(f"results/bench-gallery-{arguments.name or folder.name}.json"), record | machine)


if __name__ == "__main__":
    main()
