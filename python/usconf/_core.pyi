"""The compiled core. Addresses are plain integers, 0 for none; nothing is checked here.

Arguments shared by all operators of the random walk, by position:

image, scalar, frames, height, width
    (frames, height, width) pixels; scalar 0 uint8, 1 uint16, 2 int16, 3 float16, 4 float32,
    5 float64.
labels, labels_shared
    (frames or 1, height, width) uint8: 0 free, 1 source, 2 sink, 3 outside; 0: first row source,
    last row sink.
top, bottom
    Rows [top, bottom) may hold unknowns.
alpha, beta, gamma, variant, normalise
    variant 0 or 1 ("monai_1_3"); normalise False: the image is scaled already (mode RF).
solver, double_map, threads, device, stream
    solver 0 direct, 1 iterative; device -1 CPU, else the CUDA device.
"""

from typing import TypedDict

class Cuda(TypedDict):
    built: bool
    runtime: int
    driver: int
    devices: list[str]
    architectures: str
    message: str

version: str

def random_walk(
    image: int,
    scalar: int,
    frames: int,
    height: int,
    width: int,
    labels: int,
    labels_shared: bool,
    top: int,
    bottom: int,
    alpha: float,
    beta: float,
    gamma: float,
    variant: int,
    normalise: bool,
    solver: int,
    double_map: bool,
    threads: int,
    device: int,
    stream: int,
    map: int,
    factor: int,
    /,
) -> tuple[int, float]:
    """Write the maps, and the factors unless `factor` is 0; returns (steps, last correction)."""

def random_walk_factor_bytes(
    image: int,
    scalar: int,
    frames: int,
    height: int,
    width: int,
    labels: int,
    labels_shared: bool,
    top: int,
    bottom: int,
    alpha: float,
    beta: float,
    gamma: float,
    variant: int,
    normalise: bool,
    solver: int,
    double_map: bool,
    threads: int,
    device: int,
    stream: int,
    /,
) -> int:
    """Size of one frame's factor."""

def random_walk_memory(
    image: int,
    scalar: int,
    frames: int,
    height: int,
    width: int,
    labels: int,
    labels_shared: bool,
    top: int,
    bottom: int,
    alpha: float,
    beta: float,
    gamma: float,
    variant: int,
    normalise: bool,
    solver: int,
    double_map: bool,
    threads: int,
    device: int,
    stream: int,
    /,
) -> int:
    """Peak bytes a call takes beside its arguments; reads neither image nor labels."""

def random_walk_backward(
    image: int,
    scalar: int,
    frames: int,
    height: int,
    width: int,
    labels: int,
    labels_shared: bool,
    top: int,
    bottom: int,
    alpha: float,
    beta: float,
    gamma: float,
    variant: int,
    normalise: bool,
    solver: int,
    double_map: bool,
    threads: int,
    device: int,
    stream: int,
    map: int,
    factor: int,
    d_map: int,
    d_image: int,
    d_parameters: int,
    /,
) -> None:
    """Write d_image (unless 0) and the three float64 derivatives by alpha, beta, gamma."""

def random_walk_edges(
    image: int,
    scalar: int,
    frames: int,
    height: int,
    width: int,
    labels: int,
    labels_shared: bool,
    top: int,
    bottom: int,
    alpha: float,
    beta: float,
    gamma: float,
    variant: int,
    normalise: bool,
    solver: int,
    double_map: bool,
    threads: int,
    device: int,
    stream: int,
    edges: int,
    /,
) -> None:
    """Write float64 (frames, 4, height, width): right, below, below-right, below-left."""

def scan_conversion(
    direction: int,
    nearest: bool,
    transpose: bool,
    scalar: int,
    frames: int,
    kind: int,
    values: tuple[float, float, float, float, float, float, float, float, float, float],
    samples: int,
    lines: int,
    height: int,
    width: int,
    source: int,
    target: int,
    mask: int,
    threads: int,
    device: int,
    stream: int,
    /,
) -> None:
    """Write `target`: `source` resampled, or (transpose) a gradient carried back.

    direction 0 to_beam, (height, width) -> (samples, lines); 1 to_scan, the other way round.
    kind 0 sector: values apex_x, apex_z, r_start, r_max, theta_min, theta_max, scale_x, scale_z,
    0, 0; 1 quad: A_x, A_z, B_x, B_z, C_x, C_z, D_x, D_z, scale_x, scale_z (scale: units per
    pixel). transpose exchanges the two shapes, and takes float16, float32, float64 only. mask: 0,
    or uint8 of one forward target: 1 valid, 0 not; written by the forward operator only.
    """

def dag(
    image: int,
    scalar: int,
    frames: int,
    height: int,
    width: int,
    valid: int,
    valid_shared: bool,
    xi: float,
    alpha: float,
    var: float,
    power: float,
    half_width: int,
    variant: int,
    normalise: bool,
    reference: int,
    reference_shared: bool,
    needle: int,
    artifact: int,
    artifact_shared: bool,
    double_map: bool,
    threads: int,
    device: int,
    stream: int,
    map: int,
    /,
) -> None:
    """Write (frames, height, width) maps, float32 or (double_map) float64.

    valid: 0, or uint8 (frames or 1, height, width), nonzero = valid. variant 0 corrected, 1
    "hung2021" (without a mask). normalise False: the image is f already. reference: 0, or float64
    (frames or 1, height). needle, artifact: 0, or float32 (frames or 1, height, width).
    """

def dag_backward(
    image: int,
    scalar: int,
    frames: int,
    height: int,
    width: int,
    valid: int,
    valid_shared: bool,
    xi: float,
    alpha: float,
    var: float,
    power: float,
    half_width: int,
    variant: int,
    normalise: bool,
    reference: int,
    reference_shared: bool,
    needle: int,
    artifact: int,
    artifact_shared: bool,
    double_map: bool,
    threads: int,
    device: int,
    stream: int,
    map: int,
    d_map: int,
    d_image: int,
    d_parameters: int,
    /,
) -> None:
    """Write d_image and float64 derivatives by xi, alpha, var, power (unless an address is 0).

    map: the forward's result; map, d_map and d_image are of one type.
    """

def srad(
    image: int,
    scalar: int,
    frames: int,
    height: int,
    width: int,
    valid: int,
    valid_shared: bool,
    roi: tuple[int, int, int, int],
    iterations: int,
    tolerance: float,
    step: float,
    double_result: bool,
    threads: int,
    device: int,
    stream: int,
    result: int,
    /,
) -> list[int]:
    """Write diffused frames in the range of the input; returns how many iterations each took.

    roi: first and end row, first and end column; an end row of 0: the robust estimate.
    """

def median(
    image: int,
    scalar: int,
    frames: int,
    height: int,
    width: int,
    valid: int,
    valid_shared: bool,
    size: int,
    double_result: bool,
    threads: int,
    device: int,
    stream: int,
    result: int,
    /,
) -> None:
    """Write the median of the valid pixels of each size x size window; size odd, at most 15."""

def pgm(
    confidence: int,
    in_double: bool,
    logits: bool,
    frames: int,
    height: int,
    width: int,
    labels: int,
    valid: int,
    valid_shared: bool,
    gamma: float,
    s: float,
    sigma: float,
    label_weights: tuple[float, float, float],
    constants: bool,
    mean: bool,
    threads: int,
    device: int,
    stream: int,
    loss: int,
    sums: int,
    d_confidence: int,
    d_map: int,
    map: int,
    parts: bool,
    /,
) -> None:
    """Write what is wanted of the annotation model's energy (address 0: not wanted).

    confidence, loss, d_confidence, d_map, map: float32 or (in_double) float64. labels: uint8
    (frames, height, width). valid: 0, or uint8 (frames or 1, height, width), nonzero = valid.
    sums: five float64, unary, vertical, horizontal, valid pixels, wrong labels or probabilities.
    loss: one number, divided by the valid pixels if `mean`. d_confidence: the derivative of
    sum(d_map map), divided by `mean` only where `valid` is 0. map: one plane, or three (unary,
    vertical, horizontal) if `parts`.
    """

def pgm_scale(
    gradient: int,
    in_double: bool,
    count: int,
    scale: int,
    threads: int,
    device: int,
    stream: int,
    /,
) -> None:
    """Multiply float32 or (in_double) float64 numbers by one in place, unless that is 1."""

def uncertainty(
    logits: int,
    in_double: bool,
    draws: int,
    images: int,
    classes: int,
    pixels: int,
    threads: int,
    device: int,
    stream: int,
    result: int,
    noise: int,
    samples: int,
    /,
) -> None:
    """Write total, expected, mutual uncertainty and variance, (4, images, pixels).

    logits: float32 or (in_double) float64 (draws, images, classes, pixels), one class for a
    sigmoid; the maps are of its type. noise: 0, or (samples, images, classes, pixels) likewise,
    added to every draw, whose probability is the mean over them.
    """

def isa() -> str: ...
def isa_list() -> list[str]: ...
def address(array: object, /) -> int:
    """Of the first element of what has a buffer; it must be kept alive."""

def threads() -> int: ...
def default_threads() -> int: ...
def set_threads(threads: int, /) -> None: ...
def borrow_threads() -> None:
    """From now on, run on torch's threads where torch is loaded."""

def clear_cache() -> None: ...
def cuda() -> Cuda: ...

class Block:
    """Recycled, aligned memory of the given number of bytes; offers the buffer protocol."""

    def __init__(self, bytes: int) -> None: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
