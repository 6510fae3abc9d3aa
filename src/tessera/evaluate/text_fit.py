"""Whether drawings show what was asked for. It knows neither the judge nor the network that looked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from tessera.errors import ConfigError, DataError, install
from tessera.evaluate.intervals import Estimate, auc, bootstrap, share


def r_precision(similarity: Float[Tensor, "B C"], truth: Int[Tensor, " B"]) -> Estimate:
    """The share of pictures whose own caption, number `truth`, is the most similar of C (Xu et al. 2018, with C = 100).
    Where k captions are equally similar the true one counts 1 / k, so a judge that cannot tell scores 1 / C."""
    own = similarity.gather(1, truth[:, None])
    best = similarity.amax(1, keepdim=True)
    return share((own == best).squeeze(1).double() / (similarity == best).sum(1))


STOP = (
    "a about above across all also an and any are around as at be been being below both but by can do does each "
    "else ever few for from had has have having he her hers him his how i if in into is it its itself just like "
    "many me more most much my near nor not of off on one only onto or other our out over own same she some such "
    "than that the their them then there these they this those through to too under up upon very was we were what "
    "when where which while who whose will with within without you your"
)
"""Words that say nothing of what a picture shows."""
EACH, RARE = 64, 8
"""Components that a probe looks at, and pictures with and without a word that it needs at least."""


def content_words(caption: str) -> set[str]:
    """The words of a caption in lower case, but stop words, numbers and single letters."""
    stop = set(STOP.split())
    return {w for w in re.findall(r"[^\W\d_]{2,}", caption.lower()) if w not in stop}


@dataclass(frozen=True)
class WordProbes:
    """For each of the most frequent content words, a linear probe that finds it in the features of photographs."""

    words: tuple[str, ...]
    scaled: Any
    """Features [N, D] -> [N, K]: scikit-learn's standardisation and principal components."""
    probes: tuple[Any, ...]
    """Logistic regressions, one for each word."""

    @staticmethod
    def fit(features: Float[Tensor, "N D"], captions: Sequence[str], words: int = 50) -> WordProbes:
        """From photographs and their captions, one text for each. Left out are words that fewer than 8 captions have,
        or lack. Raises DataError where no word is left, ConfigError where scikit-learn is not installed."""
        try:
            from sklearn.decomposition import PCA
            from sklearn.linear_model import LogisticRegression
            from sklearn.pipeline import make_pipeline
            from sklearn.preprocessing import StandardScaler
        except ImportError as error:
            raise ConfigError(f"Word probes need scikit-learn: {install('judge')}.") from error
        said = [content_words(c) for c in captions]
        counts = Counter(sorted(w for ws in said for w in ws))
        chosen = [w for w, n in counts.most_common() if RARE <= n <= len(said) - RARE][:words]
        if not chosen:
            raise DataError(f"No word stands in {RARE} captions or more and is missing in as many: nothing to probe.")
        components = min(EACH, len(features) - 1, features.shape[1])
        scaled = make_pipeline(StandardScaler(), PCA(components, whiten=True, svd_solver="full")).fit(features.numpy())
        x = scaled.transform(features.numpy())
        probes = [
            LogisticRegression(C=0.1, class_weight="balanced", max_iter=1000).fit(x, [w in ws for ws in said])
            for w in chosen
        ]
        return WordProbes(tuple(chosen), scaled, tuple(probes))

    def score(self, features: Float[Tensor, "B D"], captions: Sequence[str]) -> dict[str, Estimate]:
        """For each word, how well its probe tells pictures that were asked to show it from the others: the area under
        the ROC curve, 0.5 for chance. Words that all captions have, or none, are left out."""
        x, said = self.scaled.transform(features.numpy()), [content_words(c) for c in captions]
        scores = {}
        for word, probe in zip(self.words, self.probes, strict=True):
            asked, decision = np.array([word in ws for ws in said]), probe.decision_function(x)
            if asked.any() and not asked.all():
                scores[word] = auc(decision[asked], decision[~asked])
        return scores

    def overall(self, features: Float[Tensor, "B D"], captions: Sequence[str], rounds: int = 200) -> Estimate:
        """The mean over words, with the interval over pictures drawn again. Raises DataError where no word is left."""
        x, said = self.scaled.transform(features.numpy()), [content_words(c) for c in captions]
        decisions = np.stack([probe.decision_function(x) for probe in self.probes], 1)  # [B, W]
        asked = np.array([[w in ws for w in self.words] for ws in said])
        if not (asked.any(0) & ~asked.all(0)).any():
            raise DataError("No caption tells these pictures apart by a word that the probes know.")

        def mean(rows: np.ndarray) -> float:
            d, a = decisions[rows.astype(int)], asked[rows.astype(int)]
            both = [w for w in range(len(self.words)) if a[:, w].any() and not a[:, w].all()]
            return float(np.mean([auc(d[a[:, w], w], d[~a[:, w], w]).value for w in both])) if both else 0.5

        return bootstrap(np.arange(len(said)), mean, rounds)
