"""LSTM and GRU over a leading member axis: nn.LSTM and nn.GRU with a set of weights for every member. Torch only.

Gates and biases are nn.LSTM's (input, forget, cell, output) and nn.GRU's (reset, update, new), so that weights move
between both forms unchanged. Neither module has a batching rule for torch.func.vmap.
"""

from __future__ import annotations

import torch

# M members, T bars, B chunks, I inputs, D hidden units, G gates = 4D or 3D
State = tuple[torch.Tensor, torch.Tensor]  # hidden, cell: each [M, B, D]; a GRU has no cell


def scan(
    family: str,
    x: torch.Tensor,
    weight_ih: torch.Tensor,
    weight_hh: torch.Tensor,
    bias_ih: torch.Tensor,
    bias_hh: torch.Tensor,
) -> torch.Tensor:
    """One layer from a zero state. x [M, T, B, I]; weights [M, G, I], [M, G, D]; biases [M, G] -> [M, T, B, D]"""
    cell = {"lstm": _lstm, "gru": _gru}[family]
    members, steps, batch, inputs = x.shape
    entering = torch.baddbmm(bias_ih[:, None], x.reshape(members, steps * batch, inputs), weight_ih.mT)
    # Time first, so that a bar's gates lie together: what a fused cell and an unbind both want.
    entering = entering.view(members, steps, batch, -1).transpose(0, 1).contiguous()
    zero = x.new_zeros(members, batch, weight_hh.shape[2])
    state, made = (zero, zero), []
    for gates in entering.unbind(0):
        state = cell(gates, torch.baddbmm(bias_hh[:, None], state[0], weight_hh.mT), state)
        made.append(state[0])
    return torch.stack(made, dim=1)


def _lstm(entering: torch.Tensor, recurring: torch.Tensor, state: State) -> State:
    """gates [M, B, 4D]"""
    if entering.is_cuda:  # one kernel; not run by us
        flat = (part.flatten(0, 1) for part in (entering, recurring, state[1]))
        hidden, cell, _ = torch.ops.aten._thnn_fused_lstm_cell(*flat)
        return hidden.view_as(state[0]), cell.view_as(state[1])
    i, f, g, o = (entering + recurring).chunk(4, dim=2)
    cell = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
    return o.sigmoid() * cell.tanh(), cell


def _gru(entering: torch.Tensor, recurring: torch.Tensor, state: State) -> State:
    """gates [M, B, 3D]"""
    if entering.is_cuda:  # one kernel; not run by us
        flat = (part.flatten(0, 1) for part in (entering, recurring, state[0]))
        hidden, _ = torch.ops.aten._thnn_fused_gru_cell(*flat)
        return hidden.view_as(state[0]), state[1]
    new = 2 * state[0].shape[2]
    reset, update = (entering[..., :new] + recurring[..., :new]).sigmoid().chunk(2, dim=2)
    candidate = (entering[..., new:] + reset * recurring[..., new:]).tanh()
    return candidate + update * (state[0] - candidate), state[1]
