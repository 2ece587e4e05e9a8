"""task=report: one file, readable by itself, true to what the run left, of whatever state and version."""

import base64
import json
import re
import shlex
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import cv2
import numpy as np
import pytest
import yaml
from helpers import UNET, composed
from hydra import initialize_config_module

from segtrain.inference.selection import ShownImage
from segtrain.labels import Label
from segtrain.report import render, run_page
from segtrain.report.charts import MOST_VALUES, Line, Repeats, make_chart
from segtrain.report.images import embed_images
from segtrain.run.images import write_images
from segtrain.run.logging import start_log, stop_log
from segtrain.run.results import write_config, write_results, write_rows
from segtrain.run.trackers import Tracker

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = "</td><script>alert(1)</script><img src=x onerror=alert(2)>&amp;'\"{{7*7}}"
VOID_TAGS = {"meta", "link", "img", "br", "hr", "input", "wbr"}
CLOSED_IN_SVG = {"path", "use", "rect", "line", "polyline"}


class Page(HTMLParser):
    """A page as a parser sees it; fails on tags that are not closed."""

    def __init__(self, path):
        super().__init__()
        self.text, self.source = "", Path(path).read_text(encoding="utf-8")
        self.tags, self.open, self.cells = [], [], []
        self.feed(self.source)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID_TAGS:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data
            if {"td", "th"} & set(self.open):
                self.cells[-1] += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def write_run(folder, *settings, results=True, dataset="streets", names=("Road", "Car"), num_epochs=3):
    """Leave what a training leaves, with scores that are easy to recognise."""
    folder.mkdir(parents=True)
    with initialize_config_module("segtrain.conf", version_base="1.3"):
        cfg = composed("model=enet", "train.epochs=3", *settings)
    write_config(folder, cfg)
    columns = ["epoch", "step", "train/loss", "train/lr", "train/images_per_second", "train/data_wait", "val/loss",
               "val/miou", "val/iiou", "val/macc", *(f"val/iou/{name}" for name in names)]
    rows = [dict.fromkeys(columns) | {"epoch": epoch, "step": epoch, "train/loss": 3 / epoch, "train/lr": 0.1,
                                      "train/images_per_second": 8.0, "train/data_wait": 0.01, "val/miou": epoch / 10}
            for epoch in range(1, num_epochs + 1)]
    write_rows(folder / "metrics.csv", columns, rows)
    if results:
        write_results(folder, {
            "task": "train", "dataset": dataset, "split": "val", "epoch": 2, "step": 2, "num_images": 4, "loss": 1.25,
            "miou": 0.4567, "macc": 0.5, "pacc": 0.8765, "fwiou": 0.6, "iiou": None,
            "iou_per_class": dict(zip(names, (0.75, 0.1634), strict=True)),
            "acc_per_class": dict(zip(names, (0.9, 0.25), strict=True)), "iiou_per_class": None,
            "confusion_matrix": [[900, 100], [30, 10]], "predicted_void": [0, 0], "iiou_source": None,
            "policy": {"num_classes": 2, "ignore_index": 255, "resolution": "label file",
                       "accumulated_over": "split", "absent_class": "excluded", "class_sizes": None},
            "seconds": 200.0, "images_per_second": 5.0, "params": 350_000, "macs": 1_500_000_000})
    return folder


@pytest.fixture
def run_dir(tmp_path):
    return write_run(tmp_path / "run")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


def needs_nothing(page):
    """Check that a page loads nothing and runs nothing but its own script."""
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        for name in ("src", "href", "data", "action", "srcset"):
            address = attributes.get(name) or ""
            assert "//" not in address or address.startswith(("file:", "data:")), (tag, address)
    assert all(image["src"].startswith("data:image/") and image["alt"] for image in page.all("img"))
    ours = page.source.replace("/*! https://github.com/leeoniya/uPlot (v1.6.32) */", "")
    assert not re.search(r"https?:|@import|url\((?!#)", ours)
    assert len(page.all("script")) == 1
    ids = [attributes["id"] for _, attributes in page.tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    return page


# ---- one run


def test_the_report_shows_the_scores_of_results_json(segtrain, run_dir):
    assert segtrain("task=report", f"task.run={run_dir}", "hydra.run.dir=out") == 0
    page = needs_nothing(Page(run_dir / "report.html"))
    for expected in ("45.67", "87.65", "1.2500", "75.00", "16.34", "0.35", "1.50", "3 min 20 s",
                     "4 images of streets val", "mean of the IoU of 2 classes", "one confusion matrix", "finished"):
        assert expected in page.text
    assert "not finished" not in page.text
    assert "96.15" in page.cells  # the share of Road: 1000 of 1040 pixels
    assert page.cells[(place := page.cells.index("predicted as") + 4):place + 3] == ["Road", "Car", "100"]
    charts = [json.loads(element["data-chart"]) for element in page.all("div") if "data-chart" in element]
    assert [line["label"] for line in charts[0]["lines"]] == ["training"]  # there is no validation loss
    assert charts[0]["lines"][0]["y"] == [3, 1.5, 1]
    assert [chart["marked"] for chart in charts] == [2] * 4
    assert json.loads(Path("out/results.json").read_text())["report"] == str(run_dir / "report.html")


def test_names_and_settings_are_escaped(segtrain, tmp_path):
    run = write_run(tmp_path / "a run", f"dataset.root='{HOSTILE.replace(chr(39), '')}'".replace("{{7*7}}", ""),
                    "dataset=camvid", names=(HOSTILE, "Car"))
    assert segtrain("task=report", f"task.run='{run}'", "hydra.run.dir=out") == 0
    page = needs_nothing(Page(run / "report.html"))
    assert not page.all("img")
    assert "49" not in page.cells
    assert page.text.count(HOSTILE) >= 3


@pytest.mark.parametrize(("num_epochs", "expected"), [(2, "2 epochs so far"), (0, "no epoch is complete")])
def test_an_unfinished_run_says_so(segtrain, tmp_path, num_epochs, expected):
    run = write_run(tmp_path / "run", results=False, num_epochs=num_epochs)
    assert segtrain("task=report", f"task.run={run}", "hydra.run.dir=out") == 0
    page = needs_nothing(Page(run / "report.html"))
    assert expected in page.text
    assert f"segtrain resume={run}" in page.text
    assert ("20.00" in page.text) == (num_epochs == 2)


def test_warnings_of_the_log_are_shown(segtrain, run_dir):
    (run_dir / "train.log").write_text("2026-01-01 00:00:00,000 WARNING warning: class Bus is in no image <b>\n"
                                       "2026-01-01 00:00:01,000 INFO epoch 1/3  loss 1\n"
                                       "2026-01-01 00:00:02,000 INFO changed since the checkpoint: seed 0 -> 1\n")
    assert segtrain("task=report", f"task.run={run_dir}", "hydra.run.dir=out") == 0
    page = Page(run_dir / "report.html")
    assert "class Bus is in no image <b>" in page.text
    assert "changed since the checkpoint: seed 0 -> 1" in page.text
    assert "epoch 1/3" not in page.text


def test_examples_are_those_of_the_best_epoch(run_dir):
    def track(*sheets):
        tracker = Tracker(run_dir, ["Road", "Car"], epoch=3)
        for step, (grey, is_best) in enumerate(sheets, 1):
            sheet = None if grey is None else np.full((8, 20, 3), grey, np.uint8)
            tracker.examples(sheet, step, is_best=is_best)
        tracker.close()

    track((40, True), (120, True), (200, False))
    assert cv2.imread(str(run_dir / "examples.png"))[0, 0].tolist() == [120] * 3
    track((None, False))
    assert (run_dir / "examples.png").exists()
    track((None, True))
    assert not (run_dir / "examples.png").exists()


LABELS = (Label("Road", 0, 0, (128, 64, 128)), Label(HOSTILE, 1, 1, (64, 0, 128)))


def leave_images(folder, *kinds, shape=(60, 80)):
    """Leave images of noise; the prediction is the target but for its left half, in which all is class 1."""
    rng = np.random.default_rng(0)
    entries = []
    for number, kind in enumerate(kinds):
        target = np.repeat(np.repeat(rng.integers(0, 2, (6, 8), np.uint8), shape[0] // 6, 0), shape[1] // 8, 1)
        target[:4] = 255
        pred = np.where(target == 255, 0, target).astype(np.uint8)
        pred[:, :shape[1] // 2] = 1
        image = rng.integers(0, 256, (*target.shape, 3), np.uint8)
        entries.append(ShownImage(number, 0.125, image, target, pred).encode(kind, f"street_{number}", LABELS))
    write_images(folder, LABELS, entries)


def test_images_are_shown_and_those_of_an_evaluation_instead(run_dir, tmp_path):
    leave_images(run_dir, "worst", "best", "example")
    run_page.write_run(run_dir)
    page = needs_nothing(Page(run_dir / "report.html"))
    said = " ".join(page.text.split())
    assert [text in said for text in ("1. worst: street_0, mIoU 12.50 %. Black is void.", "1. best: street_1",
                                      "example 1: street_2", "Predicted by the best checkpoint")] == [True] * 4
    assert len(page.all("img")) == 9

    evaluation = write_run(tmp_path / "eval", "task=evaluate", f"checkpoint={run_dir}")
    results = json.loads((evaluation / "results.json").read_text())
    results["checkpoint"] = str(run_dir / "checkpoints" / "best.pt")
    (evaluation / "results.json").write_text(json.dumps(results))
    leave_images(evaluation, "worst", "worst", "best")
    run_page.write_run(run_dir, evaluation=evaluation)
    page = needs_nothing(Page(run_dir / "report.html"))
    said = " ".join(page.text.split())
    assert "not a checkpoint in this run" not in said
    assert f"Images of {evaluation}" in said
    assert len(page.all("img")) == 9
    viewer = embed_images(evaluation, most_bytes=2 * len(base64.b64decode(page.all("img")[0]["src"].split(",")[1])))
    assert (len(viewer.images), viewer.left_out) == (1, 2)


@pytest.mark.parametrize("damage", [
    lambda entry: entry.update(kind="odd"), lambda entry: entry.update(image=entry["target"]),
    lambda entry: entry.update(target=entry["image"]), lambda entry: entry.update(prediction="AAAA"),
    lambda entry: entry.update(target=ShownImage(0, 0, np.zeros((6, 8, 3), np.uint8), np.full((60, 80), 2, np.uint8),
                                                 np.zeros((60, 80), np.uint8)).encode("best", "", LABELS)["target"])])
def test_damaged_images_are_left_out_and_named(run_dir, damage):
    leave_images(run_dir, "worst")
    content = json.loads((run_dir / "images.json").read_text())
    damage(content["images"][0])
    (run_dir / "images.json").write_text(json.dumps(content))
    path, warnings = run_page.write_run(run_dir)
    assert [warning for warning in warnings if "images.json is damaged" in warning]
    assert not Page(path).all("img")


@pytest.mark.parametrize("arguments", [
    (), ("task.run=nowhere",), ("task.run=empty",), ("task.run=bench",),
    ("task.run=run", "task.output=no/where.html"), ("task.run=run", "task.evaluation=run")])
def test_what_is_no_run_is_refused_and_leaves_nothing(segtrain, run_dir, tmp_path, capsys, arguments):
    (tmp_path / "empty").mkdir()
    write_run(tmp_path / "bench", "task=benchmark", results=False)
    assert segtrain("task=report", *arguments, "hydra.run.dir=out") == 2
    said = capsys.readouterr().err
    assert said.startswith("segtrain: ")
    assert "Traceback" not in said
    assert not list(tmp_path.rglob("report.html"))
    assert not Path("out").exists()


# ---- the command to reproduce


@pytest.mark.parametrize("given", [
    (), ("optim=adam", "optim.lr=2e-3", "train.epochs=30"),
    ("model=fc_densenet67", "loss=cross_entropy_dice", "augmentation=strong", "dataset.crop=[96,128]"),
    ("model=torchvision/fcn_resnet50", "~augmentation.flip", "+optim.amsgrad=true", "optim=adamw"),
    ("dataset=camvid", "dataset.root='/data/my set, [1]/it\\'s'", "train.clip_norm=1", "augmentation=none"),
    ("experiment=camvid_linknet", "dataset.root=/data", "seed=7", "train.max_minutes=1.5", "augmentation.flip.p=0.25")])
def test_the_command_composes_the_same_configuration(hydra, given):
    cfg = composed(*given)
    words = shlex.split(run_page._command({**cfg.plain(), "overrides": list(cfg.overrides)}))
    assert words == ["segtrain", *given]


# ---- sweeps


def leaderboard_of(folder, **errors):
    rows = [{"job": path.name, "status": "failed" if path.name in errors else "done", "task": "train",
             "settings": dict(word.partition("=")[::2] for word in ("train.epochs=3", path.name)),
             "table": None if path.name in errors else 1,
             "overrides": f"train.epochs=3 {path.name}", "error": errors.get(path.name)}
            for path in sorted(folder.iterdir()) if path.is_dir()]
    (folder / "leaderboard.json").write_text(json.dumps(rows))


@pytest.mark.slow
def test_a_sweep_with_failed_and_unfinished_jobs(segtrain, tmp_path):
    sweep = tmp_path / "sweep"
    write_run(sweep / "seed=0")
    write_run(sweep / "seed=1", "seed=1")
    write_run(sweep / "seed=2", results=False, num_epochs=0)
    write_run(sweep / "seed=3", results=False, num_epochs=1)
    leaderboard_of(sweep, **{"seed=2": f"out of memory {HOSTILE}"})
    assert segtrain("task=report", f"task.run={sweep}", "hydra.run.dir=out") == 0
    page = needs_nothing(Page(sweep / "report.html"))
    assert "4 runs, 1 failed, 1 not finished" in page.text
    assert f"out of memory {HOSTILE}" in page.text
    links = {unquote(element["href"]) for element in page.all("a") if not element["href"].startswith("#")}
    assert sorted(links) == [f"seed={seed}/report.html" for seed in range(4)]
    assert all((sweep / link).is_file() for link in links)
    assert "cannot be compared" not in page.text


def test_runs_that_were_not_scored_alike_get_tables_of_their_own(segtrain, tmp_path):
    sweep = tmp_path / "runs"
    write_run(sweep / "one")
    write_run(sweep / "two", dataset="camvid")
    write_run(sweep / "three", names=("Road", "Bus"))
    assert segtrain("task=report", f"task.run={sweep}", "task.jobs=false", "hydra.run.dir=out") == 0
    page = needs_nothing(Page(sweep / "report.html"))
    assert "there are 3 tables" in page.text
    assert "cannot be compared" in page.text
    apart = [" ".join(line.split()) for line in re.findall(r"Table \d \(.*", page.text)]
    assert [line.split(":")[0] for line in apart] == ["Table 2 (three) is apart from table 1",
                                                      "Table 3 (two) is apart from table 1"]
    assert "Bus" in apart[0]
    assert "camvid" in apart[1]
    assert len([element for element in page.all("div") if "leaderboard" in element.get("aria-label", "")]) == 3
    assert not (sweep / "one" / "report.html").exists()


# ---- written by itself


@pytest.mark.slow
def test_a_training_and_a_sweep_write_their_reports(segtrain, capsys):
    tiny = ("dataset.height=32", "dataset.width=48", "dataset.num_train=4", "dataset.num_val=2", "dataset.crop=[32,32]",
            "train.batch_size=2", "runtime.workers=0", "runtime.threads=1", "train.epochs=1", *UNET)
    assert segtrain("-m", "seed=0,1", "hydra.sweep.dir=sweep", *tiny) == 0
    page = needs_nothing(Page("sweep/seed=0/report.html"))
    assert len(page.all("img")) == 3 * (2 + 2)  # two images, which are the worst, and the examples as well
    assert len([element for element in page.all("span") if element.get("class") == "color"]) == 11
    assert "seed=1/report.html" in {unquote(element["href"]) for element in Page("sweep/report.html").all("a")}
    assert "report: sweep/report.html" in capsys.readouterr().out
    Path("sweep/seed=1/results.json").unlink()  # as if it had been stopped after the first epoch
    assert segtrain("task=report", "task.run='sweep/seed=1'", "hydra.run.dir=out") == 0
    said = " ".join(Page("sweep/seed=1/report.html").text.split())
    assert "train: not finished: 1 epoch so far" in said
    assert "the scores are those of the best checkpoint so far" in said
    assert "<dt>training and validation</dt><dd>n/a</dd>" in Page("sweep/seed=1/report.html").source
    assert segtrain("hydra.run.dir=quiet", "train.report=false", *tiny) == 0
    assert not Path("quiet/report.html").exists()


def test_a_report_that_fails_leaves_the_training_finished(run_dir, monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr(run_page, "read_run", broken)
    start_log(run_dir / "train.log")
    try:
        assert render.try_report(run_page.write_run, run_dir) is None
    finally:
        stop_log()
    text = (run_dir / "train.log").read_text()
    assert "WARNING" in text
    assert "no report of" in text
    assert "RuntimeError: a bug" in text


# ---- to the eye


def test_charts_of_many_epochs_stay_small_and_keep_the_last():
    lines = [Line(range(1, 5001), [x / 5000 for x in range(1, 5001)], style) for style in range(40)]
    chart = make_chart("IoU", lines)
    found = json.loads(chart.data)
    assert chart.step == 10
    assert found["x"] == list(range(10, 5001, 10))
    assert all(line["y"][-1] == 1 for line in found["lines"])
    assert sum(len(line["y"]) for line in found["lines"]) <= MOST_VALUES
    assert make_chart("IoU", [Line([1, 2], [None, None], 0)]) is None


def test_the_mean_over_repeats_is_over_epochs_that_all_have():
    mean = Repeats("optim=adam", [Line([1, 2, 3], [0.1, 0.4, None], 0), Line([1, 2, 3, 4], [0.3, 0.2, 0.5, 0.6], 0)])
    line = mean.mean_line(3)
    assert (line.x, line.style, line.label) == ([1, 2], 3, "optim=adam (mean of 2)")
    assert line.y == pytest.approx([0.2, 0.3])
    assert line.band == ([0.1, 0.2], [0.3, 0.4])


def test_colors_contrast_with_their_ground():
    style = Path(render.__file__).with_name("templates").joinpath("report.css").read_text()

    def luminance(color):
        parts = [int(color[place:place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL):
        colors = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
        for name in ("ink", "muted", "accent", *(f"line-{number}" for number in range(1, 7))):
            for ground in ("page", "panel"):
                light, dark = sorted((luminance(colors[name]), luminance(colors[ground])), reverse=True)
                assert (light + 0.05) / (dark + 0.05) >= (3 if name.startswith("line") else 4.5), (name, ground)


@pytest.fixture
def browse(tmp_path):
    """Open a page in Chromium; what its console says must be nothing, and it must not be wider than the window."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    said = []
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])

        def browse(path, width=1440):
            page = browser.new_page(viewport={"width": width, "height": 900})
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            page.goto(f"file://{path}")
            return page

        yield browse
        for context in browser.contexts:
            assert context.pages[0].evaluate("document.documentElement.scrollWidth <= innerWidth")
        browser.close()
    assert said == []


@pytest.mark.slow
def test_a_run_in_a_browser(run_dir, browse):
    leave_images(run_dir, "worst", "best")
    page = browse(run_page.write_run(run_dir)[0])
    canvas = page.locator(".stage canvas")
    canvas.nth(3).wait_for()
    colors = """(canvas, [x, y]) => {
        const copy = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
        copy.drawImage(canvas, -Math.floor(x * canvas.width), -Math.floor(y * canvas.height));
        return [...copy.getImageData(0, 0, 1, 1).data].slice(0, 3);
    }"""
    page.locator(".opacity").fill("1")
    assert canvas.nth(1).evaluate(colors, [0.5, 0.02]) == [0, 0, 0]          # void in the target
    assert canvas.nth(2).evaluate(colors, [0.25, 0.5]) == [64, 0, 128]       # class 1 in the prediction's left half
    assert canvas.nth(3).evaluate(colors, [0.5, 0.02]) == [200, 200, 200]    # not scored
    wrong = [canvas.nth(3).evaluate(colors, [(column + 0.5) / 8, 0.75]) == [255, 45, 45] for column in range(4)]
    target = [canvas.nth(1).evaluate(colors, [(column + 0.5) / 8, 0.75]) for column in range(4)]
    assert wrong == [color == [128, 64, 128] for color in target]
    assert any(wrong)

    page.locator(".stage").focus()
    page.keyboard.press("2")
    assert canvas.count() == 1
    page.keyboard.press("ArrowRight")
    page.locator(".viewer .title", has_text="1. best: street_1").wait_for()
    page.locator(".classes button", has_text="Road").click()
    assert canvas.evaluate(colors, [0.5, 0.02]) != [0, 0, 0]  # void is not Road
    page.get_by_role("button", name="Show all classes").click()
    page.get_by_role("button", name="Slider").click()
    assert page.locator(".sides").is_visible()

    value = page.locator(".chart .legend b").first
    assert value.text_content() == "1"  # the loss of the last epoch
    page.locator(".plot").first.focus()
    page.keyboard.press("ArrowRight")
    assert value.text_content() == "3"
    page.locator(".smoothing").fill("0.5")
    assert page.locator("output").text_content() == "0.50"
    page.locator(".legend button").first.click()
    assert page.locator(".legend button").first.get_attribute("aria-pressed") == "true"  # the only line stays

    table = page.locator("#classes ~ div table")
    names = [table.locator("tbody th").all_text_contents()]
    for _ in range(2):
        table.locator("thead button").nth(1).click()
        names.append(table.locator("tbody th").all_text_contents())
    assert names == [["Road", "Car"], ["Road", "Car"], ["Car", "Road"]]
    phone = browse(run_dir / "report.html", width=390)
    assert phone.locator(".wide.scrolls").count() > 0


@pytest.mark.slow
def test_a_sweep_in_a_browser(segtrain, tmp_path, browse):
    sweep = tmp_path / "sweep"
    for seed, miou in ((0, 0.4), (1, 0.6)):
        run = write_run(sweep / f"seed={seed}", f"seed={seed}")
        results = json.loads((run / "results.json").read_text())
        (run / "results.json").write_text(json.dumps(results | {"miou": miou, "params": 1000 * (seed + 1)}))
        leave_images(run, "example", "example")
    leaderboard_of(sweep)
    assert segtrain("task=report", f"task.run={sweep}", "task.jobs=false", "hydra.run.dir=out") == 0
    needs_nothing(Page(sweep / "report.html"))
    page = browse(sweep / "report.html")
    assert page.locator(".pictures img").count() == 2 * 2 + 2 * 2  # inputs and targets, then a row for each run
    assert page.locator(".chart:visible").count() == 2             # mIoU and training loss, as means
    assert "mean of 2" in page.locator(".chart:visible .legend").first.text_content()
    page.locator("select[data-of]").select_option("runs")
    assert page.locator(".chart:visible .legend button").count() == 4
    first = page.locator(".compare table").nth(1).locator("tbody tr").first.locator("th, td").all_text_contents()
    assert first == ["mIoU", "60.00", "40.00", "-20.00"]
    assert page.locator(".compare table").first.locator("tbody tr").all_text_contents() == ["seed10"]
    assert "seed=0: 0.001 million parameters" in page.locator(".scatter .plot").first.get_attribute("aria-label")


@pytest.mark.slow
def test_the_saved_configuration_is_shown_whole(segtrain, run_dir):
    assert segtrain("task=report", f"task.run={run_dir}", "hydra.run.dir=out") == 0
    shown = Page(run_dir / "report.html").text
    saved = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert yaml.safe_dump(saved, sort_keys=False) in shown
