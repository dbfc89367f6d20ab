"""Roles of one shape told apart by values, where names say nothing and shapes leave them open.

Four rules, each a property that training leaves and that no change of basis which keeps the function takes away:

- **Sides.** Every matrix of a layer has the hidden basis on one side. The second moments of `o`'s rows look like those
  of the feed-forward in that basis, of queries, keys and values those of their columns do.
- **Circuits.** `o` reads what the values of the same head write, so the two are aligned; queries and keys are not with
  `o`, and share the rotary planes that they use (or do not) with each other.
- **Coherence.** A neuron's `up` and `down` may change sign together, so rows of `up` point nowhere on average; SiLU and
  GELU are not odd, so rows of `gate` do point somewhere: ||sum of rows||^2 / sum of ||row||^2 is larger for `gate`.
- **Gains.** A norm's gain is large where the columns of what reads it are; the embedding's second moments look like
  those of the first layer's readers, the head's do not.

Reading is bounded: at most `MOST_LAYERS` layers where names are alike in all of them (then one answer holds for all),
and `CORNER` hidden channels of each second moment. What stays below its margin stays ambiguous.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from nacre.lifecycle.audit.canonical import Canonical
from nacre.lifecycle.audit.kernel.relabel import is_alike, paired_biases, relabelled, spread_layers
from nacre.lifecycle.audit.tensors import Floats, TensorSource

MOST_LAYERS, CORNER = 6, 512
MARGINS = {"attention": 0.05, "gate": 0.05, "norms": 0.15, "tables": 0.05}
ALONE = 10.0  # how many margins a single layer must lead by: one layer's score is far noisier than a mean over layers
_ATTENTION = frozenset({"q", "k", "v", "o"})
_Wide = NDArray[np.float64]
Order = tuple[str, ...]
Scores = dict[Order, float]


def told(canonical: Canonical, source: TensorSource) -> Canonical:
    """`canonical` with the roles exchanged that values tell, and without the groups that they settle.

    Scores are means over the layers read; an answer holds where it leads every other by its margin.
    """
    for group in sorted(canonical.ambiguous, key=lambda group: "o" not in group):  # keys and values are told by `o`
        if any(role.endswith(".bias") for role in group):
            continue
        rule = _rule(group)
        if rule is None:
            continue
        outside = rule[0] == "tables"
        layers = [None] if outside else [*range(canonical.sizes.layers or 0)]
        has = [one for one in layers if all((one, role) in canonical.views for role in group)]
        together = outside or is_alike(canonical, group, has)
        if together and not _agree(canonical, source, group, spread_layers(has, MOST_LAYERS), rule):
            together = False
        settled: set[tuple[str, ...]] = set()
        for some in [spread_layers(has, MOST_LAYERS)] if together else [[one] for one in has]:
            targets = has if together else some
            order, left = _answer(canonical, source, group, some, rule, 1.0 if together else ALONE)
            if order is not None:
                for layer in targets:
                    canonical = relabelled(canonical, layer, dict(zip(group, order, strict=True)))
            settled.add(left)
        if has:
            rest = [one for one in canonical.ambiguous if one != group]
            canonical = relabelled(canonical, None, {}, (*rest, *(one for one in settled if one)))
    return paired_biases(canonical)


_Rule = tuple[str, Callable[[Canonical, TensorSource, Order, int | None], Scores]]


def _rule(group: Sequence[str]) -> _Rule | None:
    members = frozenset(group)
    if members <= _ATTENTION and len(members) > 1 and members != {"q", "k"}:
        return "attention", attention_scores
    rules: dict[frozenset[str], _Rule] = {
        frozenset({"gate", "up"}): ("gate", gate_scores),
        frozenset({"norm1", "norm2"}): ("norms", norm_scores),
        frozenset({"embedding", "head"}): ("tables", table_scores),
    }
    return rules.get(members)


def _answer(
    canonical: Canonical, source: TensorSource, group: Order, layers: Sequence[int | None], rule: _Rule, leads: float
) -> tuple[Order | None, Order]:
    """The order in which the group's views are to be read (None: as they are), and what of it stays open.

    The best order must lead every other by `leads` margins.
    """
    name, scores = rule
    means: dict[Order, float] = {}
    for layer in layers:
        for order, score in scores(canonical, source, group, layer).items():
            means[order] = means.get(order, 0.0) + score / len(layers)
    if not means:
        return None, group
    best = max(means, key=lambda order: means[order])
    others = [score for order, score in means.items() if not _same(order, best, group)]
    if others and means[best] - max(others) < leads * MARGINS[name]:
        return None, group
    left = tuple(role for role in group if role in ("k", "q")) if name == "attention" else ()
    return best, left if len(left) > 1 else ()


def _agree(canonical: Canonical, source: TensorSource, group: Order, layers: Sequence[int | None], rule: _Rule) -> bool:
    """Whether no two layers contradict each other, each by its margin: one name then means one role in all of them."""
    answers = [_answer(canonical, source, group, [one], rule, ALONE)[0] for one in layers]
    said = [one for one in answers if one is not None]
    return all(_same(one, said[0], group) for one in said)


def _same(one: Order, other: Order, group: Order) -> bool:
    """Whether two orders differ in queries against keys at most, which no rule tells apart."""
    if not {"q", "k"} <= set(group):
        return one == other
    return tuple("q" if role == "k" else role for role in one) == tuple("q" if role == "k" else role for role in other)


def gate_scores(canonical: Canonical, source: TensorSource, group: Order, layer: int | None) -> Scores:
    """The log ratio of coherence, for gate and up as they are and exchanged."""
    first, second = (_coherence(_read(canonical, source, layer, role)) for role in group)
    lead = float(np.log((first + 1e-12) / (second + 1e-12)))
    lead = lead if group[0] == "gate" else -lead
    return {group: lead / 2, group[::-1]: -lead / 2}


def _coherence(rows: _Wide) -> float:
    return float(np.square(rows.sum(0)).sum() / max(np.square(rows).sum(), 1e-30))


def norm_scores(canonical: Canonical, source: TensorSource, group: Order, layer: int | None) -> Scores:
    """Correlation of each gain with the column norms of what would read it; equal gains make both orders alike."""
    readers = _readers_of_norms(canonical, layer)
    if readers is None:
        return {}
    gains = {role: _read(canonical, source, layer, role) for role in group}
    if np.array_equal(gains[group[0]], gains[group[1]]):
        return {group: 1.0, group[::-1]: 0.0}
    columns = {role: _columns(canonical, source, keys) for role, keys in readers.items()}
    straight = sum(_corr(gains[role], columns[role]) for role in group)
    crossed = sum(_corr(gains[role], columns[other]) for role, other in zip(group, group[::-1], strict=True))
    return {group: straight / 2, group[::-1]: crossed / 2}


def _readers_of_norms(canonical: Canonical, layer: int | None) -> dict[str, list[tuple[int, str]]] | None:
    if layer is None:
        return None
    is_post = canonical.layout == "encoder" and (None, "final_norm") not in canonical.views
    inner = [(layer, role) for role in ("gate", "up")]
    outer = [(layer + 1 if is_post else layer, role) for role in ("q", "k", "v")]
    has = [[key for key in keys if key in canonical.views] for keys in (inner, outer)]
    if not all(has):
        return None
    return {"norm1": has[0], "norm2": has[1]} if is_post else {"norm1": has[1], "norm2": has[0]}


def _columns(canonical: Canonical, source: TensorSource, keys: Sequence[tuple[int, str]]) -> _Wide:
    total = sum(np.square(_read(canonical, source, *key)).sum(0) for key in keys)
    return np.sqrt(np.asarray(total, np.float64))


def table_scores(canonical: Canonical, source: TensorSource, group: Order, layer: int | None) -> Scores:
    """How much more the embedding's second moments look like the first layer's readers' than the head's do."""
    tables = {role: _read(canonical, source, None, role)[: 16 * CORNER] for role in group}
    if np.array_equal(tables[group[0]], tables[group[1]]):
        return {group: 1.0, group[::-1]: 0.0}
    readers = [_read(canonical, source, 0, role) for role in ("gate", "up") if (0, role) in canonical.views]
    if not readers:
        return {}
    moment = _moments(readers)
    like = {role: _alike(_moments([tables[role]]), moment) for role in group}
    lead = like["embedding"] - like["head"]
    return {group: lead / 2, group[::-1]: -lead / 2}


def attention_scores(canonical: Canonical, source: TensorSource, group: Order, layer: int | None) -> Scores:
    """For every order of the group: sides of `o`, its alignment with values, rotary planes shared by q and k."""
    views = canonical.views
    if any((layer, role) not in views for role in (*_ATTENTION, "up", "down")):
        return {}
    have = {role: _read(canonical, source, layer, role) for role in sorted(_ATTENTION)}
    ffn = [_read(canonical, source, layer, role) for role in ("gate", "up") if (layer, role) in views]
    moment = _moments([*ffn, _read(canonical, source, layer, "down").T])
    size = canonical.sizes.head_size
    scores: Scores = {}
    for order in permutations(group):
        roles = {role: role for role in _ATTENTION} | dict(zip(group, order, strict=True))
        at = {new: have[old] for old, new in roles.items()}
        side = _alike(_moments([at["o"].T]), moment)
        if at["o"].shape[0] == at["o"].shape[1]:
            side -= _alike(_moments([at["o"]]), moment)
        scores[order] = side + (_circuits(at, size) if size else 0.0)
    if size is None:  # values need heads: only what `o` is can be told
        return scores if "o" in group and len(group) == 2 else {}
    return scores


def _circuits(at: dict[str, _Wide], size: int) -> float:
    """Log of |O V|^2 over its expectation for heads that have nothing to do with each other, beside those of q and k;
    and the correlation of the energy of queries and keys over rotary planes."""
    aligned = _aligned(at["o"], at["v"], size)
    stray = max(_aligned(at["o"], at["q"], size), _aligned(at["o"], at["k"], size))
    return aligned - stray + 0.5 * _planes(at["q"], at["k"], size)


def _aligned(out: _Wide, values: _Wide, size: int) -> float:
    """Over heads: log of tr(O'O V V') / (tr(O'O) tr(V V') / K), which is about 0 for unrelated O and V."""
    heads = list(_heads(out.T, size))
    read = list(_heads(values, size))
    if not read or len(heads) % len(read):
        return 0.0
    found, expected = 0.0, 0.0
    for number, one in enumerate(heads):
        other = read[number // (len(heads) // len(read))]
        left, right = one @ one.T, other @ other.T
        found += float((left * right).sum())
        expected += float(np.trace(left) * np.trace(right)) / size
    return float(np.log(max(found, 1e-30) / max(expected, 1e-30)))


def _planes(queries: _Wide, keys: _Wide, size: int) -> float:
    """Correlation of the log energy of queries and keys in each rotary plane (e, e + K/2) of each key head."""
    ours, theirs = (_plane_energy(one, size) for one in (queries, keys))
    if len(theirs) == 0 or len(ours) % len(theirs):
        return 0.0
    ours = ours.reshape(len(theirs), -1, ours.shape[1]).mean(1)
    return _corr(ours.ravel(), theirs.ravel())


def _plane_energy(rows: _Wide, size: int) -> _Wide:
    energy = np.square(rows).sum(1).reshape(-1, 2, size // 2).sum(1)
    logs: _Wide = np.log(energy + 1e-30)
    return logs


def _heads(rows: _Wide, size: int) -> Iterator[_Wide]:
    return (rows[start : start + size] for start in range(0, len(rows) - size + 1, size))


def _read(canonical: Canonical, source: TensorSource, layer: int | None, role: str) -> _Wide:
    values: Floats = canonical.views[layer, role].read(source)
    wide: _Wide = np.nan_to_num(values).astype(np.float64)
    return wide


def _moments(matrices: Sequence[_Wide]) -> _Wide:
    """Second moments (C, C) of the first C columns, without their mean diagonal, of norm 1."""
    total: _Wide = np.asarray(sum(one[:, :CORNER].T @ one[:, :CORNER] for one in matrices), np.float64)
    total = total - np.eye(len(total)) * np.trace(total) / len(total)
    out: _Wide = total / max(float(np.linalg.norm(total)), 1e-30)
    return out


def _alike(one: _Wide, other: _Wide) -> float:
    return float((one * other).sum()) if one.shape == other.shape else 0.0


def _corr(one: _Wide, other: _Wide) -> float:
    one, other = one - one.mean(), other - other.mean()
    scale = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / scale if scale > 0 else 0.0
