"""`usconf recipe lfusion` from data to report, small; resuming; data and encoders of one's own."""

from __future__ import annotations

import argparse
import csv
import json
import re

import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")
pytest.importorskip("matplotlib")
Image = pytest.importorskip("PIL.Image")

from usconf.recipes import settings  # noqa: E402
from usconf.recipes.lfusion import command, experiment  # noqa: E402
from usconf.recipes.lfusion.config import QUICK, Config  # noqa: E402
from usconf.recipes.lfusion.made_data import made_frames  # noqa: E402
from usconf.recipes.lfusion.stages import Stages  # noqa: E402
from usconf.uncertainty import ood  # noqa: E402

# Some seconds: whether it runs, not whether it learns.
TINY = {
    "size": 24,
    "train": 6,
    "validation": 2,
    "test": 4,
    "ood": 4,
    "encoder_frames": 6,
    "encoder_steps": 2,
    "width": 2,
    "levels": 1,
    "hidden": 4,
    "rank": 2,
    "steps": 3,
    "batch": 2,
    "draws": 3,
    "inner": 2,
    "clip_length": 3,
    "clip_size": 24,
    "clip_train": 3,
    "clip_validation": 2,
    "clip_test": 3,
    "clip_steps": 2,
    "clip_batch": 2,
    "clip_width": 2,
    "threads": 1,
}
PATHS = ["SSN U-Net", "Dropout U-Net", "Laplace U-Net", "L", "D"]


def config(**values):
    return settings.from_dict(Config, {**TINY, **values})


@pytest.fixture(autouse=True, scope="module")
def little():
    """One thread, and intervals from few resamplings: these take most of a tiny run."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ood, "RESAMPLES", 40)
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A finished run: its folder and its results."""
    folder = tmp_path_factory.mktemp("lfusion")
    report = experiment.run(config(), folder)
    return folder, json.loads((folder / "results.json").read_text()), report


# the whole


def test_every_figure_is_there(tiny):
    """No measure is picked: all paths, measures, scores and fusions have an interval."""
    _, results, _ = tiny
    for kind in ("pictures", "clips"):
        rows = results[kind]["ood"]
        singles = [row for row in rows if not row["measure"].startswith("U(")]
        fused = [row for row in rows if row["measure"].startswith("U(")]
        assert {row["path"] for row in singles} == set(PATHS)
        # TU, EE, MI, PV by mean and by patch, and EPKL.
        assert len(singles) == len(PATHS) * (4 * 2 + 1)
        assert {row["path"] for row in fused} == {f"intra {name}" for name in PATHS} | {
            "C-1",
            "C-2",
        }
        # Four auxiliary measures, two entropies, two scores.
        assert len(fused) == 7 * 4 * 2 * 2
        assert all(0 <= row["low"] <= row["AUROC"] <= row["high"] <= 1 for row in rows)
        assert [row["method"] for row in results[kind]["segmentation"]] == PATHS
    assert {"HD [mm] 75 %", "AD [mm] 1st trimester", "missed"} <= results["pictures"][
        "segmentation"
    ][0].keys()
    assert results["settings"]["draws"] == 3


def test_the_report_needs_nothing_else(tiny):
    _, results, report = tiny
    page = report.read_text(encoding="utf-8")
    assert not re.search(r'(src|href)="(?!data:)', page)
    for text in ("Clips (3-D", "Counterfactual samples", "1st trimester", "C-1: U(MI)", "Settings"):
        assert text in page, text
    assert page.count("data:image/png") > 40
    row = next(row for row in results["pictures"]["ood"] if row["path"] == "C-1")
    assert f"{row['AUROC']:.2f} [{row['low']:.2f}, {row['high']:.2f}]" in page


def test_a_run_goes_on_where_it_was(tiny, tmp_path, monkeypatch):
    """Nothing finished is done again; what is missing gives the same figures as before."""
    import shutil

    folder, results, _ = tiny
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    with monkeypatch.context() as patched:
        patched.setattr(experiment, "train", None)
        patched.setattr(experiment, "score_split", None)
        patched.setattr(experiment, "pretrain", None)
        experiment.run(config(), copy, resume=True)
    assert json.loads((copy / "results.json").read_text()) == results
    for name in ("pictures-laplace-head.pt", "pictures-scores.json", "clips-dropout-head.pt"):
        (copy / "stages" / name).unlink()
    experiment.run(config(), copy, resume=True)
    assert json.loads((copy / "results.json").read_text()) == results


def test_resuming_refuses_other_settings(tiny):
    folder, _, _ = tiny
    with pytest.raises(ValueError, match="got another draws, seed; leave --resume out"):
        experiment.run(config(draws=4, seed=1), folder, resume=True)


def test_without_resume_stages_are_removed(tmp_path):
    first = Stages(tmp_path, {"seed": 0}, frozenset(), resume=False)
    assert first.numbers("a", lambda: {"value": 1}) == {"value": 1}
    again = Stages(tmp_path, {"seed": 0}, frozenset(), resume=True)
    assert again.numbers("a", lambda: {"value": 2}) == {"value": 1}
    anew = Stages(tmp_path, {"seed": 1}, frozenset(), resume=False)
    assert anew.numbers("a", lambda: {"value": 2}) == {"value": 2}


def test_torch_is_left_as_it_was(tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    torch.set_num_threads(2)
    try:
        experiment.run(config(clips=False), tmp_path)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert torch.equal(torch.get_rng_state(), before)


# data and encoders of one's own


@pytest.fixture
def folder(tmp_path):
    """HC18 in small."""
    place = tmp_path / "hc18"
    place.mkdir()
    frames = made_frames(5, size=40, seed=9)
    for number, (image, mask) in enumerate(zip(frames.images, frames.masks, strict=True)):
        Image.fromarray(image).save(place / f"{number:03}_HC.png")
        Image.fromarray(255 * mask).save(place / f"{number:03}_HC_Annotation.png")
    with open(place / "sizes.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["filename", "pixel size(mm)", "head circumference (mm)"])
        for number in range(5):
            spacing, size = frames.spacing_mm[number, 0], frames.circumference_mm[number]
            rows.writerow([f"{number:03}_HC.png", spacing, size])
    return place


def command_line(*words):
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    arguments = parser.parse_args(["lfusion", *map(str, words)])
    return arguments.run(arguments)


def as_words(values):
    return [word for key, value in values.items() for word in ("--set", f"{key}={value}")]


def test_the_command_reads_ones_own_folder(folder, tmp_path, capsys):
    few = {**TINY, "test_share": 0.4, "validation_share": 0.2, "clips": "false"}
    out = tmp_path / "out"
    assert command_line("--data", folder, "-o", out, *as_words(few)) == 0
    assert capsys.readouterr().out.strip() == str(out / "report.html")
    results = json.loads((out / "results.json").read_text())
    assert "clips" not in results and results["settings"]["data"] == str(folder)


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--set", "patch=25", *as_words(TINY)], 1, "patch must be at most the pictures' side, 24"),
        (["--set", "encoder=made_up", *as_words(TINY)], 1, 'encoder must be "made", "timm:NAME"'),
        (["--set", "encoder_channels=3", *as_words(TINY)], 1, "encoder_channels must be 1"),
        (["--set", "device=nowhere", *as_words(TINY)], 1, "device must be auto, cpu or cuda"),
        (["--data", "nowhere"], 1, "data must be a folder, got"),
        (["--data", ".", "--set", "deformation=anatomy"], 1, 'deformation must be "pixels"'),
        (["--set", "drawz=3"], 2, "the key drawz is unknown; did you mean draws?"),
        (["--set", "draws=1"], 2, "draws must be an integer of at least 2, got 1"),
        (["--quick", "--set", "dropout=1"], 2, "dropout must be a number in"),
    ],
)
def test_the_command_refuses(words, status, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command_line("-o", tmp_path / "out", *words) == status
    assert message in capsys.readouterr().err


def test_quick_is_a_config():
    assert settings.from_dict(Config, QUICK).side == 32
    assert Config().side == 64 and Config(data="folder").side == 256


def test_an_encoder_of_ones_own(tmp_path):
    def coarse(images):
        return torch.nn.functional.avg_pool2d(images, 4).repeat(1, 3, 1, 1)

    report = experiment.run(config(clips=False), tmp_path, encoder=coarse)
    page = report.read_text(encoding="utf-8")
    assert "coarse" in page and "3 channels" in page
    assert not (tmp_path / "stages" / "encoder.pt").exists()


def test_an_encoder_that_does_not_fit_is_named(tmp_path):
    def tokens(images):
        return images.flatten(2)

    with pytest.raises(ValueError, match=r"tokens must return a 4-D tensor .* got \(1, 1, 576\)"):
        experiment.run(config(clips=False), tmp_path, encoder=tokens)
