"""Check a program against the contract of the gallery.

Sites and shapes, guide against model, gradients, rows that leak into each other, parity of the backends.

$ ppl-vae check my.py --data digits

Exit code 1 if a rule is broken.
"""

from ppl_vae.cli import arguments, script


def parser():
    """Return the options."""
    parser = arguments.new(__doc__)
    arguments.program(parser)
    arguments.data(parser)
    parser.add_argument(
        "--backend", type=str | None, default=None, help="pyro or numpyro; by default the program's first"
    )
    parser.add_argument("--seed", type=int, default=0, help="of weights and draws")
    return parser


def main(options):
    """Check the program and tell what each rule found."""
    from ppl_vae import check, load
    from ppl_vae.cli import training

    program = load(training.program_name(options), **options.model)
    report = check(program, training.load_data(options), backend=options.backend, seed=options.seed)
    return report.to_dict() | {"text": str(report), "exit_code": 0 if report.ok else 1}


if __name__ == "__main__":
    script(parser, main)
