"""Attention as ONNX and ONNX Runtime define it; heads stand on axis 1."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def with_heads(x: Tensor, heads: int) -> Tensor:
    """Split (b, s, h * d) into heads: (b, h, s, d)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merged_heads(x: Tensor) -> Tensor:
    """Merge heads: (b, h, s, d) becomes (b, s, h * d)."""
    return x.transpose(1, 2).flatten(2)


def visible_mask(
    q: Tensor,
    k: Tensor,
    mask: Tensor | None,
    causal: bool,
    before: int,
    lengths: Tensor | None,
    window: tuple[int, int],
) -> Tensor | None:
    """Restrict a mask to what is not later, not padding, not too far away."""
    columns = torch.arange(k.shape[2], device=q.device)
    rows = torch.arange(q.shape[2], device=q.device)[:, None] + before
    allowed = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device)
    if lengths is not None:
        valid = lengths.reshape(-1, 1, 1, 1)
        rows = rows + valid - q.shape[2]
        allowed = allowed & (columns < valid)
    if causal:
        allowed = allowed & (columns <= rows)
    if window[0] >= 0:
        allowed = allowed & (columns >= rows - window[0])
    if window[1] >= 0:
        allowed = allowed & (columns <= rows + window[1])
    if mask is None:
        return allowed
    if mask.shape[-1] not in (1, k.shape[2]):
        mask = wider_mask(mask, k.shape[2])
    if mask.dtype == torch.bool:
        return mask & allowed
    # ONNX Runtime hides by the least number, not by infinity.
    return torch.where(allowed, mask, torch.full_like(mask[..., :1], torch.finfo(mask.dtype).min))


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    scale: float | None = None,
    softcap: float = 0.0,
    precision: torch.dtype | None = None,
) -> Tensor:
    """Return softmax(q k^T * scale + mask) v; heads of k and v may serve several of q."""
    if softcap or precision is not None:
        weights = attention_scores(q, k, mask, scale, softcap, 3, precision)
        return weights @ v.repeat_interleave(q.shape[1] // v.shape[1], 1)
    if mask is not None and mask.is_floating_point():
        mask = mask.masked_fill(mask <= torch.finfo(mask.dtype).min, float("-inf"))
    grouped = q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(q, k, v, mask, scale=scale, enable_gqa=grouped)


def attention_scores(
    q: Tensor,
    k: Tensor,
    mask: Tensor | None,
    scale: float | None,
    softcap: float,
    mode: int,
    precision: torch.dtype | None = None,
) -> Tensor:
    """Return products of q and k, capped (mode 1), masked (2), or as weights (3)."""
    k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    scores = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if softcap and mode >= 1:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is not None and mode >= 2:
        if mask.dtype == torch.bool:
            scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        else:
            scores = scores + mask
    if mode < 3:
        return scores
    # Who may look at nothing looks at nothing.
    nobody = (scores <= torch.finfo(scores.dtype).min).all(-1, keepdim=True)
    weights = scores.to(precision or scores.dtype).masked_fill(nobody, 0.0).softmax(-1)
    return weights.masked_fill(nobody, 0.0).to(q.dtype)


def wider_mask(mask: Tensor, columns: int) -> Tensor:
    """Extend a mask of tokens; the columns that it lacks are forbidden."""
    more = columns - mask.shape[-1]
    fill = False if mask.dtype == torch.bool else float("-inf")
    return F.pad(mask, (0, more), value=fill)


def rotated(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool, size: int) -> Tensor:
    """Rotate the first ``size`` elements by a position; tables are (b or 1, s, size / 2)."""
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    turned, rest = x[..., :size], x[..., size:]
    if interleaved:
        a, b = turned[..., 0::2], turned[..., 1::2]
        y = torch.stack((cos * a - sin * b, sin * a + cos * b), dim=-1).flatten(-2)
    else:
        a, b = turned.chunk(2, dim=-1)
        y = torch.cat((cos * a - sin * b, sin * a + cos * b), dim=-1)
    return torch.cat((y, rest), dim=-1)
