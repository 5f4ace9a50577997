"""Prints some stories of one plot, for those who write it: `python -m models.storyteller.worlds.show PLOT -n 5 --seed 3`."""

import argparse
import random

from .book import plots
from .simulate import simulate
from .tell import gist, manner_of, size_of, tell, title, verse


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("plot", nargs="?", default="", help="the beginning of a plot's name (all plots in turn if left out)")
    parser.add_argument("-n", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    chosen = [section for section in plots() if section.name.startswith(options.plot)]
    for number in range(options.n):
        rng = random.Random(f"{options.seed}:{number}")
        size, detail = size_of(rng)
        story = simulate(chosen[number % len(chosen)], rng, detail)
        manner = manner_of(story, rng, size)
        poem = verse(story, rng) if rng.random() < 0.1 else None
        told = poem or tell(story, manner, rng)
        print(f"== {story.plot.name} | {story.realm} | {told.manner} | {title(story, rng)} | {len(told.text.split())} words")
        print(f"{told.text}\n-- {gist(story, rng)}\n")


if __name__ == "__main__":
    main()
