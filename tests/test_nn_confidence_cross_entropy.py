"""Losses weighted by confidence: they equal the paper, torch and MONAI; gradients; they refuse."""

from __future__ import annotations

import importlib
import pickle

import numpy as np
import pytest
from reference import cross_entropy as oracle

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
]
torch = pytest.importorskip("torch")

SIZES = {"2-D": (9, 7), "3-D": (4, 6, 5)}
CLASSES = 4


def losses():
    nn = importlib.import_module("usconf.nn")
    return nn.ConfidenceCrossEntropy, nn.DiceConfidenceCrossEntropy


class Scene:
    """Logits, labels in all their forms, confidence: NumPy float64 and torch of a dtype."""

    def __init__(self, rng, size, classes=CLASSES, dtype="float64"):
        self.logits = 2 * rng.standard_normal((2, classes, *size))
        self.index = rng.integers(0, classes, (2, *size))
        self.hard = oracle.one_hot(self.index, classes)
        self.soft = oracle.softmax(rng.standard_normal(self.logits.shape))
        self.confidence = rng.random((2, *size))
        self.dtype = getattr(torch, dtype)

    def tensor(self, name):
        return torch.from_numpy(getattr(self, name)).to(self.dtype)

    @property
    def z(self):
        return self.tensor("logits").requires_grad_()

    @property
    def cm(self):
        return self.tensor("confidence")[:, None]

    @property
    def y(self):
        return torch.from_numpy(self.index)


@pytest.fixture(params=SIZES.values(), ids=SIZES)
def scene(request, rng):
    return Scene(rng, request.param)


def test_equals_the_paper(scene):
    plain, _ = losses()
    expected = oracle.entropy(scene.logits, scene.hard, scene.confidence)
    forms = {
        "indices": scene.y,
        "indices with channel": scene.y[:, None],
        "bytes": scene.y.to(torch.uint8),
        "whole floats": scene.y[:, None].float(),
        "one-hot": scene.tensor("hard"),
        "one-hot integers": scene.tensor("hard").long(),
        "one-hot booleans": scene.tensor("hard").bool(),
    }
    for name, target in forms.items():
        for confidence in (scene.cm, scene.cm[:, 0], scene.cm.float().double()):
            ours = plain("none")(scene.z, target, confidence)
            assert ours.shape == scene.y.shape
            np.testing.assert_allclose(ours.detach(), expected, atol=1e-6, err_msg=name)
        ours = plain()(scene.z, target, scene.cm)
        assert ours.item() == pytest.approx(expected.mean(), abs=1e-12), name
    assert plain("sum")(scene.z, scene.y, scene.cm).item() == pytest.approx(expected.sum())
    soft = plain()(scene.z, scene.tensor("soft"), scene.cm)
    expected = oracle.entropy(scene.logits, scene.soft, scene.confidence).mean()
    assert soft.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-13)])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_equals_torch_with_soft_targets(rng, size, dtype, tolerance):
    plain, _ = losses()
    scene = Scene(rng, size, dtype=dtype)
    theirs = torch.nn.functional.cross_entropy
    for name, target in (("hard", scene.y), ("soft", scene.tensor("soft"))):
        for reduction in ("mean", "none"):
            mask = scene.tensor(name) * scene.cm
            expected = theirs(scene.z, mask, reduction=reduction)
            ours = plain(reduction)(scene.z, target, scene.cm)
            assert (ours - expected).abs().max() <= tolerance
    ours = plain()(scene.z, scene.y, torch.ones_like(scene.cm))
    assert (ours - theirs(scene.z, scene.y)).abs() <= tolerance


OPTIONS = [
    {},
    {"include_background": False},
    {"batch": True},
    {"squared_pred": True},
    {"batch": True, "include_background": False, "squared_pred": True},
    {"smooth_nr": 0.0, "smooth_dr": 0.5},
    {"lambda_dice": 0.3, "lambda_ce": 2.0},
]


@pytest.mark.parametrize("options", OPTIONS[:5], ids=str)
@pytest.mark.parametrize("form", ["hard", "soft"])
def test_dice_equals_its_formula(scene, form, options):
    _, both = losses()
    shares, cm = getattr(scene, form), scene.confidence
    target = scene.y if form == "hard" else scene.tensor("soft")
    settings = {
        "background": options.get("include_background", True),
        "batch": options.get("batch", False),
        "power": 2 if options.get("squared_pred") else 1,
    }
    p = oracle.softmax(scene.logits)
    entropy = oracle.entropy(scene.logits, shares, cm).mean()
    for dice_on, g in (("labels", shares), ("confidence", shares * cm[:, None])):
        dice, ce = both(dice_on, **options).parts(scene.z, target, scene.cm)
        assert dice.item() == pytest.approx(oracle.dice_loss(p, g, **settings), abs=1e-12)
        assert ce.item() == pytest.approx(entropy, abs=1e-12)


@pytest.mark.monai
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-13)])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_equals_monai(rng, size, options, dtype, tolerance):
    """The labels one-hot or as indices for the Dice part, the mask Y * CM as soft labels."""
    _, both = losses()
    monai = importlib.import_module("monai.losses")
    scene = Scene(rng, size, dtype=dtype)
    hard, z = scene.tensor("hard"), scene.z
    mask = hard * scene.cm
    together = monai.DiceCELoss(softmax=True, **options)
    expected = together(z, mask)
    ours = both("confidence", **options)(z, scene.y, scene.cm)
    assert (ours - expected).abs() <= tolerance

    others = {name: value for name, value in options.items() if "lambda" not in name}
    # MONAI's own one-hot labels are float32, which shows in float64.
    index = dtype == "float32"
    labels = scene.y[:, None] if index else hard
    dice = monai.DiceLoss(softmax=True, to_onehot_y=index, **others)(z, labels)
    expected = together.lambda_dice * dice + together.lambda_ce * together.ce(z, mask)
    ours = both("labels", **options)(z, scene.y, scene.cm)
    assert (ours - expected).abs() <= tolerance

    # Full confidence leaves MONAI's loss itself, in both readings.
    expected = monai.DiceCELoss(softmax=True, to_onehot_y=index, **options)(z, labels)
    for dice_on in ("labels", "confidence"):
        ours = both(dice_on, **options)(z, scene.y, torch.ones_like(scene.cm))
        assert (ours - expected).abs() <= tolerance


@pytest.mark.parametrize("share", ["hard", "soft"])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_one_logit_stands_for_two_classes(rng, size, share):
    plain, both = losses()
    scene = Scene(rng, size, classes=2)
    z = torch.from_numpy(scene.logits[:, 1:])
    target = torch.from_numpy(getattr(scene, share)[:, 1:])
    y = getattr(scene, share)[:, 1]
    expected = oracle.binary_entropy(scene.logits[:, 1], y, scene.confidence)
    np.testing.assert_allclose(plain("none")(z, target, scene.cm), expected, atol=1e-12)
    assert torch.equal(plain()(z, target[:, 0], scene.cm), plain()(z, target, scene.cm))
    # Two channels (0, z) are the same model.
    pair = torch.cat([torch.zeros_like(z), z], dim=1)
    shares = torch.cat([1 - target, target], dim=1)
    assert plain()(z, target, scene.cm) == pytest.approx(plain()(pair, shares, scene.cm).item())
    weighted = torch.nn.functional.binary_cross_entropy_with_logits(z, target, weight=scene.cm)
    assert plain()(z, target, scene.cm) == pytest.approx(weighted.item(), abs=1e-12)
    if share == "hard":
        for labels in (scene.y, scene.y[:, None], scene.y.bool(), scene.y.float()):
            assert plain()(z, labels, scene.cm) == pytest.approx(weighted.item(), abs=1e-12)
    p = z.sigmoid().numpy()
    for dice_on, g in (("labels", target), ("confidence", target * scene.cm)):
        dice, ce = both(dice_on).parts(z, target, scene.cm)
        assert dice.item() == pytest.approx(oracle.dice_loss(p, g.numpy()), abs=1e-12)
        assert ce.item() == pytest.approx(weighted.item(), abs=1e-12)


@pytest.mark.monai
def test_one_logit_equals_monai(rng):
    _, both = losses()
    monai = importlib.import_module("monai.losses")
    scene = Scene(rng, (9, 7), classes=2)
    z, target = torch.from_numpy(scene.logits[:, 1:]), torch.from_numpy(scene.hard[:, 1:])
    expected = monai.DiceCELoss(sigmoid=True)(z, target)
    assert (both()(z, target, torch.ones_like(scene.cm)) - expected).abs() <= 1e-13
    # MONAI's cross entropy of y * CM would call doubtful pixels background: the weight does not.
    dice = monai.DiceLoss(sigmoid=True)(z, target * scene.cm)
    assert (both("confidence").parts(z, target, scene.cm)[0] - dice).abs() <= 1e-13
    assert monai.DiceCELoss(sigmoid=True).bce(z, target * scene.cm) != pytest.approx(
        both().parts(z, target, scene.cm)[1].item(), rel=0.1
    )


@pytest.mark.parametrize("ignored", [-100, 255, 0])
def test_ignored_pixels_neither_add_nor_count(scene, ignored):
    plain, _ = losses()
    index = scene.y.clone()
    index[:, 1:3] = ignored
    kept = (index != ignored).numpy()
    expected = oracle.entropy(scene.logits, scene.hard, scene.confidence)
    z = scene.z
    loss = plain(ignore_index=ignored)(z, index, scene.cm)
    assert loss.item() == pytest.approx(expected[kept].sum() / kept.sum(), abs=1e-12)
    loss.backward()
    assert (z.grad.movedim(1, -1)[~torch.from_numpy(kept)] == 0).all()
    assert plain("sum", ignored)(z, index, scene.cm).item() == pytest.approx(expected[kept].sum())
    each = plain("none", ignored)(z, index, scene.cm)
    np.testing.assert_allclose(each.detach(), np.where(kept, expected, 0), atol=1e-12)
    certain = plain(ignore_index=ignored)(z, index, torch.ones_like(scene.cm))
    theirs = torch.nn.functional.cross_entropy(z, index, ignore_index=ignored)
    assert certain.item() == pytest.approx(theirs.item(), abs=1e-12)


def test_ignored_pixels_of_one_logit(scene):
    plain, _ = losses()
    z = scene.z[:, :1]
    index = (scene.y > 1).long()
    index[:, 2] = 255
    each = plain("none")(z, index.where(index < 2, 0), scene.cm)[index < 2]
    assert plain(ignore_index=255)(z, index, scene.cm).item() == pytest.approx(each.mean().item())


def test_nothing_to_count_costs_nothing(scene):
    plain, both = losses()
    z = scene.z
    loss = plain(ignore_index=-1)(z, torch.full_like(scene.y, -1), scene.cm)
    loss.backward()
    assert loss == 0 and (z.grad == 0).all()
    assert plain()(z[:0], scene.y[:0], scene.cm[:0]) == 0
    assert both()(z[:0], scene.y[:0], scene.cm[:0]) == 0
    assert plain()(z, scene.y, torch.zeros_like(scene.cm)) == 0


def test_gradient_is_that_of_cross_entropy_times_confidence(scene):
    """The weight scales the gradient; it moves no minimum: p = 1 is still the best answer."""
    plain, both = losses()
    z = scene.z
    plain()(z, scene.y, scene.cm).backward()
    slope = oracle.softmax(scene.logits) - scene.hard
    expected = scene.confidence[:, None] * slope / scene.confidence.size
    np.testing.assert_allclose(z.grad, expected, atol=1e-15)
    right = 50 * scene.tensor("hard")
    assert plain()(right, scene.y, scene.cm) < 1e-15
    dice, ce = both("labels").parts(right, scene.y, scene.cm)
    assert dice < 1e-6 and ce < 1e-15
    dice, ce = both("confidence").parts(right, scene.y, scene.cm)
    assert dice > 0.1 and ce < 1e-15


@pytest.mark.parametrize("size", [(3, 4), (2, 3, 2)], ids=SIZES)
def test_gradients(rng, size):
    plain, both = losses()
    scene = Scene(rng, size, classes=3)
    cm = (0.1 + 0.8 * scene.cm).requires_grad_()
    soft = (0.1 + 0.8 * scene.tensor("soft")).requires_grad_()
    one = (0.1 + 0.8 * scene.tensor("soft")[:, :1]).requires_grad_()
    for criterion in (
        plain(), plain("none"), both("labels"), both("confidence"),
        both("confidence", squared_pred=True, batch=True, include_background=False),
    ):  # fmt: skip
        assert torch.autograd.gradcheck(lambda z, c, f=criterion: f(z, scene.y, c), (scene.z, cm))
        assert torch.autograd.gradcheck(criterion, (scene.z, soft, cm))
        if getattr(criterion, "include_background", True):
            logit = scene.z[:, :1].detach().requires_grad_()
            assert torch.autograd.gradcheck(criterion, (logit, one, cm))
    masked = plain(ignore_index=2)
    assert torch.autograd.gradcheck(lambda z, c: masked(z, scene.y, c), (scene.z, cm))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_computed_as_float32(rng, dtype):
    plain, both = losses()
    scene = Scene(rng, SIZES["2-D"], dtype=dtype)
    for criterion in (plain(), both("confidence")):
        z = scene.z
        loss = criterion(z, scene.y, scene.cm)
        expected = criterion(z.detach().float(), scene.y, scene.cm.float())
        assert loss.dtype == torch.float32 and loss == expected
        loss.backward()
        assert z.grad.dtype == scene.dtype and z.grad.isfinite().all()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert criterion(z.detach().float(), scene.y, scene.cm.float()) == expected


@pytest.mark.parametrize("which", ["entropy", "dice"])
def test_compiles_whole(rng, which):
    """Compiled code reads no value: what is wrong makes the loss, and its gradient, NaN."""
    plain, both = losses()
    scene = Scene(rng, SIZES["2-D"])
    criterion = plain(ignore_index=-1) if which == "entropy" else both("confidence")
    torch._dynamo.reset()
    compiled = torch.compile(criterion, fullgraph=True, backend="aot_eager")
    good = scene.z
    loss = compiled(good, scene.y, scene.cm)
    torch.testing.assert_close(loss, criterion(scene.z, scene.y, scene.cm))
    wrong = scene.y.clone()
    wrong[1, 2, 3] = CLASSES
    doubtful = scene.cm.clone()
    doubtful[0, 0, 4, 4] = 1.5
    for target, confidence in ((wrong, scene.cm), (scene.y, doubtful)):
        z = scene.z
        loss = compiled(z, target, confidence)
        loss.backward()
        assert loss.isnan() and z.grad.isnan().any()
    if which == "entropy":
        wrong[0, 4, 4] = wrong[1, 2, 3] = -1  # nobody labelled them: the doubt is still wrong
        assert compiled(scene.z, wrong, scene.cm).isfinite()
        assert compiled(scene.z, wrong, doubtful).isnan()
    else:
        assert compiled(scene.z, 2 * scene.tensor("soft"), scene.cm).isnan()


@pytest.mark.cuda
def test_device_agrees_and_does_not_wait(rng):
    plain, both = losses()
    scene = Scene(rng, SIZES["3-D"])
    for criterion in (plain(), both("confidence")):
        there = criterion(scene.z.cuda(), scene.y.cuda(), scene.cm.cuda())
        torch.testing.assert_close(there.cpu(), criterion(scene.z, scene.y, scene.cm))
        assert criterion(scene.z.cuda(), scene.y.cuda() + 1, scene.cm.cuda()).isnan()


@pytest.mark.monai
def test_takes_metatensors(scene):
    plain, both = losses()
    meta = importlib.import_module("monai.data").MetaTensor
    for criterion in (plain(), both("confidence", include_background=False)):
        expected = criterion(scene.z, scene.y, scene.cm)
        z = scene.z
        loss = criterion(z, meta(scene.y[:, None].float()), meta(scene.cm))
        loss.backward()
        assert loss.item() == pytest.approx(expected.item(), abs=1e-12)
        assert z.grad.isfinite().all() and (z.grad != 0).any()


def test_strides_do_not_matter(scene):
    _, both = losses()
    z = scene.z.detach().movedim(1, -1).contiguous().movedim(-1, 1)
    y, cm = scene.y.transpose(-1, -2).contiguous().transpose(-1, -2), scene.cm.flip(-1).flip(-1)
    assert both()(z, y, cm) == pytest.approx(both()(scene.z, scene.y, scene.cm).item())


def test_modules_tell_their_settings():
    plain, both = losses()
    assert repr(plain("sum", 255)).endswith("(reduction='sum', ignore_index=255)")
    shown = repr(both("confidence", batch=True, lambda_ce=2))
    for part in ("dice_on='confidence'", "batch=True", "lambda_ce=2.0", "smooth_nr=1e-05"):
        assert part in shown
    assert repr(pickle.loads(pickle.dumps(both(batch=True)))) == repr(both(batch=True))
    assert not both().state_dict()


def test_network_learns_what_can_be_trusted(rng):
    """Most labels are wrong, but lie where nothing is seen: the trusted ones decide."""
    plain, _ = losses()
    image = torch.from_numpy(rng.standard_normal((1, 1, 16, 12))).float()
    confidence = torch.ones(1, 1, 16, 12)
    confidence[:, :, 6:] = 0.01
    truth = (image[:, 0] > 0).long()
    labels = truth.clone()
    labels[:, 6:] = 1 - labels[:, 6:]

    def right(trusted):
        torch.manual_seed(0)
        network = torch.nn.Conv2d(1, 2, 1)
        optimiser = torch.optim.Adam(network.parameters(), lr=0.1)
        for _ in range(100):
            optimiser.zero_grad()
            plain()(network(image), labels, trusted).backward()
            optimiser.step()
        return (network(image).argmax(1) == truth).float().mean()

    assert right(confidence) > 0.95
    assert right(torch.ones_like(confidence)) < 0.5


def test_refuses_settings():
    plain, both = losses()
    with pytest.raises(ValueError, match=r"^reduction must be one of 'mean', .*got 'median'"):
        plain("median")
    with pytest.raises(TypeError, match=r"^ignore_index must be an integer or None, got str"):
        plain(ignore_index="255")
    with pytest.raises(ValueError, match=r"^dice_on must be one of 'labels', 'confidence', got"):
        both("mask")
    for name in ("smooth_nr", "smooth_dr", "lambda_dice", "lambda_ce"):
        with pytest.raises(ValueError, match=rf"^{name} must be finite and not negative, got -1"):
            both(**{name: -1.0})


def altered(values, value, place=(0, 1, 2)):
    return values.index_put(tuple(torch.tensor([i]) for i in place), torch.tensor(value).to(values))


def test_refuses_values_and_shapes(rng):
    plain, both = losses()
    scene = Scene(rng, (9, 7))
    z, y, cm, soft = scene.z, scene.y, scene.cm, scene.tensor("soft")
    cases = [
        (z, altered(y, 4), cm, r"^target must hold class indices from 0 to 3, got 4; .*4 channels"),
        (z, altered(y, -1), cm, r"^target must hold class indices from 0 to 3, got -1"),
        (z, altered(y.double(), 1.5), cm, r"^target must hold class indices .*got 1\.5"),
        (z, altered(y.double(), torch.nan), cm, r"^target must hold class indices .*got nan"),
        (z, altered(soft, 1.2, (0, 1, 2, 3)), cm, r"^target must hold shares .*got 1\.2"),
        (z, altered(soft, torch.nan, (0, 1, 2, 3)), cm, r"^target must hold shares .*got nan"),
        (z[:, :1], y + 1, cm, r"^target must lie in \[0, 1\] for one logit, got [234]"),
        (z, y, 255 * cm, r"^confidence must lie in \[0, 1\], got .*; divide an 8-bit map by 255"),
        (z, y, -cm, r"^confidence must lie in \[0, 1\], got -"),
        (z, y, altered(cm[:, 0], torch.nan), r"^confidence must lie in \[0, 1\], got nan"),
        (z, soft[:, :3], cm, r"^target must have shape \(2, 9, 7\) or \(2, 1, 9, 7\) as class "
         r"indices, or \(2, 4, 9, 7\) as shares, got \(2, 3, 9, 7\); the logits have 4 channels"),
        (z, y[:, 1:], cm, r"^target must have shape .*got \(2, 8, 7\)"),
        (z, y, cm[:1], r"^confidence must have shape \(2, 9, 7\) or \(2, 1, 9, 7\), got \(1, 1, 9"),
        (z, y, cm.expand(2, 4, 9, 7), r"^confidence must have shape .*got \(2, 4, 9, 7\)"),
        (z[:, :1], soft, cm, r"^target must have shape .*got \(2, 4, 9, 7\); .* 1 channels"),
        (z[:, :0], y, cm, r"^logits must be \(B, C, \*S\) .*got shape \(2, 0, 9, 7\)"),
        (z[0, 0], y, cm, r"^logits must be \(B, C, \*S\) .*got shape \(9, 7\)"),
    ]  # fmt: skip
    for logits, target, confidence, message in cases:
        for criterion in (plain(), both("labels"), both("confidence")):
            with pytest.raises(ValueError, match=message):
                criterion(logits, target, confidence)
    with pytest.raises(ValueError, match=r"^target must hold class indices with ignore_index"):
        plain(ignore_index=-1)(z, soft, cm)
    with pytest.raises(ValueError, match=r"^include_background must be True for one channel"):
        both(include_background=False)(z[:, :1], y > 1, cm)
    for logits, target, confidence, message in [
        (z.long(), y, cm, r"^logits must be of a floating dtype, got torch\.int64"),
        (z, y.to(torch.complex64), cm, r"^target must be real, got torch\.complex64"),
        (z, y, cm > 0.5, r"^confidence must be of a floating dtype, got torch\.bool"),
        (z, scene.index, cm, r"^target must be a tensor, got ndarray"),
        (z, y, None, r"^confidence must be a tensor, got NoneType"),
    ]:
        with pytest.raises(TypeError, match=message):
            plain()(logits, target, confidence)
    rounded = altered(cm, 1 + 5e-7, (0, 0, 1, 2))
    assert plain()(z, y, rounded).isfinite()
