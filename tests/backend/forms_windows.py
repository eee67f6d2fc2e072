"""Forms of attention, convolutions, pools and resizing."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.backend.cases import Case
from tests.backend.forms import case, family, grid, ints, real


@family
def attention() -> Iterator[Case]:
    """Attention of opset 23 and 24."""
    masks = {
        "none": None,
        "2d": real,
        "bool": lambda q, k: real(q, k, dtype="bool", seed=3) | (np.arange(k) == 0),
        "blind": lambda q, k: np.arange(q)[:, None] + 0 * np.arange(k) > 0,
        "4d": lambda q, k: real(2, 4, q, k),
        "4db": lambda q, k: real(2, 1, q, k, dtype="bool") | (np.arange(k) == 0),
        "inf": lambda q, k: np.where(np.arange(k) < np.arange(q)[:, None], -np.inf, 0.5).astype(
            "f4"
        ),
    }
    choices = grid(
        opset=[23, 24],
        mask=list(masks),
        kv=[4, 2],
        past=[0, 3],
        is_causal=[None, 1],
        softcap=[None, 2.0],
        mode=[None, 0, 1, 2, 3],
        scale=[None, 0.3],
        rank=[4, 3],
        keys=[5, 3],
    )
    for c in choices:
        q, k, past, kv = 3, c["keys"], c["past"], c["kv"]
        mask = masks[c["mask"]]
        shape = (lambda h, s: (2, h, s, 8)) if c["rank"] == 4 else (lambda h, s: (2, s, h * 8))
        feeds: dict[str, np.ndarray | None] = {
            "q": real(*shape(4, q)),
            "k": real(*shape(kv, k), seed=1),
            "v": real(*shape(kv, k), seed=2),
            "m": mask and mask(q, k + past),
        }
        if past:
            feeds |= {"pk": real(2, kv, past, 8, seed=4), "pv": real(2, kv, past, 8, seed=5)}
        attributes = {n: c[n] for n in ("is_causal", "softcap", "scale") if n in c}
        if c["rank"] == 3:
            attributes |= {"q_num_heads": 4, "kv_num_heads": kv}
        outputs: tuple[str, ...] = ("y", "k1", "v1") if past else ("y",)
        if "mode" in c:
            attributes["qk_matmul_output_mode"] = c["mode"]
            outputs = (*outputs, *([""] * (3 - len(outputs))), "s")
        yield case("Attention", feeds, (), c["opset"], outputs, **attributes)


@family
def transposed() -> Iterator[Case]:
    """ConvTranspose of one to three axes."""
    for rank in (1, 2, 3):
        choices = grid(
            auto_pad=[None, "SAME_UPPER", "SAME_LOWER", "VALID"], strides=[1, 2, 3, 4],
            dilations=[None, 2], kernel=[1, 2, 3, 4], group=[None, 2],
            pads=[None, (0, 1), (2, 1), (1, 1)], extra=[None, 1], shape=[None, 7, 12, 15],
        )  # fmt: skip
        for c in choices:
            if (c.get("auto_pad") and "pads" in c) or c.get("extra", 0) >= c["strides"]:
                continue
            kernel = [c["kernel"], 2, 3][:rank]
            attributes: dict[str, Any] = {"strides": [c["strides"], 2, 1][:rank]}
            if "dilations" in c:
                attributes["dilations"] = [2, 1, 1][:rank]
            if "auto_pad" in c:
                attributes["auto_pad"] = c["auto_pad"]
            if "group" in c:
                attributes["group"] = 2
            if "pads" in c:
                attributes["pads"] = [c["pads"][0], 0, 1][:rank] + [c["pads"][1], 1, 0][:rank]
            if "extra" in c:
                attributes["output_padding"] = [1, 0, 0][:rank]
            if "shape" in c:
                attributes["output_shape"] = [c["shape"], 8, 6][:rank]
            feeds = {"x": real(2, 4, *[4, 3, 5][:rank]), "w": real(4, 3, *kernel, seed=1)}
            bias = zlib.crc32(repr(c).encode()) % 2
            outputs = 3 * c.get("group", 1)
            if bias:
                feeds["b"] = real(outputs)
            yield case("ConvTranspose", feeds, ("w", "b"), 21, **attributes)


@family
def convolution() -> Iterator[Case]:
    """Conv of one to three axes."""
    for rank in (1, 2, 3):
        choices = grid(
            auto_pad=[None, "SAME_UPPER", "SAME_LOWER", "VALID"], strides=[1, 2, 3],
            dilations=[None, 2], kernel=[1, 2, 3, 4], group=[None, 2],
            pads=[None, (0, 1), (2, 1), (5, 1)], dynamic=[False, True],
        )  # fmt: skip
        for c in choices:
            if c.get("auto_pad") and "pads" in c:
                continue
            attributes: dict[str, Any] = {"strides": [c["strides"], 2, 1][:rank]}
            if "dilations" in c:
                attributes["dilations"] = [2, 1, 1][:rank]
            if "auto_pad" in c:
                attributes["auto_pad"] = c["auto_pad"]
            if "group" in c:
                attributes["group"] = 2
            if "pads" in c:
                attributes["pads"] = [c["pads"][0], 0, 1][:rank] + [c["pads"][1], 1, 0][:rank]
            kernel = [c["kernel"], 2, 3][:rank]
            feeds = {
                "x": real(2, 4, *[9, 8, 7][:rank]),
                "w": real(6, 4 // c.get("group", 1), *kernel, seed=1),
            }
            yield case("Conv", feeds, ("w",), 21, dynamic=c["dynamic"], **attributes)


@family
def pooling() -> Iterator[Case]:
    """MaxPool, AveragePool and LpPool."""
    for op, opset, rank in itertools.product(
        ("MaxPool", "AveragePool", "LpPool"), (10, 19, 22), (1, 2, 3)
    ):
        choices = grid(
            auto_pad=[None, "SAME_UPPER", "SAME_LOWER", "VALID"], strides=[None, 1, 2, 3, 5],
            dilations=[None, 2], kernel=[1, 2, 3, 4], pads=[None, (0, 1), (1, 1), (2, 0), (1, 2)],
            ceil_mode=[None, 1], other=[None, 1], size=[8, 9],
        )  # fmt: skip
        for c in choices:
            if (c.get("auto_pad") and "pads" in c) or max(c.get("pads", (0,))) >= c["kernel"]:
                continue
            attributes: dict[str, Any] = {"kernel_shape": [c["kernel"], 2, 3][:rank]}
            if "strides" in c:
                attributes["strides"] = [c["strides"], 2, 2][:rank]
            if "auto_pad" in c:
                attributes["auto_pad"] = c["auto_pad"]
            if "pads" in c:
                attributes["pads"] = [c["pads"][0], 0, 1][:rank] + [c["pads"][1], 1, 0][:rank]
            if "dilations" in c and (op == "MaxPool" or opset >= 19):
                attributes["dilations"] = [2, 1, 1][:rank]
            if "ceil_mode" in c and (op != "LpPool" or opset >= 19):
                attributes["ceil_mode"] = 1
            outputs = 1
            if op == "AveragePool" and "other" in c:
                attributes["count_include_pad"] = 1
            elif op == "LpPool" and "other" in c:
                attributes["p"] = 3
            elif op == "MaxPool" and "other" in c:
                outputs = 2
                if c["size"] == 9:
                    attributes["storage_order"] = 1
            feeds = {"x": real(2, 3, *[c["size"], 7, 6][:rank])}
            yield case(op, feeds, (), opset, outputs, **attributes)


@family
def integer_pooling() -> Iterator[Case]:
    """MaxPool of bytes and of double."""
    choices = grid(
        dtype=["int8", "uint8", "float64"], kernel_shape=[[2], [3]], strides=[None, [2]],
        pads=[None, [0, 1], [1, 1]], ceil_mode=[None, 1], auto_pad=[None, "SAME_LOWER"],
    )  # fmt: skip
    for c in choices:
        dtype = c.pop("dtype")
        if "auto_pad" not in c or "pads" not in c:
            yield case("MaxPool", {"x": real(1, 2, 9, dtype=dtype)}, (), 12, **c)


@family
def global_pooling() -> Iterator[Case]:
    """Pools over everything, and the ways back."""
    for op in ("GlobalAveragePool", "GlobalMaxPool"):
        for shape in ((2, 3, 4), (2, 3, 4, 5), (2, 3, 2, 3, 4)):
            yield case(op, {"x": real(*shape)})
    for p in (1, 2, 3):
        yield case("GlobalLpPool", {"x": real(2, 3, 4, 5)}, (), 21, p=p)
    pooled = np.array([[[[3, 4], [1, 7]]]], np.float32)
    for c in grid(strides=[None, [2, 2]], pads=[None, [0, 1, 0, 0], [1, 0, 0, 1]], shape=[0, 1, 2]):
        attributes = {k: v for k, v in c.items() if k != "shape"}
        index = np.array([[[[0, 2], [4, 7]]]], np.int64)
        feeds = {"x": pooled, "i": index}
        if c["shape"]:
            feeds["s"] = ints(1, 1, 3 + c["shape"], 4 + c["shape"])
        yield case("MaxUnpool", feeds, ("s",), 11, kernel_shape=[2, 2], **attributes)


@family
def resizing() -> Iterator[Case]:
    """Resize by scales and by sizes."""
    modes = [
        "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric",
    ]  # fmt: skip
    choices = grid(
        mode=["nearest", "linear", "cubic"], coordinate_transformation_mode=modes,
        nearest_mode=["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"],
        to=[1, 2, 3, 5, 8, 13, 0.5, 2.0, 5 / 3, 2 / 3, 0.6, 1.2, 3.7], rank=[3, 4, 5],
        cubic_coeff_a=[None, -0.5], exclude_outside=[None, 1], antialias=[None, 1], size=[3, 7],
        opset=[11, 18, 19],
    )  # fmt: skip
    for c in choices:
        mode, rank, opset = c["mode"], c["rank"], c["opset"]
        if mode != "nearest" and c["nearest_mode"] != "floor":
            continue
        if mode != "cubic" and (
            "cubic_coeff_a" in c or (c.get("exclude_outside") and mode == "nearest")
        ):
            continue
        if c.get("antialias") and (mode == "nearest" or opset < 18):
            continue
        if c["coordinate_transformation_mode"] == "half_pixel_symmetric" and opset < 19:
            continue
        if mode == "cubic" and rank != 4:
            continue
        attributes = {k: v for k, v in c.items() if k not in ("to", "rank", "size", "opset")}
        x = real(1, 2, *[c["size"], 6, 5][: rank - 2])
        target = c["to"]
        names: dict[str, np.ndarray | None] = {"x": x, "roi": None}
        if opset == 11:
            names["roi"] = np.zeros(0, np.float32)
        if isinstance(target, float):
            names["scales"] = np.array([1, 1, target, 1.5, 2][:rank], np.float32)
        else:
            names["scales"] = np.zeros(0, np.float32) if opset == 11 else None
            names["sizes"] = ints(*[1, 2, target, 9, 5][:rank])
        stored = ("roi", "scales", "sizes")
        yield case("Resize", names, stored, opset, **attributes)


@family
def resizing_regions() -> Iterator[Case]:
    """Resize of regions, of some axes, and by policies."""
    for mode in ("nearest", "linear", "cubic"):
        for policy in (None, "stretch", "not_larger", "not_smaller"):
            for sizes in ((5, 9), (3, 3), (8, 4)):
                attributes = {"keep_aspect_ratio_policy": policy} if policy else {}
                for axes in ([2, 3], [3, 2], [-2, -1]):
                    yield case(
                        "Resize", {"x": real(1, 2, 4, 6), "r": None, "s": None, "z": ints(*sizes)},
                        ("z",), 19, mode=mode, axes=axes, **attributes,
                    )  # fmt: skip
        for region in ((0.1, 0.2, 0.8, 0.9), (-0.3, 0.2, 1.2, 0.7), (0.6, 0.1, 0.2, 0.9)):
            for value in (None, 10.0):
                for sizes in ((3, 3), (1, 7), (6, 2)):
                    attributes = {} if value is None else {"extrapolation_value": value}
                    roi = np.array([0, 0, *region[:2], 1, 1, *region[2:]], np.float32)
                    for stored in (("r", "z"), ("z",)):
                        yield case(
                            "Resize",
                            {"x": real(1, 2, 4, 5), "r": roi, "s": None, "z": ints(1, 2, *sizes)},
                            stored, 13, mode=mode,
                            coordinate_transformation_mode="tf_crop_and_resize", **attributes,
                        )  # fmt: skip
    for mode, factor in itertools.product(("nearest", "linear"), (1.0, 1.6, 2.0, 3.0, 0.6)):
        for opset in (7, 9):
            scales = [1.0, 1.0, factor, 2.0]
            if opset == 7:
                yield case("Upsample", {"x": real(1, 2, 3, 4)}, (), 7, mode=mode, scales=scales)
            else:
                feeds = {"x": real(1, 2, 3, 4), "s": np.array(scales, np.float32)}
                yield case("Upsample", feeds, ("s",), 9, mode=mode)
                yield case("Upsample", feeds, (), 9, mode=mode)
    for mode in ("nearest", "linear", "cubic"):
        feeds = {"x": real(1, 2, 3, 4), "r": None, "s": np.array([1, 1, 1.7, 2], np.float32)}
        yield case("Resize", feeds, (), 19, mode=mode)
        feeds = {"x": real(1, 2, 3, 4), "r": None, "s": None, "z": ints(1, 2, 5, 7)}
        yield case("Resize", feeds, (), 19, mode=mode)
        yield case("Resize", feeds, (), 19, dynamic=True, mode=mode)
