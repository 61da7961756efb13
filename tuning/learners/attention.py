"""A small causal attention body with a local window: bars in, hidden states out. Torch only; training lives in sequence.py.

Each bar sees the last `window` bars and no more, so a forecast does not depend on where its chunk began. A block of at
most `window` bars is multiplied with itself and the window before it: cost grows with the number of bars, not with its
square, and one wanted bar costs one row.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

# B chunks in a batch, T bars in a chunk, C inputs per bar, D hidden units, N heads, W window


class Attention(nn.Module):
    """One pre-norm block over [B, T, C] -> [B, T, D]; the first `window` steps of a chunk are warm-up and come back zero.

    Distance enters as a slope per head (ALiBi, Press et al. 2022), fixed, from one bar's memory to the whole window's.
    """

    def __init__(self, inputs: int, hidden: int, heads: int, window: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.window, self.dropout = heads, window, dropout
        self.enter = nn.Linear(inputs, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.leave = nn.Linear(hidden, hidden)
        self.mlp_norm = nn.LayerNorm(hidden)
        self.mlp = nn.Sequential(nn.Linear(hidden, 2 * hidden), nn.GELU(), nn.Linear(2 * hidden, hidden))
        self.final_norm = nn.LayerNorm(hidden)
        self.bias: torch.Tensor
        self.register_buffer("bias", _bias(heads, window), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps, window = x.shape[1], self.window
        if steps <= window:
            return x.new_zeros(x.shape[0], steps, self.leave.out_features)
        block = min(window, steps - window)
        x = functional.pad(self.enter(x), (0, 0, 0, (window - steps) % block))  # [B, W + M * Q, D], M blocks of Q bars
        after = x[:, window:]
        after = after + self.leave(self._mix(self.norm(x), block))
        after = after + functional.dropout(self.mlp(self.mlp_norm(after)), self.dropout, self.training)
        return functional.pad(self.final_norm(after), (0, 0, window, 0))[:, :steps]

    def _mix(self, x: torch.Tensor, block: int) -> torch.Tensor:
        """[B, W + M * Q, D] -> [B, M * Q, D]: blocks of Q bars look at themselves and the W bars before them."""
        batch, steps, width = x.shape
        split = self.qkv(x).view(batch, steps, 3, self.heads, width // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4)  # each [B, N, W + M * Q, D/N]
        q = q[:, :, self.window :].unflatten(2, (-1, block))  # [B, N, M, Q, D/N]
        k, v = (part.unfold(2, self.window + block, block) for part in (k, v))  # [B, N, M, D/N, W + Q]
        scores = (q * q.shape[-1] ** -0.5) @ k + self.bias[:, None, :block, : self.window + block]
        mixed = torch.softmax(scores, dim=-1) @ v.transpose(-1, -2)  # [B, N, M, Q, D/N]
        return mixed.permute(0, 2, 3, 1, 4).reshape(batch, steps - self.window, width)


def _bias(heads: int, window: int) -> torch.Tensor:
    """[N, W, 2W]: minus slope times distance inside the window, minus infinity outside."""
    place = torch.arange(2 * window)
    age = window + place[:window, None] - place[None, :]
    outside = (age < 0) | (age >= window)
    slope = torch.linspace(0.0, -4.0, heads).exp()
    return (-slope[:, None, None] * age.clamp(min=0)).masked_fill(outside, float("-inf"))
