"""Write what the decoder makes of latents: the centre of the likelihood, by observed field.

$ ppl-vae decode runs/first --latents z.npz --out x.npz

Latents come as `encode` and `sample` write them; of images there is a PNG beside the arrays.
"""

from ppl_vae.cli import arguments, script


def parser():
    """Return the options."""
    parser = arguments.new(__doc__)
    arguments.run(parser)
    parser.add_argument(
        "--latents",
        type=str | None,
        default=None,
        help=".npz with one array a latent site, or .npy of the only one",
    )
    arguments.covariates(parser)
    arguments.out(parser, "RUN/decoded.npz")
    return parser


def main(options):
    """Write what the latents decode to."""
    from ppl_vae.cli import opened, output

    run, target = opened.run(options), output.target(options, "decoded.npz", "decoded.png")
    latents = opened.latents(run, options)
    covariates = opened.covariates(run, options, output.count(latents))
    decoded = run.decode(latents, covariates=covariates, seed=options.seed)
    return output.arrays(run, target, decoded, pictures=decoded)


if __name__ == "__main__":
    script(parser, main)
