"""Left and right in the names of structures, in the conventions that data sets use."""

from __future__ import annotations

import pytest

from swinssl.dataset.laterality import Laterality


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("parotid_left", "parotid_right"),
        ("Left-Hippocampus", "Right-Hippocampus"),
        ("lh_hippocampus", "rh_hippocampus"),
        ("ctx-lh-insula", "ctx-rh-insula"),
        ("lh.insula", "rh.insula"),
        ("rib_left_1", "rib_right_1"),
        ("Parotid_L", "Parotid_R"),
        ("LN_Ax_L1_L", "LN_Ax_L1_R"),
        ("Lung_LLL", "Lung_RLL"),
        ("Lung_LUL", "Lung_RUL"),
        ("leftkidney", "rightkidney"),
        ("KidneyLeft", "KidneyRight"),
        ("KidneyL", "KidneyR"),
        ("lparotid", "rparotid"),
        ("Lung_Lt", "Lung_Rt"),
        ("lens L", "lens R"),
        ("niere_links", "niere_rechts"),
        ("linke Niere", "rechte Niere"),
        ("Nierelinks", "Niererechts"),
        ("Niere_li", "Niere_re"),
        ("rein_gauche", "rein_droit"),
        ("glande gauche", "glande droite"),
        ("poumon_G", "poumon_D"),
        ("riñón_izquierdo", "riñón_derecho"),
        ("pulmon_izq", "pulmon_der"),
        ("rene_sx", "rene_dx"),
    ],
)
def test_partners_of_a_pair(left, right):
    assert Laterality.of([right, "liver", left]).pairs == ((left, right),)


@pytest.mark.parametrize("name", ["kidney_left", "Parotid_L", "lh_insula", "Lung_RML", "niere_links", "rightkidney"])
def test_a_structure_of_one_side_is_lateral_without_its_partner(name):
    """Mirrored, the kidney of the other side looks like it and would be labelled background."""
    assert Laterality.of(["liver", name]) == Laterality(single=(name,))


@pytest.mark.parametrize(
    "names",
    [
        ("liver", "tumour"),
        ("bright_spot", "cleft"),
        ("vertebrae_L1", "vertebrae_L2", "vertebrae_T12"),
        ("vertebra_L", "vertebra_T"),
        ("LV", "RV", "MYO"),
        ("kidneys_left_right",),
        ("hepatitis_D", "brain"),
        ("recurrence", "lesion", "der_tumour", "re"),
        ("anterior", "posterior"),
        ("ipsilateral", "contralateral"),
        ("A_LAD", "colon", "duodenum"),
    ],
)
def test_names_without_a_side(names):
    assert not Laterality.of(names)
