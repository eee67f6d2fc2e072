"""Forms of operators that move, pick, write and normalise entries."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.backend.cases import Case
from tests.backend.forms import case, family, grid, ints, real

SOME = ["float32", "int64", "uint16", "uint64", "bool", "float16"]


def _given(op: str, feeds: dict[str, Any], opset: int = 18, outputs: Any = 1, **k: Any) -> Case:
    return case(op, feeds, (), opset, outputs, **k)


def _stored(op: str, feeds: dict[str, Any], opset: int = 18, outputs: Any = 1, **k: Any) -> Case:
    return case(op, feeds, tuple(n for n in feeds if n != "x"), opset, outputs, **k)


@family
def moving() -> Iterator[Case]:
    """Slices, pads, tiles, transposes of many types, with operands stored and given."""
    for dtype, where in itertools.product(SOME, (True, False)):
        made = _stored if where else _given
        x = real(3, 4, 5, dtype=dtype)
        for start, end, axis, step in itertools.product(
            (0, 1, -1, -9, 9), (0, 3, -1, 99, -99), (0, 1, -1), (1, 2, -1, -2)
        ):
            yield made(
                "Slice",
                {"x": x, "s": ints(start), "e": ints(end), "a": ints(axis), "t": ints(step)},
            )
        for mode, pads in itertools.product(
            ("constant", "reflect", "edge", "wrap"),
            (
                [0, 1, 0, 0, 0, 2],
                [1, 0, 2, 0, 1, 0],
                [0, -1, 0, 0, 1, 0],
                [0, 0, -2, 0, 0, -1],
                [0, 0, 3, 0, 0, 4],
            ),
        ):
            yield made("Pad", {"x": x, "p": ints(*pads)}, 19, mode=mode)
            value = np.array(1, dtype)
            yield made("Pad", {"x": x, "p": ints(*pads), "v": value}, 19, mode=mode)
        yield made("Pad", {"x": x, "p": ints(1, 2), "v": None, "a": ints(-1)}, 19)
        yield made("Pad", {"x": x, "p": ints(1, 2), "v": None, "a": ints(1)}, 19, mode="edge")
        for shape in ([0, -1], [5, 12], [-1, 0, 2], [0, 0, 0], [3, -1, 1, 5], [60]):
            yield made("Reshape", {"x": x, "s": ints(*shape)}, 21)
        for repeats in ([1, 2, 1], [2, 1, 3], [1, 1, 1], [0, 1, 1]):
            yield made("Tile", {"x": x, "r": ints(*repeats)})
        for shape in ([3, 4, 5], [2, 3, 4, 5], [1, 1, 1], [3, 1, 5]):
            yield made("Expand", {"x": real(3, 1, 5, dtype=dtype), "s": ints(*shape)})
        for axes in ([0], [-1], [0, 2], [-2, 1], [3, 0]):
            yield made("Unsqueeze", {"x": x, "a": ints(*axes)})
        for axes in (None, [0], [-1], [0, 3], [-1, 0]):
            yield made("Squeeze", {"x": real(1, 3, 4, 1, dtype=dtype), "a": axes and ints(*axes)})
        for axis, sizes in itertools.product((0, 1, -1), (None, [1, 2], [0, 3], [3, 0])):
            shape = {0: (3, 2, 2), 1: (2, 3, 2), -1: (2, 2, 3)}[axis]
            feeds = {"x": real(*shape, dtype=dtype), "s": sizes and ints(*sizes)}
            extra = {} if sizes else {"num_outputs": 2}
            yield made("Split", feeds, 18, 2, axis=axis, **extra)
        for k, upper in itertools.product((None, 0, 1, -1, 9, -9), (None, 0)):
            feeds = {"x": real(2, 3, 4, dtype=dtype), "k": None if k is None else np.array(k)}
            yield made("Trilu", feeds, 14, **({} if upper is None else {"upper": upper}))
        for shape, axes in (((2, 6), [0, 1]), ((5, 3), [-1, 0]), ((4, 4, 4), None), ((7,), [1])):
            attributes = {} if axes is None else {"axes": axes}
            yield made("CenterCropPad", {"x": x, "s": ints(*shape)}, 18, **attributes)
    for dtype in SOME:
        x = real(3, 4, 5, dtype=dtype)
        for perm in itertools.permutations(range(3)):
            yield case("Transpose", {"x": x}, (), 18, perm=perm)
        for axis in (-3, -2, 0, 1, 2, 3):
            yield case("Flatten", {"x": x}, (), 18, axis=axis)
        for axis in (0, 1, -1):
            yield case("Concat", {"x": x, "z": x, "w": x}, (), 18, axis=axis)
            yield case("Concat", {"x": x, "z": x[:0] if axis == 0 else x}, ("z",), 18, axis=axis)
        image = real(2, 8, 4, 6, dtype=dtype)
        for mode in ("DCR", "CRD"):
            yield case("DepthToSpace", {"x": image}, (), 13, blocksize=2, mode=mode)
        yield case("SpaceToDepth", {"x": image}, (), 13, blocksize=2)
        for form in grid(k=[None, 1, -2], dtype=[None, 1, 7, 11, 13]):
            yield case("EyeLike", {"x": real(3, 4, dtype=dtype)}, (), 9, **form)
        for batch in (0, 1):
            lengths = ints(2, 3, 1, 4)[: 3 if batch == 0 else 4]
            feeds = {"x": real(3, 4, 2, dtype=dtype), "l": lengths}
            yield case("ReverseSequence", feeds, (), 10, batch_axis=batch, time_axis=1 - batch)


@family
def picking() -> Iterator[Case]:
    """Gathers, scatters, one-hot vectors and the like."""
    for dtype, index, stored in itertools.product(SOME, ("int64", "int32"), (True, False)):
        x = real(3, 4, 5, dtype=dtype)
        kept = ("i",) if stored else ()
        for axis, shape in itertools.product((0, 1, -1), ((), (2,), (2, 3), (1,))):
            at = np.asarray(np.random.default_rng(1).integers(-3, 3, shape)).astype(index)
            yield case("Gather", {"x": x, "i": at}, kept, 13, axis=axis)
        for axis in (0, 1, -1):
            at = np.random.default_rng(2).integers(-3, 3, (2, 4, 3)).astype(index)
            yield case("GatherElements", {"x": x, "i": at}, kept, 13, axis=axis)
            updates = real(2, 4, 3, dtype=dtype, seed=3)
            whole = (np.argsort(real(3, 4, 5), axis) % 3).astype(index)
            for how in (None, "add", "mul", "max", "min"):
                attributes = {} if how is None else {"reduction": how}
                feeds = {"x": x, "i": whole if how is None and axis == 0 else at, "u": updates}
                if how is None and axis == 0:
                    feeds["u"] = real(3, 4, 5, dtype=dtype, seed=3)
                elif how is None:
                    continue  # the order of writing is open
                yield case("ScatterElements", feeds, kept, 18, axis=axis, **attributes)
        for batch, places in ((0, [[0, 1], [-1, 2]]), (0, [[0], [-2]]), (1, [[1], [-1], [0]])):
            at = np.array(places, index)
            yield case("GatherND", {"x": x, "i": at}, kept, 13, batch_dims=batch)
        at = np.array([[0], [-1]], "int64")
        for how in (None, "add", "mul", "max", "min"):
            attributes = {} if how is None else {"reduction": how}
            for places in ([[0], [-1]], [[0, 1], [-1, 2]], [[1, 2, 3], [0, -1, -1]]):
                at = np.array(places, "int64")
                updates = real(*at.shape[:1], *x.shape[at.shape[1] :], dtype=dtype, seed=4)
                yield case("ScatterND", {"x": x, "i": at, "u": updates}, kept, 18, **attributes)
        for axis, depth in itertools.product((-1, 0, 1), (3, 5)):
            at = np.array([[0, -1, 2], [7, -9, 1]], index)
            feeds = {"i": at, "d": np.array(depth, index), "v": real(2, dtype=dtype)}
            yield case("OneHot", feeds, ("d", "v") if stored else (), 11, axis=axis)
        for axis in (None, 0, 1, -1):
            condition = np.array([True, False, True])
            attributes = {} if axis is None else {"axis": axis}
            yield case("Compress", {"x": x, "i": condition}, kept, 11, **attributes)
        if index == "int64" and stored:
            for axis, order in itertools.product((None, 0, 1), (0, 1)):
                attributes = {"sorted": order} | ({} if axis is None else {"axis": axis})
                some = real(4, 3, dtype=dtype)
                some = (
                    some % 3
                    if np.dtype(dtype).kind in "iu"
                    else np.sign(some)
                    if dtype != "bool"
                    else some
                )
                yield case("Unique", {"x": some.astype(dtype)}, (), 11, 4, **attributes)
            for shape in ((3, 4, 5), (4, 5), (5,), ()):
                condition = real(3, 1, 5, dtype="bool")
                feeds = {"c": condition, "x": x, "y": real(*shape, dtype=dtype, seed=5)}
                yield case("Where", feeds, (), 16)
                yield case("Where", feeds, ("y",), 16)
            yield case("NonZero", {"x": x}, (), 13)


@family
def normalising() -> Iterator[Case]:
    """Norms and softmaxes."""
    for axis, epsilon, bias, dtype in itertools.product(
        (None, 1, -2, 0), (None, 0.1), (False, True), ("float32", "float64")
    ):
        first = -1 if axis is None else axis
        shape = (2, 3, 4)[first:]
        feeds = {"x": real(2, 3, 4, dtype=dtype), "s": real(*shape, dtype=dtype, seed=1)}
        attributes = {k: v for k, v in (("axis", axis), ("epsilon", epsilon)) if v is not None}
        if bias:
            feeds["b"] = real(*shape, dtype=dtype, seed=2)
        for stored, outputs in itertools.product(((), ("s", "b")), (1, 3)):
            yield case("LayerNormalization", feeds, stored, 17, outputs, **attributes)
        if not bias:
            yield case("RMSNormalization", feeds, ("s",), 23, **attributes)
    for groups, opset, shape in itertools.product(
        (1, 2, 4), (18, 21), ((2, 4), (2, 4, 3), (2, 4, 3, 2))
    ):
        many = 4 if opset == 21 else groups
        feeds = {"x": real(*shape), "s": real(many, seed=1), "b": real(many, seed=2)}
        yield case("GroupNormalization", feeds, ("s", "b"), opset, num_groups=groups, epsilon=0.01)
    for shape in ((2, 4, 3), (2, 4, 3, 2), (2, 4, 3, 2, 2)):
        feeds = {"x": real(*shape), "s": real(4, seed=1), "b": real(4, seed=2)}
        yield case("InstanceNormalization", feeds, ("s", "b"), 6 + 16, epsilon=0.01)
        feeds |= {"m": real(4, seed=3), "v": np.abs(real(4, seed=4)) + np.float32(0.1)}
        for stored in (("s", "b", "m", "v"), (), ("m", "v")):
            yield case("BatchNormalization", feeds, stored, 15, epsilon=0.01)
        for size in (1, 2, 3, 5):
            yield case("LRN", {"x": real(*shape)}, (), 13, size=size, alpha=0.3, beta=0.6, bias=1.5)
    yield case("MeanVarianceNormalization", {"x": real(2, 3, 4, 5)}, (), 13)
    yield case("MeanVarianceNormalization", {"x": real(2, 3, 4, 5)}, (), 13, axes=[1, 2])
    for p, axis in itertools.product((1, 2), (0, 1, -1)):
        yield case("LpNormalization", {"x": real(3, 4, 5)}, (), 1 + 21, p=p, axis=axis)
    for op, opset, axis in itertools.product(
        ("Softmax", "LogSoftmax", "Hardmax"), (11, 13), (None, 0, 1, -1, 2)
    ):
        attributes = {} if axis is None else {"axis": axis}
        yield case(op, {"x": real(2, 3, 4)}, (), opset, **attributes)


@family
def linear() -> Iterator[Case]:
    """Products."""
    for a, b, stored in itertools.product(
        ((3,), (2, 3), (4, 2, 3), (5, 1, 2, 3)),
        ((3,), (3, 4), (4, 3, 2), (4, 3, 1)),
        ((), ("b",), ("a",)),
    ):
        for dtype in ("float32", "float64", "int32", "int64", "uint32", "uint64"):
            feeds = {"a": real(*a, dtype=dtype), "b": real(*b, dtype=dtype, seed=1)}
            try:
                np.matmul(feeds["a"], feeds["b"])
            except ValueError:
                continue
            yield case("MatMul", feeds, stored, 13)
    for form in grid(
        transA=[None, 1], transB=[None, 1], alpha=[None, 0.5], beta=[None, 0.3],
        c=[None, (), (4,), (1,), (2, 1), (2, 4), (1, 4)], dtype=["float32", "float64", "int32"],
    ):  # fmt: skip
        dtype = form.pop("dtype")
        c = form.pop("c", None)
        feeds = {
            "a": real(*((3, 2) if form.get("transA") else (2, 3)), dtype=dtype),
            "b": real(*((4, 3) if form.get("transB") else (3, 4)), dtype=dtype, seed=1),
            "c": None if c is None else np.asarray(real(*c, dtype=dtype)),
        }
        yield case("Gemm", feeds, ("b", "c"), 13, **form)
        yield case("Gemm", feeds, (), 13, **form)
    for equation, shapes in (
        ("ij,jk->ik", ((2, 3), (3, 4))), ("bij,bjk", ((2, 3, 4), (2, 4, 5))), ("ii->i", ((3, 3),)),
        ("...ij,...jk->...ik", ((2, 3, 4), (4, 5))), ("i,i->", ((3,), (3,))), ("ij->ji", ((2, 3),)),
        ("i,j->ij", ((3,), (4,))), ("ij, jk , kl->il", ((2, 3), (3, 4), (4, 2))),
        ("...ii->...i", ((2, 3, 3),)),
    ):  # fmt: skip
        feeds = {f"x{i}": real(*shape) for i, shape in enumerate(shapes)}
        yield case("Einsum", feeds, (), 12, equation=equation)


@family
def sampling() -> Iterator[Case]:
    """Samples of images, boxes and spectra."""
    for form in grid(
        mode=["linear", "nearest", "cubic"], padding_mode=["zeros", "border", "reflection"],
        align_corners=[0, 1], rank=[4, 5],
    ):  # fmt: skip
        rank = form.pop("rank")
        if rank == 5 and form["mode"] == "cubic":
            continue
        feeds = {
            "x": real(2, 3, *[4, 5, 3][: rank - 2]),
            "g": real(2, *[3, 2, 2][: rank - 2], rank - 2),
        }
        yield case("GridSample", feeds, (), 20, **form)
    for opset, form in itertools.product(
        (10, 16, 22),
        grid(mode=["avg", "max"], output_height=[1, 3], output_width=[2], sampling_ratio=[0, 2],
             spatial_scale=[1.0, 0.5], how=[None, "half_pixel", "output_half_pixel"]),
    ):  # fmt: skip
        how = form.pop("how", None)
        if how and opset >= 16:
            form["coordinate_transformation_mode"] = how
        elif how:
            continue
        boxes = np.array([[0, 0, 4, 5], [1.5, 2, 6, 7], [-1, -2, 3, 9], [3, 3, 3, 3]], np.float32)
        feeds = {"x": real(2, 3, 7, 8), "r": boxes, "b": ints(0, 1, 0, 1)}
        yield case("RoiAlign", feeds, (), opset, **form)
    boxes = np.abs(real(2, 6, 4)) * np.float32(3)
    boxes[..., 2:] += boxes[..., :2]
    for center, most, overlap, least in itertools.product(
        (None, 1), (None, 0, 2, 9), (None, 0.1, 0.5), (None, 0.2)
    ):
        feeds = {
            "b": boxes, "s": real(2, 3, 6, seed=2), "m": None if most is None else ints(most),
            "o": None if overlap is None else np.array([overlap], np.float32),
            "t": None if least is None else np.array([least], np.float32),
        }  # fmt: skip
        attributes = {} if center is None else {"center_point_box": center}
        yield case("NonMaxSuppression", feeds, ("m", "o", "t"), 11, **attributes)
    for axis, inverse, onesided, length, parts in itertools.product(
        (1, 2, -2), (0, 1), (0, 1), (None, 4, 5, 9), (1, 2)
    ):
        feeds = {
            "x": real(2, 6, 5, parts), "n": None if length is None else np.array(length),
            "a": np.array(axis),
        }  # fmt: skip
        yield case("DFT", feeds, ("n", "a"), 20, inverse=inverse, onesided=onesided)
    for step, window, length, onesided in itertools.product((2, 3), (False, True), (4, 5), (0, 1)):
        feeds = {
            "x": real(2, 16, 1), "s": np.array(step), "w": real(length) if window else None,
            "l": np.array(length),
        }  # fmt: skip
        yield case("STFT", feeds, ("s", "l", "w"), 17, onesided=onesided)
        yield case("STFT", feeds, (), 17, onesided=onesided)
    for form in grid(
        pads=[None, [0, 1, 0, 1], [1, 0, 0, 1]], strides=[None, [2, 1]], dilations=[None, [2, 1]]
    ):
        pads, strides, dilations = (
            form.get(n) or d
            for n, d in (("pads", [0] * 4), ("strides", [1, 1]), ("dilations", [1, 1]))
        )
        count = 1
        for i, (size, block) in enumerate(((6, 2), (5, 3))):
            reach = dilations[i] * (block - 1) + 1
            count *= (size + pads[i] + pads[i + 2] - reach) // strides[i] + 1
        feeds = {"x": real(2, 3 * 6, count), "i": ints(6, 5), "b": ints(2, 3)}
        yield case("Col2Im", feeds, ("i", "b"), 18, **form)
        yield case("Col2Im", feeds, (), 18, **form)
    for align, rank in itertools.product((0, 1), (2, 3)):
        theta = real(2, rank, rank + 1)
        size = ints(2, 3, *[4, 5, 2][:rank])
        yield case("AffineGrid", {"t": theta, "s": size}, ("s",), 20, align_corners=align)
        yield case("AffineGrid", {"t": theta, "s": size}, (), 20, align_corners=align)
