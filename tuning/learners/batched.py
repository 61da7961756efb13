"""Many nets of one family and one shape trained as one program, the way a GPU wants it: one launch serves all members.

Meaning and artefact are those of `sequence.fit_net`, member by member; so are the random draws on a CPU, dropout included.
On a GPU dropout masks come from generators there: the members then agree with `fit_net` in distribution, not in bits.
The CUDA graph has not been run by us: we had no GPU. `lstmc bench gpu_nets` checks and times it where there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, vmap
from torch.nn import functional

from market.errors import InputError
from tuning.learners.attention import Attention
from tuning.learners.recurrent_batched import scan
from tuning.learners.sequence import (
    DIRECTION_WEIGHT,
    HEADS,
    RATIO_RANGE,
    Net,
    SequenceModel,
    _owners,
    batches,
    one_cycle,
)
from tuning.presets import Nets
from tuning.windows import make_chunks

if TYPE_CHECKING:
    from tuning.learners.fitting import Lesson

BETA_SQUARE, TINY = 0.999, 1e-8  # AdamW's defaults
WARM_UP_RUNS = 3  # before a capture: libraries make their workspaces
# M members, B chunks in a batch, T bars, C inputs, S symbols, H horizons, D hidden, P weights of a member


def shape_key(family: str, settings: Nets, lesson: Lesson, is_warm: bool) -> tuple[object, ...]:
    """Nets of equal keys can be members of one program: all is equal but rates, decay, dropout, seed and lesson."""
    free = replace(settings, learning_rate=0.0, weight_decay=0.0, dropout=0.0, warm_rate=0.0)
    return family, free, is_warm, lesson.horizons, lesson.inputs.shape[1], len(lesson.starts)


def fit_nets_together(
    family: str,
    settings: Sequence[Nets],
    seeds: Sequence[int],
    lessons: Sequence[Lesson],
    *,
    starts: Sequence[SequenceModel | None] | None = None,
    device: str = "cpu",
) -> list[SequenceModel]:
    """As `[fit_net(family, s, seed, lesson, start=start) for ...]`, in one program.

    Equal up to the order of float32 sums. A member whose lesson is smaller than another's is padded with rows that have
    no label. InputError unless all have one `shape_key`.
    """
    torch.set_num_threads(1)
    starts = starts or [None] * len(lessons)
    given = list(zip(settings, lessons, starts, strict=True))
    if len({shape_key(family, own, lesson, start is not None) for own, lesson, start in given}) != 1:
        raise InputError(
            "Nets that differ in more than rates, dropout, seed and lesson cannot be trained as one program.",
            hint="Group them by batched.shape_key.",
        )
    members = [_member(family, *one, seed) for one, seed in zip(given, seeds, strict=True)]
    if members[0].steps:
        _Program(family, members, torch.device(device)).run()
    return [
        SequenceModel(family, lesson.horizons, lesson.inputs.shape[1], len(lesson.starts) - 1, own, m.net.to(device))
        for m, (own, lesson, _) in zip(members, given, strict=True)
    ]


@dataclass(frozen=True)
class _Member:
    """What one net brings along. rows, counts [chunks, own T] as in windows.Chunks; order [steps, own B]: chunk numbers.

    random: the CPU generator's state from which fit_net would draw its first dropout mask.
    """

    net: Net
    settings: Nets
    lesson: Lesson
    seed: int
    random: torch.Tensor
    rate: float
    steps: int
    rows: np.ndarray
    counts: np.ndarray
    symbol: np.ndarray
    order: np.ndarray


def _member(family: str, settings: Nets, lesson: Lesson, start: SequenceModel | None, seed: int) -> _Member:
    symbols = len(lesson.starts) - 1
    steps, rate = settings.steps, settings.learning_rate
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Net(family, lesson.inputs.shape[1], symbols, len(lesson.horizons), settings)
        random = torch.get_rng_state()
    if start is not None:
        net.load_state_dict(start.net.state_dict())
        steps, rate = settings.steps_warm, settings.learning_rate * settings.warm_rate
    chunks = make_chunks(lesson.starts, lesson.rows, settings.warm_up, settings.body)
    symbol = _owners(chunks.rows, lesson.starts, np.arange(symbols))
    drawn = list(batches(len(chunks.rows), settings.batch, steps, np.random.default_rng(seed)))
    order = np.array(drawn, int).reshape(steps, min(settings.batch, len(chunks.rows)))
    return _Member(net, settings, lesson, seed, random, rate, steps, chunks.rows, chunks.counts, symbol, order)


class _Program:
    """The members' weights [M, P] and all they learn from, on one device; `step` is the same work on the same memory each time."""

    def __init__(self, family: str, members: Sequence[_Member], device: torch.device) -> None:
        self.family, self.members, self.device = family, members, device
        self.layers, self.steps = members[0].settings.layers, members[0].steps
        horizons = members[0].lesson.horizons
        self.long = torch.tensor([h > 1 for h in horizons], device=device)
        self._load_lessons()
        self._load_weights()
        self.plan = tuple(part.to(device) for part in (self._orders(), *_schedules(members)))
        self.now = torch.zeros(1, dtype=torch.int64, device=device)
        self._prepare_dropout()
        if family == "attention":
            own = members[0].settings
            self.body = Attention(1, own.hidden, HEADS, own.warm_up, dropout=0.0)  # its forward; weights are passed in
            self.body.mlp.append(_Masked())
            self.body.to(device)

    def _load_lessons(self) -> None:
        """Tables of all lessons; row 0 and chunk 0 hold nothing. Lessons that share their arrays are held once."""
        length = max(m.rows.shape[1] for m in self.members)
        width, columns = self.members[0].lesson.inputs.shape[1], 3 * len(self.members[0].lesson.horizons)
        tables = [np.zeros((1, width), np.float32)]
        labels = [np.full((1, columns), np.nan, np.float32)]
        rows, asked = [np.zeros((1, length), int)], [np.zeros((1, length), int)]
        symbol, held, end = [np.zeros(1, int)], {}, 1
        for m in self.members:
            lesson = m.lesson
            key = tuple(map(id, (lesson.inputs, lesson.ratio, lesson.up, lesson.offset)))
            if key not in held:
                held[key], end = end, end + len(lesson.inputs)
                tables.append(lesson.inputs)
                parts = [np.clip(lesson.ratio, *RATIO_RANGE), lesson.up, lesson.offset]
                labels.append(np.concatenate(parts, axis=1, dtype=np.float32))
            shifted = np.where(m.rows >= 0, m.rows + held[key], 0)
            rest = ((0, 0), (0, length - m.rows.shape[1]))
            rows.append(np.pad(shifted, rest))
            asked.append(np.pad(np.where(m.counts, shifted, 0), rest))
            symbol.append(m.symbol)
        table, label, row, ask, owner = map(np.concatenate, (tables, labels, rows, asked, symbol))
        self.table, self.labels, self.rows, self.asked = (
            torch.from_numpy(part).to(self.device) for part in (table, label, row, ask)
        )
        known = np.arange(len(self.members[0].lesson.starts) - 1)
        self.symbol = torch.from_numpy((owner[:, None] == known).astype(np.float32)).to(self.device)  # one-hot: bmm

    def _load_weights(self) -> None:
        nets = [m.net for m in self.members]
        self.shapes = {name: weight.shape for name, weight in nets[0].named_parameters()}
        with torch.no_grad():
            flat = torch.stack([nn.utils.parameters_to_vector(net.parameters()) for net in nets]).to(self.device)
        self.weights = flat.requires_grad_()
        self.mean, self.square = torch.zeros_like(flat), torch.zeros_like(flat)

    def _orders(self) -> torch.Tensor:
        """Chunk numbers of each member's batches, 0 for none. [steps, M, B]"""
        order = np.zeros((self.steps, len(self.members), max(m.order.shape[1] for m in self.members)), int)
        first = 1
        for k, m in enumerate(self.members):
            order[:, k, : m.order.shape[1]] = m.order + first
            first += len(m.rows)
        return torch.from_numpy(order)

    def _prepare_dropout(self) -> None:
        """Masks, one where nothing is dropped, and each member's own generator with the shapes it draws a step."""
        own = [_mask_shapes(self.family, m.settings, m.order.shape[1], m.rows.shape[1]) for m in self.members]
        sizes = np.max(own, axis=0)  # [masks, 3]
        self.masks = [torch.ones(len(self.members), *map(int, size), device=self.device) for size in sizes]
        self.draws: list[tuple[float, torch.Generator, list[torch.Tensor]]] = []
        for k, (m, shapes) in enumerate(zip(self.members, own, strict=True)):
            generator = torch.Generator(self.device)
            if self.device.type == "cpu":
                generator.set_state(m.random)
            else:
                generator.manual_seed(m.seed)
            places = [mask[k, :a, :b, :c] for mask, (a, b, c) in zip(self.masks, shapes, strict=True)]
            if m.settings.dropout > 0:
                self.draws.append((1.0 - m.settings.dropout, generator, places))

    def run(self) -> None:
        """All steps; then each member's net holds its weights."""
        step = self._captured() if self.device.type == "cuda" else self.step
        for _ in range(self.steps):
            self._draw_masks()
            step()
        with torch.no_grad():
            for k, m in enumerate(self.members):
                for name, weight in m.net.named_parameters():
                    weight.copy_(self._named(self.weights)[name][k])

    def _captured(self) -> Callable[[], None]:
        """One `step` as a CUDA graph: thousands of small kernels for the price of one launch."""
        state = (self.weights, self.mean, self.square, self.now)
        before = [part.detach().clone() for part in state]
        side = torch.cuda.Stream(self.device)
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            for _ in range(WARM_UP_RUNS):
                self.now.zero_()
                self.step()
        torch.cuda.current_stream(self.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.step()
        with torch.no_grad():
            for part, first in zip(state, before, strict=True):
                part.copy_(first)
        return graph.replay

    def _draw_masks(self) -> None:
        """In the order in which fit_net draws: one step, member by member, mask by mask."""
        for keep, generator, places in self.draws:
            for place in places:
                place.copy_(torch.empty(place.shape, device=self.device).bernoulli_(keep, generator=generator) / keep)

    def step(self) -> None:
        """Forward, backward, clipping and AdamW (decoupled decay, Loshchilov and Hutter 2019) of every member."""
        order, rate, keep, fresh, root = (part.index_select(0, self.now)[0] for part in self.plan)
        (gradient,) = torch.autograd.grad(self._losses(order).sum(), self.weights)
        with torch.no_grad():
            norm = gradient.norm(dim=1, keepdim=True)
            gradient = gradient * (1.0 / (norm + 1e-6)).clamp(max=1.0)
            self.mean.lerp_(gradient, fresh)
            self.square.mul_(BETA_SQUARE).addcmul_(gradient, gradient, value=1 - BETA_SQUARE)
            self.weights.mul_(keep).sub_(rate * self.mean / (self.square.sqrt() / root + TINY))
            self.now.add_(1)

    def _losses(self, order: torch.Tensor) -> torch.Tensor:
        """As sequence._loss without a shape that depends on the data. order [M, B] -> [M]"""
        log_ratio, excess = self._scores(order).chunk(2, dim=3)
        ratio, up, offset = self.labels[self.asked[order]].chunk(3, dim=3)
        known = torch.isfinite(ratio) & self.long
        volatility = torch.where(known, ratio, 1.0) * torch.exp(-log_ratio) + log_ratio
        counted = torch.isfinite(up) & torch.isfinite(offset)
        logits = excess + torch.where(counted, offset, 0.0)
        direction = functional.binary_cross_entropy_with_logits(logits, torch.where(counted, up, 0.0), reduction="none")
        return _mean(volatility, known) + DIRECTION_WEIGHT * _mean(direction, counted)

    def _scores(self, order: torch.Tensor) -> torch.Tensor:
        """As sequence.Net. order [M, B] -> [M, B, T, 2H]"""
        weights = self._named(self.weights)
        x = self.table[self.rows[order]]
        members, batch, length, _ = x.shape
        named = torch.bmm(self.symbol[order], weights["embed.weight"])  # [M, B, S] @ [M, S, E]
        x = torch.cat([x, named[:, :, None].expand(-1, -1, length, -1)], dim=3)
        body = {name.removeprefix("body."): w for name, w in weights.items() if name.startswith("body.")}
        hidden = self._attention(x, body) if self.family == "attention" else self._recurrent(x, body)
        flat = hidden.reshape(members, batch * length, -1)
        made = torch.baddbmm(weights["head.bias"][:, None], flat, weights["head.weight"].mT)
        return made.view(members, batch, length, -1)

    def _recurrent(self, x: torch.Tensor, weights: dict[str, torch.Tensor]) -> torch.Tensor:
        """[M, B, T, C] -> [M, B, T, D]; masks [M, T, B, D], one per layer, in the order of memory of nn.LSTM's output."""
        x = x.transpose(1, 2)
        for layer, mask in enumerate(self.masks):
            names = (f"cells.{name}_l{layer}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
            x = scan(self.family, x, *(weights[name] for name in names)) * mask
        return x.transpose(1, 2)

    def _attention(self, x: torch.Tensor, weights: dict[str, torch.Tensor]) -> torch.Tensor:
        """[M, B, T, C] -> [M, B, T, D]"""
        inside, after = self.masks
        given = weights | {f"mlp.{len(self.body.mlp) - 1}.mask": inside}
        return vmap(lambda own, bars: functional_call(self.body, own, (bars,)))(given, x) * after

    def _named(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        """Weights by name, each [M, *shape]: views."""
        parts = flat.split([shape.numel() for shape in self.shapes.values()], dim=1)
        return {name: p.view(len(p), *shape) for (name, shape), p in zip(self.shapes.items(), parts, strict=True)}


class _Masked(nn.Module):
    """Dropout whose mask is given."""

    mask: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.mask


def _mask_shapes(family: str, settings: Nets, batch: int, length: int) -> list[tuple[int, int, int]]:
    """Of the masks that one member draws a step, in the order in which sequence.Net draws them."""
    if family != "attention":
        return [(length, batch, settings.hidden)] * settings.layers
    body, seen = Attention(1, settings.hidden, HEADS, settings.warm_up, dropout=0.0), [0]
    body.mlp.register_forward_hook(lambda module, given, made: seen.append(made.shape[1]))
    with torch.no_grad():
        body(torch.zeros(1, length, 1))  # how many bars go through the mlp is the body's own affair
    return [(batch, seen[-1], settings.hidden), (batch, length, settings.hidden)]


def _schedules(members: Sequence[_Member]) -> tuple[torch.Tensor, ...]:
    """What AdamW needs at each step of the one-cycle, which moves the rate and the first moment's decay.

    -> step size [steps, M, 1], share of a weight that decay leaves [steps, M, 1], weight of a new gradient
    [steps, 1, 1], root of the second moment's bias correction [steps, 1, 1]
    """
    table = np.empty((4, members[0].steps, len(members), 1))
    for k, m in enumerate(members):
        optimizer = torch.optim.AdamW([torch.zeros(1)], lr=m.rate)
        schedule = one_cycle(optimizer, m.rate, m.steps)
        for t in range(m.steps):
            rate, beta = optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["betas"][0]
            size, kept = rate / (1 - beta ** (t + 1)), 1 - rate * m.settings.weight_decay
            table[:, t, k, 0] = size, kept, 1 - beta, (1 - BETA_SQUARE ** (t + 1)) ** 0.5
            optimizer.step()
            schedule.step()
    return tuple(torch.from_numpy(part.astype(np.float32)) for part in table)


def _mean(values: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Each member's mean over what is known; 0 where nothing is. [M, B, T, H] -> [M]"""
    total = torch.where(known, values, 0.0).sum(dim=(1, 2, 3))
    return total / known.sum(dim=(1, 2, 3)).clamp(min=1)
