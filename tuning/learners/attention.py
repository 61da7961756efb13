"""A small causal attention body with a local window: bars in, hidden states out. Torch only; training lives in sequence.py.

Each bar sees the last `window` bars and no more, so a forecast does not depend on where its chunk began.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

# B chunks in a batch, T bars in a chunk, C inputs per bar, D hidden units, N heads


class Attention(nn.Module):
    """One pre-norm block over [B, T, C] -> [B, T, D]; distance enters as a learned slope per head (Press et al. 2022)."""

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
        # exp(slope) falls from about one bar to about the window: heads look at different memories
        self.log_slope = nn.Parameter(torch.linspace(0.0, -4.0, heads))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.enter(x)  # [B, T, D]
        batch, steps, width = x.shape
        q, k, v = self.qkv(self.norm(x)).view(batch, steps, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # [B, N, T, D/N]
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=self._bias(steps))
        x = x + self.leave(mixed.transpose(1, 2).reshape(batch, steps, width))
        x = x + functional.dropout(self.mlp(self.mlp_norm(x)), self.dropout, self.training)
        return self.final_norm(x)

    def _bias(self, steps: int) -> torch.Tensor:
        """[N, T, T]: minus slope times distance inside the window, minus infinity outside."""
        age = torch.arange(steps)[:, None] - torch.arange(steps)[None, :]
        outside = (age < 0) | (age >= self.window)
        bias = -self.log_slope.exp()[:, None, None] * age.clamp(min=0)
        return bias.masked_fill(outside, float("-inf"))
