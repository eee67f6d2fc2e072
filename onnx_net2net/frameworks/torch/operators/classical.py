"""Preprocessing and selection as scikit-learn's converter writes them."""

from __future__ import annotations

from onnx_net2net.frameworks.torch.operation import Entry, TorchOperation
from onnx_net2net.frameworks.torch.types import short


def _vector(op: TorchOperation, name: str, values: list[float]) -> str:
    """Return numbers, one a column."""
    if len(values) == 1:
        return short(values[0])
    listed = ", ".join(short(v) for v in values)
    return op.translator.inline_constant(f"{op.hint}_{name}", f"torch.tensor([{listed}])")


def scaler(op: TorchOperation) -> str:
    """Write (x - offset) * scale."""
    offset = list(op.attribute("offset") or [0.0])
    scale = list(op.attribute("scale") or [1.0])
    x = op.tensor(0) if op.dtype() == 1 else f"({op.tensor(0)}).float()"
    return f"({x} - {_vector(op, 'offset', offset)}) * {_vector(op, 'scale', scale)}"


def extract(op: TorchOperation) -> str:
    """Take columns by position."""
    columns = op.listed_constant(1)
    if columns is not None:
        return f"({op.tensor(0)})[..., {columns}]"
    code = f"({op.tensor(0)})[..., ({op.tensor(1)}).flatten()]"
    return code if op.axes_of(0) > 1 else f"({code}).reshape(1, -1)"


def binarizer(op: TorchOperation) -> str:
    """Write one above a threshold, else zero."""
    return f"(({op.tensor(0)}) > {short(op.attribute('threshold', 0.0))}).to({op.output_dtype()})"


def imputer(op: TorchOperation) -> str:
    """Replace one value."""
    values = op.attribute("imputed_value_floats")
    if values is None:
        op.refuse("it replaces integers")
    old = op.attribute("replaced_value_float", 0.0)
    x = op.tensor(0)
    missing = f"torch.isnan({x})" if old != old else f"({x}) == {short(old)}"
    return f"torch.where({missing}, {_vector(op, 'values', list(values))}, {x})"


def normalizer(op: TorchOperation) -> str:
    """Divide each row by its norm; a row of zeros stays."""
    x = op.add(op.tensor(0), "x", inline=False)
    norms = {
        "MAX": f"{x}.amax(1, keepdim=True)",
        "L1": f"{x}.abs().sum(1, keepdim=True)",
        "L2": f"torch.linalg.vector_norm({x}, dim=1, keepdim=True)",
    }
    norm = op.add(norms[op.attribute("norm", "MAX")], "norm")
    return f"{x} / torch.where({norm} == 0, 1.0, {norm})"


TABLES: dict[str, dict[str, Entry]] = {
    "ai.onnx.ml": {
        "ArrayFeatureExtractor": extract,
        "Binarizer": binarizer,
        "Imputer": imputer,
        "Normalizer": normalizer,
        "Scaler": scaler,
    },
}
