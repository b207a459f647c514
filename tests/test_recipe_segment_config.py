"""Settings of `usconf recipe segment`: the paper's ten, the ablation, and what is refused."""

from __future__ import annotations

import pytest
from usconf.recipes import settings
from usconf.recipes.segment.config import FREE_KEYS, QUICK, Config
from usconf.recipes.segment.configurations import TEN, parse


def made(**values):
    return settings.from_dict(Config, values, "some.yaml")


def test_the_ten_of_the_paper():
    runs = made(ablation=False).runs()
    assert [run.name for run in runs] == [f"unet-{word}" for word in TEN]
    assert {(run.channels, run.loss) for run in runs} == {
        *((channels, loss) for channels in (1, 2) for loss in ("dice", "CE", "diceCE")),
        *((channels, loss) for channels in (1, 2) for loss in ("CEconf", "diceCEconf")),
    }
    assert [run.uses_map for run in runs] == [False] * 3 + [True] * 7
    assert all((run.alpha, run.beta) == (0.5, 100.0) for run in runs)


def test_baselines_have_the_same_loss_without_the_map():
    names = {run.short: run.baseline for run in made(ablation=False).runs()}
    assert names["2ch-dice"] == "unet-1ch-dice"
    assert names["1ch-CEconf"] == names["2ch-CEconf"] == "unet-1ch-CE"
    assert names["2ch-diceCEconf"] == "unet-1ch-diceCE"


def test_ablation_runs_each_pair_once():
    config = made(networks=["unet", "unetr"], shape=[64, 64])
    table = config.ablation_runs()
    assert [(run.short, run.alpha, run.beta) for run in table] == [
        (short, *pair) for short in ("2ch-dice", "1ch-CEconf") for pair in config.pairs
    ]
    names = [run.name for run in config.runs()]
    assert len(set(names)) == len(names) == 2 * 10 + 2 * 3
    assert {run.name for run in table} <= set(names)
    alone = made(configurations=["1ch-dice"], variability=[])
    assert len(alone.runs()) == 1 + 2 * 4


def test_plain_settings_come_back():
    config = made(**QUICK)
    assert settings.from_dict(Config, settings.plain(config)) == config
    assert settings.plain(config).keys() > FREE_KEYS


def test_file_and_changes(tmp_path):
    pytest.importorskip("yaml")
    path = tmp_path / "mine.yaml"
    path.write_text("epochs: 3\nshape: [32, 32]\n", encoding="utf-8")
    values = settings.changed(settings.read(path), ["epochs=5", "variability=[]", "dropout=0"])
    config = settings.from_dict(Config, values, str(path))
    assert (config.epochs, config.shape, config.variability) == (5, (32, 32), ())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epoch": 3}, "some.yaml: the key epoch is unknown; did you mean epochs"),
        ({"epochs": 0}, "epochs must be an integer of at least 1, got 0"),
        ({"epochs": True}, "epochs must be an integer"),
        ({"networks": ["vnet"]}, "networks must be a list of at least 1, each one of unet"),
        ({"configurations": ["3ch-dice"]}, "configurations must be"),
        ({"pairs": [[1, 2, 3]]}, r"pairs must be a list .*\[alpha, beta\]"),
        ({"shape": [64, 60]}, "shape must hold multiples of 8 for unet"),
        ({"shape": [64, 72], "networks": ["unetr"]}, "multiples of 16 for unetr"),
        ({"shape": [8, 8, 8, 8]}, r"shape must be \[rows, columns\] or"),
        ({"configurations": ["1ch-CE"]}, "variability must name some of the configurations"),
        ({"organs": ["nerve"]}, "organs must be null for made data"),
        ({"data": "x", "pictures": 3}, "pictures must not be given with data, got 3"),
        ({"dropout": 0}, "dropout must be above 0 for variability"),
        ({"hausdorff_percentile": 0}, "hausdorff_percentile must be a number in"),
    ],
)
def test_refuses(values, message):
    with pytest.raises(ValueError, match=message):
        made(**values)


def test_refuses_files(tmp_path):
    pytest.importorskip("yaml")
    path = tmp_path / "bad.yaml"
    path.write_text("a: [", encoding="utf-8")
    with pytest.raises(ValueError, match="must be a YAML file"):
        settings.read(path)
    path.write_text("- 1", encoding="utf-8")
    with pytest.raises(ValueError, match="must hold keys and values"):
        settings.read(path)
    with pytest.raises(ValueError, match="a change must be key=value, got 'epochs'"):
        settings.changed({}, ["epochs"])
    with pytest.raises(ValueError, match="configurations must be among"):
        parse("2ch-focal", "unet", 0.5, 100)
