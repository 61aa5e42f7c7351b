"""Pictures of the site as a browser shows it: python docs/site/look.py [SITE [FOLDER]].

Some pages, each at the width of a desk and of a phone, light and dark, for a person to look at:
the site is build/site, the folder build/look, unless they are given.  Ends with 1 if a page is
wider than that.  Needs Chromium; $CHROMIUM names it, if it has another name.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

BUILD = Path(__file__).resolve().parents[2] / "build"
PAGES = (
    "index",
    "docs/ten-minutes",
    "docs/collectives",
    "docs/gtc",
    "docs/plan",
    "api/refimpl.nn",
)
SIZES = {"desk": (1400, 1600), "phone": (390, 2000)}
THEMES = {"dark": 0, "light": 1}  # as Chromium counts them
FLAGS = """--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking
    --disable-component-update --disable-sync --hide-scrollbars --allow-file-access-from-files"""

# A window is 500 wide at least; a frame in it may be as narrow as a phone.
FRAME = """<!doctype html><body style="margin:0"><iframe src="{uri}" width="{width}"
height="{height}" style="border:0"
onload="document.title = contentDocument.documentElement.scrollWidth"></iframe>"""


def look(chromium: str, site: Path, folder: Path) -> list[str]:
    """Write the pictures; return what is wrong with pages."""
    folder.mkdir(parents=True, exist_ok=True)
    wrong, quiet = [], {"check": True, "capture_output": True, "text": True, "timeout": 120}
    with tempfile.TemporaryDirectory() as scratch:
        opened = Path(scratch) / "page.html"
        browser = [chromium, *FLAGS.split(), f"--user-data-dir={scratch}/user"]
        for page in PAGES:
            for size, (width, height) in SIZES.items():
                uri = (site / f"{page}.html").resolve().as_uri()
                opened.write_text(FRAME.format(uri=uri, width=width, height=height))
                window = f"--window-size={max(width, 500)},{height}"
                for theme, number in THEMES.items():
                    picture = folder / f"{page.replace('/', '-')}-{size}-{theme}.png"
                    setting = f"--blink-settings=preferredColorScheme={number}"
                    asked = [*browser, setting, window, f"--screenshot={picture}", str(opened)]
                    subprocess.run(asked, **quiet)
                asked = [*browser, window, "--dump-dom", str(opened)]
                dom = subprocess.run(asked, **quiet).stdout
                (taken,) = re.findall(r"<title>(\d+)</title>", dom)
                if int(taken) > width:
                    wrong.append(f"{page} is {taken} wide on a {size} of {width}")
    return wrong


if __name__ == "__main__":
    places = [Path(word) for word in sys.argv[1:]]
    site, folder = [*places, *[BUILD / "site", BUILD / "look"][len(places) :]]
    told = look(os.environ.get("CHROMIUM", "chromium"), site, folder)
    print(f"look at {folder}", *told, sep="\n")
    sys.exit(bool(told))
