"""Training and artefact of the sequence models (LSTM, GRU, attention): one pooled net for all symbols and all targets.

It forecasts log(rv / yardstick) per horizon above one bar and the logit of a rise beside the base rate's; both start at
zero, which is the baseline. Volatility loss is QLIKE, direction loss log-loss. Float32, one thread, fixed seed. A net
works on the device that holds its weights; a GPU's numbers need not be the CPU's to the last bit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from tuning.learners.attention import Attention
from tuning.learners.recurrent import Recurrent
from tuning.presets import Nets
from tuning.windows import gather, make_chunks

if TYPE_CHECKING:
    from tuning.learners.fitting import Lesson

EMBEDDING = 4  # numbers that describe a symbol
HEADS = 2
RATIO_RANGE = (0.02, 20.0)
DIRECTION_WEIGHT = 0.5
# B chunks, T bars, C inputs, D hidden, H horizons


class Net(nn.Module):
    """inputs [B, T, C], symbol number [B] -> scores [B, T, 2H]: H log ratios, then H logit excesses."""

    def __init__(self, family: str, inputs: int, symbols: int, horizons: int, settings: Nets) -> None:
        super().__init__()
        self.embed = nn.Embedding(symbols, EMBEDDING)
        width = inputs + EMBEDDING
        if family == "attention":
            self.body: nn.Module = Attention(width, settings.hidden, HEADS, settings.warm_up, settings.dropout)
        else:
            self.body = Recurrent(family, width, settings.hidden, settings.layers, settings.dropout)
        self.dropout = nn.Dropout(settings.dropout)
        self.head = nn.Linear(settings.hidden, 2 * horizons)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        nn.init.normal_(self.embed.weight, std=0.1)

    def forward(self, x: torch.Tensor, symbol: torch.Tensor) -> torch.Tensor:
        named = self.embed(symbol)[:, None, :].expand(-1, x.shape[1], -1)
        return self.head(self.dropout(self.body(torch.cat([x, named], dim=2))))


@dataclass
class SequenceModel:
    """A trained net with what is needed to run it. `inputs`: C; `symbols`: how many it knows."""

    family: str
    horizons: tuple[int, ...]
    inputs: int
    symbols: int
    settings: Nets
    net: Net

    @property
    def past(self) -> int:
        return self.settings.warm_up if self.family == "attention" else self.settings.context

    def predict(
        self, inputs: np.ndarray, starts: np.ndarray, owner: np.ndarray, rows: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """See fitting.Learner."""
        torch.set_num_threads(1)
        chunks = make_chunks(starts, np.sort(rows), self.past, self.settings.stride)
        scores = np.full((int(starts[-1]), 2 * len(self.horizons)), np.nan)
        symbol = _owners(chunks.rows, starts, owner)
        device = self.net.head.weight.device
        if self.net.training:  # a switch walks through all modules
            self.net.eval()
        with torch.inference_mode():
            for part in np.array_split(np.arange(len(chunks.rows)), max(1, len(chunks.rows) // 64)):
                x = torch.from_numpy(gather(inputs, chunks.rows[part])).to(device)
                made = self.net(x, torch.from_numpy(symbol[part]).to(device)).cpu().numpy()
                counts = chunks.counts[part]
                scores[chunks.rows[part][counts]] = made[counts]
        asked = scores[rows]
        log_ratio, excess = asked[:, : len(self.horizons)], asked[:, len(self.horizons) :]
        log_ratio[:, [h <= 1 for h in self.horizons]] = np.nan
        return log_ratio, excess

    def to_files(self) -> dict[str, bytes]:
        from safetensors.torch import save

        head = {
            "family": self.family,
            "horizons": self.horizons,
            "inputs": self.inputs,
            "symbols": self.symbols,
            "settings": asdict(self.settings),
        }
        weights = {name: tensor.cpu().contiguous() for name, tensor in self.net.state_dict().items()}
        return {"net.json": json.dumps(head, sort_keys=True).encode(), "net.safetensors": save(weights)}


def load_net(family: str, files: Mapping[str, bytes]) -> SequenceModel:
    from safetensors.torch import load

    head = json.loads(files["net.json"])
    settings, horizons = Nets(**head["settings"]), tuple(head["horizons"])
    net = Net(family, head["inputs"], head["symbols"], len(horizons), settings)
    net.load_state_dict(load(files["net.safetensors"]))
    return SequenceModel(family, horizons, head["inputs"], head["symbols"], settings, net)


def fit_net(
    family: str,
    settings: Nets,
    seed: int,
    lesson: Lesson,
    *,
    start: SequenceModel | None = None,
    device: str = "cpu",
) -> SequenceModel:
    """Train on the lesson's rows with a fresh AdamW and a one-cycle learning rate.

    From random weights for `steps`, or from the weights of `start` for `steps_warm` at `warm_rate` times the rate.
    """
    torch.set_num_threads(1)
    symbols, width = len(lesson.starts) - 1, lesson.inputs.shape[1]
    steps, rate = settings.steps, settings.learning_rate
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Net(family, width, symbols, len(lesson.horizons), settings).to(device)
        if start is not None:
            net.load_state_dict(start.net.state_dict())
            steps, rate = settings.steps_warm, settings.learning_rate * settings.warm_rate
        _train(net, settings, steps, rate, lesson, np.random.default_rng(seed))
    return SequenceModel(family, lesson.horizons, width, symbols, settings, net)


def _train(net: Net, settings: Nets, steps: int, rate: float, lesson: Lesson, shuffle: np.random.Generator) -> None:
    if steps == 0:
        return
    device = net.head.weight.device
    chunks = make_chunks(lesson.starts, lesson.rows, settings.warm_up, settings.body)
    symbol = _owners(chunks.rows, lesson.starts, np.arange(len(lesson.starts) - 1))
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=settings.weight_decay)
    schedule = one_cycle(optimizer, rate, steps)
    long = torch.tensor([h > 1 for h in lesson.horizons], device=device)
    labels = np.concatenate([np.clip(lesson.ratio, *RATIO_RANGE), lesson.up, lesson.offset], axis=1, dtype=np.float32)
    net.train()
    for batch in batches(len(chunks.rows), settings.batch, steps, shuffle):
        rows, counts = chunks.rows[batch], torch.from_numpy(chunks.counts[batch])
        x = torch.from_numpy(gather(lesson.inputs, rows)).to(device)
        scores = net(x, torch.from_numpy(symbol[batch]).to(device))
        loss = _loss(scores[counts.to(device)], torch.from_numpy(labels[rows])[counts].to(device), long)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()


def one_cycle(optimizer: torch.optim.Optimizer, rate: float, steps: int) -> torch.optim.lr_scheduler.OneCycleLR:
    """A fifth of the steps up to `rate`, then down; of few steps more, since torch divides by a rise of none."""
    rise = max(0.2, 1.5 / max(steps, 2))
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=rise)


def batches(chunks: int, batch: int, steps: int, shuffle: np.random.Generator) -> Iterator[np.ndarray]:
    """`steps` batches of chunk numbers; every chunk is used once before any is used again."""
    queue = np.empty(0, int)
    for _ in range(steps):
        while len(queue) < min(batch, chunks):
            queue = np.concatenate([queue, shuffle.permutation(chunks)])
        yield queue[:batch]
        queue = queue[batch:]


def _loss(scores: torch.Tensor, labels: torch.Tensor, long: torch.Tensor) -> torch.Tensor:
    """QLIKE of the long horizons plus weighted log-loss of all. scores [rows, 2H], labels [rows, 3H], NaN left out."""
    log_ratio, excess = scores.chunk(2, dim=1)
    ratio, up, offset = labels.chunk(3, dim=1)
    known = torch.isfinite(ratio) & long
    log_ratio, ratio = log_ratio[known], ratio[known]
    volatility = (ratio * torch.exp(-log_ratio) + log_ratio).sum() / max(len(ratio), 1)
    known = torch.isfinite(up) & torch.isfinite(offset)
    logits = (excess + torch.nan_to_num(offset))[known]
    direction = nn.functional.binary_cross_entropy_with_logits(logits, up[known])
    return volatility + DIRECTION_WEIGHT * direction


def _owners(rows: np.ndarray, starts: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Symbol number of each chunk. rows [chunks, T], -1 is padding -> int64 [chunks]"""
    block = np.searchsorted(starts, rows.max(axis=1), side="right") - 1
    return owner[block].astype(np.int64)
