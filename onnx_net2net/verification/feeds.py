"""Inputs to run a model with: made from a seed, or read from the user's files.

>>> specs = input_specs(model.proto.graph)
>>> feeds = make_feeds(specs, uses, {"batch": 1, "sequence": 6}, seed=0)
>>> feeds["input_ids"].shape
(1, 6)

The values: floats are standard normal; indices lie within the tables they select from; other
whole numbers of rank 2 and up are masks, 1 for a random number of leading places of each row and
0 behind; booleans are random with the first place of each row true; 8-bit images cover their range.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper

from onnx_net2net.errors import InvalidModel, UsageError
from onnx_net2net.model import arrays
from onnx_net2net.model.external import Folder
from onnx_net2net.model.tensors import check_tensor, is_external
from onnx_net2net.verification.bounds import Use
from onnx_net2net.verification.comparison import is_float
from onnx_net2net.verification.sizes import InputSpec, concrete
from onnx_net2net.verification.trial_files import numbered_trials

Feeds = dict[str, np.ndarray]
Range = tuple[float, float]
UserInputs = str | Path | Mapping[str, np.ndarray]

MOST = 1 << 27  # elements of an input that is made up
_OWN = "pass inputs of your own"


# Made from a seed ----------------------------------------------------------------------------


def make_feeds(
    specs: Sequence[InputSpec],
    uses: Mapping[str, Use],
    sizes: Mapping[str, int],
    seed: int,
    ranges: Mapping[str, Range] | Range | None = None,
) -> Feeds:
    """Make one set of inputs. Their values depend on the seed, name and shape of each only.

    ``ranges`` overrides the values by input name, both ends included for whole numbers; a
    single pair applies to every floating-point input.
    """
    # Both leading axes of a recurrent input may be time.
    recurrent = [concrete(spec, sizes) for spec in specs if len(spec.shape or ()) >= 3]
    lengths = min((max(shape[:2]) for shape in recurrent), default=1)
    feeds = {}
    for spec in specs:
        if spec.shape is None:
            raise UsageError(f"the model does not give the rank of input {spec.name!r}", _OWN)
        rng = np.random.default_rng([seed, zlib.crc32(spec.name.encode())])
        shape = concrete(spec, sizes)
        if math.prod(shape) > MOST:
            raise UsageError(f"input {spec.name!r} of {spec} is too large to be made up", _OWN)
        limits = ranges.get(spec.name) if isinstance(ranges, Mapping) else ranges
        if limits is not None and (isinstance(ranges, Mapping) or is_float(spec.dtype)):
            feeds[spec.name] = _within(spec, rng, shape, limits)
        else:
            feeds[spec.name] = _values(spec, rng, shape, uses.get(spec.name, Use("value")), lengths)
    return feeds


def check_ranges(specs: Sequence[InputSpec], ranges: Mapping[str, Range] | Range | None) -> None:
    """Raise UsageError for a range of no input, an empty one, or one beyond the input's type."""
    if ranges is None:
        return
    named = ranges if isinstance(ranges, Mapping) else {"": ranges}
    known = {spec.name: spec for spec in specs}
    for name, limits in named.items():
        if name and name not in known:
            raise UsageError(f"there is no input {name!r}", f"inputs: {', '.join(known)}")
        if len(limits) != 2 or not limits[0] <= limits[1]:
            raise UsageError(
                f"the range {limits!r} is not (low, high) with low <= high",
                "give two numbers, the lower one first",
            )
        low, high = limits
        for spec in [known[name]] if name else [s for s in specs if is_float(s.dtype)]:
            least, most = _numbers(spec)
            within = least <= low and high <= most
            if not within or not (is_float(spec.dtype) or math.ceil(low) <= math.floor(high)):
                raise UsageError(
                    f"the range {limits!r} does not suit input {spec.name!r}, which is "
                    f"{spec.type_name}",
                    f"give a range of numbers from {least} to {most}",
                )


def _numbers(spec: InputSpec) -> tuple[float, float]:
    """Return the smallest and the largest number that the input can hold."""
    if spec.elem_type == TensorProto.BOOL:
        return 0, 1
    if is_float(spec.dtype):
        info = ml_dtypes.finfo(spec.dtype)
        return float(info.min), float(info.max)
    if spec.dtype.kind in "OUSc":
        raise UsageError(f"input {spec.name!r} has no range, for it is {spec.type_name}", _OWN)
    bounds = ml_dtypes.iinfo(spec.dtype)  # int4 lies in a byte, too
    return int(bounds.min), int(bounds.max)


def _within(
    spec: InputSpec, rng: np.random.Generator, shape: tuple[int, ...], limits: Range
) -> np.ndarray:
    low, high = limits
    if is_float(spec.dtype):
        # By halves, for high - low can be above all numbers.
        return (2 * rng.uniform(low / 2, high / 2, shape)).astype(spec.dtype)
    kind = np.uint64 if spec.dtype == np.uint64 else np.int64
    least, most = math.ceil(low), math.floor(high)
    return rng.integers(least, most, shape, kind, endpoint=True).astype(spec.dtype)


def _values(
    spec: InputSpec, rng: np.random.Generator, shape: tuple[int, ...], use: Use, lengths: int
) -> np.ndarray:
    dtype = spec.dtype
    if spec.elem_type == TensorProto.STRING:
        raise UsageError(f"input {spec.name!r} holds strings, which cannot be made up", _OWN)
    if use.kind == "index":
        return rng.integers(0, max(use.upper, 1), shape).astype(dtype)
    if use.kind == "length" and dtype.kind in "iu":
        return np.maximum(1, lengths - rng.integers(0, 2, shape) * (lengths // 2)).astype(dtype)
    if use.kind == "extent" and dtype.kind in "iu":
        return np.ones(shape, dtype)
    if spec.elem_type == TensorProto.BOOL:
        value = rng.integers(0, 2, shape).astype(bool)
        if shape:
            value[..., :1] = True
        return value
    named_mask = "mask" in spec.name.lower()
    if is_float(dtype) and not named_mask:
        return rng.standard_normal(shape).astype(dtype)
    if dtype.itemsize == 1 and not named_mask:
        least, most = _numbers(spec)
        return rng.integers(int(least), int(most), shape, endpoint=True).astype(dtype)
    if len(shape) >= 2 or named_mask:
        return _leading_ones(rng, shape).astype(dtype)
    return rng.integers(0, 10, shape).astype(dtype)


def _leading_ones(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return a padding mask: ones, then zeros, in each row; never a row without a one."""
    if not shape:
        return np.ones(shape)
    width = max(shape[-1], 1)
    count = rng.integers(min(width, max(1, width // 2)), width, shape[:-1], endpoint=True)
    return np.arange(shape[-1]) < count[..., None]


# Read from the user --------------------------------------------------------------------------


def user_feeds(
    source: UserInputs | Sequence[UserInputs], specs: Sequence[InputSpec]
) -> list[tuple[str, Feeds]]:
    """Read the user's data sets, each with a label.

    A source is an ``.npz`` or ``.npy`` file, a mapping of arrays, an ONNX test folder
    (``input_0.pb`` or a folder of ``test_data_set_*``), or a sequence of these.

    Raises UsageError naming the input that does not fit, and what would.
    """
    if isinstance(source, Mapping):
        sets = [("inputs", dict(source))]
    elif isinstance(source, (str, Path)):
        sets = _read(Path(source), specs)
    else:
        return [labelled for one in source for labelled in user_feeds(one, specs)]
    return [(label, _fitted(label, feeds, specs)) for label, feeds in sets]


def _read(path: Path, specs: Sequence[InputSpec]) -> list[tuple[str, Feeds]]:
    try:
        if path.is_dir():
            folders = [path] if any(path.glob("input_*.pb")) else []
            folders = folders or [f for f in path.glob("test_data_set_*") if f.is_dir()]
            if not folders:
                raise UsageError(
                    f"no input_0.pb and no test_data_set_0 in {path}",
                    "give a folder as ONNX's own tests have it, or an .npz file",
                )
            return [(f.name, _read_protobufs(f, specs)) for f in sorted(folders, key=_number)]
        if path.suffix == ".pb":
            return [(path.parent.name, _read_protobufs(path.parent, specs))]
        contents = arrays.read(path)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"cannot read inputs from {path}: {error}",
            "give an .npz or .npy file, or a folder with input_0.pb",
        ) from error
    if isinstance(contents, np.ndarray):
        return [(path.name, {specs[0].name: contents} if specs else {})]
    if contents.keys() != {spec.name for spec in specs}:
        trials = numbered_trials(contents)
        if len(trials) > 1:
            return [(f"{path.name}, trial {i}", feeds) for i, feeds in enumerate(trials)]
    # np.savez(path, x, y) without names calls its arrays arr_0, arr_1.
    if len(contents) == len(specs) and all(
        re.fullmatch(r"arr_[0-9]{1,9}", name) for name in contents
    ):
        numbered = sorted(contents, key=lambda name: int(name[4:]))
        contents = {s.name: contents[n] for s, n in zip(specs, numbered, strict=True)}
    return [(path.name, contents)]


def _number(path: Path) -> int:
    digits = re.findall(r"\d+", path.stem)
    return int(digits[-1]) if digits else 0


def _read_protobufs(folder: Path, specs: Sequence[InputSpec]) -> Feeds:
    """Read a folder in which ``input_<i>.pb`` holds the i-th input, whatever it is called there."""
    feeds = {}
    for path in sorted(folder.glob("input_*.pb"), key=_number):
        index = _number(path)
        if index >= len(specs):
            raise UsageError(
                f"{path} is one input too many: the model has {len(specs)}", _listed(specs)
            )
        try:
            tensor = onnx.TensorProto.FromString(path.read_bytes())
            if is_external(tensor):
                Folder(path).embed(tensor, "its contents")
            check_tensor(tensor, "its contents")
            feeds[specs[index].name] = numpy_helper.to_array(tensor)
        except (DecodeError, TypeError, ValueError, InvalidModel) as error:
            reason = error.problem if isinstance(error, InvalidModel) else error
            raise UsageError(
                f"{path} does not hold a tensor: {reason}", "write it with onnx.save_tensor"
            ) from error
    return feeds


def _fitted(label: str, feeds: Mapping[str, np.ndarray], specs: Sequence[InputSpec]) -> Feeds:
    known = {spec.name: spec for spec in specs}
    for name in feeds:
        if name not in known:
            raise UsageError(f"{label}: the model has no input {name!r}", _listed(specs))
    fitted = {}
    for name, spec in known.items():
        if name not in feeds:
            raise UsageError(f"{label}: input {name!r} is missing", _listed(specs))
        fitted[name] = _checked(label, np.asarray(feeds[name]), spec)
    return fitted


def _listed(specs: Sequence[InputSpec]) -> str:
    return "the model takes " + (", ".join(f"{s.name}: {s}" for s in specs) or "no inputs")


def _checked(label: str, value: np.ndarray, spec: InputSpec) -> np.ndarray:
    if spec.elem_type == TensorProto.STRING:
        if value.dtype.kind not in "OUS":
            raise UsageError(
                f"{label}: input {spec.name!r} must hold strings, not {value.dtype}",
                "convert it with .astype(object)",
            )
        return value.astype(object)
    if value.dtype == ml_dtypes.bfloat16 and spec.elem_type == TensorProto.FLOAT:
        value = value.astype(np.float32)  # exact
    if spec.also is not None and value.dtype == InputSpec("", spec.also, None).dtype:
        value = value.astype(spec.dtype)
    if value.dtype != spec.dtype:
        raise UsageError(
            f"{label}: input {spec.name!r} must be {spec.dtype}, not {value.dtype}",
            f"convert it with .astype({str(spec.dtype)!r})",
        )
    if spec.shape is None:
        return value
    agrees = len(value.shape) == len(spec.shape) and all(
        not isinstance(dim, int) or dim == size
        for dim, size in zip(spec.shape, value.shape, strict=True)
    )
    if not agrees:
        raise UsageError(
            f"{label}: input {spec.name!r} must have shape ({', '.join(map(str, spec.shape))}), "
            f"not ({', '.join(map(str, value.shape))})",
            _listed([spec]),
        )
    return value
