"""Draw rows from a run's prior: latents, observations, and the centres of their likelihood.

$ ppl-vae sample runs/first -n 100 --seed 1 --out samples.npz
$ ppl-vae sample runs/cells -n 10 --covariates batch=north

Of images there is a PNG beside the arrays.
"""

from ppl_vae.cli import arguments, script


def parser():
    """Return the options."""
    parser = arguments.new(__doc__)
    arguments.run(parser)
    parser.add_argument("-n", "--num-samples", type=int, default=64, help="rows to draw")
    arguments.covariates(parser)
    arguments.out(parser, "RUN/samples.npz")
    return parser


def main(options):
    """Write the draws."""
    from ppl_vae.cli import opened, output

    run, target = opened.run(options), output.target(options, "samples.npz", "samples.png")
    covariates = opened.covariates(run, options, options.num_samples)
    drawn = run.sample(options.num_samples, covariates=covariates, seed=options.seed)
    centres = {name.removesuffix("_mean"): values for name, values in drawn.items() if name.endswith("_mean")}
    return output.arrays(run, target, drawn, pictures=centres)


if __name__ == "__main__":
    script(parser, main)
