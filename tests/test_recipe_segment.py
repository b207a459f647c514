"""`usconf recipe segment` from data to report, small; the losses; networks; resuming."""

from __future__ import annotations

import argparse
import csv
import json
import math
import re
import shutil

import numpy as np
import pytest

pytestmark = [pytest.mark.torch, pytest.mark.monai]
torch = pytest.importorskip("torch")
pytest.importorskip("matplotlib")

from usconf.recipes import settings  # noqa: E402
from usconf.recipes.segment import configurations, experiment, networks, training  # noqa: E402
from usconf.recipes.segment.config import MADE_KEYS, Config  # noqa: E402
from usconf.recipes.segment.experiment import run  # noqa: E402
from usconf.recipes.segment.folds import Fold  # noqa: E402
from usconf.recipes.segment.made_data import make  # noqa: E402
from usconf.recipes.segment.metrics import METRICS  # noqa: E402

# Some seconds: whether it runs, not whether it learns.
TINY = {
    "patients": 4,
    "pictures": 1,
    "shape": [32, 32],
    "labellings": 3,
    "configurations": ["1ch-dice", "2ch-dice", "1ch-CEconf"],
    "variability": ["1ch-dice", "2ch-dice"],
    "folds": 2,
    "validation_patients": 1,
    "epochs": 2,
    "batch": 2,
    "width": 4,
    "residual_units": 0,
    "ablation": False,
    "passes": 4,
    "workers": 1,
}


def made(**values):
    return settings.from_dict(Config, {**TINY, **values})


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A finished run with ablation: its folder and its results."""
    pytest.importorskip("scikit_posthocs")
    folder = tmp_path_factory.mktemp("tiny")
    config = made(ablation=True, pairs=[[0.5, 100], [0.2, 400]])
    assert run(config, folder) == folder / "report.html"
    return folder, json.loads((folder / "results.json").read_text(encoding="utf-8"))


def test_results_hold_all_figures(tiny):
    _, results = tiny
    extra = ["unet-2ch-dice-alpha0.2-beta400", "unet-1ch-CEconf-alpha0.2-beta400"]
    names = ["unet-1ch-dice", "unet-2ch-dice", "unet-1ch-CEconf"]
    assert list(results["configurations"]) == names + extra
    for figures in results["configurations"].values():
        assert list(figures["summary"]) == list(METRICS)
        assert list(figures["patients"]["DSC"]) == ["p00", "p01", "p02", "p03"]
        assert len(figures["records"]) == 4 and figures["of_organs"] == 12
        mean = np.mean(list(figures["patients"]["DSC"].values()))
        assert figures["summary"]["DSC"]["mean"] == pytest.approx(mean) and 0 < mean < 1
    tests = results["statistics"]["unet"]["DSC"]
    assert tests["methods"] == names and tests["blocks"] == 4 and 0 <= tests["p"] <= 1
    assert [(one["method"], one["baseline"]) for one in tests["comparisons"]] == [
        ("unet-2ch-dice", "unet-1ch-dice")
    ]
    assert [entry["name"] for entry in results["ablation"]] == [
        names[1], extra[0], names[2], extra[1]
    ]  # fmt: skip


def test_variability_compares_experts_network_and_map(tiny):
    _, results = tiny
    cases = results["variability"]["cases"]
    assert len(cases) == 4
    pairs = cases[0]["near"]
    for pair in ("confidence | experts", "depth | experts", "experts | dropout unet-2ch-dice"):
        assert -1 <= pairs[pair]["all"] <= 1 and len(pairs[pair]["bands"]) == 4
    assert all(case["everywhere"]["confidence | depth"]["all"] < -0.3 for case in cases)


def test_report_tells_it(tiny):
    folder, results = tiny
    page = (folder / "report.html").read_text(encoding="utf-8")
    for heading in ("Data", "Configurations", "Statistics", "Predictions", "Variability",
                    "Ablation of alpha and beta", "Settings"):  # fmt: skip
        assert f"<h2>{heading}</h2>" in page
    for name, figures in results["configurations"].items():
        if "alpha" not in name:
            assert f"<td>{name}</td><td>{figures['summary']['DSC']['mean']:.3f} ± " in page
    assert page.count("data:image/png") > 30
    text = re.sub(r"data:image/png;base64,[^\"]*", "", page)
    assert not re.search(r"\b(nan|None|inf)\b", text)


def test_resuming_keeps_what_is_done(tiny, tmp_path):
    folder, results = tiny
    home = tmp_path / "copy"
    shutil.copytree(folder, home)
    config = made(ablation=True, pairs=[[0.5, 100], [0.2, 400]])
    gone = home / "folds" / "fold1" / "unet-2ch-dice.json"
    gone.unlink()
    (home / "results.json").unlink()
    stamps = {path: path.stat().st_mtime_ns for path in home.glob("folds/*/*")}
    run(config, home, resume=True)
    changed = {p for p in home.glob("folds/*/*") if p.stat().st_mtime_ns != stamps.get(p)}
    assert changed == {gone, gone.with_suffix(".npz"), gone.with_suffix(".pt")}
    again = json.loads((home / "results.json").read_text(encoding="utf-8"))
    for part in (results, again):
        for figures in part["configurations"].values():
            del figures["seconds"]
    assert again == results
    with pytest.raises(ValueError, match="same settings to resume, got another epochs"):
        run(made(ablation=True, pairs=[[0.5, 100], [0.2, 400]], epochs=3), home, resume=True)
    # Threads and the like change no figure, and may be others.
    run(made(ablation=True, pairs=[[0.5, 100], [0.2, 400]], threads=2), home, resume=True)


def test_a_new_run_forgets_the_old_one(tiny, tmp_path):
    folder, _ = tiny
    home = tmp_path / "copy"
    shutil.copytree(folder, home)
    (home / "folds" / "fold0" / "unet-1ch-dice.json").write_text("{}", encoding="utf-8")
    run(made(), home)
    told = json.loads((home / "folds" / "fold0" / "unet-1ch-dice.json").read_text(encoding="utf-8"))
    assert len(told["records"]) == 2
    assert not (home / "folds" / "fold0" / "unet-1ch-CEconf-alpha0.2-beta400.json").exists()


def test_what_is_missing_is_told_before_any_training(monkeypatch, tmp_path):
    monkeypatch.setattr(experiment, "_NEEDED", ("monai", "no_such_module"))
    with pytest.raises(ImportError, match=r"needs no_such_module; run: pip install .*recipes"):
        run(made(), tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_processes_change_nothing(tiny, tmp_path):
    _, results = tiny
    run(made(ablation=True, pairs=[[0.5, 100], [0.2, 400]], workers=2), tmp_path)
    again = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    for name, figures in again["configurations"].items():
        assert figures["records"] == results["configurations"][name]["records"]


@pytest.mark.parametrize("network", ["unet", "attention_unet", "unetr"])
@pytest.mark.parametrize("shape", [(32, 48), (16, 32, 32)])
@pytest.mark.parametrize("channels", [1, 2])
def test_networks_take_pictures_and_volumes(network, shape, channels):
    built = networks.build(
        network, channels, 4, shape, width=4, residual_units=1, dropout=0.2
    ).eval()
    with torch.no_grad():
        logits = built(torch.rand(1, channels, *shape))
    assert logits.shape == (1, 4, *shape)
    drops = [part.p for part in built.modules() if isinstance(part, torch.nn.Dropout)]
    # Some of AttentionUnet's own have none, whatever it is given.
    assert 0.2 in drops and set(drops) <= {0.0, 0.2}


def test_losses_are_those_of_the_paper(rng):
    logits = torch.from_numpy(rng.standard_normal((2, 3, 6, 5)))
    target = torch.from_numpy(rng.integers(0, 3, (2, 1, 6, 5)))
    confidence = torch.from_numpy(rng.random((2, 1, 6, 5)))
    share = logits.softmax(1).numpy()
    hot = np.moveaxis(np.eye(3)[target[:, 0].numpy()], -1, 1)
    pixel = -np.log((share * hot).sum(axis=1))
    both, sums = (share * hot).sum(axis=(2, 3)), (share + hot).sum(axis=(2, 3))
    dice = np.mean(1 - (2 * both + 1e-5) / (sums + 1e-5))
    weighted = (confidence[:, 0].numpy() * pixel).mean()
    expected = {
        "dice": dice,
        "CE": pixel.mean(),
        "diceCE": dice + pixel.mean(),
        "CEconf": weighted,
        "diceCEconf": dice + weighted,
    }
    assert list(expected) == list(configurations.LOSSES)
    for name, value in expected.items():
        loss = configurations.criterion(name)(logits, target, confidence)
        assert float(loss) == pytest.approx(value, rel=1e-6), name


def test_training_learns_and_second_channel_is_the_map():
    cases = make(3, 2, (32, 32), labellings=1, seed=1)
    maps = np.stack([np.linspace(1, 0, 32, dtype=np.float32)[:, None].repeat(32, 1)] * 6)
    planes = training.Planes.of(cases, maps)
    image = planes.input([3, 1], 2, torch.device("cpu"))
    assert image.shape == (2, 2, 32, 32)
    assert np.array_equal(image[0, 0], np.float32(cases.cases[3].image) / np.float32(255))
    assert np.array_equal(image[1, 1], maps[1])
    config = made(epochs=30, batch=2, residual_units=2)
    chosen = configurations.parse("2ch-dice", "unet", 0.5, 100)
    fold = Fold([0, 1, 2, 3], [4, 5], [4, 5])
    trained = training.train(planes, fold, 4, chosen, config, seed=0)
    assert trained.losses[-1] < 0.75 * trained.losses[0]
    best = dict(trained.validation)
    assert best[trained.best_epoch] == max(best.values()) > 0.3
    again = training.train(planes, fold, 4, chosen, config, seed=0)
    assert again.losses == trained.losses
    found = training.predict(trained.network, planes, fold.test, 2, batch=1)
    assert found.dtype == np.uint8 and np.array_equal(
        found, training.predict(again.network, planes, fold.test, 2, batch=2)
    )


def test_device_that_is_not_there():
    with pytest.raises(ValueError, match="device must be auto, cpu or cuda, got 'abc'"):
        training.chosen_device("abc")
    assert training.chosen_device("cpu").type == "cpu"


def test_volumes(tmp_path):
    pytest.importorskip("scikit_posthocs")
    config = made(shape=[8, 32, 32], patients=4, epochs=1, passes=2)
    run(config, tmp_path)
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert results["configurations"]["unet-2ch-dice"]["of_organs"] == 12
    assert len(results["variability"]["cases"][0]["profiles"]["confidence"]) == 32


def command(*words):
    from usconf.cli import recipe

    parser = argparse.ArgumentParser()
    recipe.add_parser(parser.add_subparsers(required=True))
    arguments = parser.parse_args(["recipe", "segment", *map(str, words)])
    return arguments.run(arguments)


def test_command(tmp_path, capsys):
    pytest.importorskip("scikit_posthocs")
    yaml = pytest.importorskip("yaml")
    path = tmp_path / "mine.yaml"
    told = {**TINY, "configurations": ["1ch-CE"], "variability": []}
    path.write_text(yaml.safe_dump(told), encoding="utf-8")
    home = tmp_path / "out"
    assert command(path, "-o", home, "--quick", "--set", "epochs=1") == 0
    assert capsys.readouterr().out.strip() == str(home / "report.html")
    chosen = json.loads((home / "results.json").read_text(encoding="utf-8"))["settings"]
    # --set wins over the file, which wins over --quick.
    assert (chosen["epochs"], chosen["patients"], chosen["passes"]) == (1, 4, 4)
    assert command(path, "-o", home, "--set", "epochs=1", "--resume") == 0
    assert command(path, "-o", home, "--set", "epochs=0") == 2
    assert "epochs must be an integer of at least 1" in capsys.readouterr().err
    # Of --quick, what is for made data is left out with data.
    assert command("-o", home, "--quick", "--data", tmp_path / "nowhere") == 1
    assert "data must be a folder with manifest.csv" in capsys.readouterr().err
    assert command(path, "-o", home, "--data", tmp_path) == 2
    assert "patients must not be given with data" in capsys.readouterr().err


def test_nerve_frames(data_dir, tmp_path):
    """Six labelled real frames, two classes (nerve, vessel): everything runs, and is finite."""
    pytest.importorskip("scikit_posthocs")
    frames = sorted(data_dir.glob("linear/usgra_*.png"))
    assert len(frames) == 6
    with open(tmp_path / "manifest.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "label", "patient"))
        for frame in frames:
            writer.writerow((frame, data_dir / "masks" / f"{frame.stem}_label.png", frame.stem))
    told = {key: value for key, value in TINY.items() if key not in MADE_KEYS}
    config = settings.from_dict(
        Config,
        {
            **told,
            "data": str(tmp_path),
            "organs": ["nerve", "vessel"],
            "shape": [64, 64],
            "folds": 3,
            "epochs": 6,
            "learning_rate": 0.01,
            "configurations": ["1ch-CE", "1ch-CEconf", "2ch-dice"],
            "variability": ["2ch-dice"],
        },
    )
    run(config, tmp_path / "out")
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert results["classes"] == ["background", "nerve", "vessel"] and results["unit"] == "pixels"
    for figures in results["configurations"].values():
        assert len(figures["records"]) == 6
        assert all(math.isfinite(loss) for fold in figures["losses"] for loss in fold)
        assert all(fold[-1] < fold[0] for fold in figures["losses"])
    # One labelling per frame: no experts to compare with.
    assert not any("experts" in pair for pair in results["variability"]["cases"][0]["near"])
    assert len(list((tmp_path / "out" / "maps").glob("*.npy"))) == 6
