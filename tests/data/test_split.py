"""Which pairs are held out."""

from tessera.data.sources import Pair
from tessera.data.split import split


def test_the_split_gives_each_pair_to_one_side():
    pairs = [Pair(f"{i}.png", None, ("x",)) for i in range(400)]
    learned, held = split(pairs, 0.25)
    assert not {p.key for p in learned} & {p.key for p in held}
    assert len(learned) + len(held) == 400
    assert 60 < len(held) < 140
