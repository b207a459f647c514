"""Training runs: what they write, that they go on after a kill, and that processes add up."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import usconf
from usconf import io

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")
yaml = pytest.importorskip("yaml")
pytest.importorskip("safetensors")
pytest.importorskip("PIL")

from usconf.nn import ConfidenceUNet  # noqa: E402
from usconf.training import checkpoint, phantom_cache, train  # noqa: E402
from usconf.training.config import PhantomData, from_dict  # noqa: E402

TINY = {
    "data": {"count": 12, "validation": 3, "clips": 1, "shape": [32, 32]},
    "model": {"width": 4},
    "train": {
        "steps": 6, "batch": 3, "threads": 1, "validate_every": 3, "checkpoint_every": 2,
        "previews": 2, "learning_rate": 2e-3,
    },
}  # fmt: skip


def tiny(**sections):
    values = {name: {**TINY.get(name, {}), **sections.get(name, {})} for name in
              {**TINY, **sections}}  # fmt: skip
    return values


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("phantoms"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, cache):
    """A run that nobody disturbed, and its config."""
    config = from_dict(tiny(data={"cache": cache}))
    run = tmp_path_factory.mktemp("runs") / "whole"
    result = train(config, run)
    assert result.step == 6 and result.weights == run / "best.safetensors"
    return run, config


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def column(path, name):
    return np.array([float(row[name]) for row in table(path)])


# what a run leaves behind


def test_logs_parts_that_add_up(finished):
    run, config = finished
    rows = table(run / "training.csv")
    assert [int(row["step"]) for row in rows] == list(range(1, 7))
    for path in (run / "training.csv", run / "validation.csv"):
        parts = sum(column(path, name) for name in ("unary", "vertical", "horizontal"))
        np.testing.assert_allclose(parts, column(path, "loss"), rtol=1e-5)
    gamma = column(run / "training.csv", "gamma")
    assert gamma[0] == config.loss.gamma_start and gamma[-1] == 75 and (np.diff(gamma) >= 0).all()
    (first, last) = table(run / "validation.csv")
    assert (first["step"], last["step"]) == ("3", "6")
    for name in ("accuracy", "auroc", "artifact_auroc", "violations", "roughness"):
        assert 0 <= float(last[name])
    assert -1 <= float(last["spearman"]) <= 1 and float(last["frame_change"]) >= 0


def test_previews_show_a_line_per_frame(finished):
    run, _ = finished
    names = sorted(path.name for path in (run / "previews").iterdir())
    assert names == ["step-000003.png", "step-000006.png"]
    sheet = io.read(run / "previews" / names[0]).frames[0]
    assert sheet.shape == (2 * 128 + 4, 5 * 128 + 4 * 4)


def test_weights_are_those_that_usconf_takes(finished):
    run, config = finished
    about = usconf.weights.metadata(run / "last.safetensors")
    assert (about["grid"], about["seed"], about["step"]) == ([32, 32], 0, 6)
    # But for a folder of this machine.
    assert from_dict(about["training"]) == replace(config, data=replace(config.data, cache=None))
    image = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    map = usconf.learned(image, weights=run / "last.safetensors")
    state = checkpoint.load(run / "checkpoint.pt")
    network = ConfidenceUNet(**state.network)
    network.load_state_dict(state.weights)
    with torch.no_grad():
        expected = network(torch.from_numpy(image)[None, None].float()).sigmoid()[0, 0].numpy()
    np.testing.assert_allclose(map, expected, atol=5e-3)  # float16 weights


def test_nothing_half_written_stays(finished):
    run, _ = finished
    assert not [path for path in run.rglob("*") if ".part" in path.name]


# resuming


def test_killed_run_goes_on_identically(tmp_path, cache):
    """SIGKILL at an arbitrary moment; the curve afterwards is that of the undisturbed run."""
    values = tiny(data={"cache": cache}, train={"steps": 40, "checkpoint_every": 7,
                                                "validate_every": 10})  # fmt: skip
    whole, run, path = tmp_path / "whole", tmp_path / "killed", tmp_path / "run.yaml"
    train(from_dict(values), whole)
    path.write_text(yaml.safe_dump(values))
    command = [sys.executable, "-m", "usconf.cli", "train", str(path), "-o", str(run)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 300
        while process.poll() is None and time.monotonic() < until:
            log = run / "training.csv"
            # After the first checkpoint, with rows that belong to none.
            if (run / "checkpoint.pt").exists() and log.read_text().count("\n") >= 11:
                break
            time.sleep(0.002)
        else:
            pytest.fail(f"the run ended before it could be killed: {process.poll()}")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    stopped = checkpoint.load(run / "checkpoint.pt").step
    assert 7 <= stopped < 40
    # A row that the kill cut in two.
    with open(run / "training.csv", "a") as file:
        file.write("39,0.12")
    done = subprocess.run(
        [*command, "--resume"], capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert f"going on from step {stopped}" in done.stderr
    for name in ("training.csv", "validation.csv"):
        assert (run / name).read_text() == (whole / name).read_text()
    one, other = (checkpoint.load(folder / "checkpoint.pt") for folder in (whole, run))
    for name, tensor in one.weights.items():
        assert torch.equal(tensor, other.weights[name]), name


def test_average_and_board_go_on_too(tmp_path, cache):
    pytest.importorskip("tensorboard")
    values = tiny(data={"cache": cache}, train={"ema": 0.9, "log": "both", "steps": 4})
    train(from_dict(values), tmp_path / "whole")
    run = tmp_path / "parts"
    _interrupted_at(from_dict(values), run, 2)
    train(from_dict(values), run, resume=True)
    one, other = (checkpoint.load(folder / "checkpoint.pt") for folder in (tmp_path / "whole", run))
    assert one.average is not None
    for name, tensor in one.average.items():
        assert torch.equal(tensor, other.average[name]), name
    assert not torch.equal(one.average["last.weight"], one.weights["last.weight"])
    assert list((run / "events").iterdir())


class _Interrupting:
    """A progress that presses Ctrl-C after some steps."""

    def __init__(self, steps):
        self.left = steps

    def note(self, text):
        pass

    def say(self, text):
        pass

    def advance(self):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)


def _interrupted_at(config, run, step):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(config, run, progress=_Interrupting(step))
    assert signal.getsignal(signal.SIGINT) is before


def test_interrupt_leaves_a_checkpoint_to_go_on_from(finished, tmp_path):
    whole, config = finished
    run = tmp_path / "interrupted"
    _interrupted_at(config, run, 3)
    # The step under way is finished.
    assert checkpoint.load(run / "checkpoint.pt").step in (3, 4)
    train(config, run, resume=True)
    assert (run / "training.csv").read_text() == (whole / "training.csv").read_text()


def test_resuming_what_is_finished_changes_nothing(finished):
    run, config = finished
    before = (run / "training.csv").read_text()
    assert train(config, run, resume=True).step == 6
    assert (run / "training.csv").read_text() == before


# processes


def test_two_processes_add_up_to_one(tmp_path, rng):
    """torchrun on the CPU: unequal parts of a batch, frames with masks of unequal size."""
    root = tmp_path / "frames"
    root.mkdir()
    fan = usconf.Sector((20.0, -10.0), 12.0, 60.0, -0.6, 0.6)
    fan.save(root / "fan.json")
    lines = ["image,label,group,split,geometry"]
    for number in range(6):
        image = rng.integers(0, 256, (48, 40), dtype=np.uint8)
        np.save(root / f"{number}.npy", image)
        np.save(root / f"{number}_label.npy", (image > 128).astype(np.uint8) + (image > 200))
        geometry = "fan.json" if number % 2 else ""
        split = "validation" if number > 3 else "training"
        lines.append(f"{number}.npy,{number}_label.npy,{number},{split},{geometry}")
    (root / "manifest.csv").write_text("\n".join(lines))
    values = tiny(data={"source": "folder", "root": str(root)}, train={"steps": 4})
    values["data"] = {"source": "folder", "root": str(root), "shape": [32, 32]}
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(values))
    train(from_dict(values), tmp_path / "one")
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
        "-m", "usconf.cli", "train", str(path), "-o", str(tmp_path / "two"),
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=200,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(tmp_path / "two" / "best.safetensors")]
    for table_name in ("training.csv", "validation.csv"):
        for name in ("loss", "unary", "vertical", "horizontal"):
            one, two = (column(tmp_path / run / table_name, name) for run in ("one", "two"))
            np.testing.assert_allclose(two, one, rtol=2e-5, atol=1e-9, err_msg=name)
    one, two = (checkpoint.load(tmp_path / run / "checkpoint.pt") for run in ("one", "two"))
    for name, tensor in one.weights.items():
        torch.testing.assert_close(two.weights[name], tensor, rtol=1e-3, atol=1e-4)


def test_more_processes_than_frames_in_a_batch(finished, tmp_path, monkeypatch):
    from contextlib import contextmanager

    from usconf.training import loop
    from usconf.training.distributed import Group

    class Pretended(Group):
        def wait(self):
            pass

    @contextmanager
    def four(device):
        yield Pretended(0, 4)

    monkeypatch.setattr(loop, "group", four)
    with pytest.raises(ValueError, match=r"train\.batch must be at least the number of processes"):
        train(finished[1], tmp_path / "run")


# what it starts from


def test_starts_from_weights(finished, tmp_path):
    run, _ = finished
    start = run / "last.safetensors"
    values = tiny(data={"cache": str(run / "none")}, model={"weights": str(start)},
                  train={"steps": 1, "learning_rate": 1e-9})  # fmt: skip
    values["data"]["cache"] = finished[1].data.cache
    train(from_dict(values), tmp_path / "tuned")
    found = usconf.weights.load(tmp_path / "tuned" / "last.safetensors").state_dict()
    for name, tensor in usconf.weights.load(start).state_dict().items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-5)


def test_weights_carry_the_grid_that_the_config_names(tmp_path, cache):
    values = tiny(data={"cache": cache}, model={"grid": [24, 20]}, train={"steps": 1})
    train(from_dict(values), tmp_path / "run")
    assert usconf.weights.metadata(tmp_path / "run" / "last.safetensors")["grid"] == [24, 20]


def test_learns(finished, tmp_path, cache):
    values = tiny(data={"cache": cache, "count": 6}, loss={"gamma_start": 75},
                  train={"steps": 60, "learning_rate": 5e-3, "validate_every": 60},
                  augmentation={"zoom": 0, "noise": 0, "floor": 0})  # fmt: skip
    train(from_dict(values), tmp_path / "run")
    loss = column(tmp_path / "run" / "training.csv", "loss")
    assert loss[-12:].mean() < 0.95 * loss[:12].mean()


# phantoms made once


def test_cache_is_used_again_and_completed(tmp_path):
    data = PhantomData(count=5, validation=2, clips=1, shape=(32, 32))
    first = phantom_cache.load(data, tmp_path)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(stamps) == 3
    again = phantom_cache.load(data, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == stamps
    np.testing.assert_array_equal(first.clips, again.clips)
    assert first.clips.shape == (1, phantom_cache.CLIP, 32, 32)
    made = usconf.phantom.generate((32, 32), seed=3)
    planes = again.training.gather([3])
    np.testing.assert_array_equal(planes["image"][0], made.image)
    np.testing.assert_array_equal(planes["label"][0], made.labels)
    judged = again.validation.gather([1])
    made = usconf.phantom.generate((32, 32), seed=900_001)
    np.testing.assert_array_equal(judged["artifact"][0], made.artifact)
    np.testing.assert_allclose(judged["transmission"][0] / 255, made.transmission, atol=0.002)


def test_processes_make_the_same_phantoms(tmp_path, monkeypatch):
    monkeypatch.setattr(phantom_cache, "SHARD", 2)
    data = PhantomData(count=4, validation=1, clips=0, shape=(32, 32))
    one = phantom_cache.load(data, tmp_path / "one")
    two = phantom_cache.load(data, tmp_path / "two", workers=2)
    for name in ("image", "label"):
        np.testing.assert_array_equal(
            one.training.gather(range(4))[name], two.training.gather(range(4))[name]
        )
    assert two.clips.shape == (0, phantom_cache.CLIP, 32, 32)


def test_damaged_shards_are_named(tmp_path):
    data = PhantomData(count=2, validation=1, clips=0, shape=(32, 32))
    phantom_cache.load(data, tmp_path)
    path = next(tmp_path.glob("*-ixl-*"))
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError, match=rf"{path.name} must hold .* is damaged; delete it"):
        phantom_cache.load(data, tmp_path)


# refuses


def test_refuses_to_train_over_a_run(finished):
    run, config = finished
    with pytest.raises(FileExistsError, match=r"whole must hold no other run.*--resume"):
        train(config, run)


def test_refuses_to_resume_another_config(finished, cache):
    run, _ = finished
    other = from_dict(tiny(data={"cache": cache}, train={"seed": 1}, loss={"sigma": 1}))
    with pytest.raises(ValueError, match=r"checkpoint\.pt .* differs in loss\.sigma, train\.seed"):
        train(other, run, resume=True)


@pytest.mark.parametrize("damage", ["cut", "noise", "empty", "other", "version", "missing"])
def test_refuses_checkpoints_by_name(finished, tmp_path, damage):
    run, config = finished
    path = tmp_path / "checkpoint.pt"
    content = (run / "checkpoint.pt").read_bytes()
    if damage in ("cut", "noise", "empty"):
        path.write_bytes({"cut": content[:-2000], "noise": b"\0" * 5000, "empty": b""}[damage])
    elif damage == "other":
        torch.save({"weights": torch.ones(2)}, path)
    else:
        values = torch.load(run / "checkpoint.pt", weights_only=True)
        values = {**values, "version": 99} if damage == "version" else values
        if damage == "missing":
            del values["optimizer"]
        torch.save(values, path)
    with pytest.raises(ValueError, match=r"checkpoint\.pt must (be|hold)"):
        train(config, tmp_path, resume=True)


def test_checkpoints_run_no_code(tmp_path):
    path = tmp_path / "checkpoint.pt"
    torch.save({"format": os.system}, path)
    with pytest.raises(ValueError, match=r"checkpoint\.pt must be a checkpoint of usconf train"):
        checkpoint.load(path)


def test_flipped_bytes_never_escape_as_other_errors(finished, tmp_path, rng):
    content = bytearray((finished[0] / "checkpoint.pt").read_bytes())
    path = tmp_path / "checkpoint.pt"
    for _ in range(40):
        spoiled = bytearray(content)
        for place in rng.integers(0, len(content), 20):
            spoiled[place] ^= int(rng.integers(1, 256))
        path.write_bytes(spoiled)
        try:
            checkpoint.load(path)
        except ValueError as error:
            assert "checkpoint.pt" in str(error)


@pytest.mark.parametrize(("device", "message"), [("tpu", "auto, cpu or cuda"), ("cuda", "cuda")])
def test_refuses_devices(finished, tmp_path, device, message):
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    config = from_dict(tiny(train={"device": device}))
    with pytest.raises(ValueError, match=rf"train\.device must be .*{message}"):
        train(config, tmp_path)


def test_says_so_when_the_loss_is_lost(tmp_path, cache):
    config = from_dict(tiny(data={"cache": cache}, model={"head": "logits"},
                            train={"learning_rate": 1e12, "clip": 1e12, "warmup": 0}))  # fmt: skip
    with pytest.raises((RuntimeError, ValueError), match="finite"):
        train(config, tmp_path)
