"""Our training step against that of the classic PyTorch DCGAN example: the same networks, batch 64, in turns.

Each side loads its images its own way: a DataLoader of decoded pictures there, one tensor here. That both
compute the same losses in float32 is a test (`test_losses_equal_those_of_the_classic_step`).
"""

import pandas as pd

from lib.laplacian_gan.cost import compare_steps

TARGETS = {32: 1.6, 64: 1.7}  # at least, in images per second of the classic step


def measure(rounds: int = 10) -> pd.DataFrame:
    """`compare_steps` at 32 and 64 px."""
    sizes = {32: 5, 64: 2}  # steps in a turn
    return pd.concat([compare_steps(size, steps=steps, rounds=rounds) for size, steps in sizes.items()])


def check(table: pd.DataFrame) -> pd.DataFrame:
    """The study's targets: what, at which size, measured, at least, met."""
    ours = table[table.step == "ours, bf16"].set_index("size").relative
    rows = [("our step / classic example", size, ours[size], least) for size, least in TARGETS.items()]
    targets = pd.DataFrame(rows, columns=["target", "size", "measured", "at_least"])
    targets["met"] = targets["measured"] >= targets["at_least"]
    return targets
