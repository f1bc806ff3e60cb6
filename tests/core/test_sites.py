from __future__ import annotations

import pytest

from affectlens.core.errors import UnknownNameError
from affectlens.core.places import EXTRA_KINDS, KINDS, Site, expand_sites

HOOK_NAMES = {  # spelt as TransformerLens documents them
    "resid_pre": "blocks.7.hook_resid_pre",
    "resid_mid": "blocks.7.hook_resid_mid",
    "resid_post": "blocks.7.hook_resid_post",
    "attn_out": "blocks.7.hook_attn_out",
    "mlp_out": "blocks.7.hook_mlp_out",
    "z": "blocks.7.attn.hook_z",
    "mlp_post": "blocks.7.mlp.hook_post",
    "pattern": "blocks.7.attn.hook_pattern",
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
