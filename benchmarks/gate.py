"""How often the gate on answers catches a loss, and how often it raises a false alarm: simulated queries.

    python benchmarks/gate.py [--queries 50 100 200 400] [--loss 0.03] [--trials 1000]

A query's nDCG@10 is 0 in 15% of the queries, 1 in 8%, and else from a beta distribution; its mean is 0.395, that of
MiniLM on Cranfield. Another system differs in 75% of the queries, by a normally distributed amount. Its standard
deviation over all queries, 0.13, is what was measured on Cranfield between MiniLM and the same vectors cut to 128
dimensions (a loss of 0.031, 0.125), and to 96 (0.061, 0.144). Scores stay between 0 and 1; amounts are shifted until
the true loss is the one that is named.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray

from transforms.quality.paired_test import Verdict, compare

POPULATION = 100_000
"""Queries of which each trial draws some."""
ZERO, ONE, CHANGED = 0.15, 0.08, 0.75
MEAN, DEVIATION = 0.395, 0.13
MAX_LOSS = 0.01
Numbers = NDArray[np.float64]


def before_scores(random: np.random.Generator) -> Numbers:
    """float64[POPULATION]: nDCG@10 of the served system."""
    middle = (MEAN - ONE) / (1 - ZERO - ONE)
    scores = random.beta(2 * middle, 2 * (1 - middle), POPULATION)
    kind = random.random(POPULATION)
    found: Numbers = np.where(kind < ZERO, 0.0, np.where(kind < ZERO + ONE, 1.0, scores))
    return found


def after_scores(before: Numbers, loss: float, random: np.random.Generator) -> Numbers:
    """float64[POPULATION]: of a system whose true mean is less by `loss`."""
    noise = (random.random(POPULATION) < CHANGED) * random.standard_normal(POPULATION)
    shift, scale = 0.0, DEVIATION / np.sqrt(CHANGED)
    changed = noise != 0
    for _ in range(60):  # clipping moves both
        after = np.clip(before + noise * scale + changed * shift, 0, 1)
        shift -= (after - before).mean() + loss
        scale *= DEVIATION / (after - before).std()
    found: Numbers = after
    return found


def rates(queries: int, loss: float, trials: int, seed: int = 0) -> dict[Verdict, float]:
    """The share of trials with each verdict."""
    random = np.random.default_rng(seed)
    before = before_scores(random)
    after = after_scores(before, loss, random)
    verdicts = []
    for trial in range(trials):
        drawn = random.integers(POPULATION, size=queries)
        verdicts.append(compare(before[drawn], after[drawn], trial).verdict(MAX_LOSS))
    return {verdict: sum(one is verdict for one in verdicts) / trials for verdict in Verdict}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, nargs="+", default=[50, 100, 200, 400])
    parser.add_argument("--loss", type=float, nargs="+", default=[0.0, 0.01, 0.03, 0.05])
    parser.add_argument("--trials", type=int, default=1000)
    arguments = parser.parse_args()
    print(f"max_loss {MAX_LOSS}, {arguments.trials} trials")
    print(f"{'queries':>7} {'true loss':>9} {'worse':>7} {'too few':>8} {'passed':>7}")
    for queries in arguments.queries:
        for loss in arguments.loss:
            found = rates(queries, loss, arguments.trials)
            shares = " ".join(
                f"{found[one]:>{width}.1%}"
                for one, width in ((Verdict.WORSE, 7), (Verdict.TOO_FEW, 8), (Verdict.PASSED, 7))
            )
            print(f"{queries:>7} {loss:>9.2f} {shares}")


if __name__ == "__main__":
    main()
