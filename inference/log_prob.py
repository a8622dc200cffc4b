"""Write a lower bound on log p(x) of every row, in nats.

Importance weighted, or the ELBO where weights per row do not apply.

$ ppl-vae log_prob runs/first --importance-samples 1000 --data my_rows.npy
"""

from ppl_vae.cli import arguments, script


def parser():
    """Return the options."""
    parser = arguments.new(__doc__)
    arguments.run(parser)
    arguments.rows(parser)
    parser.add_argument("--importance-samples", type=int, default=100, help="samples per row")
    arguments.out(parser, "RUN/log_prob-SPLIT.npz")
    return parser


def main(options):
    """Write a bound per row, and tell their mean."""
    from ppl_vae.cli import opened, output
    from ppl_vae.diagnostics.evidence import summary

    run, target = opened.run(options), output.target(options, "log_prob-{split}.npz")
    rows, names, label = opened.rows(run, options)
    target = target.of(label)
    scores = run.score(rows, options.importance_samples, seed=options.seed)
    values = scores.elbo if scores.iw is None else scores.iw
    told = summary(scores, run.record.data.levels)
    return told | output.arrays(run, target, {"log_prob": values}, names=names) | {"split": options.split}


if __name__ == "__main__":
    script(parser, main)
