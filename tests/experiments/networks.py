"""The networks of the experiments: a small Inception with BatchNorm, and a character GPT."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Convolution(nn.Sequential):
    """A convolution that keeps the size, BatchNorm and ReLU."""

    def __init__(self, inside: int, outside: int, kernel: int) -> None:
        conv = nn.Conv2d(inside, outside, kernel, padding=kernel // 2, bias=False)
        super().__init__(conv, nn.BatchNorm2d(outside), nn.ReLU())


class Module(nn.Module):
    """An Inception module: 1x1, 3x3, two times 3x3, and a pool, side by side."""

    def __init__(self, inside: int, width: int) -> None:
        super().__init__()
        reduced = width * 3 // 4
        self.one = Convolution(inside, width, 1)
        self.three = nn.Sequential(Convolution(inside, reduced, 1), Convolution(reduced, width, 3))
        self.five = nn.Sequential(
            Convolution(inside, reduced, 1),
            Convolution(reduced, width, 3),
            Convolution(width, width, 3),
        )
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), Convolution(inside, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], 1)


class Inception(nn.Module):
    """Ten classes from gray images, by a stem and three Inception modules."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = Convolution(1, 2 * width, 3)
        self.first = Module(2 * width, width)
        self.second, self.third = Module(4 * width, width), Module(4 * width, width)
        self.classes = nn.Linear(4 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.stem(x), 2)
        x = F.max_pool2d(self.second(self.first(x)), 2)
        return self.classes(self.third(x).mean((2, 3)))


class Block(nn.Module):
    """Causal attention and an MLP, each on a residual branch behind its LayerNorm."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.mlp_norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        h = self.attention_norm(x)
        query, key, value = (
            layer(h).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.mlp_norm(x))))


class GPT(nn.Module):
    """The next character, by ``layers`` pre-norm blocks with heads of eight.

    The MLPs are ``mlp`` times as wide as the stream.
    """

    def __init__(
        self, width: int, layers: int, vocabulary: int, context: int, mlp: int = 4
    ) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(torch.randn(context, width) * 0.02)
        self.h = nn.ModuleList(Block(width, width // 8, mlp * width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.token(tokens) + self.position[: tokens.shape[1]]
        for block in self.h:
            x = block(x)
        return self.head(self.norm(x))


class Perceptron(nn.Module):
    """Ten classes from gray images, by one hidden layer."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.first, self.hidden = nn.Linear(256, 64), nn.Linear(64, width)
        self.dropout, self.classes = nn.Dropout(dropout), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.hidden(F.relu(self.first(x.flatten(1)))))
        return self.classes(self.dropout(x))
