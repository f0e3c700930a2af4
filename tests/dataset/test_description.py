"""dataset.json: every form that has one meaning is read, every other is named with what was probably meant."""

from __future__ import annotations

import json

import pytest

from swinssl.dataset.description import ListedCase, read_description
from swinssl.dataset.labels import LabelSet, labels_as_json

V2 = {
    "channel_names": {"0": "CT", "1": "PET"},
    "labels": {"background": 0, "liver": 1, "tumour": 2},
    "numTraining": 3,
    "file_ending": ".nii.gz",
}


def read(folder, **changes):
    """The description of V2 with changes (None removes a key), and the codes found."""
    content = {key: value for key, value in {**V2, **changes}.items() if value is not None}
    (folder / "dataset.json").write_text(json.dumps(content))
    description, findings = read_description(folder)
    assert all(finding.file == "dataset.json" and finding.remedy for finding in findings)
    return description, findings


def codes(findings):
    return [finding.code for finding in findings]


def test_v2(tmp_path):
    found, findings = read(tmp_path, licence="CC BY", name="anything")
    assert findings == [] and found.channel_names == ("CT", "PET") and found.file_ending == ".nii.gz"
    assert found.labels == LabelSet(names=("liver", "tumour"), values=((1,), (2,)))
    assert found.num_training == 3 and found.cases is None


def test_no_file_says_nothing(tmp_path):
    found, findings = read_description(tmp_path)
    assert findings == [] and found.channel_names == () and found.labels.names == ()


@pytest.mark.parametrize("text", ["{", "[1]", "", "\x00", '{"labels": ' * 5000])
def test_not_json(tmp_path, text):
    (tmp_path / "dataset.json").write_text(text)
    assert codes(read_description(tmp_path)[1]) == ["E101"]


def test_nested_as_deep_as_no_description_is(tmp_path):
    (tmp_path / "dataset.json").write_text(json.dumps(V2)[:-1] + ', "note": ' + "[" * 400 + "]" * 400 + "}")
    _, findings = read_description(tmp_path)
    assert codes(findings) == ["E101"] and "nested" in findings[0].message


@pytest.mark.parametrize(
    "text", ['{"channel_names": {"0": "T1"}, ', '{"labels": {"background": 0, "liver": 1, "liver": 2}, ']
)
def test_a_key_that_stands_twice(tmp_path, text):
    (tmp_path / "dataset.json").write_text(text + json.dumps(V2)[1:])
    findings = read_description(tmp_path)[1]
    assert "E103" in codes(findings) and "twice" in findings[-1].message


def test_with_the_mark_that_windows_editors_write(tmp_path):
    (tmp_path / "dataset.json").write_text(json.dumps(V2), encoding="utf-8-sig")
    assert read_description(tmp_path)[1] == []


class TestChannels:
    def test_modality_of_v1(self, tmp_path):
        found, findings = read(tmp_path, channel_names=None, modality={"0": "MRI"})
        assert found.channel_names == ("MRI",) and codes(findings) == ["N101"]

    def test_a_list(self, tmp_path):
        found, findings = read(tmp_path, channel_names=["CT", "PET"])
        assert found.channel_names == ("CT", "PET") and codes(findings) == ["N101"]

    def test_order_is_by_number(self, tmp_path):
        names = {str(i): f"c{i}" for i in (10, 2, 0, 1, 3, 4, 5, 6, 7, 8, 9)}
        assert read(tmp_path, channel_names=names)[0].channel_names == tuple(f"c{i}" for i in range(11))

    @pytest.mark.parametrize(
        ("value", "names"),
        [
            ({"CT": "CT"}, ("CT",)),
            ({"T2": "T2w", "ADC": "adc"}, ("T2w", "adc")),
            ({"1": "CT", "2": "PET"}, ("CT", "PET")),
            ({"2": "PET", "1": "CT"}, ("CT", "PET")),
            ({"0": "CT", "2": "PET"}, ("CT", "PET")),
            ({"PET": 1, "CT": 0}, ("CT", "PET")),
            ({"CT": "0"}, ("CT",)),
        ],
    )
    def test_keys_that_are_names_or_do_not_count_from_0(self, tmp_path, value, names):
        found, findings = read(tmp_path, channel_names=value)
        assert found.channel_names == names and codes(findings) == ["N101"]
        assert all(f"{i:04d} is {name}" in findings[0].message for i, name in enumerate(names))

    @pytest.mark.parametrize(
        "value", ["CT", {}, {"0": 1}, {"0": None}, {"0": ""}, {"CT": 0, "PET": 0}, {"0": "CT", "1": 2}]
    )
    def test_what_cannot_be(self, tmp_path, value):
        found, findings = read(tmp_path, channel_names=value)
        assert found.channel_names == () and codes(findings) == ["E103"]

    def test_missing_with_what_was_meant(self, tmp_path):
        _, findings = read(tmp_path, channel_names=None, chanel_names={"0": "CT"})
        assert "E102" in codes(findings)
        assert 'Rename "chanel_names" to "channel_names", such as' in next(
            f.remedy for f in findings if f.code == "E102"
        )


class TestLabels:
    def test_names_by_value_of_v1(self, tmp_path):
        found, findings = read(tmp_path, labels={"0": "background", "1": "liver", "2": "tumour"})
        assert found.labels == LabelSet(names=("liver", "tumour"), values=((1,), (2,)))
        assert codes(findings) == ["N101"]

    def test_gaps_are_kept_and_noted(self, tmp_path):
        found, findings = read(tmp_path, labels={"background": 0, "a": 1, "b": 3})
        assert found.labels.values == ((1,), (3,)) and codes(findings) == ["N103"]
        assert "2 not declared" in findings[0].message

    def test_numbers_as_text_or_whole_floats(self, tmp_path):
        found, findings = read(tmp_path, labels={"background": "0", "a": "1", "b": 2.0})
        assert found.labels.values == ((1,), (2,)) and findings == []

    def test_no_background(self, tmp_path):
        found, findings = read(tmp_path, labels={"liver": 1})
        assert found.labels.names == ("liver",) and codes(findings) == ["N104"]

    @pytest.mark.parametrize("name", ["background", "Background", "bg", "Clear Label"])
    def test_names_of_background(self, tmp_path, name):
        found, findings = read(tmp_path, labels={name: 0, "a": 1})
        assert found.labels.names == ("a",) and findings == []

    def test_ignore(self, tmp_path):
        found, findings = read(tmp_path, labels={"background": 0, "a": 1, "ignore": 2})
        assert found.labels.ignore_value == 2 and found.labels.names == ("a",) and findings == []
        found, findings = read(tmp_path, labels={"background": 0, "a": 2, "ignore": 1})
        assert found.labels.ignore_value == 1 and codes(findings) == ["N105"]

    def test_regions(self, tmp_path):
        labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": [3], "ignore": 4}
        found, findings = read(tmp_path, labels=labels, regions_class_order=[1, 2, 3])
        assert findings == [] and found.labels.regions and found.labels.region_order == (1, 2, 3)
        assert found.labels.values == ((1, 2, 3), (2, 3), (3,)) and found.labels.ignore_value == 4

    def test_lists_of_one_value_are_no_regions(self, tmp_path):
        found, findings = read(tmp_path, labels={"background": 0, "a": [1], "b": [2]})
        assert not found.labels.regions and findings == []

    @pytest.mark.parametrize("order", [None, [1], [1, 2, 9], "123", [1, 2, 3, 3]])
    def test_regions_without_their_order(self, tmp_path, order):
        labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": [3]}
        found, findings = read(tmp_path, labels=labels, regions_class_order=order)
        assert (
            found.labels.names == () and codes(findings) == ["E105"] and "whole, core, enhancing" in findings[0].remedy
        )

    @pytest.mark.parametrize(
        ("labels", "code"),
        [
            ([0, 1], "E103"),
            ({}, "E103"),
            ({"background": 0, "a": "one"}, "E103"),
            ({"background": 0, "a": 1.5}, "E103"),
            ({"background": 0, "a": float("nan")}, "E101"),  # no JSON
            ({"background": 0, "a": None}, "E103"),
            ({"background": 0, "a": True}, "E103"),
            ({"background": 0, "a": []}, "E103"),
            ({"background": 0, "": 1}, "E103"),
            ({"background": 0, "a": -1}, "E104"),
            ({"background": 0, "a": 10**9}, "E104"),
            ({"background": 0, "a": 1, "b": 1}, "E104"),
            ({"liver": 0, "tumour": 1}, "E104"),
            ({"background": 1, "a": 2}, "E104"),
            ({"background": 0, "a": 1, "ignore": 1}, "E104"),
            ({"background": 0, "a": 1, "ignore": 0}, "E104"),
            ({"background": 0, "a": 1, "ignore": [2, 3]}, "E104"),
            ({"background": 0, "a": [0, 1], "b": [1, 2]}, "E104"),
            ({"0": "background", "1": "a", "2": "a"}, "E104"),
        ],
    )
    def test_what_cannot_be(self, tmp_path, labels, code):
        found, findings = read(tmp_path, labels=labels, regions_class_order=[1, 2])
        assert found.labels.names == () and code in codes(findings)

    def test_as_json_is_read_as_the_same(self, tmp_path):
        for labels in (
            LabelSet(names=("a", "b"), values=((1,), (5,)), ignore_value=9),
            LabelSet(names=("w", "c"), values=((1, 2), (2,)), regions=True, region_order=(1, 2)),
        ):
            assert read(tmp_path, **labels_as_json(labels))[0].labels == labels


class TestOtherKeys:
    @pytest.mark.parametrize(("value", "ending"), [("nii.gz", ".nii.gz"), (".NII.GZ", ".nii.gz"), (".mha", ".mha")])
    def test_file_ending(self, tmp_path, value, ending):
        found, findings = read(tmp_path, file_ending=value)
        assert found.file_ending == ending and findings == []

    def test_file_ending_of_no_volume(self, tmp_path):
        found, findings = read(tmp_path, file_ending=".png")
        assert found.file_ending is None and codes(findings) == ["E103"]

    def test_file_ending_and_number_may_be_missing(self, tmp_path):
        found, findings = read(tmp_path, file_ending=None, numTraining=None)
        assert found.file_ending is None and found.num_training is None and findings == []

    def test_number_that_is_none(self, tmp_path):
        assert codes(read(tmp_path, numTraining="three")[1]) == ["W101"]

    def test_dataset(self, tmp_path):
        listed = {"a": {"images": ["x.nii", "y.nii"], "label": "z.nii"}, "b": {"images": ["u.nii"]}}
        found, findings = read(tmp_path, dataset=listed)
        assert findings == []
        assert found.cases == {"a": ListedCase(("x.nii", "y.nii"), "z.nii"), "b": ListedCase(("u.nii",), None)}

    @pytest.mark.parametrize("entry", [[], {}, {"images": []}, {"images": "x.nii"}, {"images": ["x"], "label": 3}])
    def test_dataset_entry_that_is_none(self, tmp_path, entry):
        found, findings = read(tmp_path, dataset={"a": {"images": ["x.nii"]}, "b": entry})
        assert list(found.cases) == ["a"] and codes(findings) == ["E103"]

    def test_training_of_v1(self, tmp_path):
        entry = {"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}
        found, _ = read(tmp_path, training=[entry, "./imagesTr/b.nii.gz", 7])
        assert found.training == {
            "./imagesTr/a.nii.gz": ListedCase(("./imagesTr/a.nii.gz",), "./labelsTr/a.nii.gz"),
            "./imagesTr/b.nii.gz": ListedCase(("./imagesTr/b.nii.gz",), None),
        }

    def test_what_is_known_of_cases(self, tmp_path):
        found, findings = read(tmp_path, labels_present={"a": ["liver"]}, groups={"a": 7}, group_pattern=r"^(pat\d+)_")
        assert findings == [] and found.labels_present == {"a": ("liver",)} and found.groups == {"a": "7"}
        assert found.group_pattern.search("pat12_x")[1] == "pat12"

    @pytest.mark.parametrize(
        ("key", "value"),
        [("labels_present", ["liver"]), ("labels_present", {"a": "liver"}), ("groups", ["a"]), ("group_pattern", "(")],
    )
    def test_what_cannot_be(self, tmp_path, key, value):
        assert codes(read(tmp_path, **{key: value})[1]) == ["E103"]

    @pytest.mark.parametrize(
        ("key", "meant"),
        [("region_class_order", "regions_class_order"), ("label_present", "labels_present"), ("group", "groups")],
    )
    def test_misspelt(self, tmp_path, key, meant):
        _, findings = read(tmp_path, **{key: {}})
        assert codes(findings) == ["W105"] and meant in findings[0].remedy

    def test_other_peoples_keys_are_not_misspelt(self, tmp_path):
        keys = ("name", "description", "reference", "licence", "license", "release", "tensorImageSize", "test")
        assert (
            read(tmp_path, **dict.fromkeys((*keys, "numTest", "converted_by", "overwrite_image_reader_writer"), "x"))[1]
            == []
        )
