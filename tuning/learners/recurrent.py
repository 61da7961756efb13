"""LSTM and GRU bodies: bars in, hidden states out, one per bar. Torch only; training lives in sequence.py."""

from __future__ import annotations

import torch
from torch import nn

# B chunks in a batch, T bars in a chunk, C inputs per bar, D hidden units


class Recurrent(nn.Module):
    """nn.LSTM or nn.GRU over [B, T, C] -> [B, T, D]; the state starts at zero and looks back only."""

    def __init__(self, family: str, inputs: int, hidden: int, layers: int, dropout: float) -> None:
        super().__init__()
        kind = {"lstm": nn.LSTM, "gru": nn.GRU}[family]
        self.cells = kind(inputs, hidden, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.cells(x)[0]
