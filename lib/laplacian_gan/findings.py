"""Sentences about one run: every number and direction in them is looked up in its tables."""

from functools import partial

import pandas as pd

from lib.laplacian_gan.arms import DCGAN, NO_SOURCE, PYRAMID
from lib.metrics.classification import wilson
from lib.metrics.comparison import entry, relation

FOLLOWS = 0.2  # retrieval, or correlation beyond that with other images, from which samples follow their sources
COPYING = ["retrieval", "source_correlation", "chance_correlation"]


def copying(retrieval: float, correlation: float, chance: float) -> str:
    """What samples are, by retrieval and by correlation with their sources and with other images (`chance`)."""
    if correlation < min(chance, 0) - FOLLOWS:
        return "photographic negatives of their sources"
    if retrieval > FOLLOWS:
        return "copies of their sources"
    return "variants of their sources" if correlation > chance + FOLLOWS else "unrelated to their sources"


def _copying(row) -> str:
    """`copying` of a row of a table, with its numbers."""
    kind = copying(*(getattr(row, name) for name in COPYING))
    numbers = f"correlation {row.source_correlation:.2f}, with other images {row.chance_correlation:.2f}"
    return f"{kind} (retrieval {row.retrieval:.1%}, {numbers})"


def comparison(table: pd.DataFrame) -> list[str]:
    """Of tab11, for its first data set: distance, diversity and copying of the source's comparison."""
    table = table[table.dataset == table.dataset.iloc[0]]
    plain, zeros = (partial(entry, table, arm=label, sources=NO_SOURCE) for label in (DCGAN.label, "null: zeros"))
    seen, ours = (partial(entry, table, arm=PYRAMID.label, sources=split) for split in ("training", "held-out"))
    row = table[(table.arm == PYRAMID.label) & (table.sources == "held-out")].iloc[0]
    reported = relation(seen("reported_fid"), plain("reported_fid"))
    found = relation(seen("fid"), plain("fid"))
    return [
        f"Conditioned on pyramids of training images, as in the source, the pyramid GAN has a Fréchet distance of "
        f"{seen('fid'):.3g}, {found} DCGAN's {plain('fid'):.3g} ({'as' if found == reported else 'unlike'} in the "
        f"source) and {relation(seen('fid'), zeros('fid'))} the null control's {zeros('fid'):.3g}; on pyramids of "
        f"held-out images it is {ours('fid'):.3g}, {relation(ours('fid'), seen('fid'))} on those of training images.",
        f"Its samples on held-out pyramids are {_copying(row)}. z decides {ours('share_z'):.0%} of the variance of "
        f"the pixels, the pyramid {ours('share_pyramid'):.0%}.",
        f"LPIPS between its samples is {ours('lpips_diversity'):.3f}, "
        f"{relation(ours('lpips_diversity'), ours('lpips_real'))} between real images ({ours('lpips_real'):.3f}); "
        f"between DCGAN's samples it is {plain('lpips_diversity'):.3f}.",
    ]


def mixtures(table: pd.DataFrame) -> list[str]:
    """Of tab16, pyramids of held-out images: how much of the gain in distance remains where no image is copied."""
    zeros = entry(table, "fid", arm="null: zeros")
    given = table[(table.sources == "held-out") & (table.images > 0)].sort_values("images")
    sentences = []
    for row in given.itertuples():
        words = f"Bands of {row.images} images" if row.images > 1 else "The pyramid of one image"
        sentences.append(
            f"{words}: Fréchet distance {row.fid:.3g}, {relation(row.fid, zeros)} with zeros ({zeros:.3g}); samples "
            f"are {_copying(row)}."
        )
    one, most = given.iloc[0], given.iloc[-1]
    if most.images == 1:
        return sentences
    if one.fid < zeros:
        sentences.append(
            f"Bands of {most.images} images close {(zeros - most.fid) / (zeros - one.fid):.0%} of the gap in distance "
            f"between zeros and the pyramid of one image; their samples are {copying(*most[COPYING])}."
        )
    else:
        sentences.append("The pyramid of one image does not lower the distance here, so there is no gain to divide.")
    return sentences


def extractors(table: pd.DataFrame) -> list[str]:
    """Of tab12 with a second extractor: do both order the arms alike, and which of the first comparison's pairs?"""
    rows = table[(table.sources != "training") & (table.arm != "copy of held-out images")].set_index("arm")  # the same
    rho = rows.fid.corr(rows.fid_second, method="spearman")
    first, second = (rows[name].iloc[0].split()[0] for name in ("extractor", "second_extractor"))
    sentences = [f"Over {len(rows)} arms and references, distances in {first} and {second} features have a rank "
                 f"correlation (Spearman) of {rho:.2f}."]  # fmt: skip
    plain = rows.loc[DCGAN.label]
    for arm in (PYRAMID.label, "null: zeros", "LAPGAN chain"):
        ours = rows.loc[arm]
        words = [relation(ours[name], plain[name]) for name in ("fid", "fid_second")]
        both = f"{words[0]} DCGAN's in both" if words[0] == words[1] else (
            f"{words[0]} DCGAN's in {first}, {words[1]} in {second} features: no order is claimed")  # fmt: skip
        sentences.append(f"The distance of {arm} is {both}.")
    return sentences


def signs(frame: pd.DataFrame) -> list[str]:
    """Of fig113: how many trainings of each arm end as copiers or as negatives, and in how many the sign changed."""
    sentences = []
    for arm, part in frame.groupby("arm", sort=False):
        last = part.groupby("seed").last()
        beyond = (last.source_correlation - last.chance_correlation).abs() > FOLLOWS
        above = last.source_correlation > last.chance_correlation
        copies, negatives = int((beyond & above).sum()), int((beyond & ~above).sum())
        first = part.groupby("seed").first()
        turned = int((beyond & (above != (first.source_correlation > first.chance_correlation))).sum())
        low, high = wilson(copies, copies + negatives)
        sentences.append(
            f"{arm}: of {len(last)} trainings, {copies} end with samples like their sources and {negatives} with "
            f"samples like negatives of them (share of copies: 95 % interval {low:.0%} to {high:.0%}); in {turned}, "
            "the sign differed before training."
        )
    return sentences


def objectives(table: pd.DataFrame) -> list[str]:
    """Of tab13: the lowest distance with its diversity, and whether weight decay did anything."""
    rows = table.set_index("arm")
    plain, best = rows.loc[DCGAN.label], rows.loc[rows.fid.idxmin()]
    same = rows.fid["no weight decay"] == plain.fid
    return [
        f"The lowest distance is that of {best.name} ({best.fid:.3g}; DCGAN {plain.fid:.3g}), with an LPIPS between "
        f"samples of {best.lpips_diversity:.3f}, {relation(best.lpips_diversity, best.lpips_real)} between real images "
        f"({best.lpips_real:.3f}).",
        f"With and without weight decay the distances are {'equal' if same else 'not equal'} to every digit "
        f"({plain.fid:.6g}, {rows.fid['no weight decay']:.6g}).",
    ]
