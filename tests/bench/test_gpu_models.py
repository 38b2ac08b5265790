"""The rows of the end-to-end table, run on the CPU with clocks that claim nothing."""

import pytest

from bench.gpu import models, variants
from bench.gpu.forced import recorded_histogram
from bench.gpu.models import Row, conclusions, measure
from bench.shapes import make_model
from tests.bench.gpu_stand_in import StandIn

NAMES = ("sync", "eager", "Never(), stream")
ROW = Row("tiny", 2, 8)


@pytest.fixture(scope="module")
def model():
    shape = dict(
        hidden_size=48, num_hidden_layers=6, intermediate_size=64, vocab_size=99,
        initializer_range=0.2,
    )  # fmt: skip
    return make_model(shape)


class Counting(StandIn):
    """Without dispatch: a call costs 1 us per layer it runs."""

    def __init__(self, model):
        super().__init__()
        for layer in model.backbone.encoder.layer:
            layer.register_forward_hook(self._layer)

    def _layer(self, *_):
        self.time += 1


def row_of(model, names=NAMES, **options):
    return measure(
        Counting(model), model, ROW, names=names, **dict(seconds=0, rounds=(1, 1)) | options
    )


def test_a_row(model):
    row = row_of(model)
    assert len(row["depths"]) == models.CALLS
    exited = {exit for exit, samples in enumerate(recorded_histogram(), 1) if samples}
    assert set(row["depths"]) <= exited
    mean = sum(row["depths"]) / len(row["depths"])
    found = row["variants"]
    assert found["sync"]["wall"]["us"] == pytest.approx(mean)
    assert found["sync"]["device"]["us"] == pytest.approx(mean)
    assert found["eager"]["wall"]["us"] == found["Never(), stream"]["wall"]["us"] == 6
    assert row["layer_speedup"] == pytest.approx(6 / mean)
    assert row["speedups"] == {
        "sync": {"over_fastest": pytest.approx(6 / mean), "of_layers": pytest.approx(1)}
    }
    assert row["layer_host_us"] == 1
    assert all(v["logits_differ_by"] < 1e-4 and "error" not in v for v in found.values())


def test_all_variants_get_the_same_calls(model, monkeypatch):
    met = {name: [] for name in NAMES}
    ready = variants.Variant.ready

    def noted(self, depth):
        met[next(n for n, v in made.items() if v is self)].append(depth)
        return ready(self, depth)

    made = {}
    for name in NAMES:
        make = variants.ALL[name]
        monkeypatch.setitem(
            variants.ALL, name, lambda s, n=name, m=make: made.setdefault(n, m(s))
        )  # fmt: skip
    monkeypatch.setattr(variants.Variant, "ready", noted)
    monkeypatch.setattr(models, "_checked", lambda *_: {})
    row = row_of(model)
    timed = row["depths"] * 2 * 2  # two rounds, two clocks
    assert all(depths == [row["depths"][0]] * models.WARM_UP + timed for depths in met.values())


def test_a_variant_that_fails_leaves_the_others(model, monkeypatch):
    def broken(setup):
        raise RuntimeError("no IF nodes here")

    monkeypatch.setitem(variants.ALL, "graph nested", broken)
    row = row_of(model, names=("graph nested", *NAMES), without={"eager": "it died"})
    assert row["variants"]["graph nested"] == {"error": "RuntimeError: no IF nodes here"}
    assert row["variants"]["eager"] == {"error": "it died"}
    assert row["fastest_full_depth"] == "Never(), stream"


def test_a_lost_gpu_ends_the_row_at_the_variant_that_lost_it(model, monkeypatch):
    told = []

    def broken(setup):
        raise RuntimeError("illegal address")

    def lost():
        raise RuntimeError("the GPU is lost")

    gpu = Counting(model)
    monkeypatch.setitem(variants.ALL, "sync", broken)
    monkeypatch.setattr(gpu, "synchronize", lost)
    with pytest.raises(RuntimeError, match="the GPU is lost"):
        measure(gpu, model, ROW, names=NAMES, seconds=0, at=told.append)
    assert told == ["sync"]


def test_wrong_answers_are_errors_and_no_engine_to_beat(model, monkeypatch):
    right = variants.ALL["Never(), stream"]

    def wrong(setup):
        call = right(setup).call
        return variants.Variant(lambda: call().logits + 1)

    monkeypatch.setitem(variants.ALL, "Never(), stream", wrong)
    row = row_of(model)
    assert "logits differ by 1.0" in row["variants"]["Never(), stream"]["error"]
    assert row["fastest_full_depth"] == "eager"


def test_exits_that_are_not_where_they_should_be_are_errors(model, monkeypatch):
    monkeypatch.setattr(variants.ForcedDepth, "set", lambda self, depth: None)
    row = row_of(model)
    assert "forced to exit after 3" in row["variants"]["sync"]["error"]
    assert row["speedups"] == {}


def test_what_takes_long_to_compile_is_left_out_when_time_is_short(model, monkeypatch):
    name = "torch.compile"
    monkeypatch.setitem(variants.ALL, name, variants.ALL["eager"])
    expected = {name: 30.0}
    row = row_of(model, (*NAMES, name), seconds=30, expected_s=expected)
    assert row["variants"][name] == {"skipped": "no time left to compile it"}
    row = row_of(model, (*NAMES, name), seconds=60, expected_s=expected)
    assert row["variants"][name]["wall"]["us"] == 6
    assert expected[name] < 30  # as it was now


def test_energy_where_it_is_asked_for_and_read(model, monkeypatch):
    class Meter:
        def clocks(self):
            return {"sm_mhz": 1}

        def energy_mj(self):
            return None

    row = measure(
        Counting(model), model, Row("tiny", 1, 8, energy=True), names=NAMES, seconds=0,
        rounds=(1, 1), nvml=Meter(),
    )  # fmt: skip
    assert row["energy"] == {"sync": None, row["fastest_full_depth"]: None}
    assert row["clocks"] == {"sm_mhz": 1}
    monkeypatch.setattr(models, "joules_per_call", lambda read, run, seconds: {"calls": run()})
    row = measure(
        Counting(model), model, Row("tiny", 1, 8, energy=True), names=NAMES, seconds=0,
        rounds=(1, 1), nvml=Meter(),
    )  # fmt: skip
    assert row["energy"]["sync"] == {"calls": models.CALLS}


def test_layers_are_timed_by_a_difference():
    def of(us):
        return {"wall": {"us": us}}

    row = {
        "layers": 12,
        "layer_speedup": 2.0,
        "variants": {
            "Never(), graph": of(650.0), "one layer, graph": of(100.0), "eager": of(3000.0),
            "torch.compile": of(1.0) | {"error": "wrong"}, "graph nested": of(325.0),
            "graph flat": {"error": "no"},
        },
    }  # fmt: skip
    assert conclusions(row) == {
        "fastest_full_depth": "Never(), graph",
        "speedups": {"graph nested": {"over_fastest": 2.0, "of_layers": 1.0}},
        "layer_us": 50.0,
    }


def test_every_shape_and_variant_asked_for_is_there():
    wanted = {(m, b, t) for m in ("BERT-base", "MiniLM") for b in (1, 8, 32) for t in (32, 128)}
    assert {(r.model, r.batch, r.length) for r in models.ROWS} == wanted
    assert len(models.ROWS) == 12
    assert variants.ALL.keys() == variants.EARLY.keys() | variants.FULL.keys() | {
        variants.ONE_LAYER
    }
    order = [variants.compiles(name) for name in variants.ALL]
    assert order == sorted(order)  # what compiles comes last


def test_compiled_layers_are_a_copys(model):
    setup = variants.Setup(model, {})
    copied = setup.compiled_layers
    assert all(layer._compiled_call_impl is not None for layer in copied.backbone.encoder.layer)
    assert all(layer._compiled_call_impl is None for layer in model.backbone.encoder.layer)
    assert setup.compiled_layers is copied
