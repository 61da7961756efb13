"""A small causal attention body with a local window: bars in, hidden states out. Torch only; training lives in sequence.py.

Each bar sees the last `window` bars and no more, so a forecast does not depend on where its chunk began. Only pairs of
neighbouring blocks are multiplied: cost grows with the number of bars, not with its square.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

# B chunks in a batch, T bars in a chunk, C inputs per bar, D hidden units, N heads


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

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps, window = x.shape[1], self.window
        if steps <= window:
            return x.new_zeros(x.shape[0], steps, self.leave.out_features)
        x = functional.pad(self.enter(x), (0, 0, 0, -steps % window))  # [B, K * W, D], K blocks of W = window bars
        after = x[:, window:]
        after = after + self.leave(self._mix(self.norm(x)))
        after = after + functional.dropout(self.mlp(self.mlp_norm(after)), self.dropout, self.training)
        return functional.pad(self.final_norm(after), (0, 0, window, 0))[:, :steps]

    def _mix(self, x: torch.Tensor) -> torch.Tensor:
        """[B, K * W, D] -> [B, (K - 1) * W, D]: every block but the first looks at itself and the block before."""
        batch, steps, width = x.shape
        split = self.qkv(x).view(batch, steps // self.window, self.window, 3, self.heads, width // self.heads)
        q, k, v = split.permute(3, 0, 1, 4, 2, 5)  # each [B, K, N, W, D/N]
        k, v = (torch.cat([part[:, :-1], part[:, 1:]], dim=3) for part in (k, v))  # [B, K-1, N, 2W, D/N]
        scores = (q[:, 1:] * q.shape[-1] ** -0.5) @ k.transpose(-1, -2) + self._bias(x.device)
        mixed = torch.softmax(scores, dim=-1) @ v  # [B, K-1, N, W, D/N]
        return mixed.transpose(2, 3).reshape(batch, steps - self.window, width)

    def _bias(self, device: torch.device) -> torch.Tensor:
        """[N, W, 2W]: minus slope times distance inside the window, minus infinity outside."""
        place = torch.arange(2 * self.window, device=device)
        age = self.window + place[: self.window, None] - place[None, :]
        outside = (age < 0) | (age >= self.window)
        slope = torch.linspace(0.0, -4.0, self.heads, device=device).exp()
        return (-slope[:, None, None] * age.clamp(min=0)).masked_fill(outside, float("-inf"))
