"""Where tests find Terraform's providers."""

from terraforming import find_mirror


def test_a_mirror_is_found_by_its_variable_first(tmp_path):
    mirror = tmp_path / "m"
    (mirror / "registry.terraform.io/some/thing").mkdir(parents=True)
    assert find_mirror("some/thing", {"HPCTRAIN_TF_MIRROR": str(mirror), "HOME": "/"}) == mirror
    assert find_mirror("some/other", {"HPCTRAIN_TF_MIRROR": str(mirror), "HOME": "/"}) is None


def test_terraforms_own_folders_are_looked_in(tmp_path):
    mirror = tmp_path / ".terraform.d/plugins"
    (mirror / "registry.terraform.io/some/thing").mkdir(parents=True)
    assert find_mirror("some/thing", {"HOME": str(tmp_path)}) == mirror
