from __future__ import annotations

import pytest

from affectlens.core.errors import UnknownNameError
from affectlens.core.places import (
    EXTRA_KINDS,
    KINDS,
    PLACES,
    POINTS,
    Site,
    WritePoint,
    deepest,
    expand_sites,
    in_order,
)

HOOK_NAMES = {  # spelt as TransformerLens documents them
    "resid_pre": "blocks.7.hook_resid_pre",
    "resid_mid": "blocks.7.hook_resid_mid",
    "resid_post": "blocks.7.hook_resid_post",
    "attn_out": "blocks.7.hook_attn_out",
    "mlp_out": "blocks.7.hook_mlp_out",
    "z": "blocks.7.attn.hook_z",
    "mlp_post": "blocks.7.mlp.hook_post",
    "pattern": "blocks.7.attn.hook_pattern",
    "expert_weights": "blocks.7.mlp.hook_expert_weights",
}
WRITTEN = {
    "resid_pre": "blocks.7.hook_resid_pre",
    "o_proj_in": "blocks.7.attn.hook_z",
    "o_proj_out": "blocks.7.attn.o.hook_out",
    "down_proj_in": "blocks.7.mlp.hook_post",
    "down_proj_out": "blocks.7.mlp.out.hook_out",
    "resid_post": "blocks.7.hook_resid_post",
}


@pytest.mark.parametrize("kind", [*KINDS, *EXTRA_KINDS])
def test_names_go_there_and_back(kind: str) -> None:
    site = Site(7, kind)
    assert site.hook_name == HOOK_NAMES[kind]
    assert Site.parse(site.hook_name) == site
    assert Site.parse(f" {site.hook_name}\n") == site


@pytest.mark.parametrize(
    "name",
    ["", "resid_post", "blocks.x.hook_z", "blocks.-1.attn.hook_z", "blocks.1.hook_z", "blocks.1."],
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown site .*blocks\.0\."):
        Site.parse(name)


def test_kinds_and_layers_are_checked() -> None:
    with pytest.raises(UnknownNameError, match="'resid_pst'; choose one of: resid_post"):
        Site(0, "resid_pst")
    with pytest.raises(UnknownNameError, match="layer '-1'"):
        Site(-1, "z")


def test_what_a_user_may_ask() -> None:
    post = [Site(layer, "resid_post") for layer in range(4)]
    assert list(expand_sites("resid_post", 4)) == post
    assert list(expand_sites("resid_post@2", 4)) == post[2:3]
    assert list(expand_sites("resid_post@1-3", 4)) == post[1:]
    assert list(expand_sites("blocks.1.hook_resid_post", 4)) == post[1:2]
    assert list(expand_sites(post[3], 4)) == post[3:]
    assert list(expand_sites([post[2], "resid_post@0"], 4)) == [post[0], post[2]]
    assert list(expand_sites(" resid_post@1 , resid_post@1-2,", 4)) == post[1:3]
    mixed = expand_sites("z@1,resid_pre,mlp_out@0", 2)
    assert mixed == (
        Site(0, "resid_pre"),
        Site(0, "mlp_out"),
        Site(1, "resid_pre"),
        Site(1, "z"),
    )
    assert expand_sites("pattern@1,mlp_post@1", 2) == (Site(1, "mlp_post"), Site(1, "pattern"))
    assert expand_sites("pattern", 2) == (Site(0, "pattern"), Site(1, "pattern"))


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ("resid_post@4", "layer '4'; choose one of: .*0-3"),
        ("resid_post@3-1", "layer '3-1'"),
        ("resid_post@a", "layer 'a'"),
        ("blocks.9.attn.hook_z", "layer '9'"),
        ("residual", "site 'residual'; choose one of: resid_"),
        ("", "site ''"),
        ([], "site ''"),
    ],
)
def test_what_does_not_exist_is_named(spec: object, match: str) -> None:
    with pytest.raises(UnknownNameError, match=match):
        expand_sites(spec, 4)  # type: ignore[arg-type]


def test_the_table_names_each_place_once() -> None:
    for names in ([r.hook for r in PLACES], [*KINDS, *EXTRA_KINDS], POINTS):
        assert len(set(names)) == len(names)
    assert all(row.kind or row.point for row in PLACES)
    assert set(HOOK_NAMES) == {*KINDS, *EXTRA_KINDS}
    assert {point: WritePoint(7, point).hook_name for point in POINTS} == WRITTEN
    assert KINDS == (  # the order of sites in a store
        "resid_pre",
        "resid_mid",
        "resid_post",
        "attn_out",
        "mlp_out",
        "z",
        "mlp_post",
    )


def test_order_is_that_of_a_forward_pass() -> None:
    """A pre-norm block written out: what an input of a linear map holds comes before its output."""
    kinds = [
        "resid_pre",
        "pattern",
        "z",
        "attn_out",
        "resid_mid",
        "mlp_post",
        "mlp_out",
        "resid_post",
    ]
    sites = [Site(layer, kind) for layer in range(2) for kind in kinds]
    assert in_order(reversed(sites)) == sites
    assert deepest(sites[:5]) == Site(0, "resid_mid")
    points = ["resid_pre", "o_proj_in", "o_proj_out", "down_proj_in", "down_proj_out", "resid_post"]
    writes = [WritePoint(layer, point) for layer in range(2) for point in points]
    assert in_order(reversed(writes)) == writes
    assert tuple(points) == POINTS
