"""The synthetic recipe's script and modules, and small runs of it."""

import sys

from recipes import DATA, load_script

FOLDER = DATA / "synthetic"


recipe = load_script("synthetic")
shards, truth, users, world = (
    sys.modules[f"synthetic_{name}"] for name in ("shards", "truth", "users", "world")
)
Options = world.Options

# Three blocks, and one block whose sequences are both full for many.
BLOCKS = Options(rows=5000, users=2001, items=300, short=4, long=10, seed=3)
LONG = Options(rows=1500, users=90, items=400, short=8, long=40, seed=5)
