"""Starting from a pretrained encoder: what fits is taken and reported, what does not fit is refused in words."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from swinssl.core.errors import UserError
from swinssl.networks.architectures import build_network
from swinssl.networks.checkpoints.encoder_file import EncoderRecord, write_encoder
from swinssl.networks.checkpoints.encoder_transfer import load_encoder
from swinssl.networks.checkpoints.weight_adaptation import with_window
from swinssl.networks.checkpoints.weights_file import read_weights, write_weights
from swinssl.networks.network_plan import NetworkPlan, SwinEncoderPlan

ENCODER = SwinEncoderPlan(embed_dim=16, depths=(2, 2, 2, 2), heads=(1, 2, 4, 8))
FIRST = "patch_embed.proj.weight"


def make(*, in_channels=1, seed=0, architecture="swin", **options):
    torch.manual_seed(seed)
    plan = NetworkPlan(architecture=architecture, preset="tiny", encoder=ENCODER.model_copy(update=options))
    return build_network(plan, in_channels=in_channels, num_outputs=3)


@pytest.fixture(scope="module")
def source():
    return make(seed=7)


@pytest.fixture
def file(source, tmp_path):
    path = tmp_path / "encoder.safetensors"
    write_weights(path, source.encoder.state_dict(), metadata={"preset": "tiny"})
    return path


def same(a, b, *, but=()):
    ours, theirs = a.state_dict(), b.state_dict()
    return all(torch.equal(ours[name], theirs[name]) for name in theirs if name not in but)


def test_an_encoder_is_taken_whole_and_the_decoder_left_alone(source, file):
    network, before = make(seed=1), make(seed=1)
    report = load_encoder(network, file)
    assert same(network.encoder, source.encoder)
    assert same(network.bridge, before.bridge) and same(network.head, before.head)
    assert set(report.matched) == set(source.encoder.state_dict())
    assert (report.adapted, report.missing, report.unexpected) == ((), (), ())
    assert str(report) == f"{len(report.matched)} tensors matched, 0 adapted, 0 missing, 0 unexpected"


def test_a_whole_segmentor_s_file_serves_too(source, tmp_path):
    path = tmp_path / "segmentor.safetensors"
    write_weights(path, source.state_dict(), metadata={})
    network = make(seed=1)
    report = load_encoder(network, path)
    assert same(network.encoder, source.encoder)
    assert (report.missing, report.unexpected) == ((), ())


@pytest.mark.parametrize(("there", "here"), [(1, 3), (3, 1), (2, 4)])
def test_channels_are_adapted_so_that_equal_channels_answer_alike(tmp_path, there, here):
    source, network = make(in_channels=there, seed=7), make(in_channels=here, seed=1)
    path = tmp_path / "encoder.safetensors"
    write_weights(path, source.encoder.state_dict(), metadata={})
    report = load_encoder(network, path)
    assert report.adapted == (FIRST,) and FIRST not in report.matched
    assert "1 adapted" in str(report) and f"adapted: {FIRST}" in str(report)
    image = torch.randn(1, 1, 32, 32, 32)
    with torch.no_grad():
        theirs, ours = (n.encoder(image.expand(-1, c, -1, -1, -1)) for n, c in ((source, there), (network, here)))
    for a, b in zip(theirs, ours, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-3, atol=1e-4)


def test_what_the_file_lacks_keeps_its_start_and_is_named(source, tmp_path):
    tensors = {n: t for n, t in source.encoder.state_dict().items() if not n.startswith("norms.")}
    tensors["mask_token"] = torch.zeros(1, 1, 16)
    path = tmp_path / "encoder.safetensors"
    write_weights(path, tensors, metadata={})
    network, before = make(seed=1), make(seed=1)
    report = load_encoder(network, path)
    assert same(network.encoder.norms, before.encoder.norms)
    assert report.missing == tuple(f"norms.{i}.{part}" for i in range(4) for part in ("weight", "bias"))
    assert report.unexpected == ("mask_token",)
    assert "missing: norms.0.weight" in str(report) and str(report).count("norms.") == 8


def refused(network, path, match):
    before = {name: t.clone() for name, t in network.state_dict().items()}
    with pytest.raises(UserError, match=match):
        load_encoder(network, path)
    assert all(torch.equal(t, before[name]) for name, t in network.state_dict().items())


def test_an_encoder_of_another_width_is_refused(file):
    # Its bias tables fit nevertheless, since both have as many heads: they alone are no pretrained encoder.
    refused(make(embed_dim=32), file, "its transformer blocks are not this encoder's")


def test_an_encoder_of_another_depth_is_refused(file):
    refused(make(depths=(2, 2, 4, 2)), file, r"24 tensors .*stages\.2\.blocks\.2\.attn\.proj\.bias.*--preset")
    refused(make(depths=(2, 2, 1, 2)), file, "its transformer blocks are not this encoder's")


def test_an_encoder_with_other_projections_is_refused(file):
    refused(make(qkv_bias=True), file, r"qkv\.bias")


def test_a_file_without_blocks_is_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    write_weights(path, {"layers1.0.blocks.0.attn.qkv.weight": torch.zeros(3, 3)}, metadata={})
    refused(make(), path, "no transformer block fits this encoder.*swinssl_weights import")


def test_a_network_without_swin_encoder_is_refused(file):
    refused(make(architecture="plainconv"), file, "has no Swin encoder. Train it from scratch")


def test_a_missing_file_is_refused(tmp_path):
    refused(make(), tmp_path / "none.safetensors", "none.safetensors: no such file")


def test_a_folder_in_place_of_a_file_is_refused(tmp_path):
    refused(make(), tmp_path, "a folder")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file_is_refused(file, share):
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    refused(make(), file, "encoder.safetensors: not a readable safetensors file .*Copy or write it again")


class Trap:
    """Unpickling it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("write", [lambda x, path: path.write_bytes(pickle.dumps(x)), torch.save], ids=["pickle", "pt"])
def test_a_pickle_is_refused_and_not_run(tmp_path, write):
    sprung, path = tmp_path / "sprung", tmp_path / "encoder.safetensors"
    write(Trap(sprung), path)
    refused(make(), path, "not a readable safetensors file")
    assert not sprung.exists()


def test_weights_survive_the_disk_with_what_is_said_of_them(tmp_path):
    path = tmp_path / "weights.safetensors"
    transposed = torch.arange(6.0).view(2, 3).T
    write_weights(path, {"a": transposed, "half": torch.ones(2, dtype=torch.bfloat16)}, metadata={"epoch": "3"})
    tensors, said = read_weights(path)
    assert torch.equal(tensors["a"], transposed) and tensors["half"].dtype == torch.bfloat16
    assert said == {"epoch": "3"}


def test_weights_can_be_read_by_whoever_can_read_any_file(tmp_path):
    write_weights(tmp_path / "weights.safetensors", {"a": torch.zeros(1)}, metadata={})
    (tmp_path / "other").touch()
    assert (tmp_path / "weights.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


class TestDescribedEncoders:
    """A file that says how its encoder computes goes only into a network that computes so."""

    @pytest.fixture
    def described(self, source, tmp_path):
        def write(tensors=None, **options):
            path, plan = tmp_path / "encoder.safetensors", ENCODER.model_copy(update=options)
            write_encoder(path, tensors or source.encoder.state_dict(), EncoderRecord(encoder=plan))
            return path

        return write

    @pytest.mark.parametrize(
        "options",
        [
            {"merge_order": "monai"},
            {"axis_order": "xyz"},
            {"shrink_window": True},
            {"legacy_bias_index": True},
            {"mask_padding": True},
            {"skip_taps": "merge"},
        ],
        ids=str,
    )
    def test_weights_that_would_mean_something_else_are_refused(self, described, options):
        ((name, there),) = options.items()
        refused(make(), described(**options), rf"was trained with {name} {there} \(plan: .*swinssl_plan DATASET --init")

    def test_stochastic_depth_may_differ(self, source, described):
        network = make(seed=1)
        load_encoder(network, described(drop_path=0.3))
        assert same(network.encoder, source.encoder)

    def test_another_window_is_interpolated(self, described):
        network = make(window=6)
        report = load_encoder(network, described())
        tables = [name for name in network.encoder.state_dict() if name.endswith("bias_table")]
        assert report.adapted == tuple(tables) and report.missing == ()
        expected = with_window(make(seed=7).encoder.state_dict()[tables[0]], 6)
        assert torch.equal(network.encoder.state_dict()[tables[0]], expected)

    def test_another_window_is_refused_where_the_tables_are_no_geometry(self, described):
        network = make(window=6, legacy_bias_index=True)
        refused(network, described(legacy_bias_index=True), "keep window 4")
