"""Draw latents given rows and write them as NetCDF in ArviZ's layout.

$ ppl-vae posterior runs/first --method importance --num-samples 200 --rows 50 --out p.nc

The guide's draws are labelled as such; they carry the log weights that make a posterior of them.
"""

from ppl_vae.cli import arguments, script


def parser():
    """Return the options."""
    parser = arguments.new(__doc__)
    arguments.run(parser)
    arguments.rows(parser, number=100)
    parser.add_argument("--method", type=str, default="guide", help="guide or importance")
    parser.add_argument("--num-samples", type=int, default=100, help="draws per row")
    arguments.out(parser, "RUN/posterior-SPLIT-METHOD.nc")
    return parser


def main(options):
    """Write the draws."""
    from ppl_vae import posterior
    from ppl_vae.cli import opened, output
    from ppl_vae.diagnostics.posterior import to_netcdf

    run, target = opened.run(options), output.target(options, "posterior-{split}-{method}.nc")
    rows, names, label = opened.rows(run, options)
    target = target.of(label)
    coords = {"data": names} if names is not None and run.program.declared else None
    chosen = {"method": options.method, "num_samples": options.num_samples, "seed": options.seed}
    tree = posterior(run, rows, coords=coords, **chosen)
    path = to_netcdf(tree, target.path, overwrite=target.overwrite)
    found = output.about(run) | {"method": options.method, "num_samples": options.num_samples}
    return found | {
        "n": output.count(rows),
        "groups": sorted(tree.children),
        "split": options.split,
        "out": str(path),
    }


if __name__ == "__main__":
    script(parser, main)
