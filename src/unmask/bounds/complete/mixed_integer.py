"""A small ReLU network on a ball and box, as the constraints of a mixed-integer linear program.

**Source**: Tjeng et al. 2019, arXiv:1711.07356, equations 6 to 10.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array, csr_array, eye_array, hstack, vstack
from torch import Tensor

from ...threat import NormBall
from ..relaxation.graph import Graph
from ..relaxation.operations import RELU, Interval

Matrix = Any  # SciPy's sparse arrays have no common base that its stubs know


def affine_form(graph: Graph, place: int, rows: Tensor) -> tuple[dict[int, np.ndarray], np.ndarray]:
    """`rows` `[specs, *shape]` of a node, as matrices on the ReLUs and the input before it, and an offset `[specs]`."""
    waiting = {place: rows[None]}
    matrices: dict[int, np.ndarray] = {}
    total = rows.new_zeros(1, len(rows))
    for here in range(place, -1, -1):
        if here not in waiting:
            continue
        now = waiting.pop(here)
        operation, parents, _ = graph.nodes[here]
        if operation is None or operation is RELU:
            matrices[here] = now[0].flatten(1).cpu().numpy()
            continue
        back, offset = operation.pull(now, [], None)
        total = total + offset
        for parent, more in zip(parents, back, strict=True):
            waiting[parent] = waiting[parent] + more if parent in waiting else more
    return matrices, total[0].cpu().numpy()


class Program:
    """The network as linear constraints. Variables are numbered in the order in which `_new` hands them out."""

    def __init__(self, graph: Graph, x: Tensor, bounds: list[Interval], threat: NormBall, reach: float):
        self.graph = graph
        self.lower: list[np.ndarray] = []
        self.upper: list[np.ndarray] = []
        self.integral: list[np.ndarray] = []
        self.count = 0
        self.rows: list[tuple[list[tuple[np.ndarray, Matrix]], np.ndarray, np.ndarray]] = []
        self.outputs: dict[int, np.ndarray] = {}

        low, high = (b[0].flatten().cpu().numpy() for b in bounds[0])
        self.center = x.flatten().cpu().numpy()
        width = len(low)
        if threat.p == math.inf:
            inputs = self._new(low - self.center, high - self.center)
            self.sign = csr_array(eye_array(width))
        else:  # what is added and what is taken away, so that the distance is one sum
            inputs = np.concatenate(
                [
                    self._new(np.zeros(width), high - self.center),
                    self._new(np.zeros(width), self.center - low),
                ]
            )
            self.sign = csr_array(hstack([eye_array(width), -eye_array(width)]))
            self._constrain([(inputs, csr_array(np.ones((1, 2 * width))))], -np.inf, reach)
        self.inputs = inputs
        self.outputs[0] = inputs
        for here, node in enumerate(graph.nodes):
            if node.operation is RELU:
                self._relu(here, bounds[node.parents[0]])

    def _new(self, lower: np.ndarray, upper: np.ndarray, integral: bool = False) -> np.ndarray:
        self.lower.append(lower)
        self.upper.append(upper)
        self.integral.append(np.full(len(lower), int(integral)))
        self.count += len(lower)
        return np.arange(self.count - len(lower), self.count)

    def _constrain(self, terms: list[tuple[np.ndarray, Matrix]], least, most) -> None:
        length = terms[0][1].shape[0]
        self.rows.append((terms, np.broadcast_to(least, length), np.broadcast_to(most, length)))

    def _relu(self, here: int, before: Interval) -> None:
        """`a = z + s` with a, s >= 0, of which one is zero: `a <= u d`, `s <= -l (1 - d)` for a binary d."""
        low, high = (b[0].flatten().cpu().numpy() for b in before)
        parent = self.graph.nodes[here].parents[0]
        shape = self.graph.nodes[parent].shape
        width = len(low)
        matrices, offset = affine_form(
            self.graph, parent, torch.eye(width, dtype=torch.float64).reshape(width, *shape)
        )
        active = self._new(np.zeros(width), np.maximum(high, 0))
        slack = self._new(np.zeros(width), np.maximum(-low, 0))
        self.outputs[here] = active
        one = eye_array(width, format="csr")
        terms, offset = self._terms(matrices, offset)
        terms = [(where, -matrix) for where, matrix in terms]
        self._constrain([(active, one), (slack, -one), *terms], offset, offset)
        open_sign = np.flatnonzero((low < 0) & (high > 0))
        if len(open_sign):
            binary = self._new(np.zeros(len(open_sign)), np.ones(len(open_sign)), integral=True)
            some = eye_array(len(open_sign), format="csr")
            big, small = high[open_sign], low[open_sign]
            self._constrain([(active[open_sign], some), (binary, _diagonal(-big))], -np.inf, 0.0)
            self._constrain([(slack[open_sign], some), (binary, _diagonal(-small))], -np.inf, -small)

    def _terms(
        self, matrices: dict[int, np.ndarray], offset: np.ndarray
    ) -> tuple[list[tuple[np.ndarray, Matrix]], np.ndarray]:
        """Matrices on nodes as matrices on our variables; the input's are its changes, so its centre is constant."""
        terms = []
        for place, matrix in matrices.items():
            if place == 0:
                offset = offset + matrix @ self.center
                terms.append((self.inputs, csr_array(matrix @ self.sign)))
            else:
                terms.append((self.outputs[place], csr_array(matrix)))
        return terms, offset

    def smallest(self, row: Tensor, time_limit: float) -> tuple[bool, Tensor | None]:
        """Whether the solver finished, and the point with the smallest `row . logits <= 0` that it found."""
        matrices, offset = affine_form(self.graph, len(self.graph.nodes) - 1, row[None])
        terms, offset = self._terms(matrices, offset)
        rows = [*self.rows, (terms, np.full(1, -np.inf), -offset)]
        blocks = [_placed(terms, self.count) for terms, _, _ in rows]
        least = np.concatenate([low for _, low, _ in rows])
        most = np.concatenate([high for _, _, high in rows])
        found = milp(
            blocks[-1].toarray()[0],
            integrality=np.concatenate(self.integral),
            bounds=Bounds(np.concatenate(self.lower), np.concatenate(self.upper)),  # pyright: ignore[reportArgumentType]
            constraints=LinearConstraint(vstack(blocks, format="csr"), least, most),  # pyright: ignore[reportArgumentType]
            options={"time_limit": time_limit},
        )
        if found.x is None:
            return found.status == 2, None  # 2: infeasible
        return found.status == 0, torch.from_numpy(self.center + self.sign @ found.x[self.inputs])


def _diagonal(values: np.ndarray) -> Matrix:
    return csr_array(np.diag(values))


def _placed(terms: list[tuple[np.ndarray, Matrix]], columns: int) -> Matrix:
    """The sum of the terms as one sparse matrix on all variables."""
    parts = [(columns_of, matrix.tocoo()) for columns_of, matrix in terms]
    data = np.concatenate([m.data for _, m in parts])
    row = np.concatenate([m.row for _, m in parts])
    column = np.concatenate([c[m.col] for c, m in parts])
    return coo_array((data, (row, column)), shape=(terms[0][1].shape[0], columns)).tocsr()
