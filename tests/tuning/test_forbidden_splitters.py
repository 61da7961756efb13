"""No shuffled split hides in the sources: not ours, not a library's default."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.test_rooms import FILES, ROOT

# Names that cut rows at random or without a purge, or cross-validate by a default that does (sklearn, LightGBM, XGBoost, Optuna, torch, Ray).
FORBIDDEN = {
    *"KFold StratifiedKFold GroupKFold RepeatedKFold ShuffleSplit StratifiedShuffleSplit LeaveOneOut TimeSeriesSplit".split(),
    *"train_test_split cross_val_score cross_val_predict GridSearchCV RandomizedSearchCV".split(),
    *"LightGBMTunerCV random_split SubsetRandomSampler random_shuffle randomize_block_order".split(),
}
LIBRARIES = {"sklearn", "optuna_integration", "mlforecast", "neuralforecast"}
# Who may draw rows in random order, and why. Learners may: of their training rows, for the order of their steps.
MAY_PERMUTE = {
    "tuning/splits.py": "shuffled_k_fold, which refuses every horizon above one bar",
    "tuning/leak_tests.py": "permuted labels",
}


def splitters(source: str) -> set[str]:
    """What in `source` could split rows at random: forbidden names, `lightgbm.cv` and the like, forbidden libraries."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and node.id in FORBIDDEN:
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            if node.attr in FORBIDDEN or (node.attr == "cv" and owner in ("lightgbm", "lgb", "xgboost", "xgb")):
                found.add(f"{owner}.{node.attr}".lstrip("."))
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names = [alias.name for alias in node.names]
            module = [node.module or ""] if isinstance(node, ast.ImportFrom) else names
            found |= {name for name in names if name in FORBIDDEN or (name == "cv" and module != ["cv"])}
            found |= {name for name in module if name.split(".")[0] in LIBRARIES}
    return found


def permutations(source: str) -> bool:
    names = {"permutation", "permuted", "shuffle", "randperm"}
    return any(isinstance(node, ast.Attribute) and node.attr in names for node in ast.walk(ast.parse(source)))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_file_splits_at_random(path: Path):
    assert splitters(path.read_text()) == set()


def test_rows_are_drawn_in_random_order_only_where_it_is_known_why():
    learning = [p for p in FILES if p.relative_to(ROOT).parts[0] == "tuning" and p.parent.name != "learners"]
    drawing = {p.relative_to(ROOT).as_posix() for p in learning if permutations(p.read_text())}
    assert drawing == set(MAY_PERMUTE)


@pytest.mark.parametrize(
    "source",
    [
        "from sklearn.model_selection import KFold",
        "import sklearn.model_selection as m\nm.KFold(5)",
        "def f(x):\n    return lightgbm.cv({}, x)",
        "from xgboost import cv",
        "import lightgbm as lgb\nlgb.cv({}, d, nfold=5)",
        "torch.utils.data.random_split(d, [1, 2])",
        "study = LightGBMTunerCV()",
    ],
)
def test_the_check_sees_a_planted_splitter(source: str):
    assert splitters(source)


def test_the_check_leaves_our_own_alone():
    assert splitters("from tuning.cross_validate import cross_validate\nx.cv\nlightgbm.train({}, d)") == set()
    assert permutations("rng.permutation(5)")
    assert not permutations("rng.normal(5)")
