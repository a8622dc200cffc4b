"""Every message of the source that names a remedy has a test that carries it out.

A message that fails here gets a case in a table of `test_remedies.py` (programs, objectives, options),
`test_remedies_data.py` or `test_remedies_runs.py` (runs, folders, commands); where another test provokes the
message and does what it says, that test is named in ELSEWHERE.
"""

import ast
import re
import tomllib

import pytest
import test_remedies
import test_remedies_data
import test_remedies_runs
from remedies import ROOT, messages, told_by

TESTS = ROOT / "tests"
TABLES = (test_remedies, test_remedies_data, test_remedies_runs)
SAYS = [case.says for table in TABLES for case in table.CASES.values()]
SAYS += [says for _, says, _ in test_remedies_runs.COMMANDS.values()]
SAYS += [says for _, says in test_remedies_data.DAMAGES.values()]

# Tests that do what messages say, with parts of these messages as the source has them.
ELSEWHERE = {
    "test_remedies_listed.py::test_what_a_message_tells_to_install_is_an_extra": ["pip install '"],
    "test_remedies.py::test_the_stock_objective_that_a_message_names_trains": [
        "is enumerated: use ",
        "has no reparametrised draw: use ",
        "is enumerated: train with the objective ",
        "use a continuous distribution, or train with the objective ",
    ],
    "test_remedies.py::test_whole_numbers_that_jax_does_not_hold": [
        "scale it down, give it with fractions, or use the backend pyro",
        "cannot be shared out over devices=",
    ],
    "test_remedies_data.py::test_the_variable_leads_to_files_that_were_put_somewhere": [
        "holds is known: leave out ",
        "is not a folder: correct it or unset it",
        "and offline forbids the download: set ",
        " to a folder of your own",
        "in a folder of your own and set ",
    ],
    "test_remedies_data.py::test_a_damaged_file_that_is_removed_is_fetched_again": [
        "remove {} and fetch {} again",
        "is missing: put it there or fetch ",
    ],
    "test_evidence.py::test_a_row_that_decides_alone_counts_as_ten_median_deviations": [
        "give more validation rows"
    ],
    "test_remedies_runs.py::test_fewer_rows_need_less_memory": ["take fewer rows, draws or features"],
    "test_remedies_runs.py::test_what_data_info_names_is_an_option": ["change it with --x --label"],
    # Sound programs, from each of which a broken one differs in what it is told to change.
    "test_check.py::test_sound_programs_pass": [
        "draws NaN or infinity at site ",
        "it returns None: end its forward",
        ": return a dict of networks by name",
        ", take sizes from the program",
        ": give the likelihood a mean",
        "use it in model or guide, remove it, or freeze it on purpose",
        ": give both the same shape, with .to_event",
        "treat every row by itself, with no mean, sum or reshape over the first axis",
        ": keep the axis of the rows (no squeeze())",
        ": flatten and reshape from the last axes only",
        "add a method ",
        ": name them as parameters",
        ": give every site a name of its own, and open ppl.minibatch once",
        ": sample it there, or observe it with obs=",
        "pass the data to a site with obs=x",
        "sample it within `with ppl.minibatch(x):`",
        "use .to_event for one axis less",
        ": make every network inside networks(), not once in the file",
        ": choose a guide with the same support",
        ": look for the square root, logarithm or division of 0 in its network",
        "; bound scales from below and logits from both sides",
        ": draw first weights with the generator of ",
        ": set no seed inside model, guide or networks",
        ": draw random numbers with ppl.sample alone, and keep no counters in networks",
        "return it from networks()",
        "sample from the program instead",
    ],
    "test_check_plain.py::test_a_plain_program_is_checked_by_the_rules_that_apply": [
        "sample it in a plate over rows"
    ],
    "test_check_plain.py::test_a_network_that_nothing_registers_is_named": [
        "register it with pyro.module, or freeze it"
    ],
    "test_check_plain.py::"
    "test_a_module_of_flax_that_nothing_registers_is_named_and_one_that_is_registered_is_not": [
        "register it with numpyro.contrib.module.nnx_module"
    ],
    "test_check_parity.py::test_a_program_that_fails_on_its_twin_is_caught": [
        ": write networks and models with the names that both backends have, or declare backends = "
    ],
    "test_check_parity.py::test_sites_that_only_one_twin_has_are_named": [": use networks that both have"],
    "test_own_modules.py::test_a_batch_of_one_row_is_refused_before_training": [
        "choose another batch_size, or nn.BatchNorm for torch's, which takes one row",
        ": choose a batch size that leaves no such batch",
    ],
    "test_enumerated.py::test_a_class_that_the_guide_draws_decodes_as_it_was_encoded": [
        "draw it in the guide too, for what the model makes of given latents"
    ],
    "test_check.py::test_a_broken_program_is_caught_by_exactly_its_rule": [
        "; check names a site that is so from the start"
    ],
    "test_totals.py::test_what_a_likelihood_of_all_entries_takes_of_them_may_be_a_field_of_its_own": [
        "to choose it, give it as a field of its own",
    ],
    "test_strangers_files.py::test_a_file_with_another_name_is_not_written_through": [
        "it is a hard link, which is not written: copy it",
    ],
    "test_autoregressive.py::test_draws_have_the_density_that_scores_them": [
        "draw rows with sample",
        "sample does not apply",
        "let it read what ppl.sample returns",
        ": shift or mask what the network sees of ",
        ": sample draws its entries each given those before",
    ],
    "test_plain_pairs.py::test_a_pair_trains_evaluates_goes_on_and_is_opened_again": [
        "too late to train it: make each one whenever model or guide runs"
    ],
    # Runs
    "test_posterior_programs.py::test_importance_is_refused_where_weights_mean_nothing": [
        "has one value only in the guide: use method='guide'"
    ],
    "test_posterior.py::test_an_exact_guide_has_equal_weights_the_evidence": [
        "look for numbers outside the likelihood's support",
        "weight a draw by exp(log_weight), or ask for method='importance'",
    ],
    "test_posterior.py::test_draws_beyond_memory_are_refused_with_the_number_that_fits": [
        "of which this machine's memory holds "
    ],
    "test_export.py::test_without_data_rows_are_asked_for_and_any_will_do": [
        "give rows to compare on as data=..."
    ],
    "test_export.py::test_a_file_gives_the_runs_own_numbers_at_every_batch_size": [
        ": train the program with backend pyro",
        "there is no graph of ",
        ": name it ",
        "draws random numbers, which .onnx cannot repeat: write a .pt2",
        "cannot be written as .onnx (",
    ],
    "test_export.py::test_the_verb": [": ppl-vae export RUN FILE.pt2"],
    "test_sessions.py::test_what_has_no_source_is_refused_before_training": [
        ", or train without a run folder"
    ],
    "test_sessions.py::test_a_program_without_source_is_warned_of_at_the_start": [
        "does not keep the source of ",
        "was defined in Python, not in a model file: name a file that declares it",
    ],
    "test_training_edges.py::test_a_callable_objective_comes_back_or_is_given_again_on_resuming": [
        "was defined in Python: give it as objective=..."
    ],
    "test_compiling.py::test_a_run_keeps_what_auto_decided": [
        "it cannot go on with off (leave compile away)"
    ],
    "test_real_use.py::test_processes_of_a_run_have_the_same_data": [
        "make it the same in each, seeded alike"
    ],
    "test_cli_verbs.py::test_a_program_with_covariates": ["give a file, or NAME=VALUE,NAME=VALUE ..."],
    "test_data_own.py::test_arrays_of_objects_are_left_out_with_a_line": [
        "write it as text (.astype(str)) or numbers"
    ],
    "test_report.py::test_a_run_without_anything_has_a_page": [
        "not finite: look for the step where training diverged",
        "with at least one row",
        "look for broken rows, rare kinds and wrong labels",
    ],
    "test_foreign_data.py::test_links_to_folders_are_followed_once_and_what_is_no_file_is_told": [
        "is read already: remove the link",
        "is no ordinary file: remove or replace it",
    ],
    "test_foreign_data.py::test_hdf5_of_other_files_or_beyond_memory_is_refused": [
        "memory: take fewer columns or rows",
        "takes data of other files: copy what it needs into it",
        "what reads it ends without a word; write it again",
    ],
    # Devices
    "test_sharding.py::test_two_devices_equal_one_for_every_program_and_objective": [
        "ask for no more",
        ", or set XLA_FLAGS=--xla_force_host_platform_device_count=",
    ],
    "test_processes.py::test_two_devices_equal_one_where_there_is_no_noise": [
        "; start all of them on one",
        ": use it in every batch, or train on one device",
        "cannot be started once per device: use a script",
        ": unset LOCAL_RANK and WORLD_SIZE, or start all processes with torchrun",
        "processes were started: make the two numbers equal",
        "trains on one device with Pyro; use arrays and a Program",
        "computes its gradients itself, on one device; use another objective",
        "differs on each device; use nn.BatchNorm",
    ],
    "test_processes.py::test_a_process_that_dies_ends_the_others_and_the_run_goes_on": [
        "see what it wrote; a run folder goes on from its last checkpoint with resume=True"
    ],
}
# Texts that only look as if they named one.
NONE = ("train: first {} of", "bound per dimension", "bound, nats per row", "sample and decode do not apply")
MESSAGES = [(place, text) for place, text in messages() if not text.startswith(NONE)]


def test_the_remedy_of_each_message_is_carried_out():
    named = [says for parts in ELSEWHERE.values() for says in parts]
    left = {
        place: text
        for place, text in MESSAGES
        if not any(says in text for says in named) and not any(told_by(text, says) for says in SAYS)
    }
    assert not left, __doc__


@pytest.mark.parametrize("test", ELSEWHERE)
def test_a_test_that_is_named_is_there_and_its_messages_are_provoked(test):
    file, _, name = test.partition("::")
    found = ast.parse((TESTS / file).read_text()).body
    assert name in {one.name for one in found if isinstance(one, ast.FunctionDef)}
    for says in ELSEWHERE[test]:
        texts = [text for _, text in MESSAGES if says in text]
        assert texts, f"no message says {says!r}"
        for text in texts:
            assert any(words in PROVOKED for words in _words(text)), f"no test provokes: {text}"


def _words(text):
    """Yield each three words (of a short text two) that follow each other in a text."""
    pieces = [re.findall(r"[\w.,'()=-]+", piece) for piece in text.split("{}")]
    count = min(3, max(map(len, pieces)))
    for words in pieces:
        yield from (" ".join(words[i : i + count]) for i in range(len(words) - count + 1))


PROVOKED = "\n".join(
    " ".join(re.findall(r"[\w.,'()=-]+", path.read_text().replace("\\", "")))
    for path in sorted(TESTS.glob("*.py"))
    if path.name != "test_remedies_listed.py"
)


def test_what_a_message_tells_to_install_is_an_extra():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for place, text in MESSAGES:
        for name in re.findall(r"pip install '?ppl-vae\[(\w+)\]", text):
            assert extras[name], place
    needs = {"tables": "pyarrow", "singlecell": "anndata", "tensorboard": "tensorboard", "onnx": "onnx"}
    for name, package in (needs | {"numpyro": "numpyro"}).items():
        assert any(re.match(rf"{package}\b", one) for one in extras[name])
