"""Maps and masks as MONAI's transforms: values, meta data, chains, workers; they refuse."""

from __future__ import annotations

import importlib
import pickle
import subprocess
import sys

import numpy as np
import pytest
import usconf

pytestmark = [
    pytest.mark.torch,
    pytest.mark.monai,
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
]
torch = pytest.importorskip("torch")
pytest.importorskip("monai")

ours = importlib.import_module("usconf.integrations.monai")
theirs = importlib.import_module("monai.transforms")
MetaTensor = importlib.import_module("monai.data").MetaTensor

METHODS = {
    "random_walk": {"preset": "duque2023", "sink": "mid"},
    "dag": {"xi": 0.4, "half_width": 2},
    "learned": {},
}


@pytest.fixture
def image(rng):
    return rng.integers(1, 256, (24, 20), dtype=np.uint8)


def as_meta(values):
    affine = torch.diag(torch.tensor([0.2, 0.3, 1.0, 1.0], dtype=torch.float64))
    tensor = torch.as_tensor(np.ascontiguousarray(values))
    return MetaTensor(tensor, affine=affine, meta={"patient": "7"})


KINDS = {"numpy": np.asarray, "tensor": torch.as_tensor, "MetaTensor": as_meta}


def check_meta(found, given):
    assert type(found) is type(given)
    if isinstance(given, MetaTensor):
        assert found.meta["patient"] == "7" and torch.equal(found.affine, given.affine)
        assert found.applied_operations == given.applied_operations


@pytest.mark.parametrize("cached", [False, True], ids=["fresh", "cached"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_map_is_that_of_usconf(image, method, kind, cached, tmp_path):
    if method == "learned":
        pytest.importorskip("safetensors")
    parameters = METHODS[method]
    expected = usconf.confidence(image, method, **parameters)
    given = KINDS[kind](image[None])
    transform = ours.ConfidenceMap(method, cache=tmp_path if cached else None, **parameters)
    for _ in range(2):
        found = transform(given)
        check_meta(found, given)
        assert found.shape == (1, *image.shape)
        np.testing.assert_array_equal(np.asarray(found)[0], expected)
    assert len(list(tmp_path.iterdir())) == cached
    wide = transform(KINDS[kind](image[None].astype(np.float64)))
    assert str(wide.dtype).endswith("float64")


@pytest.mark.parametrize(
    ("axes", "order"),
    [("cthw", (0, 1, 2, 3)), ("cwht", (0, 3, 2, 1)), ("chtw", (0, 2, 1, 3))],
)
@pytest.mark.parametrize("method", ["random_walk", "dag"])
def test_volumes_are_frames_along_a_named_axis(rng, method, axes, order):
    sweep = rng.integers(1, 256, (1, 3, 24, 20), dtype=np.uint8)  # c t h w
    expected = np.stack([usconf.confidence(frame, method) for frame in sweep[0]])[None]
    volume = as_meta(sweep.transpose(order))
    found = ours.ConfidenceMap(method, axes=axes)(volume)
    check_meta(found, volume)
    np.testing.assert_array_equal(found.numpy(), expected.transpose(order))
    sample = ours.ConfidenceMapd("image", method, axes=axes)({"image": volume})
    assert sample["image"].shape == (2, *volume.shape[1:])


@pytest.mark.parametrize("kind", KINDS)
def test_map_as_channel_and_under_own_keys(image, kind):
    given = KINDS[kind](image[None])
    expected = usconf.random_walk(image)
    data = {"image": given, "name": "a"}

    def maps(**settings):
        found = ours.ConfidenceMapd("image", **settings)(data)
        assert data.keys() == {"image", "name"} and data["image"] is given
        assert found["name"] == "a"
        for key in found.keys() - {"name"}:
            check_meta(found[key], given)
        return found

    found = maps()
    assert found.keys() == {"image", "name"} and found["image"].shape == (2, 24, 20)
    np.testing.assert_array_equal(np.asarray(found["image"]), [image.astype(np.float32), expected])
    assert str(found["image"].dtype).endswith("float32")
    found = maps(append=False)
    assert found["image"] is given
    np.testing.assert_array_equal(np.asarray(found["confidence"])[0], expected)
    found = maps(append=False, output_keys="trust")
    assert found.keys() == {"image", "name", "trust"}
    found = maps(output_keys=["trust"])
    np.testing.assert_array_equal(np.asarray(found["image"])[1:], np.asarray(found["trust"]))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_appended_map_takes_the_dtype_of_the_image(image, dtype):
    given = torch.as_tensor(image[None]).to(getattr(torch, dtype))
    found = ours.ConfidenceMapd("image", output_keys="confidence")({"image": given})
    assert found["image"].dtype == given.dtype
    assert torch.equal(found["image"][:1], given)
    assert found["confidence"].dtype == (given.dtype if dtype == "float64" else torch.float32)


def test_several_keys_and_missing_ones(image):
    data = {"a": image[None], "b": image[None, ::-1]}
    found = ours.ConfidenceMapd(["a", "b"], append=False)(data)
    assert found.keys() == {"a", "b", "a_confidence", "b_confidence"}
    np.testing.assert_array_equal(found["b_confidence"][0], usconf.random_walk(image[::-1]))
    found = ours.ConfidenceMapd(["a", "c"], append=False, allow_missing_keys=True)(data)
    assert found.keys() == {"a", "b", "a_confidence"}
    with pytest.raises(KeyError, match="c"):
        ours.ConfidenceMapd(["a", "c"])(data)


def test_planes_of_each_image(image):
    fan = np.tri(24, 20, 6)[:, ::-1] > 0
    data = {"image": as_meta(image[None]), "fan": as_meta(fan[None])}
    found = ours.ConfidenceMapd("image", append=False, planes={"mask": "fan"})(data)
    expected = usconf.random_walk(image, mask=fan)
    np.testing.assert_array_equal(found["confidence"][0].numpy(), expected)
    for method in ("random_walk", "dag"):
        single = ours.ConfidenceMap(method)(torch.as_tensor(image[None]), mask=data["fan"])
        assert type(single) is torch.Tensor
        expected = usconf.confidence(image, method, mask=fan)
        np.testing.assert_array_equal(single[0].numpy(), expected)
    with pytest.raises(KeyError, match="fan"):
        ours.ConfidenceMapd("image", planes={"mask": "fan"})({"image": image[None]})


def test_geometry_reaches_the_method(image):
    fan = usconf.Sector((9.5, -10.0), 11.0, 33.0, -0.4, 0.4)
    found = ours.ConfidenceMap(geometry=fan)(image[None])
    np.testing.assert_array_equal(found[0], usconf.confidence(image, geometry=fan))


def test_maps_carry_no_gradient(image):
    wants = torch.as_tensor(image[None]).float().requires_grad_()
    found = ours.ConfidenceMapd("image", output_keys="confidence")({"image": wants})
    old = ours.UltrasoundConfidenceMapTransform()(wants)
    assert not any(one.requires_grad for one in (found["image"], found["confidence"], old))


def test_image_is_only_read(image):
    image = np.ascontiguousarray(image[None, ::-1])
    image.flags.writeable = False
    found = ours.ConfidenceMap()(image)
    np.testing.assert_array_equal(found[0], usconf.random_walk(image[0]))
    strided = image[:, ::-1, ::-1].astype(">f4")
    np.testing.assert_array_equal(
        ours.ConfidenceMap()(strided)[0], usconf.random_walk(strided[0].astype(np.float32))
    )


def chain(cache=None, **settings):
    return theirs.Compose(
        [
            theirs.EnsureTyped(["image", "label"]),
            ours.ConfidenceMapd("image", output_keys="confidence", cache=cache),
            theirs.ScaleIntensityd("image", channel_wise=True),
            theirs.RandFlipd(["image", "label", "confidence"], prob=1.0, spatial_axis=1),
            theirs.Rotate90d(["image", "label", "confidence"], k=1),
        ],
        **settings,
    )


@pytest.mark.filterwarnings("ignore:'lazy' is set to True but:UserWarning")
@pytest.mark.parametrize("lazy", [False, True])
def test_chain_moves_image_and_map_alike_and_back(image, lazy):
    label = (image > 128).astype(np.uint8)
    data = {"image": as_meta(image[None]), "label": as_meta(label[None])}
    compose = chain(lazy=lazy)
    found = compose(data)
    expected = np.rot90(usconf.random_walk(image)[:, ::-1])
    np.testing.assert_allclose(found["confidence"][0].numpy(), expected, atol=1e-6)
    np.testing.assert_array_equal(found["label"][0].numpy(), np.rot90(label[:, ::-1]))
    assert found["confidence"].meta["patient"] == "7"
    assert torch.equal(found["confidence"].affine, found["label"].affine)
    back = theirs.Invertd(
        ["confidence", "image"], compose, orig_keys=["confidence", "image"], nearest_interp=True
    )(found)
    np.testing.assert_allclose(back["confidence"][0].numpy(), usconf.random_walk(image), atol=1e-6)
    assert back["image"].shape == (2, *image.shape)


@pytest.mark.parametrize("lazy", [False, True])
def test_lazy_transforms_before_the_map_are_applied_first(image, lazy):
    compose = theirs.Compose(
        [theirs.EnsureTyped("image"), theirs.Flipd("image", 0), ours.ConfidenceMapd("image")],
        lazy=lazy,
    )
    found = compose({"image": image[None].astype(np.float32)})["image"]
    np.testing.assert_array_equal(found[1].numpy(), usconf.random_walk(found[0].numpy()))
    np.testing.assert_array_equal(found[0].numpy(), image[::-1])


@pytest.mark.filterwarnings("ignore:.*nvImageCodec:UserWarning")
def test_pictures_that_monai_read_have_scanlines_first(image, tmp_path):
    pytest.importorskip("PIL")
    usconf.io.write(tmp_path / "frame.png", image)
    compose = theirs.Compose(
        [
            theirs.LoadImaged("image", reader="PILReader", ensure_channel_first=True),
            ours.ConfidenceMapd("image", axes="cwh"),
        ]
    )
    found = compose({"image": tmp_path / "frame.png"})["image"]
    assert found.shape == (2, 20, 24)
    np.testing.assert_array_equal(found[1].numpy().T, usconf.random_walk(image.astype(np.float32)))


@pytest.mark.filterwarnings("ignore:.*nvImageCodec:UserWarning")
@pytest.mark.filterwarnings("ignore:PydicomReader. ImageOrientationPatient:UserWarning")
def test_clips_that_monai_read_from_dicom_have_frames_in_the_middle(rng, tmp_path):
    pydicom = pytest.importorskip("pydicom")
    clip = rng.integers(1, 256, (3, 24, 20), dtype=np.uint8)
    data = pydicom.Dataset()
    data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.3.1"  # ultrasound, several frames
    data.SOPInstanceUID = pydicom.uid.generate_uid(entropy_srcs=["clip"])
    data.Rows, data.Columns, data.NumberOfFrames = 24, 20, 3
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    data.PixelData = clip.tobytes()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.save_as(tmp_path / "clip.dcm", enforce_file_format=True)
    load = theirs.LoadImage(reader="PydicomReader", ensure_channel_first=True)
    found = ours.ConfidenceMap(axes="chtw")(load(tmp_path / "clip.dcm"))
    expected = usconf.random_walk(clip.astype(np.float32), axes="thw")
    np.testing.assert_array_equal(found[0].numpy(), expected.transpose(1, 0, 2))


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # Python 3.12 on forks
def test_workers_share_a_cache(rng, tmp_path):
    pictures = rng.integers(1, 256, (3, 1, 24, 20), dtype=np.uint8)
    labels = (pictures > 128).astype(np.uint8)
    # Every picture four times: workers meet at its file.
    samples = [{"image": pictures[i % 3], "label": labels[i % 3]} for i in range(12)]
    data = importlib.import_module("monai.data")
    expected = [usconf.random_walk(picture[0]) for picture in pictures]
    compose = chain(cache=tmp_path / "maps")
    stamps = None
    for _ in range(2):
        loader = data.DataLoader(data.Dataset(samples, compose), batch_size=4, num_workers=2)
        found = torch.cat([batch["confidence"] for batch in loader])
        for index, one in enumerate(found):
            np.testing.assert_array_equal(
                np.asarray(one[0]), np.rot90(expected[index % 3][:, ::-1])
            )
        now = {path: path.stat().st_mtime_ns for path in (tmp_path / "maps").iterdir()}
        assert len(now) == 3 and stamps in (None, now)
        stamps = now


def test_transforms_may_be_sent_to_processes(image, tmp_path):
    fan = usconf.Sector((9.5, -10.0), 11.0, 33.0, -0.4, 0.4)
    transform = ours.ConfidenceMapd("image", cache=tmp_path, geometry=fan)
    again = pickle.loads(pickle.dumps(transform))
    data = {"image": image[None]}
    np.testing.assert_array_equal(again(data)["image"], transform(data)["image"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32"])
@pytest.mark.parametrize("size", [(24, 20), (3, 6, 5)], ids=["2-D", "3-D"])
def test_mask_is_one_hot_times_confidence(rng, size, dtype, kind):
    index = rng.integers(0, 4, size)
    confidence = rng.random((1, *size)).astype(np.float32)
    shares = np.stack([index == c for c in range(4)])
    expected = shares * confidence
    label = KINDS[kind](index[None].astype(dtype))
    data = {"label": label, "confidence": as_meta(confidence)}
    found = ours.ConfidenceMaskd("label", num_classes=4)(data)
    check_meta(found["label"], label)
    assert found["label"].dtype in (torch.float32, np.float32)
    np.testing.assert_array_equal(np.asarray(found["label"]), expected)
    assert data["label"] is label and found["confidence"] is data["confidence"]
    one_hot = KINDS[kind](shares)
    for classes in (None, 4):
        mask = ours.ConfidenceMaskd("label", "confidence", classes, output_keys="mask")
        again = mask({"label": one_hot, "confidence": confidence})
        np.testing.assert_array_equal(np.asarray(again["mask"]), expected)
        assert again["label"] is one_hot


def test_mask_in_a_loss(rng):
    """The mask as soft labels is what the loss makes of labels and map."""
    index, confidence = rng.integers(0, 3, (1, 9, 7)), rng.random((1, 9, 7))
    data = {"label": torch.as_tensor(index), "confidence": torch.as_tensor(confidence)}
    mask = ours.ConfidenceMaskd("label", num_classes=3)(data)["label"][None]
    logits = torch.as_tensor(rng.standard_normal((1, 3, 9, 7)))
    criterion = importlib.import_module("usconf.nn").ConfidenceCrossEntropy()
    expected = torch.nn.functional.cross_entropy(logits, mask)
    assert criterion(logits, data["label"], data["confidence"][None]) == pytest.approx(
        expected.item(), abs=1e-12
    )


def test_masks_of_missing_labels(rng):
    data = {"a": np.zeros((1, 9, 7)), "confidence": rng.random((1, 9, 7))}
    found = ours.ConfidenceMaskd(["a", "b"], num_classes=2, allow_missing_keys=True)(data)
    assert found["a"].shape == (2, 9, 7) and "b" not in found
    with pytest.raises(KeyError, match="b"):
        ours.ConfidenceMaskd(["a", "b"], num_classes=2)(data)
    with pytest.raises(KeyError, match=r"confidence_key must be in the data, got 'map' and"):
        ours.ConfidenceMaskd("a", "map", 2)(data)


def test_maps_refuse(image, tmp_path):
    with pytest.raises(ValueError, match=r"^method must be one of .*got 'magic'"):
        ours.ConfidenceMap("magic")
    with pytest.raises(TypeError, match=r"^parameters must be those of dag, got beta"):
        ours.ConfidenceMapd("image", "dag", beta=1)
    with pytest.raises(TypeError, match=r"^parameters must be those of .*, got fan"):
        ours.ConfidenceMapd("image", planes={"fan": "fan"})
    with pytest.raises(TypeError, match=r"^axes must be a string such as \"cthw\", got int"):
        ours.ConfidenceMap(axes=1)
    with pytest.raises(ValueError, match=r"^axes must begin with c, the channel, got 'thw'"):
        ours.ConfidenceMap(axes="thw")
    with pytest.raises(TypeError, match=r"^cache must be a folder's path, got bool"):
        ours.ConfidenceMap(cache=True)
    with pytest.raises(ValueError, match=r"^output_keys must name a key for each of the 2 keys"):
        ours.ConfidenceMapd(["a", "b"], output_keys="map")
    with pytest.raises(ValueError, match=r"^output_keys must be new keys, .*got \('a',\)"):
        ours.ConfidenceMapd("a", output_keys="a")
    plain = ours.ConfidenceMap()
    with pytest.raises(
        ValueError, match=r"^axes must be given .*got shape \(1, 2, 24, 20\); .*cth"
    ):
        plain(np.ones((1, 2, 24, 20)))
    with pytest.raises(ValueError, match=r"^img must have one channel, got 3 of shape \(3, 24"):
        plain(np.ones((3, 24, 20)))
    with pytest.raises(ValueError, match=r"^axes must name each of the image's 3 axes"):
        ours.ConfidenceMap(axes="cthw")(image[None])
    with pytest.raises(ValueError, match=r"^image must be finite"):
        plain(np.full((1, 24, 20), np.nan))
    with pytest.raises(TypeError, match=r"^img must be an array or tensor, got PosixPath; load it"):
        plain(tmp_path)
    with pytest.raises(ValueError, match=r"^img must be channel-first.*got shape \(4,\)"):
        plain(np.ones(4))


def test_masks_refuse(rng):
    label, trusted = np.zeros((1, 9, 7)), rng.random((1, 9, 7))
    with pytest.raises(TypeError, match=r"^num_classes must be an integer, got float"):
        ours.ConfidenceMaskd("label", num_classes=2.0)
    with pytest.raises(ValueError, match=r"^num_classes must be at least 2, got 1"):
        ours.ConfidenceMaskd("label", num_classes=1)

    def refuses(message, label=label, trusted=trusted, classes=3):
        with pytest.raises(ValueError, match=message):
            ours.ConfidenceMaskd("label", num_classes=classes)(
                {"label": label, "confidence": trusted}
            )

    refuses(r"^data\['label'\] must hold class indices from 0 to 2, got 3; num_classes", label + 3)
    refuses(r"^data\['label'\] must hold class indices from 0 to 2, got -1", label - 1)
    refuses(r"^data\['label'\] must hold class indices from 0 to 2, got nan", label * np.nan)
    refuses(r"^data\['label'\] must hold whole class indices", label + 0.5)
    refuses(r"^data\['label'\] must have 1 channel or 3, got 2", np.zeros((2, 9, 7)))
    refuses(r"^num_classes must be given for class indices, got None", classes=None)
    refuses(r"^data\['label'\] must hold shares of the classes .*got 7", np.full((3, 9, 7), 7))
    refuses(r"^data\['label'\] must have the map's size \(9, 7\), got \(8, 7\)", label[:, 1:])
    refuses(r"^data\['confidence'\] must hold confidence .*got 2", trusted=trusted + 2)
    refuses(r"^data\['confidence'\] must be a map .*\(2, 9, 7\)", trusted=np.ones((2, 9, 7)))


def test_without_monai_the_error_says_what_to_install():
    code = "import sys; sys.modules['monai'] = None; import usconf.integrations.monai"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (
        'usconf.integrations.monai needs MONAI; run: pip install "usconf[recipes]"' in done.stderr
    )
