"""plan evaluates the collectives' own costs and recommends by memory."""

import doctest
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.published.presets import PRESETS
from benchmarks.published.speedup_text import PRESETS as SPEEDUPS
from refimpl import collectives
from refimpl.cli import main, parser
from refimpl.cli.plan import units_of
from refimpl.collectives.cost import Link, Links
from refimpl.methods.partition.memory import Bytes, per_rank
from refimpl.plan.advise import FAMILIES, Question, advise
from refimpl.plan.model import Cluster, Method, Model, predict, transformer
from refimpl.plan.text import advice_text, command
from refimpl.support.errors import UserError
from refimpl.support.text import size

PAGE = Path(__file__).resolve().parents[2] / "docs" / "plan.md"

LINKS = (
    Links(Link(3e-6, 2e-10), Link(5e-5, 1e-9), gamma=3e-11),
    Links(Link(2e-5, 5e-9), Link(1e-6, 1e-9)),  # slower inside a node than between nodes
)
CUTS = [
    (n, k, p)
    for n in (1, 2, 3, 4, 6, 8, 12, 16)
    for k in (1, 2, 3, 4, 8)
    for p in range(1, n + 1)
    if k <= n and n % p == 0
]


# --- the times of the collectives ---------------------------------------------------------


@pytest.mark.parametrize("links", LINKS, ids=("far is slow", "near is slow"))
@pytest.mark.parametrize("name", FAMILIES)
def test_all_groups_of_an_axis_call_at_the_same_moment(name, links):
    """A step of 8 parameters of 3 bytes each per rank, beside the family's own cost."""
    family, compared = collectives.get(name), 0
    for n, k, p in CUTS:
        model, cluster = Model((8 * p,), rows=1, size=Bytes(3, 3, 3)), Cluster(n, k, 1.0, links)
        split = predict(model, cluster, Method(p, stage=1, family=name))
        node = tuple(rank // k for rank in range(n))
        rows = [tuple(range(n))[start : start + p] for start in range(0, n, p)]
        columns = list(zip(*rows, strict=True))

        def seconds(operation, groups, nbytes, node=node):
            where = [tuple(node[rank] for rank in group) for group in groups]
            if any(family.refuses(operation, nodes) for nodes in where):
                return None
            return family.cost_of_groups(operation, nbytes, groups, node, 1).time(links)

        want = (
            seconds("allgather", rows, 24 * p),
            seconds("reduce_scatter", rows, 24 * p),
            seconds("allreduce", columns, n // p * math.ceil(24 * p / n)),
        )
        if split is None:
            assert None in want
        else:
            assert (split.gather, split.reduce_scatter, split.second_hop) == pytest.approx(want)
            compared += 1
    assert compared > 50


def test_groups_on_one_node_share_its_link():
    """Two columns of two ranks on two nodes: twice one column's bytes leave each node."""
    links = Links(Link(0, 0), Link(0, 1e-9))
    model, method = Model((1000,), rows=1), Method(partition=2)
    shared = predict(model, Cluster(4, 2, 1e9, links), method)
    alone = predict(model, Cluster(4, 1, 1e9, links), method)
    assert shared.second_hop == pytest.approx(2 * alone.second_hop)


# --- the model of a step -------------------------------------------------------------------

NETWORK = Model(transformer(4, 64), rows=128, size=Bytes(2, 2, 12))
CLUSTER = Cluster(16, 4, 1e12, LINKS[0], call=1e-6)


def test_a_step_is_the_formula_of_the_documentation():
    """MiCS of 2 x 128 GPUs, hierarchical, written out by hand: docs/plan.md, "The equations"."""
    alpha_x, b_x, alpha_i, b_i, call = 14e-6, 37e9, 3.4e-6, 230.8e9, 8.4e-6
    n, k, p, layers, micro, rows, flops = 256, 8, 128, 80, 4, 4096, 171e12
    unit = 12 * 10240**2
    volume, n_nodes, replicas = 2 * unit, p // k, n // p
    c = 8 * unit * rows / flops
    gather = (
        call
        + (n_nodes - 1) * (alpha_x + k * volume / p / b_x)
        + (k - 1) * n_nodes * (alpha_i + volume / p / b_i)
    )
    part = layers * volume / p / replicas
    hop2 = call + 2 * (replicas - 1) * (alpha_x + k * part / b_x)
    model = Model(transformer(80, 10240), rows, 8, Bytes(2, 2, 12))
    cluster = Cluster(n, k, flops, Links(Link(alpha_i, 1 / b_i), Link(alpha_x, 1 / b_x)), call)
    got = predict(model, cluster, Method(p, micro, 3, "hierarchical", overlap=0.5))
    assert got.compute == pytest.approx(micro * layers * c)
    assert got.gather == pytest.approx(2 * micro * layers * gather)
    assert got.reduce_scatter == pytest.approx(micro * layers * gather)
    assert got.hidden == pytest.approx(micro * layers * min(3 * gather, c / 2))
    assert got.second_hop == pytest.approx(hop2)
    assert got.step == pytest.approx(
        micro * layers * (c + max(0, 3 * gather - c / 2)) + hop2, rel=1e-9
    )


def test_the_flat_ring_of_zero3_is_the_formula_of_the_documentation():
    alpha, b_x, call, p, q, unit = 13.2e-6, 37e9, 8.4e-6, 128, 12, 12 * 10240**2
    model = Model(transformer(1, 10240), 4096, 8, Bytes(2, 2, 12))
    cluster = Cluster(p, 8, 171e12, Links(Link(3.4e-6, 1 / 230.8e9), Link(alpha, 1 / b_x)), call)
    got = predict(model, cluster, Method(p, calls=q))
    want = q * (call + (p - 1) * alpha) + 2 * unit * (p - 1) / p / b_x
    assert got.reduce_scatter == pytest.approx(want, rel=1e-9)
    assert got.gather == pytest.approx(2 * want, rel=1e-9)
    assert got.second_hop == 0


def test_one_partition_group_has_no_second_hop_and_one_rank_groups_no_gather():
    whole = predict(NETWORK, CLUSTER, Method(partition=16))
    alone = predict(NETWORK, CLUSTER, Method(partition=1))
    assert whole.second_hop == 0 and whole.gather > 0
    assert alone.gather == alone.reduce_scatter == 0 and alone.second_hop > 0


def test_second_hop_comes_once_a_step_or_in_every_microstep():
    once = [predict(NETWORK, CLUSTER, Method(4, m)).second_hop for m in (1, 4)]
    every = predict(NETWORK, CLUSTER, Method(4, 4, every_microstep=True)).second_hop
    assert once[0] == once[1] and every == pytest.approx(4 * once[0])


def test_parameters_are_gathered_and_gradients_reduced_each_with_its_own_bytes():
    links = Links(Link(0, 0), Link(0, 1e-9))
    cluster = Cluster(8, 1, 1e12, links)
    plain, wide = (
        predict(replace(NETWORK, size=Bytes(*each)), cluster, Method(4))
        for each in ((2, 2, 12), (2, 8, 12))
    )
    assert wide.gather == plain.gather
    assert wide.reduce_scatter == pytest.approx(4 * plain.reduce_scatter)
    assert wide.second_hop == pytest.approx(4 * plain.second_hop)


def test_stages_gather_and_scatter_as_often_as_training_does():
    one, two, three = (predict(NETWORK, CLUSTER, Method(4, 4, stage)) for stage in (1, 2, 3))
    assert three.gather == pytest.approx(8 * one.gather) and two.gather == one.gather
    assert two.reduce_scatter == three.reduce_scatter == pytest.approx(4 * one.reduce_scatter)


def test_secondary_shards_keep_the_backward_gathers_inside_a_node():
    """Per micro-step 2 V (p - 1)/p cross each edge between nodes, not 3, for V/k more a rank."""
    method, near = Method(8, 4), Method(8, 4, secondary=True)
    plain, kept = (predict(NETWORK, CLUSTER, one) for one in (method, near))
    edges, shard = 2 * 2, 2 * NETWORK.parameters // 8  # two nodes a group, two groups
    hop = 2 * 8 * shard  # 8 columns of two ranks
    assert (plain.between, kept.between) == tuple(
        4 * vectors * edges * 7 * shard + hop for vectors in (3, 2)
    )
    assert kept.gather < plain.gather and kept.reduce_scatter == plain.reduce_scatter
    for p, k in ((2, 2), (4, 4), (8, 4), (16, 4)):
        more = [advise(question(method=one)).choice(p).needed for one in (near, method)]
        assert more[0] - more[1] == 2 * NETWORK.parameters / k
    alone = predict(NETWORK, replace(CLUSTER, ranks_per_node=1), near)
    assert alone.gather == pytest.approx(
        predict(NETWORK, replace(CLUSTER, ranks_per_node=1), method).gather / 2
    )


numbers = st.floats(1e-12, 1e-3)


@settings(max_examples=60)
@given(
    st.sampled_from([1, 2, 4, 8, 16]),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from(FAMILIES),
    st.tuples(numbers, numbers, numbers, numbers),
    st.floats(0, 1),
)
def test_nothing_better_is_ever_slower(p, k, family, link, overlap):
    links = Links(Link(*link[:2]), Link(*link[2:]))
    cluster = Cluster(16, k, 1e12, links, call=1e-6)
    method = Method(p, 2, family=family, overlap=overlap)
    base = predict(NETWORK, cluster, method)
    if base is None:
        return
    halves = [
        links._replace(**{side: getattr(links, side)._replace(**{part: value / 2})})
        for side in ("intra", "inter")
        for part, value in getattr(links, side)._asdict().items()
    ]
    better = [replace(cluster, links=half) for half in halves]
    better += [replace(cluster, flops=2e12), replace(cluster, call=0)]
    for other in better:
        assert predict(NETWORK, other, method).step <= base.step * (1 + 1e-12)
    more = replace(method, overlap=min(1, overlap + 0.2))
    assert predict(NETWORK, cluster, more).step <= base.step
    coarse = replace(method, calls=3)
    assert predict(NETWORK, cluster, coarse).step >= base.step * (1 - 1e-9)


# --- a user's own model --------------------------------------------------------------------


def question(**changes):
    base = Question(NETWORK, CLUSTER, Method(1))
    return replace(base, **changes)


def busy(**method):
    """Ask about ranks that compute long, over links without latency: rings hide their gathers."""
    links = Links(Link(0, 2e-10), Link(0, 1e-9))
    return question(cluster=replace(CLUSTER, flops=1e9, links=links), method=Method(1, **method))


def test_smallest_group_that_fits_is_recommended():
    total = {c.partition: c.needed for c in advise(question()).choices}
    assert list(total) == [1, 2, 4, 8, 16]
    for p in (2, 4, 8, 16):
        advice = advise(question(memory=total[p]))
        assert advice.recommended.partition == min(q for q in total if total[q] <= total[p])
        assert not any(
            c.fits for c in advice.choices if c.partition < advice.recommended.partition
        )
    assert advise(question()).recommended.partition == 1


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_what_has_to_fit_is_the_stage_that_was_asked_for(stage):
    for choice in advise(question(method=Method(1, stage=stage), activations=5)).choices:
        assert choice.needed == choice.memory[stage].total + 5
    needed = {choice.needed for choice in advise(question(method=Method(1, stage=1))).choices}
    assert len(needed) == 5


def test_groups_that_do_not_divide_the_world_are_refused():
    with pytest.raises(UserError, match="cannot cut 16 ranks into partition groups of 3"):
        predict(NETWORK, CLUSTER, Method(3))


def test_activations_count_against_the_memory():
    needed = advise(question()).choice(4).needed
    roomy = advise(question(memory=needed + 1000, activations=1000))
    tight = advise(question(memory=needed + 1000, activations=1001))
    assert roomy.choice(4).fits and not tight.choice(4).fits


def test_memory_of_a_row_is_that_of_the_partition_methods():
    asked = busy(microsteps=2, overlap=0.5)
    for choice in advise(asked).choices:
        for stage, memory in choice.memory.items():
            p, how = choice.partition, {"microsteps": 2, "prefetch": choice.prefetch}
            assert memory == per_rank(NETWORK.units, p, stage if p > 1 else 0, NETWORK.size, **how)


def test_hiding_messages_takes_memory_for_one_more_unit():
    alone, ahead = (advise(busy(overlap=w)).choice(4).needed for w in (0, 0.1))
    assert ahead - alone == NETWORK.size.parameter * NETWORK.units[0]
    for room, prefetch in ((ahead, True), (alone, False)):
        best = advise(replace(busy(overlap=0.1), memory=room)).recommended
        assert (best.partition, best.prefetch, best.needed) == (4, prefetch, room)


def test_nothing_is_recommended_if_nothing_fits():
    advice = advise(question(memory=1.0))
    assert advice.recommended is None and advice.fastest is None


def test_collectives_of_a_row_are_the_fastest_that_can_run():
    for choice in advise(question(cluster=replace(CLUSTER, ranks=12))).choices:
        assert choice.split.step == min(choice.times.values()) == choice.times[choice.family]
        assert ("hierarchical" in choice.times) == (
            choice.partition != 6 and choice.partition != 3
        )


def test_higher_stages_keep_less_state():
    for choice in advise(question()).choices[1:]:
        kept = [m.states for m in choice.memory.values()]
        assert kept[0] > kept[1] > kept[2]


# --- the command ---------------------------------------------------------------------------

OWN = "plan --layers 24 --hidden 2048 -n 32 --ranks-per-node 8 --flops 1e14 --batch 4096 "
OWN += "--bytes 2,2,12 --memory 12e9 --microsteps 4 --intra 3e-6,5e-12 --inter 1.4e-5,4e-11"


def run(capsys, line):
    code = main(line.split())
    out = capsys.readouterr()
    return code, out.out, out.err


def test_json_says_what_the_text_says(capsys):
    code, out, _ = run(capsys, OWN + " --json --partition 8")
    data = json.loads(out)
    assert code == 0 and [c["partition"] for c in data["choices"]] == [1, 2, 4, 8, 16, 32]
    best = data["recommended"]
    assert best["partition"] == 2 and best["memory"]["stage3"]["total"] <= 12e9
    assert data["asked"]["partition"] == 8
    seconds = best["seconds"]
    parts = seconds["compute"] + seconds["gather"] + seconds["reduce_scatter"]
    assert seconds["step"] == pytest.approx(parts - seconds["hidden"] + seconds["second_hop"])
    _, text, _ = run(capsys, OWN + " --partition 8")
    assert best["command"] in text and f"recommended: p = {best['partition']}," in text
    assert f"{1e3 * seconds['step']:.4g}" in text and "p = 8, as asked" in text


def planned(capsys, more):
    """Return the data of `OWN` with more options."""
    _, out, _ = run(capsys, f"{OWN} {more} --json")
    return json.loads(out)


def test_every_option_reaches_the_prediction(capsys):
    plain = planned(capsys, "")
    row = plain["choices"][-1]["seconds"]

    def last(more):
        return planned(capsys, more)["choices"][-1]["seconds"]

    assert last("--recompute")["compute"] == pytest.approx(row["compute"] * 8 / 6)
    assert last("--call 1e-3")["gather"] == pytest.approx(row["gather"] + 4 * 2 * 24 * 1e-3)
    assert row["hidden"] == 0 and last("--overlap 1")["hidden"] > 0
    assert last("--zero-stage 1")["gather"] == pytest.approx(row["gather"] / 8)
    assert planned(capsys, "--activations 5")["choices"][0]["needed"] == (
        plain["choices"][0]["needed"] + 5
    )
    _, out, _ = run(capsys, OWN)
    assert "inside a node: 3e-06 s + bytes / 200 GB/s" in out
    assert "between nodes: 1.4e-05 s + bytes / 25 GB/s" in out
    pairs = plain["choices"][1]["seconds"]["gather"] + 4 * 2 * 24 * (1e-3 - 3e-6)
    slow = planned(capsys, "--intra 1e-3,5e-12")["choices"][1]["seconds"]
    assert slow["gather"] == pytest.approx(pairs)
    near = planned(capsys, "--secondary-shards node")["choices"][-1]
    assert near["seconds"]["gather"] < row["gather"]
    assert near["bytes_between_nodes"] == 2 / 3 * plain["choices"][-1]["bytes_between_nodes"]


def test_links_come_from_a_file_of_what_was_measured(capsys, tmp_path):
    line, (intra, inter) = OWN.split(" --intra ")[0], OWN.split(" --intra ")[1].split(" --inter ")
    links = Links(*(Link(*map(float, each.split(","))) for each in (intra, inter)))
    (tmp_path / "links.json").write_text(json.dumps(links.plain()))
    from_file = f"{line} --links {tmp_path / 'links.json'}"
    assert run(capsys, from_file) == run(capsys, OWN)
    slow = run(capsys, f"{from_file} --inter 1e-3,4e-11")[1]
    assert "between nodes: 0.001 s" in slow and "inside a node: 3e-06 s" in slow
    (tmp_path / "links.json").write_text(json.dumps(links._replace(gamma=1e-9).plain()))
    adding = json.loads(run(capsys, from_file + " --json")[1])["choices"][-1]["seconds"]
    plain = planned(capsys, "")["choices"][-1]["seconds"]
    assert adding["reduce_scatter"] > plain["reduce_scatter"]
    assert adding["gather"] == plain["gather"]


def test_parameters_are_cut_into_units_that_are_as_equal_as_can_be():
    args = parser().parse_args(
        ["plan", "--parameters", "11", "--units", "4", "-n", "1", "--flops", "1"]
    )
    assert units_of(args) == (3, 3, 3, 2)
    args.units = None
    assert units_of(args) == (1,) * 11  # no more than there are


def test_a_model_of_unsaid_units_is_sharded_over_few_ranks(capsys):
    """In one unit it would be gathered whole, and no group of any size could hold it."""
    words = "plan --parameters 1e9 -n 64 --ranks-per-node 8 --flops 1e14 --memory 8e9"
    assert main(words.split()) == 0
    said = capsys.readouterr().out
    assert "--units 24 (layers of one size)" in said and "recommended: p = 2," in said
    assert main([*words.split(), "--units", "1"]) == 1


def text_of(**changes):
    return advice_text(advise(question(**changes)), None, [])


def test_a_group_size_is_called_faster_if_a_hundredth_is_won():
    advice = advise(question())
    best = advice.recommended
    for factor, said in ((0.995, False), (0.98, True)):
        split = best.split._replace(compute=best.split.compute - (1 - factor) * best.split.step)
        fast = best._replace(partition=16, split=split)
        text = advice_text(advice._replace(fastest=fast), None, [])
        assert ("p = 16 is predicted to be faster" in text) is said


def test_a_command_says_what_the_choice_needs_and_no_more():
    def said(p, **method):
        advice = advise(question(method=Method(1, **method)))
        words = command(advice, advice.choice(p)).split(" --collectives")[0]
        return words.removeprefix("./run_mpi.sh -n 16 train MODEL --strategy ")

    assert said(1) == "ddp" and said(1, microsteps=2) == "ddp --microsteps 2"
    assert said(16) == "zero3" and said(16, stage=1) == "zero1"
    assert said(4, stage=2) == "mics --partition 4 --zero-stage 2"
    assert said(16, secondary=True) == "zero3 --secondary-shards node"


@pytest.mark.parametrize("method", [{}, {"overlap": 0.5}, {"overlap": 1, "stage": 2}])
def test_only_what_prefetch_hides_is_hidden_and_the_command_asks_for_it(method):
    """Not reduce-scatters, not stage 2, and no collectives for which train refuses it."""
    advice = advise(busy(**method))
    for choice in advice.choices:
        ahead = method == {"overlap": 0.5} and choice.partition > 1 and choice.family == "ring"
        words = command(advice, choice).split()
        assert choice.prefetch == ahead == ("--prefetch" in words) == (choice.split.hidden > 0)
        assert choice.split.hidden <= choice.split.gather
    assert any(choice.prefetch for choice in advice.choices) == (method == {"overlap": 0.5})
    assert ("hidden: gathers of stage 3" in advice_text(advice, None, [])) == bool(method)


def test_the_recommendation_names_the_next_smaller_group_and_what_it_lacks():
    needed = {c.partition: c.needed for c in advise(question()).choices}
    text = text_of(memory=needed[4])
    assert f"the smallest p that fits: {size(needed[4])} of {size(needed[4])}" in text
    assert f"p = 2 needs {size(needed[2])}" in text
    assert f"needs at least {size(needed[16])} (p = 16) of 1 B" in text_of(memory=1.0)
    assert f"every rank can hold all of it: {size(needed[1])}" in text_of()


def test_families_that_cannot_run_are_named():
    refused = "hierarchical: groups fill no nodes"
    asked = question(cluster=replace(CLUSTER, ranks=12))
    advice = advise(asked)
    assert refused in advice_text(advice, 6, []) and refused not in advice_text(advice, 4, [])


def test_a_group_size_that_was_asked_for_is_compared_with_the_recommended_one():
    advice = advise(question())
    asked, best = advice.choice(16), advice.recommended
    ratio = f"{asked.split.step / best.split.step:.3g} times that of p = {best.partition}"
    assert ratio in advice_text(advice, 16, []) and asked.split.step > best.split.step


def test_exit_code_tells_that_nothing_fits(capsys):
    code, out, _ = run(capsys, OWN.replace("12e9", "1e8"))
    assert code == 1 and "recommended: none" in out


def test_recommended_command_is_one_that_train_knows(capsys):
    _, out, _ = run(capsys, OWN + " --json")
    words = json.loads(out)["recommended"]["command"].split()
    assert words[:3] == ["./run_mpi.sh", "-n", "32"]
    args = parser().parse_args(words[3:])
    assert (args.strategy, args.partition, args.microsteps) == ("mics", 2, 4)


SHORT = "plan --parameters 1e6 -n 8 --flops 1e9 "


@pytest.mark.parametrize(
    "line, culprit, remedy",
    [
        ("plan", "no model", "give --parameters"),
        ("plan --preset p5", "no preset 'p5'", "p4d-100b"),
        ("plan --preset p4d-100b --ranks 100", "cannot run on 100 ranks", "multiple of 128"),
        ("plan --preset p4d-100b -n 8", "-n does not go with --preset", "leave it out"),
        ("plan --preset p4d-100b --zero-stage 3", "--zero-stage does not go", "leave it out"),
        ("plan --preset p4d-100b --ranks 128,x", "'x'", "whole number of at least 1"),
        ("plan --parameters 1e6 -n 8", "no speed of a rank", "give --flops"),
        ("plan --parameters 1e6 --flops 1e9", "no number of ranks", "give -n"),
        ("plan --parameters 1.5 -n 8 --flops 1e9", "'1.5'", "whole number of at least 1"),
        (SHORT + "--ranks 8", "--ranks is for a --preset", "give -n"),
        (SHORT + "--widths 3,4", "more than one", "give --parameters"),
        (SHORT + "--partition 3", "cannot cut 8 ranks", "one of [1, 2, 4, 8]"),
        (SHORT + "--units 2000000", "cannot make 2000000 units", "at most as many"),
        (SHORT + "--inter 1e-5", "has 1 value where 2 are needed", "commas"),
        (SHORT + "--inter 1e-5,0", "--inter has a beta of 0", "seconds that a byte takes"),
        (SHORT + "--links measure", "nothing is here to measure", "give a file of `bench links"),
        (SHORT + "--links nowhere", "nowhere", "No such file"),
        (SHORT + "--secondary-shards node --zero-stage 2", "does not go with", "(stage 3)"),
        (SHORT + "--secondary-shards node --overlap 1", "go with --overlap", "when they are"),
        ("plan --preset p4d-100b --links measure", "--links does not go", "leave it out"),
        (SHORT + "--bytes 2,2", "has 2 values where 3 are needed", "commas"),
        (SHORT + "--overlap 1.5", "'1.5'", "from 0 to 1"),
        (SHORT + "--memory -1", "'-1'", "positive number"),
        (SHORT + "--memory 10 --activations 10", "leave nothing of --memory", "smaller batch"),
        (SHORT + "--memory 10 --activations 20", "leave nothing of --memory", "smaller batch"),
        ("plan --widths 5 -n 8 --flops 1e9", "--widths 5 is no layer", "at least two"),
        ("plan --widths 5,6 --units 2 -n 8 --flops 1e9", "--units", "goes with --parameters"),
        ("plan --layers 5 -n 8 --flops 1e9", "--layers and --hidden", "go together"),
    ],
)
def test_bad_values_are_refused_in_one_line(capsys, line, culprit, remedy):
    code, out, err = run(capsys, line)
    assert code == 2 and out == "" and err.count("\n") == 1
    assert culprit in err and remedy in err


# --- the chapter ---------------------------------------------------------------------------

PAGES = PAGE.read_text() + PAGE.with_name("workers.md").read_text()
SHOWN = re.findall(r"^```\n\$ refimpl (.+)\n((?:.*\n)+?)```$", PAGES, re.M)


def test_chapter_shows_every_preset_and_a_model_of_the_readers_own():
    commands = " ".join(command for command, _ in SHOWN)
    assert all(f"--preset {name}" in commands for name in (*PRESETS, *SPEEDUPS))
    assert "--layers" in commands


@pytest.mark.parametrize("command, output", SHOWN, ids=[command[:30] for command, _ in SHOWN])
def test_outputs_in_the_chapters_are_what_the_commands_print(capsys, command, output):
    code, out, _ = run(capsys, command)
    assert code == 0 and out == output


def test_sessions_of_the_chapter_are_true():
    result = doctest.testfile(str(PAGE), module_relative=False)
    assert result.attempted >= 5 and result.failed == 0
