"""Draw the pictures of the README and the guide: a terminal in which a network is trained, its report, and a sweep's.

Needs Chromium and playwright (the extra dev). Takes as long as the trainings: some minutes on a CPU.

    python scripts/draw_screenshots.py
    python scripts/draw_screenshots.py --folder /tmp/pictures     # keeps the runs there, and uses those that are there
"""

import argparse
import html
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from segtrain.errors import UserError
from segtrain.report.run_page import write_run
from segtrain.report.sweep_page import write_sweep

IMAGES = Path(__file__).parents[1] / "docs" / "images"
TRAINING = ("name=first", "optim=adam", "optim.lr=2e-3", "model=enet", "train.epochs=12")
SWEEP = ("-m", "model=enet,fast_scnn", "seed=0,1", "optim=adam", "optim.lr=2e-3", "train.epochs=5",
         "dataset.num_train=60", "hydra.sweep.dir=multirun/networks")
TERMINAL = """<!DOCTYPE html><meta charset="utf-8"><style>
body {{ margin: 0; padding: 18px; background: #ffffff; }}
div {{ display: inline-block; border-radius: 10px; background: #14171a; color: #e8eaed; padding: 14px 18px 18px; }}
pre {{ margin: 0; font: 14px/1.45 "DejaVu Sans Mono", monospace; }}
i {{ display: inline-block; width: 12px; height: 12px; border-radius: 50%; background: #47505a; margin: 0 4px 10px 0; }}
b {{ color: #3fcf9f; }}
</style><div><i></i><i></i><i></i><pre><b>$</b> {command}
{output}</pre></div>"""


def main() -> None:
    """Train where no folder with runs is given, and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where runs are kept")
    folder = parser.parse_args().folder
    try:
        with tempfile.TemporaryDirectory() as name:
            draw(folder or Path(name))
    except UserError as error:
        sys.exit(f"draw_screenshots: {error}")


def draw(folder: Path) -> None:
    """Draw the pictures, with a folder for what is trained for them."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        raise UserError("Chromium is needed: install it, and give its folder in PATH.")
    folder = folder.resolve()
    folder.mkdir(exist_ok=True)
    text = _train(folder, TRAINING).partition("\npixel accuracy")[0]  # down to the table of the scores
    _train(folder, SWEEP)
    (folder / "terminal.html").write_text(TERMINAL.format(
        command=html.escape(shlex.join(["segtrain", *TRAINING])),
        output=html.escape(text.replace(f"{folder.resolve()}/", "").rstrip())), encoding="utf-8")
    os.chdir(folder)  # so that the reports name no folder of this machine
    write_run(Path("outputs/first"))
    write_sweep(Path("multirun/networks"))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = _open(browser, folder / "terminal.html")
        page.locator("div").screenshot(path=IMAGES / "terminal.png")
        page = _open(browser, folder / "outputs" / "first" / "report.html")
        page.wait_for_selector(".stage canvas")
        page.screenshot(path=IMAGES / "report.png")
        page = _open(browser, folder / "multirun" / "networks" / "report.html")
        page.wait_for_selector(".plot canvas")
        page.screenshot(path=IMAGES / "report-sweep.png", full_page=True)
        browser.close()


def _open(browser: Any, path: Path) -> Any:
    page = browser.new_page(viewport={"width": 1280, "height": 1000}, color_scheme="light")
    page.goto(path.absolute().as_uri())
    page.wait_for_timeout(500)
    return page


def _train(folder: Path, arguments: tuple[str, ...]) -> str:
    """Run a command in a folder, and return what it printed, then or when it was run there before."""
    printed = folder / ("sweep.txt" if "-m" in arguments else "training.txt")
    if not printed.exists():
        done = subprocess.run([sys.executable, "-m", "segtrain", *arguments], cwd=folder, check=True, text=True,
                              stdout=subprocess.PIPE)
        printed.write_text(done.stdout, encoding="utf-8")
    return printed.read_text(encoding="utf-8")


if __name__ == "__main__":
    main()
