"""Matrix products."""

from __future__ import annotations

from onnx_net2net.frameworks.torch.operation import Entry, TorchOperation
from onnx_net2net.frameworks.torch.types import literal, short, torch_dtype


def typed(op: TorchOperation, index: int) -> str:
    """Return ``, dtype=torch.float16`` for a module that does not hold float32."""
    dtype = op.dtype(index)
    return "" if dtype == 1 else f", dtype={torch_dtype(dtype)}"


def layer(op: TorchOperation, module: str, x: str, weight: int, bias: int | None) -> str | None:
    """Pass ``x`` through a module that has just these weights; None where they are no module's."""
    if bias is None:
        own = op.layer(f"{module[:-1]}, bias=False{typed(op, weight)})", weight=weight)
    else:
        own = op.layer(f"{module[:-1]}{typed(op, weight)})", weight=weight, bias=bias)
    return None if own is None else f"{own}({x})"


def gemm(op: TorchOperation) -> str:
    """Call a layer where the weight lies as PyTorch's does, else write a product and a sum."""
    alpha, beta = op.attribute("alpha", 1.0), op.attribute("beta", 1.0)
    transposed, shape = bool(op.attribute("transB", 0)), op.shape(1)
    a = f"({op.tensor(0)}).T" if op.attribute("transA", 0) else op.tensor(0)
    if alpha == 1.0 and shape is not None:
        columns = (shape[0 if transposed else 1],)
        if not op.has(2) or (beta == 1.0 and op.shape(2) == columns):
            return linear(op, a, 1, 2 if op.has(2) else None, transposed)
    b = f"({op.tensor(1)}).T" if transposed else op.tensor(1)
    product = f"({a}) @ ({b})"
    if alpha != 1.0:
        product = f"{short(alpha)} * ({product})"
    if not op.has(2):
        return product
    c = op.tensor(2) if beta == 1.0 else f"{short(beta)} * {op.tensor(2)}"
    return f"({product}) + ({c})"


def linear(op: TorchOperation, x: str, weight: int, bias: int | None, transposed: bool) -> str:
    """Multiply ``x`` by a weight, which is stored as (out, in) where ``transposed``."""
    shape = op.shape(weight)
    if transposed and shape is not None:
        called = layer(op, f"nn.Linear({shape[1]}, {shape[0]})", x, weight, bias)
        if called is not None:
            return called
    op.named(op.path(weight))
    w = op.tensor(weight) if transposed else f"({op.tensor(weight)}).T"
    b = "" if bias is None else f", {op.tensor(bias)}"
    return f"F.linear({x}, {w}{b})"


def linear_step(op: TorchOperation) -> str:
    """Write what the fusion of a product and a sum stands for."""
    bias = 2 if op.has(2) else None
    return linear(op, op.tensor(0), 1, bias, bool(op.attribute("transposed", 0)))


def einsum(op: TorchOperation) -> str:
    """Write the equation, which PyTorch reads as it is."""
    names = ", ".join(op.tensors())
    equation = "".join(op.attribute("equation").split())
    return f"torch.einsum({literal(equation)}, {names})"


def matmul(op: TorchOperation) -> str:
    """Write a product; a weight on the right names the result."""
    if op.path(1):
        op.named(op.path(1))
    return op.filled("{t0} @ {t1}")


def determinant(op: TorchOperation) -> str:
    """Write determinants; PyTorch has none of float16."""
    if op.dtype() in (10, 16):
        return f"torch.linalg.det(({op.tensor(0)}).float()).to({op.output_dtype()})"
    return f"torch.linalg.det({op.tensor(0)})"


TABLES: dict[str, dict[str, Entry]] = {
    "": {"Det": determinant, "Einsum": einsum, "Gemm": gemm, "MatMul": matmul},
    "com.microsoft": {"Inverse": "torch.linalg.inv({0})"},
    "fusion": {"Linear": linear_step},
}
