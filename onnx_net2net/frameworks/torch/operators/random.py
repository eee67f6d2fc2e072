"""Random tensors: PyTorch's generator, whatever seed the file has."""

from __future__ import annotations

from onnx_net2net.frameworks.torch.operation import Entry, TorchOperation
from onnx_net2net.frameworks.torch.types import short


def bernoulli(op: TorchOperation) -> str:
    """Draw one with the given probability."""
    op.attribute("dtype")  # what the output is declared with
    return f"torch.bernoulli({op.tensor(0)}).to({op.output_dtype()})"


def multinomial(op: TorchOperation) -> str:
    """Draw classes by their unnormalised log probabilities."""
    count = op.attribute("sample_size", 1)
    drawn = f"torch.multinomial(torch.softmax({op.tensor(0)}, -1), {count}, replacement=True)"
    return f"{drawn}.to({op.output_dtype()})"


def filled(form: str, like: bool) -> Entry:
    """Draw random numbers, of a given shape or of another tensor's."""

    def entry(op: TorchOperation) -> str:
        op.attribute("dtype")  # what the output is declared with
        shape = f"{op.tensor(0)}.shape" if like else str(tuple(op.attribute("shape")))
        made = f"torch.empty({shape}, dtype={op.output_dtype()}, device={op.device()})"
        values = {
            "mean": op.attribute("mean", 0.0), "scale": op.attribute("scale", 1.0),
            "low": op.attribute("low", 0.0), "high": op.attribute("high", 1.0),
        }  # fmt: skip
        return f"{made}.{form.format(**{k: short(v) for k, v in values.items()})}"

    return entry


TABLES: dict[str, dict[str, Entry]] = {
    "": {
        "Bernoulli": bernoulli,
        "Multinomial": multinomial,
        "RandomNormal": filled("normal_({mean}, {scale})", like=False),
        "RandomNormalLike": filled("normal_({mean}, {scale})", like=True),
        "RandomUniform": filled("uniform_({low}, {high})", like=False),
        "RandomUniformLike": filled("uniform_({low}, {high})", like=True),
    },
}
