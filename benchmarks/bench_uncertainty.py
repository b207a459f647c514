"""L-FUSION's whole pipeline in frames a second, its parts, and LaplaceHead.fit: validates first.

    python benchmarks/bench_uncertainty.py [--threads 2] [--seconds 1] [--output FILE]

256 x 256, n = 20: encoder, Laplace and dropout heads, 20 draws of each, measures, fusion. On one
thread, on more, and on CUDA where there is a device. LaplaceHead.fit at 512 x 512 in a process of
its own, by its peak of memory; laplace-torch's full matrix, where it is installed, on pictures that
it can take. The paper's rates, 40 frames a second at n = 20 and 45 without fusion, are of its own
encoder on a card of the A100's class.
"""

from __future__ import annotations

import copy
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import usconf
from commands import cpu_command
from measure import fresh, interleaved, peak, spread
from table import timing
from torch import Tensor, nn
from usconf.recipes.lfusion.encoder import FrozenEncoder, MadeEncoder
from usconf.recipes.lfusion.unets import FeatureBlock, UNet, pointwise, resized
from usconf.uncertainty import (
    DropoutHead,
    LaplaceHead,
    LowRankNormal,
    StochasticHead,
    dropout_samples,
    epkl,
    fuse,
    measures,
)

SIDE, DRAWS, HIDDEN, WIDTH = 256, 20, 24, 16
FIT_SIDE, FIT_CHANNELS = 512, 64
# laplace-torch's full matrix takes a Jacobian of all pixels at once.
PEER_SIDE, PEER_CHANNELS = 32, 8
Call = Callable[[], Any]
Found = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Pipeline:
    """Untrained networks, with a posterior: rates do not depend on what was learned."""

    images: Tensor
    encoder: FrozenEncoder
    block: FeatureBlock
    laplace: LaplaceHead
    spread: StochasticHead
    dropout: DropoutHead
    folded: DropoutHead
    unet: nn.Module

    def features(self, encoded: Tensor) -> Tensor:
        found: Tensor = self.block(encoded, (SIDE, SIDE))
        return found

    def of_dropout(self, encoded: Tensor, folded: bool = False) -> Tensor:
        draws = (self.folded if folded else self.dropout).sample(encoded, DRAWS)
        return resized(draws.flatten(0, 1), (SIDE, SIDE)).unflatten(0, (DRAWS, -1))

    def distributions(self, features: Tensor) -> list[LowRankNormal]:
        around = self.spread(features)
        return [around._replace(mean=mean) for mean in self.laplace.sample(features, DRAWS)]

    @torch.no_grad()
    def __call__(self, fused: bool = True, folded: bool = False) -> Tensor:
        """One frame, from its pixels to the fused map, or to all measures of both heads."""
        encoded = self.encoder(self.images)
        laplace = self.laplace.sample(self.features(encoded), DRAWS)
        dropout = self.of_dropout(encoded, folded)
        of_laplace = measures(laplace)
        if not fused:
            return of_laplace.MI + measures(dropout).MI
        return fuse(laplace, dropout, auxiliary=of_laplace.MI)


def pipeline(device: str) -> Pipeline:
    torch.manual_seed(0)
    made = MadeEncoder()
    channels = sum(made.WIDTHS)
    block, laplace = FeatureBlock(channels, HIDDEN), LaplaceHead(HIDDEN, 1)
    dropout = DropoutHead(channels, 1, (HIDDEN, HIDDEN))
    folded = DropoutHead(channels, 1, HIDDEN, whole_channels=True)
    unet = nn.Sequential(UNet(WIDTH, 3, dropout=0.1), pointwise(WIDTH, 1, 2))
    spread_head = StochasticHead(HIDDEN, 1)
    for part in (block, laplace, dropout, folded, unet, spread_head):
        part.to(device, memory_format=torch.channels_last).eval()
    features = torch.randn(1, HIDDEN, SIDE, SIDE, device=device)
    laplace.fit([(features, (features[:, 0] > 0).long())], precision=1.0)
    encoder = FrozenEncoder(made.to(device), "made")
    images = torch.rand(1, 1, SIDE, SIDE, device=device)
    return Pipeline(images, encoder, block, laplace, spread_head, dropout, folded, unet)


def parts(one: Pipeline) -> dict[str, Call]:
    """The whole, then what it is made of; each part from what the one before it gave."""
    with torch.no_grad():
        encoded = one.encoder(one.images)
        features = one.features(encoded)
        laplace, dropout = one.laplace.sample(features, DRAWS), one.of_dropout(encoded)
        maps = measures(laplace)
        distributions = one.distributions(features)
        normal = one.spread(features)
    calls: dict[str, Call] = {
        "whole pipeline, fused map": one,
        "whole, dropout of whole channels in one block": lambda: one(folded=True),
        "without fusion, measures of both heads": lambda: one(fused=False),
        "encoder": lambda: one.encoder(one.images),
        "Laplace path: block and interpolation": lambda: one.features(encoded),
        "Laplace head: 20 draws": lambda: one.laplace.sample(features, DRAWS),
        "Laplace head: closed-form variance": lambda: one.laplace.variance(features),
        "dropout head, two blocks: 20 draws": lambda: one.of_dropout(encoded),
        "dropout head, whole channels in one block": lambda: one.of_dropout(encoded, True),
        "SSN head: 20 samples": lambda: one.spread(features).sample(DRAWS),
        "measures of 20 draws": lambda: measures(laplace),
        "measures of 20 x 20 samples": lambda: measures(distributions),
        "EPKL of 20 draws": lambda: epkl(distributions),
        "SSN log-density": lambda: normal.log_prob(normal.mean),
        "fusion": lambda: fuse(laplace, dropout, auxiliary=maps.MI),
        "Dropout U-Net: 20 draws": lambda: dropout_samples(one.unet, one.images, DRAWS),
    }
    return {name: _quiet(call) for name, call in calls.items()}


def _quiet(call: Call) -> Call:
    """Without gradients, and until the device is done."""

    def run() -> None:
        with torch.no_grad():
            call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return run


def rates(device: str, threads: int, seconds: float) -> Found:
    torch.set_num_threads(threads)
    usconf.set_num_threads(threads)
    calls = parts(pipeline(device))
    for warm_up in calls.values():
        warm_up()
    return {name: spread(times) for name, times in interleaved(calls, seconds).items()}


# validation: against sums written out


def validate() -> dict[str, float]:
    """Errors of the posterior's covariance, the measures and the fusion against plain float64."""
    torch.manual_seed(0)
    head = LaplaceHead(4, 1).double()
    features = torch.randn(2, 4, 9, 8, dtype=torch.float64)
    head.fit([(features, torch.randint(0, 2, (2, 9, 8)))], precision=2.0)
    phi = torch.cat([features, torch.ones_like(features[:, :1])], 1).movedim(1, -1).reshape(-1, 5)
    p = head(features).detach().sigmoid().reshape(-1)
    hessian = (phi.mT * (p * (1 - p))) @ phi + 2 * torch.eye(5, dtype=torch.float64)
    variance = (phi @ torch.linalg.inv(hessian) * phi).sum(1)
    one, other = torch.randn(2, 6, 2, 1, 9, 8, dtype=torch.float64)
    p = one[:, :, 0].sigmoid()
    entropy = lambda p: -(p * p.log() + (1 - p) * (1 - p).log())  # noqa: E731
    mutual = entropy(p.mean(0)) - entropy(p).mean(0)
    apart = (one - other)[:, :, 0]
    fused = apart.var(0, correction=0).sqrt() * entropy(apart.mean(0).sigmoid())
    fused = fused * mutual.flatten(1).var(1, correction=0)[:, None, None]
    errors = {
        "variance": _error(head.variance(features).reshape(-1), variance),
        "mutual information": _error(measures(one).MI, mutual),
        "fusion": _error(fuse(one, other), fused),
    }
    if not max(errors.values()) < 1e-9:
        raise AssertionError(f"errs by {errors}")
    return errors


def _error(found: Tensor, truth: Tensor) -> float:
    return float((found - truth).abs().max() / truth.abs().max())


# LaplaceHead.fit


def fit(side: int, channels: int) -> Found:
    """Seconds and memory of one picture, in this process: run it in a fresh one."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    labels = torch.randint(0, 2, (1, side, side))
    features = torch.randn(1, channels, side, side)
    before = peak()
    head = LaplaceHead(channels, 1)
    start = time.perf_counter()
    head.fit([(features, labels)])
    seconds = time.perf_counter() - start
    held = features.nbytes + labels.nbytes
    return {"seconds": seconds, "peak": peak(), "more": peak() - before, "held": held}


def against_laplace_torch(seconds: float) -> Found | None:
    """The same posterior by laplace-torch's full matrix; None where it cannot be imported."""
    try:
        from laplace import Laplace
    # Its own imports fail with RuntimeError where torchvision was built for another torch.
    except (ImportError, RuntimeError) as problem:
        return {"missing": str(problem).splitlines()[0]}
    torch.manual_seed(0)
    torch.set_num_threads(1)
    features = torch.randn(1, PEER_CHANNELS, PEER_SIDE, PEER_SIDE)
    labels = (features[:, 0] + torch.randn(1, PEER_SIDE, PEER_SIDE) > 0).long()
    head = LaplaceHead(PEER_CHANNELS, 1)
    loader = _Loader([(features, labels.flatten())])

    def theirs() -> Any:
        peer = Laplace(_PerPixel(copy.deepcopy(head.conv)), "classification", "all", "full")
        peer.fit(loader)
        return peer

    def ours() -> LaplaceHead:
        return head.fit([(features, labels)], precision=1.0)

    error = _error(ours().hessian, theirs().H.double())
    times = interleaved({"usconf": ours, "laplace-torch": theirs}, seconds)
    return {"error": error} | {name: spread(values) for name, values in times.items()}


class _PerPixel(nn.Module):
    """A row of two class scores for every pixel, as laplace-torch wants them."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, features: Tensor) -> Tensor:
        logits = self.conv(features).movedim(1, -1).flatten(0, -2)
        return torch.cat((torch.zeros_like(logits), logits), 1)


class _Loader(list[Any]):
    """A list of batches that says how many observations it holds."""

    @property
    def dataset(self) -> range:
        return range(sum(len(labels) for _, labels in self))

    def __iter__(self) -> Iterator[Any]:
        return super().__iter__()


# the command


SCRIPT = Path(__file__).name


def measure(counts: list[int], seconds: float) -> Found:
    found: Found = {
        "errors": validate(),
        # Each in a process of its own: peaks of memory are of the process.
        "by_threads": {str(n): fresh(SCRIPT, "rates", "cpu", str(n), str(seconds)) for n in counts},
        "fit": {
            str(side): fresh(SCRIPT, "fit", str(side), str(FIT_CHANNELS))
            for side in (FIT_SIDE // 2, FIT_SIDE)
        },
        "laplace-torch": fresh(SCRIPT, "peer", str(seconds)),
    }
    if torch.cuda.is_available():
        found["cuda"] = fresh(SCRIPT, "rates", "cuda", str(max(counts)), str(seconds))
        found["gpu"] = torch.cuda.get_device_name()
    return found


def in_markdown(found: Found) -> str:
    columns = {f"CPU, {n} thread(s)": times for n, times in found["by_threads"].items()}
    if "cuda" in found:
        columns[found["gpu"]] = found["cuda"]
    lines = [f"| {SIDE} x {SIDE}, n = {DRAWS} | " + " | ".join(columns) + " |"]
    lines.append("|---|" + "---|" * len(columns))
    for name in next(iter(columns.values())):
        cells = []
        for times in columns.values():
            rate = 1 / times[name]["median"]
            whole = name.startswith(("whole", "without"))
            cells.append(timing(times[name]) + f", {rate:.1f} frames/s" * whole)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines.append("")
    for side, of_fit in found["fit"].items():
        lines.append(
            f"- LaplaceHead.fit, {side} x {side} pixels of {FIT_CHANNELS} channels: "
            f"{of_fit['seconds']:.2f} s, {of_fit['more'] / 1e6:.0f} MB more than before, with "
            f"{of_fit['held'] / 1e6:.0f} MB of features and labels held; the process "
            f"{of_fit['peak'] / 1e6:.0f} MB"
        )
    lines.append(f"- {_peer_line(found['laplace-torch'])}")
    errors = ", ".join(f"{name} {error:.0e}" for name, error in found["errors"].items())
    where = found["machine"]
    lines += ["", f"Relative errors against float64 written out: {errors}."]
    lines.append(
        f"Medians (quartiles). {where['processor']}, {where['cores']} cores, load "
        f"{where['load']:.1f}, torch {torch.__version__}; {where['date']}, commit "
        f"{where['commit'] or 'unknown'}."
    )
    return "\n".join(lines)


def _peer_line(found: Found) -> str:
    if "missing" in found:
        return f"laplace-torch cannot be imported: {found['missing']}"
    ratio = found["laplace-torch"]["median"] / found["usconf"]["median"]
    return (
        f"{PEER_SIDE} x {PEER_SIDE}, {PEER_CHANNELS} channels, full matrix: usconf "
        f"{timing(found['usconf'])}, laplace-torch {timing(found['laplace-torch'])} "
        f"({ratio:.0f} times that); the matrices differ by {found['error']:.0e}"
    )


if __name__ == "__main__":
    what, *words = sys.argv[1:] or [""]
    if what == "rates":
        print(json.dumps(rates(words[0], int(words[1]), float(words[2]))))
    elif what == "fit":
        print(json.dumps(fit(int(words[0]), int(words[1]))))
    elif what == "peer":
        print(json.dumps(against_laplace_torch(float(words[0]))))
    else:
        sys.exit(cpu_command(__doc__, measure, in_markdown))
