"""Write the guide's latents of rows: means, or draws with --draw.

$ ppl-vae encode runs/first --split test --out z.npz
$ ppl-vae encode runs/first --data my_rows.npy
"""

from ppl_vae.cli import arguments, script


def parser():
    """Return the options."""
    parser = arguments.new(__doc__)
    arguments.run(parser)
    arguments.rows(parser)
    arguments.draw(parser)
    arguments.out(parser, "RUN/latents-SPLIT.npz")
    return parser


def main(options):
    """Write the latents."""
    from ppl_vae.cli import opened, output

    run, target = opened.run(options), output.target(options, "latents-{split}.npz")
    rows, names, label = opened.rows(run, options)
    target = target.of(label)
    latents = run.encode(rows, draw=options.draw, seed=options.seed)
    # What `decode` needs beside them: the rows' own covariates.
    latents |= opened.beside(run, rows)
    return output.arrays(run, target, latents, names=names) | {"split": options.split}


if __name__ == "__main__":
    script(parser, main)
