"""Published layouts as our encoder: whole, its form read from the tensors, its meaning from the source; or refused."""

from __future__ import annotations

import pytest
import torch
from support import foreign_files

from swinssl.core.errors import UserError
from swinssl.networks.checkpoints import published_encoders
from swinssl.networks.checkpoints.encoder_import import import_encoder, source_of
from swinssl.networks.checkpoints.foreign_checkpoint import open_checkpoint
from swinssl.networks.network_plan import SwinEncoderPlan
from swinssl.networks.swin.encoder import SwinEncoder
from swinssl.networks.swin.windows import bias_index

FORM = {"embed_dim": 12, "depths": foreign_files.DEPTHS, "heads": foreign_files.HEADS}
MONAI = SwinEncoderPlan(
    **FORM,
    window=4,
    qkv_bias=True,
    patch_norm=False,
    skip_norm="plain",
    skip_taps="merge",
    merge_order="monai_legacy",
    axis_order="xyz",
    legacy_bias_index=True,
    shrink_window=True,
)
SMIT = SwinEncoderPlan(
    **FORM, window=4, qkv_bias=False, patch_norm=True, skip_norm="affine", merge_order="smit", axis_order="xyz"
)


@pytest.fixture
def opened(tmp_path):
    def save(content):
        torch.save(content, tmp_path / "file.pt")
        return open_checkpoint(tmp_path / "file.pt")

    return save


def assert_whole(encoder, *, left_out=()):
    """Every tensor of the network is there, none is missing or unexpected, and the network takes them."""
    network = SwinEncoder(encoder.plan, in_channels=encoder.in_channels)
    network.load_state_dict(encoder.tensors, strict=True)
    report = encoder.report
    assert set(report.matched) == set(network.state_dict())
    assert (report.adapted, report.missing, report.unexpected) == ((), (), ())
    assert set(report.left_out) == set(left_out)


HEADS_OF_PRETRAINING = ("rotation_head.weight", "rotation_head.bias", "contrastive_head.weight", "conv.weight")
DAE_PARTS = (
    "encoder.mask_token",
    "encoder.norm.weight",
    "encoder.norm.bias",
    "decoder1.0.weight",
    "out.conv.conv.bias",
)


@pytest.mark.parametrize(
    ("content", "left_out"),
    [
        (foreign_files.monai(), ()),
        (foreign_files.model_swinvit(), HEADS_OF_PRETRAINING),
        (foreign_files.disrupted(), DAE_PARTS),
    ],
    ids=["SwinUNETR", "model_swinvit.pt", "ssl_pretrained_weights.pth"],
)
@pytest.mark.parametrize("source", ["monai", "swinunetr"])
def test_files_with_monai_s_names_load_completely(opened, content, left_out, source):
    encoder = import_encoder(opened(content), source, merge_order="monai_legacy")
    assert encoder.plan == MONAI and encoder.in_channels == 1
    assert_whole(encoder, left_out=left_out)


def test_each_tensor_goes_to_its_own_place(opened):
    state = foreign_files.model_swinvit()["state_dict"]
    encoder = import_encoder(opened(state), "swinunetr", merge_order="monai_legacy")
    for ours, theirs in {
        "patch_embed.proj.weight": "patch_embed.proj.weight",
        "stages.0.blocks.1.mlp.fc2.bias": "layers1.0.blocks.1.mlp.fc2.bias",
        "stages.2.blocks.2.attn.qkv.weight": "layers3.0.blocks.2.attn.qkv.weight",
        "stages.3.merging.reduction.weight": "layers4.0.downsample.reduction.weight",
    }.items():
        assert encoder.names[ours] == theirs
        assert torch.equal(encoder.tensors[ours], state[f"module.{theirs}"])


def test_a_file_with_smit_s_names_loads_completely(opened):
    encoder = import_encoder(opened({"teacher": foreign_files.smit()}), "smit")
    assert encoder.plan == SMIT
    assert_whole(encoder, left_out=["mask_token"])


@pytest.mark.parametrize(
    ("options", "plan"),
    [
        ({"bias": True}, {"qkv_bias": True}),
        ({"norms": False}, {"skip_norm": "plain"}),
        ({"window": 6}, {"window": 6}),
        ({"width": 24}, {"embed_dim": 24}),
    ],
)
def test_the_form_is_read_from_the_tensors(opened, options, plan):
    encoder = import_encoder(opened(foreign_files.smit(**options)), "smit")
    assert encoder.plan == SMIT.model_copy(update=plan)
    assert_whole(encoder, left_out=["mask_token"])


def test_monai_s_patch_norm_and_channels_are_read_from_the_tensors(opened):
    content = foreign_files.monai(patch_norm=True, channels=4, window=7)
    encoder = import_encoder(opened(content), "monai", merge_order="monai")
    assert encoder.plan == MONAI.model_copy(update={"patch_norm": True, "window": 7, "merge_order": "monai"})
    assert encoder.in_channels == 4
    assert_whole(encoder)


def test_an_encoder_of_ours_says_itself_what_it_is(opened):
    plan = SMIT.model_copy(update={"axis_order": "zyx", "mask_padding": True})
    state = SwinEncoder(plan, in_channels=1).state_dict()
    for prefix in ("", "encoder."):
        checkpoint = opened({prefix + name: tensor for name, tensor in state.items()})
        encoder = import_encoder(checkpoint, "swinssl", own_plan=plan)
        assert encoder.plan == plan
        assert_whole(encoder)
    with pytest.raises(UserError, match="does not say how its encoder computes"):
        import_encoder(checkpoint, "swinssl")


class TestMergeOrder:
    def test_is_demanded_where_nothing_says_it(self, opened):
        with pytest.raises(
            UserError, match=r"--merge-order: monai_legacy for .*model_swinvit\.pt.* monai for your own"
        ):
            import_encoder(opened(foreign_files.monai()), "monai")

    @pytest.mark.parametrize("order", ["monai", "monai_legacy", "lexicographic"])
    def test_is_kept_as_given(self, opened, order):
        assert import_encoder(opened(foreign_files.monai()), "monai", merge_order=order).plan.merge_order == order

    def test_another_than_the_source_s_is_refused(self, opened):
        with pytest.raises(UserError, match="--merge-order monai, but --source smit has smit"):
            import_encoder(opened(foreign_files.smit()), "smit", merge_order="monai")
        with pytest.raises(UserError, match="--merge-order smit, but --source monai has monai, monai_legacy"):
            import_encoder(opened(foreign_files.monai()), "monai", merge_order="smit")

    def test_is_known_of_a_known_file(self, opened, monkeypatch):
        checkpoint = opened(foreign_files.monai())
        monkeypatch.setitem(published_encoders.KNOWN_MERGE_ORDERS, checkpoint.sha256, "monai_legacy")
        assert import_encoder(checkpoint, "monai").plan.merge_order == "monai_legacy"
        with pytest.raises(UserError, match="--merge-order monai, but --source monai has monai_legacy"):
            import_encoder(checkpoint, "monai", merge_order="monai")


class TestAdapted:
    def test_channels(self, opened):
        encoder = import_encoder(opened(foreign_files.smit()), "smit", in_channels=3)
        assert encoder.in_channels == 3 and encoder.report.adapted == ("patch_embed.proj.weight",)
        SwinEncoder(encoder.plan, in_channels=3).load_state_dict(encoder.tensors)

    def test_the_window(self, opened):
        encoder = import_encoder(opened(foreign_files.smit()), "smit", window=6)
        tables = [name for name in encoder.tensors if name.endswith("bias_table")]
        assert encoder.plan == SMIT.model_copy(update={"window": 6}) and encoder.report.adapted == tuple(tables)
        SwinEncoder(encoder.plan, in_channels=1).load_state_dict(encoder.tensors)

    def test_the_window_of_tables_that_are_no_geometry_is_refused(self, opened):
        with pytest.raises(UserError, match=r"keep window 4.*cannot be interpolated"):
            import_encoder(opened(foreign_files.monai()), "monai", merge_order="monai", window=7)


class TestIndexBuffers:
    NAME = "swinViT.layers2.0.blocks.0.attn.relative_position_index"

    def index(self):
        return bias_index((4, 4, 4), 4, legacy=False, device=torch.device("cpu")).view(64, 64).clone()

    def test_are_checked_and_not_kept(self, opened):
        content = foreign_files.monai() | {self.NAME: self.index()}
        encoder = import_encoder(opened(content), "monai", merge_order="monai")
        assert_whole(encoder, left_out=[self.NAME.removeprefix("swinViT.")])

    def test_another_geometry_is_refused(self, opened):
        index = self.index()
        index[0, 1] += 1
        with pytest.raises(UserError, match=r"attn\.relative_position_index is not the index of windows of 4\^3"):
            import_encoder(opened(foreign_files.monai() | {self.NAME: index}), "monai", merge_order="monai")


def without(state, part):
    return {name: tensor for name, tensor in state.items() if part not in name}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (foreign_files.smit(), r"no tensor has the name .*--source monai.*These are names of --source smit"),
        ({"resnet.conv1.weight": torch.zeros(3)}, "no tensor has the name.*found resnet.*holds no Swin encoder"),
        (without(foreign_files.monai(), "blocks.1.attn.proj.bias"), "is no whole encoder.*lacks 3: stages"),
        (without(foreign_files.monai(), "layers3.0.blocks.1."), r"lacks 13: stages\.2\.blocks\.1.*has 13 too many"),
        (without(foreign_files.monai(), "layers4"), r"bias tables of the four stages.*missing; expected"),
        (without(foreign_files.monai(), "patch_embed.proj.weight"), "kernel is missing"),
        (
            foreign_files.monai() | {"swinViT.patch_embed.proj.weight": torch.zeros(12, 1, 4, 4, 4)},
            r"kernel has shape \(12, 1, 4, 4, 4\); expected .*2, 2, 2",
        ),
        (
            foreign_files.monai() | {"swinViT.patch_embed.proj.weight": torch.zeros(12, 0, 2, 2, 2)},
            r"kernel has shape \(12, 0, 2, 2, 2\)",
        ),
        (
            foreign_files.monai() | {"swinViT.layers1.0.blocks.0.norm1.weight": torch.zeros(7)},
            r"layers1\.0\.blocks\.0\.norm1\.weight has shape \(7,\); expected \(12,\)",
        ),
        (
            foreign_files.monai() | {"swinViT.layers1.0.blocks.0.norm1.weight": torch.full((12,), torch.nan)},
            "has numbers that are NaN or infinite",
        ),
        (
            foreign_files.monai()
            | {"swinViT.layers1.0.blocks.0.attn.relative_position_bias_table": torch.zeros(343, 5)},
            "5, 2, 3, 4.* heads do not divide the widths 12",
        ),
        (
            foreign_files.monai() | {"swinViT.layers1c.0.layer.conv1.conv.weight": torch.zeros(12, 12, 3, 3, 3)},
            "SwinUNETR v2.*Give a v1 checkpoint",
        ),
    ],
)
def test_what_is_no_whole_encoder_is_refused(opened, content, words):
    with pytest.raises(UserError, match=r"file\.pt: .*" + words):
        import_encoder(opened(content), "monai", merge_order="monai")


def test_a_name_that_nobody_knows_is_reported(opened):
    content = foreign_files.monai() | {"swinViT.positions": torch.zeros(3)}
    report = import_encoder(opened(content), "monai", merge_order="monai").report
    assert report.unexpected == ("positions",) and "1 unexpected; unexpected: positions" in str(report)


def test_whose_a_file_is_can_be_told(opened):
    assert source_of(opened(foreign_files.model_swinvit())) == "monai"
    assert source_of(opened(foreign_files.smit())) == "smit"
    assert source_of(opened(SwinEncoder(SMIT, in_channels=1).state_dict())) == "swinssl"
    assert source_of(opened({"a": torch.zeros(1)})) is None
