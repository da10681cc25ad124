from __future__ import annotations

import copy

import pytest
import torch
from monai.networks.blocks.squeeze_and_excitation import ChannelSELayer
from monai.networks.layers.factories import Conv, Norm, Pool
from monai.networks.nets.resnet import ResNet
from torch import nn

from medssl.nets import sparse_layers, sparse_norms
from medssl.nets.encoders import ResidualEncoder
from medssl.nets.resenc import ResEncEncoder
from medssl.nets.resnet import ResNetEncoder
from medssl.nets.sparse import sparsify
from medssl.nets.unet import GenesisEncoder
from medssl.transforms.masking import draw_visible

SIDE, CELL = 32, 16


class Pyramid(nn.Module):
    """A ResNet with bottlenecks that gives strides 4 to 16."""

    def __init__(self, spatial_dims: int) -> None:
        super().__init__()
        net = ResNet(
            "bottleneck", [2, 1, 1, 1], [4, 6, 8, 8], spatial_dims, 1, 7, 2, feed_forward=False,
            bias_downsample=False,
        )  # fmt: skip
        self.stem = nn.Sequential(net.conv1, net.bn1, net.act, net.maxpool)
        self.layers = nn.ModuleList([net.layer1, net.layer2, net.layer3])

    def forward(self, x):
        x = self.stem(x)
        levels = []
        for layer in self.layers:
            x = layer(x)
            levels.append(x)
        return levels


class Mixed(nn.Module):
    """The rest: biases, leaky units, instance and group norm, pooling in the skip, excitation."""

    def __init__(self, n: int) -> None:
        super().__init__()
        conv = Conv[Conv.CONV, n]
        self.stem = nn.Sequential(
            conv(1, 8, 3, padding=1), Norm[Norm.INSTANCE, n](8, affine=True), nn.LeakyReLU(0.01)
        )
        self.group = nn.Sequential(conv(8, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.GELU())
        self.excite = ChannelSELayer(n, 8)
        self.down = nn.Sequential(conv(8, 8, 3, stride=2, padding=1), nn.SiLU())
        self.skip = Pool[Pool.AVG, n](2)
        self.tracked = Norm[Norm.INSTANCE, n](8, track_running_stats=True)
        self.gate = nn.Sigmoid()
        self.offset = nn.Parameter(torch.full((8, *(1,) * n), 0.3))

    def forward(self, x):
        fine = self.excite(self.group(self.stem(x)))
        coarse = self.down(fine) + self.skip(fine)
        coarse = self.tracked(coarse) + self.offset
        return [fine, coarse * self.gate(coarse)]


class Next(nn.Module):
    """A ConvNeXt block behind a patch stem: the norm and the MLP work with channels last."""

    def __init__(self, n: int) -> None:
        super().__init__()
        conv = Conv[Conv.CONV, n]
        self.n = n
        self.stem = conv(1, 6, 4, stride=4)
        self.depthwise = conv(6, 6, 7, padding=3, groups=6)
        self.norm = nn.LayerNorm(6)
        self.wide, self.narrow, self.act = nn.Linear(6, 24), nn.Linear(24, 6), nn.GELU()
        self.gamma = nn.Parameter(torch.full((6,), 0.5))

    def forward(self, x):
        x = self.stem(x)
        y = self.depthwise(x).permute(0, *range(2, self.n + 2), 1)
        y = self.gamma * self.narrow(self.act(self.wide(self.norm(y))))
        return [x + y.permute(0, self.n + 1, *range(1, self.n + 1))]


class Functional(nn.Module):
    """A layer norm over channels by function, as 2D norms of ConvNeXt have it, and a map that is joined."""

    def __init__(self, n: int) -> None:
        super().__init__()
        conv = Conv[Conv.CONV, n]
        self.n = n
        self.stem, self.last = conv(1, 6, 2, stride=2), conv(7, 6, 3, padding=1)
        self.weight, self.bias = nn.Parameter(torch.ones(6)), nn.Parameter(torch.zeros(6))
        self.places = nn.Parameter(torch.linspace(0, 1, SIDE // 2).expand(2, 1, *(SIDE // 2,) * n).clone())

    def forward(self, x):
        y = self.stem(x).permute(0, *range(2, self.n + 2), 1)
        y = nn.functional.layer_norm(y, (6,), self.weight, self.bias, 1e-6)
        joined = torch.cat([y.permute(0, self.n + 1, *range(1, self.n + 1)), self.places], dim=1)
        return [joined, self.last(joined)]


class Pooled(nn.Module):
    """Global means of a map, by layer and by method."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n
        self.body = nn.Sequential(Conv[Conv.CONV, n](1, 4, 3, padding=1), nn.ReLU())
        self.average, self.maximum = Pool[Pool.ADAPTIVEAVG, n](1), Pool[Pool.ADAPTIVEMAX, n](1)

    def forward(self, x):
        x = self.body(x)
        dims = tuple(range(2, self.n + 2))
        return [self.average(x), self.maximum(x), x.mean(dims), x.mean(dim=dims, keepdim=True)]


def residual(n: int) -> ResidualEncoder:
    return ResidualEncoder(n, 1, (4, 6, 6, 8), (1, 1, 1, 1))


def colour(n: int) -> ResNetEncoder:
    return ResNetEncoder(n, 1, (1, 1), 2, mean=(0.5, 0.4), std=(0.2, 0.3))


def genesis(n: int) -> GenesisEncoder:
    return GenesisEncoder(n, width=2)


def resenc(n: int) -> ResEncEncoder:
    return ResEncEncoder(n, 1, (4, 4, 6), (1, 2, 1))


NETS = {
    "residual": residual,
    "bottleneck": Pyramid,
    "mixed": Mixed,
    "convnext": Next,
    "functional": Functional,
    "pooled": Pooled,
    "colour": colour,
    "genesis": genesis,
    "resenc": resenc,
}


@pytest.fixture(params=[2, 3])
def spatial_dims(request):
    return request.param


@pytest.fixture(params=NETS)
def net(request, spatial_dims):
    torch.manual_seed(1)
    net = NETS[request.param](spatial_dims)
    with torch.no_grad():
        for parameter in net.parameters():  # norms begin as the identity: move them
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return net


def masked_image(spatial_dims, batch=2, ratio=0.6, side=SIDE):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(batch, 1, *(side,) * spatial_dims, generator=generator)
    return x, draw_visible(batch, (side // CELL,) * spatial_dims, ratio, generator)


def repeated(visible, shape):
    return torch.nn.functional.interpolate(visible.float(), size=shape).bool()


@pytest.mark.parametrize("training", [True, False])
def test_hidden_voxels_change_no_bit(net, spatial_dims, training):
    x, visible = masked_image(spatial_dims)
    seen = repeated(visible, x.shape[2:])
    outputs, buffers = [], []
    for fill in (0.0, -3e4, float("nan")):
        sparse = sparsify(copy.deepcopy(net)).train(training)
        outputs.append(sparse(torch.where(seen, x, fill), visible))
        buffers.append(dict(sparse.named_buffers()))
    for other, state in zip(outputs[1:], buffers[1:], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(outputs[0], other, strict=True))
        assert all(torch.equal(buffers[0][name], state[name]) for name in state)


def test_hidden_cells_are_zero(net, spatial_dims):
    x, visible = masked_image(spatial_dims)
    layers = (sparse_layers.hide, sparse_layers.hide_, sparse_norms.batch_norm, sparse_norms.group_norm)
    count = 0

    class Watch(torch.fx.Interpreter):
        def run_node(self, n):
            nonlocal count
            value = super().run_node(n)
            if n.target in layers:
                count += 1
                assert (value * ~repeated(visible, value.shape[2:]) == 0).all(), n.name
            return value

    for level in Watch(sparsify(net)).run(x, visible):
        if level.shape[2:].numel() > 1 and level.ndim == x.ndim:
            assert (level * ~repeated(visible, level.shape[2:]) == 0).all()
            assert (level * repeated(visible, level.shape[2:]) != 0).any()
    assert count >= 1


def test_without_a_mask_it_is_the_dense_network(net, spatial_dims):
    x, visible = masked_image(spatial_dims)
    x, everything = x.double(), torch.ones_like(visible)
    twin = copy.deepcopy(net.double())
    sparse = sparsify(twin)
    outputs = net(x), sparse(x, everything)
    for out in outputs:
        sum((level * torch.linspace(0, 1, level.numel()).view_as(level)).sum() for level in out).backward()
    theirs, ours = (
        {**dict(m.named_buffers()), **{k: p.grad for k, p in m.named_parameters()}} for m in (net, twin)
    )
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(outputs[1], outputs[0])
    torch.testing.assert_close(sparse.eval()(x, everything), net.eval()(x))


def test_it_is_the_encoder_under_the_same_names(net, spatial_dims):
    sparse = sparsify(net)
    assert sparse.state_dict().keys() == net.state_dict().keys()
    ours, theirs = dict(sparse.named_parameters()), dict(net.named_parameters())
    assert all(ours[name] is theirs[name] for name in theirs)


@pytest.mark.parametrize(("name", "spatial_dims"), [("residual", 3), ("mixed", 2)])
def test_static_graph_for_any_mask(name, spatial_dims):
    # one recording serves all masks, so nothing in it depends on where or how many cells are seen
    net = NETS[name](spatial_dims)
    x, visible = masked_image(spatial_dims)
    sparse = sparsify(net)
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(sparse, backend=count, fullgraph=True)
    for mask in (visible, ~visible, torch.ones_like(visible)):
        for a, b in zip(sparse(x, mask), compiled(x, mask), strict=True):
            torch.testing.assert_close(a, b)
    assert len(graphs) == 1


def test_masks_of_two_passes_do_not_meet(spatial_dims):
    # backward recomputes the first pass after the second has run with another mask
    x, visible = masked_image(spatial_dims)
    grads = []
    for again in (False, True):
        torch.manual_seed(0)
        encoder = residual(spatial_dims).eval()
        sparse = sparsify(encoder)
        if again:
            first = torch.utils.checkpoint.checkpoint(sparse, x, visible, use_reentrant=False)
        else:
            first = sparse(x, visible)
        sparse(x, ~visible)
        first[-1].square().sum().backward()
        grads.append([parameter.grad for parameter in encoder.parameters()])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


def test_whole_cells_shift_with_their_mask():
    torch.manual_seed(0)
    sparse = sparsify(residual(2).eval())
    x, visible = masked_image(2, side=96)
    visible[:, :, 0], visible[:, :, -1] = False, False  # the border sees padding, not neighbours
    visible[:, :, :, 0], visible[:, :, :, -1] = False, False
    moved = sparse(x.roll(CELL, 2), visible.roll(1, 2))
    for level, other in zip(sparse(x, visible), moved, strict=True):
        step = CELL * level.shape[2] // 96
        inner = slice(step, -2 * step)
        torch.testing.assert_close(level[:, :, inner], other[:, :, 2 * step : -step], rtol=1e-4, atol=1e-5)


def test_unmasked_input_leaks_one_voxel_deep():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU())
    x, visible = masked_image(2)
    seen = repeated(visible, x.shape[2:])
    leaky = sparsify(net, mask_input=False)
    changed = (leaky(x, visible) != leaky(torch.where(seen, x, 5.0), visible)).any(dim=1, keepdim=True)
    near_hidden = torch.nn.functional.max_pool2d((~seen).float(), 3, stride=1, padding=1).bool() & seen
    assert changed.any()
    assert not (changed & ~near_hidden).any()


def test_a_maximum_counts_the_zeros_of_hidden_neighbours():
    x, visible = torch.full((1, 1, 4, 4), -1.0), torch.tensor([[[[True, False], [True, True]]]])
    pooled = sparsify(nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1)))(x, visible)
    assert pooled[0, 0, 0].tolist() == [-1, 0, 0, 0]
    assert pooled[0, 0, 3].tolist() == [-1, -1, -1, -1]


def test_maps_coarser_than_the_mask_are_seen_everywhere():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 4, stride=4), nn.BatchNorm2d(4))
    x = torch.rand(2, 1, 16, 16)
    visible = torch.rand(2, 1, 8, 8) < 0.5
    expected = copy.deepcopy(net)(x * repeated(visible, (16, 16)))
    torch.testing.assert_close(sparsify(net)(x, visible), expected)


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (nn.LocalResponseNorm(2), "LocalResponseNorm"),
        (nn.AdaptiveAvgPool2d(2), "more than one cell"),
        (nn.Flatten(), "Flatten"),
        (nn.AlphaDropout(0.5), "AlphaDropout"),  # its zeros are not 0
        (nn.FeatureAlphaDropout(0.5), "AlphaDropout"),
    ],
)
def test_no_layer_is_left_dense_in_silence(layer, words):
    with pytest.raises(ValueError, match=words):
        sparsify(nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), layer))


def test_a_quotient_of_maps_is_refused():
    class Quotient(nn.Sequential):
        def forward(self, x):
            x = self[0](x)
            return x / x.relu()

    with pytest.raises(ValueError, match="divides by a map"):
        sparsify(Quotient(nn.Conv2d(1, 4, 3, padding=1)))


@pytest.mark.parametrize("axes", [(2, 3), (-2, -1), (3, 4)])
def test_a_mean_over_some_axes_is_not_taken_for_a_global_one(axes):
    class Rows(nn.Sequential):
        def forward(self, x):
            return self[0](x).mean(axes)

    x, visible = torch.rand(2, 1, 8, 8, 8), torch.ones(2, 1, 4, 4, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match="has no sparse form"):
        sparsify(Rows(nn.Conv3d(1, 4, 3, padding=1)))(x, visible)


def test_a_mask_that_does_not_fit_is_refused(spatial_dims):
    x, _ = masked_image(spatial_dims)
    with pytest.raises(ValueError, match="multiple"):
        sparsify(residual(spatial_dims))(x, torch.ones(2, 1, *(5,) * spatial_dims, dtype=torch.bool))
