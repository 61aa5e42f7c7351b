"""Forced alignment: which state is each frame in, if these words were said?

The words make a graph of nodes, each a state; silence between words and at both ends may be
skipped; a word with several pronunciations is as many branches.  For "no" = n ow:

            +-> [n] -> [n] -> [n] -> [ow] -> [ow] -> [ow] -+
    start --+                                              +--> end
            +-> [sil] -> [sil] -> [sil] -^     v- [sil] ...

(every node also loops).  Viterbi's algorithm finds the best path.  With l[t, s] the scaled
log-likelihood of frame t in state s, and the best score of a path that is in node j at frame t

    score[0, j] = l[0, j]                                          if a path may start in j
    score[t, j] = max over i of (score[t-1, i] + log p(i -> j)) + l[t, j]

the path is read backwards from the best end, along the i that won.  Ties go to staying, then
to the predecessor that comes first in the graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from refimpl.tasks.acoustic.hmm import States, Statistics
from refimpl.tasks.acoustic.lexicon import Lexicon

BYTES = 8_000_000  # of work memory for the utterances that are searched side by side


class Graph(NamedTuple):
    """The paths of an utterance.

    state : (nodes,) int64
    before : (nodes, k) int64
        Nodes from which node j is reached, itself first; unused entries are -1.
    start, final : (nodes,) bool
        Where a path may begin and end.
    """

    state: NDArray[np.int64]
    before: NDArray[np.int64]
    start: NDArray[np.bool_]
    final: NDArray[np.bool_]


def utterance_graph(words: tuple[str, ...], lexicon: Lexicon, states: States) -> Graph:
    """Return the graph of a word sequence with optional silence around every word."""
    state: list[int] = []
    before: list[list[int]] = []

    def chain(row: NDArray[np.int64], reached_from: list[int]) -> int:
        """Append a row of states; return its last node."""
        for s in row:
            j = len(state)
            state.append(int(s))
            before.append([j, *reached_from])
            reached_from = [j]
        return len(state) - 1

    firsts = [0]  # nodes a path may start in
    ends: list[int] = []  # nodes that end what was said so far
    ends = [chain(states.silence, ends)]
    for k, word in enumerate(words):
        said = []
        for phones in lexicon.pronunciations[word]:
            if k == 0:
                firsts.append(len(state))
            said.append(chain(states.of(phones), ends))
        ends = [*said, chain(states.silence, said)]

    nodes, most = len(state), max(map(len, before))
    graph = Graph(
        state=np.array(state),
        before=np.array([row + [-1] * (most - len(row)) for row in before]),
        start=np.isin(np.arange(nodes), firsts),
        final=np.isin(np.arange(nodes), ends),
    )
    return graph


def best_paths(
    likelihoods: list[np.ndarray], graphs: list[Graph], statistics: Statistics
) -> list[tuple[float, NDArray[np.int64]]]:
    """Return the score and the states of the best path through each graph, all side by side.

    Utterances are padded to the longest and graphs to the largest, with nodes nothing leads to;
    padding only ever meets itself, so an utterance's result is the same, to the bit, whatever
    stands beside it.  ``likelihoods``: scaled, logarithms, (T_u, classes) for each graph.  Where
    no path fits into T_u frames the score is -inf, and the states (T_u,) have no meaning.

    Cost: utterances * frames * nodes * predecessors additions, in max(T_u) vectorised steps,
    and one byte per utterance, frame and node.
    """
    U = len(graphs)
    T = max(map(len, likelihoods))
    N = max(len(graph.state) for graph in graphs)
    K = max(graph.before.shape[1] for graph in graphs)

    state = np.zeros((U, N), dtype=np.int64)
    before = np.zeros((K, U, N), dtype=np.int64)
    weight = np.full((K, U, N), -np.inf)
    score = np.full((U, N), -np.inf)
    final = np.full((U, N), -np.inf)
    frames = np.zeros((T, U, likelihoods[0].shape[1]))
    lengths = np.array([len(one) for one in likelihoods])
    for u, (one, graph) in enumerate(zip(likelihoods, graphs, strict=True)):
        nodes, k = graph.before.shape
        frames[: len(one), u] = one
        state[u, :nodes] = graph.state
        before[:k, u, :nodes] = np.maximum(graph.before, 0).T
        leave = statistics.log_move[graph.state[before[:k, u, :nodes]]]
        weight[:k, u, :nodes] = np.where(graph.before.T >= 0, leave, -np.inf)
        weight[0, u, :nodes] = statistics.log_stay[graph.state]
        score[u, :nodes][graph.start] = 0
        final[u, :nodes][graph.final] = statistics.log_move[graph.state[graph.final]]

    rows = np.arange(U)
    winner = np.zeros((T, U, N), dtype=np.uint8)
    assert K < 256
    best = np.zeros(U)
    node = np.zeros(U, dtype=np.int64)
    for t in range(T):
        if t > 0:
            arrived = score + weight[0]
            for k in range(1, K):
                other = np.take_along_axis(score, before[k], axis=1)
                other += weight[k]
                np.copyto(winner[t], k, where=other > arrived)
                np.maximum(arrived, other, out=arrived)
            score = arrived
        score += np.take_along_axis(frames[t], state, axis=1)
        over = lengths == t + 1  # these utterances end here
        ends = score[over] + final[over]
        node[over] = ends.argmax(axis=1)
        best[over] = ends.max(axis=1)

    path = np.zeros((U, T), dtype=np.int64)
    for t in range(T - 1, -1, -1):
        path[:, t] = state[rows, node]
        back = before[winner[t, rows, node], rows, node]
        node = np.where(t < lengths, back, node)
    return [(float(best[u]), path[u, : lengths[u]]) for u in range(U)]


def batches(sizes: list[int], limit: int = BYTES) -> Iterator[list[int]]:
    """Yield numbers of utterances to process side by side, similar sizes together.

    Together they take at most `limit` when padded to the largest size, or are one.

    >>> list(batches([5, 1, 4, 2], limit=8))
    [[1, 3], [2], [0]]
    """
    batch: list[int] = []
    for u in np.argsort(sizes, kind="stable").tolist():
        if batch and (len(batch) + 1) * sizes[u] > limit:
            yield batch
            batch = []
        batch.append(u)
    if batch:
        yield batch


def align(
    likelihoods: list[np.ndarray], graphs: list[Graph], statistics: Statistics
) -> list[tuple[float, NDArray[np.int64]]]:
    """Return what `best_paths` does, in batches that bound the memory."""
    results: list = [None] * len(graphs)
    sizes = [
        one.nbytes + len(one) * len(graph.state)
        for one, graph in zip(likelihoods, graphs, strict=True)
    ]
    for batch in batches(sizes):
        some = best_paths([likelihoods[u] for u in batch], [graphs[u] for u in batch], statistics)
        for u, result in zip(batch, some, strict=True):
            results[u] = result
    return results
