"""Write rows and what a run makes of them: each row encoded and decoded again.

$ ppl-vae reconstruct runs/first --split test --rows 32

Fields keep their names, missing numbers are NaN, reconstructions end in _mean. Of images there is a PNG: a
line of originals, then a line of their reconstructions, and so on.
"""

from ppl_vae.cli import arguments, script


def parser():
    """Return the options."""
    parser = arguments.new(__doc__)
    arguments.run(parser)
    arguments.rows(parser)
    arguments.draw(parser)
    arguments.out(parser, "RUN/reconstructions-SPLIT.npz")
    return parser


def main(options):
    """Write rows and reconstructions."""
    from ppl_vae.cli import opened, output
    from ppl_vae.diagnostics.reconstruction import with_gaps

    run, target = (
        opened.run(options),
        output.target(options, "reconstructions-{split}.npz", "reconstructions-{split}.png"),
    )
    rows, names, label = opened.rows(run, options)
    target = target.of(label)
    made = run.reconstruct(rows, draw=options.draw, seed=options.seed)
    # Of two functions a site may observe what they make of a field: then all fields stand beside it.
    paired = made.keys() <= rows.keys()
    shown = {name: rows[name] for name in (made if paired else run.bound.fields) if name in rows}
    both = with_gaps(shown, rows) | {f"{name}_mean": values for name, values in made.items()}
    originals = rows if paired else None
    return output.arrays(run, target, both, made, originals, names) | {"split": options.split}


if __name__ == "__main__":
    script(parser, main)
