"""Report the unweighted bound of a run in nats: ELBO, rate, distortion, importance weighted bound.

$ ppl-vae evaluate runs/first --importance-samples 1000

Writes the numbers and the bounds of every row into the run folder, and its report anew.
"""

import time

from ppl_vae.cli import arguments, script


def parser():
    """Return the options."""
    parser = arguments.new(__doc__)
    arguments.run(parser)
    arguments.rows(parser)
    parser.add_argument(
        "--importance-samples", type=int | None, default=None, help="k of the importance weighted bound"
    )
    parser.add_argument(
        "--compile",
        type=str,
        default="auto",
        help="compile Pyro's importance weights: on, off, or auto, if there are many (NumPyro always does)",
    )
    parser.add_argument(
        "--per-row", type=str | None, default=None, help="also write the bounds of every row to this .npz"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the file of --per-row")
    return parser


def main(options):
    """Score the rows, keep the numbers in the run's folder, and tell them."""
    from ppl_vae import evaluate
    from ppl_vae.cli import opened, output, running
    from ppl_vae.store import disk

    started = time.perf_counter()
    if options.per_row is not None:
        disk.refuse_place(options.per_row, options.overwrite)
    run = opened.run(options)
    kept = output.is_kept(run)
    data = opened.data(run, options)
    asked = {name: options[name] for name in ("rows", "seed", "compile")}
    result = evaluate(run, options.split, options.importance_samples, data=data, **asked)
    per_row = result.pop("per_row")
    if options.importance_samples and result.get("iw_note"):
        running.say(f"no importance weighted bound: {result['iw_note']}")
    result |= {"seed": options.seed, "data_sha256": data.sha256, "seconds": time.perf_counter() - started}
    if options.per_row is not None:
        disk.write(options.per_row, output.npz(per_row), options.overwrite)
    if not kept:
        return result
    return output.write_evaluation(run, result, per_row, options.rows, output.label(run, data))


if __name__ == "__main__":
    script(parser, main)
