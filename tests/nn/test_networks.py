"""Whole networks: what is reported, what BatchNorm and ranges become, and what compress returns."""

import copy
import io

import pytest
import torch
from torch import nn

from tensorfast.nn import (
    compress,
    conv_report,
    decompose_conv,
    decompose_linear,
    fold_batchnorm,
    match_outputs,
    recalibrate_batchnorm,
)


class Net(nn.Module):
    """A few layers of every kind, with groups, a stride, BatchNorm and dropout."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.grouped = nn.Conv2d(16, 32, 3, stride=2, groups=2, bias=False)
        self.point = nn.Conv2d(32, 32, 1)
        self.drop = nn.Dropout(0.5)
        self.last = nn.Linear(32, 10)

    def forward(self, x):
        x = self.grouped(self.norm(self.first(x)).relu()).relu()
        return self.last(self.drop(self.point(x).mean((2, 3))))


@pytest.fixture
def net():
    torch.manual_seed(0)
    made = Net()
    return recalibrate_batchnorm(made, torch.randn(32, 3, 12, 12))


@pytest.fixture
def x():
    return torch.randn(8, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def by_hand(net):
    """Return a copy with every layer decomposed."""
    new = copy.deepcopy(net)
    new.first = decompose_conv(net.first, (8, 2))
    new.grouped = decompose_conv(net.grouped, 6, method="cp", seed=0)
    new.point = decompose_conv(net.point, 12)
    new.last = decompose_linear(net.last, 4)
    return new


def test_the_report_tells_what_can_be_computed_by_hand(net, x):
    new = by_hand(net)
    net.train()
    report = conv_report(net, new, [x, 2 * x])
    assert net.training
    assert net.drop.training
    layers = {layer.name: layer for layer in report.layers}
    assert list(layers) == ["first", "grouped", "point", "last"]
    first = layers["first"]
    assert first.parameters == (16 * 27 + 16, 2 * 3 + 8 * 2 * 9 + 16 * 8 + 16)
    assert first.macs == (144 * 16 * 27, 144 * (2 * 3 + 8 * 2 * 9 + 16 * 8))
    both = torch.cat([x, 2 * x])
    with torch.no_grad():
        y, z = net.first(both), new.first(both)
    assert first.feature_error == pytest.approx(float((y - z).norm() / y.norm()), rel=1e-5)
    for found, values in zip(first.ranges, (y, z), strict=True):
        expected = (values.min(), values.max(), values.mean(), values.std(correction=0))
        told = (found.min, found.max, found.mean, found.std)
        assert told == pytest.approx([float(v) for v in expected], rel=1e-4, abs=1e-6)
    # The kernel that the stages make up is read off their answers to impulses.
    for name in ("first", "grouped", "point"):
        conv, small = getattr(net, name), getattr(new, name)
        with torch.no_grad():
            weight = impulse_responses(small, conv) - impulse_responses(conv, conv)
            error = weight.norm() / impulse_responses(conv, conv).norm()
        assert layers[name].weight_error == pytest.approx(float(error), rel=1e-4)
    net.eval(), new.eval()
    with torch.no_grad():
        assert report.output_error == pytest.approx(
            float((net(both) - new(both)).norm() / net(both).norm()), rel=1e-4
        )
    table = str(report).splitlines()
    assert len(table) == 6
    assert "448" in table[1]
    assert report.plot().axes[0].get_ylabel() == "relative error"


def impulse_responses(module, conv):
    """Return what a module answers to a one in the middle of each input channel, without bias."""
    x = torch.zeros(conv.in_channels + 1, conv.in_channels, 9, 9)
    for channel in range(conv.in_channels):
        x[channel + 1, channel, 4, 4] = 1
    # Every position is seen with a stride of 1 only.
    stride = [m for m in module.modules() if isinstance(m, nn.Conv2d)]
    strides = [m.stride for m in stride]
    for m in stride:
        m.stride = (1, 1)
    out = module(x)
    for m, was in zip(stride, strides, strict=True):
        m.stride = was
    return out[1:] - out[:1]


def test_a_report_needs_the_same_names(net, x):
    with pytest.raises(ValueError, match="compressed lacks a layer"):
        conv_report(net, nn.Sequential(nn.Conv2d(3, 16, 3)), x)
    with pytest.raises(ValueError, match="no input"):
        conv_report(net, net, [])


def test_recalibration_takes_means_over_batches_and_touches_nothing_else(net):
    x = torch.randn(20, 3, 12, 12)
    weights = [p.clone() for p in net.parameters()]
    net.train()
    recalibrate_batchnorm(net, [x[:10], x[10:]])
    with torch.no_grad():
        parts = [net.first(half) for half in (x[:10], x[10:])]
    mean = torch.stack([p.mean((0, 2, 3)) for p in parts]).mean(0)
    var = torch.stack([p.var((0, 2, 3)) for p in parts]).mean(0)
    torch.testing.assert_close(net.norm.running_mean, mean)
    torch.testing.assert_close(net.norm.running_var, var)
    assert net.norm.momentum == 0.1
    assert net.training
    assert net.drop.training
    assert all(map(torch.equal, weights, net.parameters()))
    with pytest.raises(ValueError, match="no BatchNorm"):
        recalibrate_batchnorm(nn.Linear(2, 2), torch.ones(2, 2))
    with pytest.raises(ValueError, match="no input"):
        recalibrate_batchnorm(net, [])


def test_folded_norms_change_nothing_and_are_gone(net, x):
    net.norm.weight.data.uniform_(0.5, 2)
    folded = fold_batchnorm(net)
    net.eval()
    torch.testing.assert_close(folded(x), net(x), rtol=1e-5, atol=1e-6)
    assert type(folded.norm) is nn.Identity
    assert type(net.norm) is nn.BatchNorm2d


def test_norms_that_others_see_stay():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x):
            y = self.conv(x)
            return y + self.norm(y)

    assert type(fold_batchnorm(Twice()).norm) is nn.BatchNorm2d

    class Branches(Twice):
        def forward(self, x):
            return self.conv(x) if x.sum() > 0 else x

    with pytest.raises(ValueError, match="cannot trace Branches"):
        fold_batchnorm(Branches())


def test_matched_outputs_have_the_original_range(net, x):
    new = by_hand(net)
    match_outputs(new, net, [x[:4], x[4:]])
    report = conv_report(net, new, x)
    for layer in report.layers:
        before, after = layer.ranges
        assert after.std == pytest.approx(before.std, rel=0.02)
        if layer.name != "grouped":
            assert after.mean == pytest.approx(before.mean, abs=1e-3 * before.std)


@pytest.mark.parametrize("method", ["tucker2", "cp"])
@pytest.mark.parametrize("aware", [True, False])
def test_within_a_budget(net, x, method, aware):
    found = compress(net, x, budget=0.4, method=method, goal="smaller", aware=aware)
    model, report = found
    for layer in report.layers:
        kept = isinstance(model.get_submodule(layer.name), nn.Sequential)
        bias = net.get_submodule(layer.name).bias
        own = 0 if bias is None else bias.numel()
        assert kept == (layer.parameters[1] < layer.parameters[0])
        if kept:
            assert layer.parameters[1] - own <= 0.4 * (layer.parameters[0] - own) + 64
    assert report.parameters[1] < 0.6 * report.parameters[0]
    assert {choice.name: choice.kept for choice in found.choices}["point"]
    assert "parameters" in str(found)


def test_within_a_tolerance_on_other_inputs():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(8, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3))
    for layer, rank in ((net[0], (6, 4)), (net[2], (8, 8))):
        small = decompose_conv(layer, rank)
        weight = torch.einsum(
            "oa,abhw,bi->oihw",
            *(
                small[n].weight.data.squeeze() if n != 1 else small[n].weight.data
                for n in (2, 1, 0)
            ),
        )
        layer.weight.data = weight + 0.002 * torch.randn_like(weight)
    x = torch.randn(96, 8, 12, 12)
    found = compress(net, x[:64], tolerance=0.05, goal="smaller")
    assert [choice.kept for choice in found.choices] == [True, True]
    with torch.no_grad():
        for n in (0, 2):
            given = net[:n](x[64:])
            y, z = net[n](given), found.model[n](given)
            assert (y - z).norm() <= 0.05 * y.norm()
    strict = compress(net, x[:64], tolerance=1e-6, goal="smaller")
    assert [choice.kept for choice in strict.choices] == [False, False]
    assert "still" in strict.choices[0].reason


def test_the_original_is_untouched_and_the_copy_is_a_module_like_any(net, x):
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net.train()
    model = compress(net, x, budget=0.4, goal="smaller").model
    assert net.training
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    model.eval()
    expected = model(x)
    again = copy.deepcopy(model)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    for parameter in again.parameters():
        parameter.data.zero_()
    again.load_state_dict(torch.load(file))
    assert torch.equal(again(x), expected)
    exported = torch.export.export(model, (x,)).module()
    torch.testing.assert_close(exported(x), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert (model(x).float() - expected).norm() < 0.05 * expected.norm()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), expected)
    model.train()(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_what_stays_as_it_is(x):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.depthwise = nn.Conv2d(3, 3, 3, groups=3)
            self.normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3))
            self.one, self.two = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)
            self.two.weight = self.one.weight
            self.unused, self.left = nn.Linear(3, 3), nn.Conv2d(4, 4, 1)

        def forward(self, x):
            return self.left(self.two(self.one(self.normed(self.depthwise(x)))))

    found = compress(Odd(), x, budget=0.5, goal="smaller", skip="le*")
    reasons = {choice.name: choice.reason for choice in found.choices}
    assert not any(choice.kept for choice in found.choices)
    assert reasons == {
        "depthwise": "each output channel has an input channel of its own",
        "normed": "its weight is computed from others",
        "one": "another layer has the same weight",
        "two": "another layer has the same weight",
        "unused": "did not run with these inputs",
        "left": "to be skipped",
    }


def test_slower_layers_are_given_back(net, x, monkeypatch):
    """With a clock for which all decompositions are faster, and then the network is not."""
    laps = iter([[1.0, 0.5]] * 4 + [[1.0, 1.5], [1.0, 1.2], [1.0, 0.9]])

    def clock(calls, device, *rest, **more):
        return next(laps, [1.0] * len(calls))

    monkeypatch.setattr("tensorfast.nn.compression.medians", clock)
    found = compress(net, x, budget=0.4)
    reasons = [choice.reason for choice in found.choices]
    assert sum("given back" in reason for reason in reasons) == 2
    assert sum(choice.kept for choice in found.choices) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one"),
        ({"budget": 0.5, "tolerance": 0.1}, "exactly one"),
        ({"budget": 0}, "budget is 0"),
        ({"tolerance": 1.5}, "tolerance is 1.5"),
        ({"budget": 0.5, "method": "svd"}, "method is 'svd'"),
        ({"budget": 0.5, "goal": "best"}, "goal is 'best'"),
    ],
)
def test_what_compress_refuses(net, x, options, message):
    with pytest.raises(ValueError, match=message):
        compress(net, x, **options)
