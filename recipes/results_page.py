"""The page of results and its pictures from the files beside it; `make results` does the same.

python recipes/results_page.py            # results/TABLES.md
python recipes/results_page.py FOLDER     # FOLDER/TABLES.md, from the results in FOLDER
"""

import sys
from pathlib import Path

from fadrm_hf.errors import FadrmError
from fadrm_hf.evaluation.results_page import render_results_page
from fadrm_hf.evaluation.results_pictures import find_pictures
from fadrm_hf.runtime.files import write_bytes

ROOT = Path(__file__).parent.parent


def main(folder: Path) -> None:
    """Write the page of a folder of results, and its pictures."""
    pictures = find_pictures(folder)
    for picture in pictures:
        write_bytes(folder / picture.file, picture.draw())
    write_bytes(folder / "TABLES.md", render_results_page(folder, ROOT / "recipes/configs", pictures).encode())


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "results")
    except FadrmError as error:
        sys.exit(f"error: {error}")
