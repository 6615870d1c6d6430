"""A boosted-tree classifier of words: fitted with scikit-learn, kept as plain numbers, evaluated without it.

A fitted model is a JSON object, so it can be read, compared and reused, and loading it runs nothing.
"""

from dataclasses import asdict, dataclass

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

_THRESHOLDS = np.arange(0.02, 0.99, 0.02).round(2)


@dataclass(frozen=True)
class Recipe:
    """How trees are fitted: their number, the learning rate, the leaves of each, and the seed of the feature draws."""

    trees: int
    learning_rate: float
    leaves: int
    seed: int


@dataclass(frozen=True)
class Tree:
    """One tree: node i sends x to `left` when x[feature] <= threshold, else to `right`; a leaf has feature -1."""

    feature: list[int]
    threshold: list[float]
    left: list[int]
    right: list[int]
    value: list[float]


@dataclass(frozen=True)
class Classifier:
    """p(unwanted) = sigmoid(start + sum over trees of the value of the leaf that a word falls into)."""

    start: float
    trees: list[Tree]

    def probability(self, x: np.ndarray) -> np.ndarray:
        """[n] from features [n, F]."""
        total = np.full(len(x), self.start)
        everyone = np.arange(len(x))
        for tree in self.trees:
            feature, threshold = np.array(tree.feature), np.array(tree.threshold)
            left, right = np.array(tree.left), np.array(tree.right)
            node = np.zeros(len(x), dtype=int)
            while (inner := feature[node] >= 0).any():
                below = x[everyone, feature[node]] <= threshold[node]
                node = np.where(inner, np.where(below, left[node], right[node]), node)
            total += np.array(tree.value)[node]
        return 1 / (1 + np.exp(-total))

    def to_json(self) -> dict:
        return {"start": self.start, "trees": [asdict(tree) for tree in self.trees]}

    @staticmethod
    def from_json(content: dict, width: int) -> "Classifier":
        """The opposite of `to_json`, for `width` features. Raises KeyError, TypeError, ValueError for what is none."""
        trees = [Tree(**tree) for tree in content["trees"]]
        if not all(_is_tree(tree, width) for tree in trees):
            raise ValueError("not a tree")
        return Classifier(float(content["start"]), trees)


def fit(x: np.ndarray, unwanted: np.ndarray, recipe: Recipe) -> Classifier:
    """Gradient boosting on the log loss. x: [n, F]. unwanted: bool [n], of both kinds.

    A leaf holds at least 20 words and is shrunk by an L2 penalty of 5; every split sees a fifth of the features. The
    same input gives the same trees. Raises ValueError when all words are of one kind.
    """
    if unwanted.all() or not unwanted.any():
        raise ValueError("all words are of one kind")
    model = HistGradientBoostingClassifier(
        max_iter=recipe.trees,
        learning_rate=recipe.learning_rate,
        max_leaf_nodes=recipe.leaves,
        min_samples_leaf=20,
        l2_regularization=5,
        max_features=0.2,
        early_stopping=False,
        random_state=recipe.seed,
    )
    with threadpool_limits(1):  # on a few thousand words more threads mostly wait for each other
        model.fit(x, unwanted)
    # scikit-learn has no public way to its histogram trees; a test compares both on every platform
    return Classifier(float(model._baseline_prediction[0, 0]), [_tree(step[0].nodes) for step in model._predictors])


def _is_tree(tree: Tree, width: int) -> bool:
    """Whether every walk ends: as many entries in each list, and children that stand behind their parent."""
    count = len(tree.feature)
    return {len(values) for values in asdict(tree).values()} == {count} and all(
        feature == -1 or (0 <= feature < width and node < left < count and node < right < count)
        for node, (feature, left, right) in enumerate(zip(tree.feature, tree.left, tree.right, strict=True))
    )


def _tree(nodes: np.ndarray) -> Tree:
    leaf = nodes["is_leaf"].astype(bool)
    return Tree(
        feature=np.where(leaf, -1, nodes["feature_idx"]).tolist(),
        threshold=np.where(leaf, 0.0, nodes["num_threshold"]).tolist(),
        left=np.where(leaf, 0, nodes["left"]).tolist(),
        right=np.where(leaf, 0, nodes["right"]).tolist(),
        value=np.where(leaf, nodes["value"], 0.0).tolist(),
    )


def held_out(x: np.ndarray, unwanted: np.ndarray, fold: np.ndarray, recipe: Recipe) -> np.ndarray:
    """[n] p(unwanted) of every word under a model fitted on the other folds. fold: int [n]."""
    probability = np.zeros(len(x))
    for number in np.unique(fold):
        test = fold == number
        probability[test] = fit(x[~test], unwanted[~test], recipe).probability(x[test])
    return probability


def best_threshold(probability: np.ndarray, unwanted: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """The threshold of .02, .04, ..., .98 with the largest F1 = 2 TP / (2 TP + FP + FN), and that F1.

    All [n]; a word counts `weight` times (its letters and digits). The lowest of equal thresholds.
    """
    above = probability[None] > _THRESHOLDS[:, None]
    hit = (above * (weight * unwanted)).sum(1)
    f1 = 2 * hit / ((above * weight).sum(1) + (weight * unwanted).sum())
    best = int(np.argmax(f1))
    return float(_THRESHOLDS[best]), float(f1[best])
