"""Train a program on data, into a run folder.

$ ppl-vae train vae --data digits --epochs 20 --out runs/first
$ ppl-vae train --config vae-mnist --seed 1
$ ppl-vae train --resume --out runs/first
$ ppl-vae train vae --data digits --devices 2
"""

import time

from ppl_vae.cli import arguments, script


def parser():
    """Return the options."""
    parser = arguments.new(__doc__)
    arguments.program(parser)
    arguments.data(parser)
    arguments.objective(parser)
    arguments.training(parser)
    arguments.run_folder(parser)
    return parser


def main(options):
    """Train, write the report, and tell how far it came."""
    from ppl_vae.cli import page, training

    started = time.perf_counter()
    run = training.trained(options)
    if run.rank:  # the process of another device: the first one tells
        return None
    training.tell_stop(run)
    report = page.write(run)
    seconds = run.earlier_seconds + time.perf_counter() - started
    return training.summary(run) | {"report": report, "seconds": seconds}


if __name__ == "__main__":
    script(parser, main)
