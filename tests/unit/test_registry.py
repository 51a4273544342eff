"""Specs and the registry: what is found, and the one clear line when nothing is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar, Literal

import pytest
from pydantic import Field

from freqrobust import Attack, Defense, InputDefense
from freqrobust.core.errors import PluginError, SpecError
from freqrobust.core.numbers import Number, fraction, pixel_text
from freqrobust.harness.analysis import analyses
from freqrobust.numerics.threat import Norm, Threat
from freqrobust.plugins.registry import Registry, attacks, defenses
from freqrobust.plugins.selection import parse_attacks, parse_defenses
from freqrobust.plugins.specs import split_chain
from freqrobust.results.reporter import reports

SOURCE = '''
"""A defense in a file."""
from pydantic import Field
from freqrobust import Attack, InputDefense

LEVELS = {levels}

class Round(InputDefense):
    """Rounds pixels."""
    bits: int = Field(4, ge=1, description="bits")
    weights: list[float] = Field([1.0], description="a list")

    def transform(self, images):
        return (images * LEVELS).round() / LEVELS

class Nothing(Attack):
    """Changes nothing."""
    def perturb(self, model, images, labels, context):
        return images

VALUE = 3
'''


@pytest.fixture
def plugin_file(tmp_path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(SOURCE.format(levels=4))
    return path


def test_specs_with_parameters() -> None:
    (one,) = attacks.parse("pgd:eps=8/255,steps=7,random_start=false,norm=l2")
    assert (one.plugin.eps, one.plugin.steps, one.plugin.random_start, one.plugin.norm) == (8 / 255, 7, False, "l2")
    assert one.spec == "pgd:eps=8/255,steps=7,random_start=false,norm=l2"
    assert one.params["step_size"] == pytest.approx(2.5 * 8 / 255 / 7)
    assert one.params["restarts"] == 1
    assert attacks.parse(" fgsm ")[0].spec == "fgsm"


def test_sweeps_multiply_in_the_order_they_are_written() -> None:
    specs = [s.spec for s in attacks.parse("pgd:eps=[1/255,2/255],steps=[3,5],norm=l2")]
    assert specs == [f"pgd:eps={e},steps={s},norm=l2" for e in ("1/255", "2/255") for s in (3, 5)]


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ("pdg", r"unknown attack 'pdg'; did you mean 'pgd'\? \(attacks: .*fgsm"),
        ("pgd:stesp=3", r"pgd: unknown parameter 'stesp'; did you mean 'steps'\? \(parameters: eps, norm"),
        ("pgd:steps", "expected key=value, but got 'steps'"),
        ("pgd:steps=", "expected key=value"),
        ("pgd:steps=3,steps=4", "given twice"),
        ("pgd:steps=0", "parameter 'steps' should be greater than or equal to 1, but got '0'"),
        ("pgd:steps=2.5", "parameter 'steps'"),
        ("pgd:eps=8", r"'eps' is 8, but pixels are in \[0, 1\]; did you mean 8/255\?"),
        ("pgd:eps=-1/255", "parameter 'eps' should be greater than or equal to 0"),
        ("pgd:eps=1/0", "cannot divide by zero"),
        ("pgd:eps=nan", "parameter 'eps'"),
        ("pgd:eps=inf,norm=l2", "parameter 'eps'"),
        ("pgd:norm=l3", "parameter 'norm' should be 'linf', 'l2' or 'l1'"),
        ("pgd:eps=[1/255,2/255", "brackets do not match"),
        ("pgd:eps=[1/255,]", "is not a list"),
        ("pgd:restarts=3,random_start=false", "restarts > 1 need random_start=true"),
        ("lfc", "parameter 'radius' is required, for example lfc:radius=12"),
        ("bandpass:low=5,high=4", "should be greater than 'low'"),
        ("", "empty attack spec"),
        (":eps=1", "empty attack spec"),
        ("smooth", "unknown attack 'smooth'"),
        ("missing.py:Thing", "missing.py does not exist"),
        ("missing.py", "name the class in the file as well"),
        ("no_such_module_x:Thing", "cannot import 'no_such_module_x'"),
    ],
)
def test_wrong_specs_are_one_clear_line(spec, match) -> None:
    with pytest.raises(SpecError, match=match) as error:
        attacks.parse(spec)
    assert "\n" not in str(error.value)


def test_a_number_is_no_truth_value() -> None:
    with pytest.raises(SpecError, match="should be a number, but got True"):
        attacks.get("pgd").build("pgd", {"steps": True})


def test_plugins_are_frozen_and_strict() -> None:
    plugin = attacks.parse("pgd")[0].plugin
    with pytest.raises(ValueError, match="frozen"):
        plugin.steps = 3
    with pytest.raises(ValueError, match="Extra inputs"):
        type(plugin)(stpes=3)


# ---------------------------------------------------------------- files and modules


def test_a_class_in_a_file(plugin_file) -> None:
    (one,) = defenses.parse(f"{plugin_file}:Round:bits=3,weights=[1,2]")
    assert (one.name, one.plugin.bits, one.plugin.weights) == ("Round", 3, [1.0, 2.0])
    assert one.spec == "Round:bits=3,weights=[1,2]"
    assert attacks.parse(f"{plugin_file}:Nothing")[0].name == "Nothing"
    for attr, match in [
        ("Rond", "has no 'Rond'; did you mean 'Round'"),
        ("VALUE", "expected a subclass of freqrobust.Defense"),
        ("Nothing", "expected a subclass of freqrobust.Defense"),
    ]:
        with pytest.raises((SpecError, PluginError), match=match):
            defenses.parse(f"{plugin_file}:{attr}")


def test_a_class_in_a_module_of_the_current_folder(plugin_file, monkeypatch) -> None:
    monkeypatch.chdir(plugin_file.parent)
    path = list(sys.path)
    (one,) = defenses.parse("mine:Round:bits=2")
    assert (one.name, one.plugin.bits) == ("Round", 2)
    assert sys.path == path
    sys.modules.pop("mine")


def test_an_edited_file_is_another_plugin(plugin_file) -> None:
    first = defenses.parse(f"{plugin_file}:Round")[0].code
    assert defenses.parse(f"{plugin_file}:Round")[0].code == first
    plugin_file.write_text(SOURCE.format(levels=8))
    assert defenses.parse(f"{plugin_file}:Round")[0].code != first


@pytest.mark.parametrize("head", ["mine_{n}", "mine_{n}.py"])
def test_an_edited_neighbour_is_another_plugin_too(tmp_path, monkeypatch, head) -> None:
    """The helper that a plugin imports from its own folder; a stranger in that folder does not matter."""
    name = "b" if head.endswith("py") else "a"
    head = head.format(n=name)
    (tmp_path / f"mine_{name}.py").write_text(
        f"import neighbour_{name}\nfrom freqrobust import Attack\n\n\nclass Mine(Attack):\n"
        '    """Asks its neighbour."""\n\n    def perturb(self, model, images, labels, context):\n'
        f"        return neighbour_{name}.change(images)\n"
    )
    (tmp_path / f"neighbour_{name}.py").write_text("def change(images):\n    return images\n")
    (tmp_path / "stranger.py").write_text("x = 1\n")
    monkeypatch.chdir(tmp_path)
    first = attacks.parse(f"{head}:Mine")[0].code
    (tmp_path / "stranger.py").write_text("x = 2\n")
    assert attacks.parse(f"{head}:Mine")[0].code == first
    (tmp_path / f"neighbour_{name}.py").write_text("def change(images):\n    return images * 0\n")
    assert attacks.parse(f"{head}:Mine")[0].code != first
    if not head.endswith("py"):
        changed = attacks.parse(f"{head}:Mine")[0].code
        path = tmp_path / f"mine_{name}.py"
        path.write_text(path.read_text() + "ANOTHER = 1\n")
        assert attacks.parse(f"{head}:Mine")[0].code != changed
    for module in (f"mine_{name}", f"neighbour_{name}"):
        sys.modules.pop(module, None)


def test_a_file_that_fails_is_one_clear_line(tmp_path) -> None:
    (tmp_path / "bad.py").write_text("import no_such_module_y\n")
    with pytest.raises(SpecError, match=r"bad.py cannot be executed: ModuleNotFoundError"):
        attacks.parse(f"{tmp_path / 'bad.py'}:X")


# ---------------------------------------------------------------- compositions


def test_chains() -> None:
    (chain,) = parse_defenses(["smooth:rho=0.5+lowpass:radius=12"])
    assert (chain.name, chain.spec) == ("smooth+lowpass", "smooth:rho=0.5+lowpass:radius=12")
    assert chain.params["smooth.rho"] == 0.5
    assert chain.params["lowpass.radius"] == 12
    (twice,) = parse_defenses(["smooth:rho=0.5+smooth:rho=1"])
    assert (twice.params["smooth1.rho"], twice.params["smooth2.rho"]) == (0.5, 1.0)
    assert [c.spec for c in parse_defenses(["smooth:rho=[0.5,1]+lowpass:radius=[3,4]"])] == [
        f"smooth:rho={a}+lowpass:radius={b}" for a in ("0.5", "1") for b in (3, 4)
    ]
    assert parse_defenses(["none"])[0].parts == ()
    assert split_chain("smooth:rho=1e+2+lowpass:radius=3") == ["smooth:rho=1e+2", "lowpass:radius=3"]


def test_options_reach_the_defenses_that_have_them() -> None:
    chains = parse_defenses(["smooth", "lowpass:radius=3"], {"rho": ["0.5", "1.0"]})
    assert [c.spec for c in chains[:2]] == ["smooth:rho=0.5", "smooth:rho=1"]
    listed = parse_defenses(["smooth", "lowpass:radius=3"], {"rho": ["[0.5, 1.0]"]})
    assert [c.spec for c in listed] == [c.spec for c in chains]
    with pytest.raises(SpecError, match="in the spec and as an option"):
        parse_defenses(["smooth:rho=1"], {"rho": ["0.5"]})


def test_duplicates_and_clean_are_left_out() -> None:
    specs = ["clean", "fgsm:eps=8/255", "fgsm", "fgsm:eps=0.031372549019607843", "fgsm:eps=1/255"]
    assert [s.spec for s in parse_attacks(specs)] == ["fgsm:eps=8/255", "fgsm:eps=1/255"]
    assert len(parse_defenses(["smooth", "smooth:rho=1.0", "none", "none"])) == 2


def test_objects_and_specs_are_the_same_selection() -> None:
    cls = attacks.get("pgd")
    by_object, by_spec = parse_attacks([cls(eps=0.1, steps=3)]), parse_attacks(["pgd:eps=0.1,steps=3"])
    assert (by_object[0].spec, by_object[0].params) == (by_spec[0].spec, by_spec[0].params)
    assert len(parse_attacks([cls(eps=0.1, steps=3), "pgd:eps=0.1,steps=3"])) == 1


# ---------------------------------------------------------------- declarations that cannot work


@pytest.mark.filterwarnings("ignore:Field name .* shadows:UserWarning")  # pydantic's own word on the same mistake
def test_a_field_may_not_hide_an_attribute_nor_an_option() -> None:
    with pytest.raises(PluginError, match=r"the field 'differentiable' hides an attribute of"):

        class Hides(InputDefense):
            differentiable: bool = False

            def transform(self, images):
                return images

    class Clashes(InputDefense):
        """Has the name of an option."""

        limit: int = 3

        def transform(self, images):
            return images

    class Seeded(Attack):
        """Wants its own seed."""

        seed: int = 3

        def perturb(self, model, images, labels, context):
            return images

    with pytest.raises(PluginError, match="'limit' has the name of an option"):
        defenses.select(Clashes())
    with pytest.raises(PluginError, match="'seed' has the name of an option"):
        attacks.select(Seeded())


def test_the_method_has_to_be_there() -> None:
    class Lazy(Attack):
        """Does nothing at all."""

    class LazyInput(InputDefense):
        """The same."""

    class NoGradient(Defense):
        """Not differentiable."""

        differentiable: ClassVar[bool] = False
        how: Literal["a", "b"] = Field("a", description="how")

        def apply(self, model, context):
            return model

    for registry, cls, match in [
        (attacks, Lazy, r"does not implement perturb\(\)"),
        (defenses, LazyInput, r"does not implement transform\(\)"),
        (defenses, NoGradient, r"has to implement surrogate\(model\)"),
        (reports, Lazy, "expected a subclass of freqrobust.Reporter"),
    ]:
        with pytest.raises(PluginError, match=match):
            registry.select(cls())


# ---------------------------------------------------------------- entry points of other packages


@pytest.fixture
def distribution(tmp_path, monkeypatch):
    """``distribution(name, **entries)``: a package that declares attacks."""
    monkeypatch.syspath_prepend(tmp_path)

    def add(name: str, **entries: str) -> None:
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [f"{key} = {value}" for key, value in entries.items()]
        (folder / "entry_points.txt").write_text("\n".join(["[freqrobust.attacks]", *lines, ""]))

    return add


def fresh() -> Registry:
    return Registry("attack", "freqrobust.attacks", Attack, "perturb")


def test_two_plugins_of_one_name_are_an_error(distribution) -> None:
    distribution("other", pgd="other.attacks:PGD")
    with pytest.raises(PluginError, match=r"named 'pgd': .*other.attacks:PGD.*uninstall one"):
        fresh().names()


def test_reserved_names_are_an_error(distribution) -> None:
    distribution("other", clean="other.attacks:Clean")
    with pytest.raises(PluginError, match="name 'clean' is reserved"):
        fresh().names()


def test_a_broken_entry_point_harms_nobody_else(distribution) -> None:
    distribution("other", broken="no_such_module_z:X", wrong="freqrobust.plugins.registry:Registry")
    registry = fresh()
    assert {"broken", "wrong", "pgd"} <= set(registry.names())
    assert registry.get("pgd").__name__ == "PGD"
    with pytest.raises(PluginError, match=r"'broken' \(no_such_module_z:X\) cannot be loaded"):
        registry.get("broken")
    with pytest.raises(PluginError, match=r"expected a subclass of freqrobust\.Attack"):
        registry.get("wrong")
    assert registry.origin("broken") == "other 1.0"


@pytest.mark.parametrize(
    ("typed", "spec"),
    [
        ("pgd: eps = 0.03137254901960784 , steps=020", "pgd:eps=8/255,steps=20"),
        ("pgd :steps=20,eps=8.0/255", "pgd:steps=20,eps=8/255"),
        ("pgd:eps=25.5/255", "pgd:eps=0.1"),
        ("pgd:eps=0.00392156862745", "pgd:eps=1/255"),
        ("pgd:eps=0.50/255,random_start=False", "pgd:eps=0.5/255,random_start=false"),
        ("pgd:eps=128/255,norm=l2", "pgd:eps=128/255,norm=l2"),
        ("pgd:eps=12.0,norm=l1", "pgd:eps=12,norm=l1"),
        ("lfc:radius=8.000", "lfc:radius=8"),
    ],
)
def test_a_spec_has_one_spelling(typed: str, spec: str) -> None:
    (one,) = attacks.parse(typed)
    assert one.spec == spec
    (again,) = attacks.parse(spec)
    assert again.spec == spec
    for key, value in one.params.items():
        assert again.params[key] == (pytest.approx(value, rel=1e-9) if isinstance(value, float) else value)


def test_objects_are_spelled_as_specs_are() -> None:
    pgd, noise = attacks.get("pgd"), defenses.get("gaussian-noise")
    assert attacks.select(pgd(eps=8 / 255, steps=20)).spec == "pgd:eps=8/255,steps=20"
    assert attacks.select(pgd(eps=0.1, step_size=None)).spec == "pgd:eps=0.1"
    assert defenses.select(noise(sigma=1 / 255)).spec == "gaussian-noise:sigma=1/255"
    assert [chain.spec for chain in parse_defenses(["smooth: rho = 0.50", "smooth:rho=0.5"])] == ["smooth:rho=0.5"]


def test_lists_in_specs_are_read_back(plugin_file: Path) -> None:
    (one,) = defenses.parse(f"{plugin_file}:Round:weights=[1.0, 2.50]")
    assert one.spec == "Round:weights=[1,2.5]"
    (energy,) = analyses.parse("energy:shifts=[[corruption:name=fog,severity=03],lfc:radius=3]")
    assert analyses.parse(energy.spec)[0].params == energy.params


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.1, "0.1"),
        (0.2, "0.2"),
        (1.0, "1"),
        (8 / 255, "8/255"),
        (0.00392156862745, "1/255"),
        (0.5 / 255, "0.5/255"),
        (12.0, "12"),
        (0.0314, "0.0314"),
        (1 / 3, "85/255"),
        (0.07, "0.07"),
    ],
)
def test_pixel_quantities(value: float, text: str) -> None:
    assert pixel_text(value) == text
    assert float(fraction(text)) == pytest.approx(value, rel=1e-9)


def test_threats_as_people_read_them() -> None:
    shown = [str(Threat("linf", 8 / 255)), str(Threat("l2", 0.5)), str(Threat("l1", 12.0)), str(Threat("linf", 0.1))]
    assert shown == ["Linf 8/255", "L2 0.5", "L1 12", "Linf 0.1"]


# ---------------------------------------------------------------- budgets


class _Budget(Attack):
    """Returns the images."""

    needs_gradient: ClassVar[bool] = False

    eps: Number = 0.1

    def perturb(self, model, images, labels, context):
        return images


class _AsField(_Budget):
    norm: Norm = "l2"


class _AsAttribute(_Budget):
    norm: ClassVar[str] = "linf"


class _AsProperty(_Budget):
    @property
    def norm(self) -> str:
        return "l1"


class _AsThreat(_Budget):
    def threat(self) -> Threat:
        return Threat("l2", 2 * self.eps)


class _Shift(_Budget):
    kind: ClassVar[str] = "shift"


class _NoSuchNorm(_Budget):
    norm: ClassVar[str] = "l7"


def test_a_budget_without_a_norm_is_refused() -> None:
    """It would be neither checked, nor part of the worst case, nor diagnosed."""
    with pytest.raises(PluginError, match=r"_Budget has a field 'eps', but no norm.*ClassVar.*or override threat\(\)"):
        attacks.select(_Budget())
    with pytest.raises(PluginError, match="norm should be one of linf, l2, l1, but is 'l7'"):
        attacks.check(_NoSuchNorm, "somewhere")


@pytest.mark.parametrize(
    ("cls", "threat"),
    [
        (_AsField, Threat("l2", 0.1)),
        (_AsAttribute, Threat("linf", 0.1)),
        (_AsProperty, Threat("l1", 0.1)),
        (_AsThreat, Threat("l2", 0.2)),
        (_Shift, None),
    ],
)
def test_ways_to_say_the_norm(cls, threat) -> None:
    chosen = attacks.select(cls())
    assert isinstance(chosen.plugin, Attack)
    assert chosen.plugin.threat() == threat


def test_the_public_number_types_read_fractions() -> None:
    import freqrobust

    class Two(_AsAttribute):
        eps: freqrobust.Number = 0.0
        reach: freqrobust.Pixel = 1.0

    made = Two.build("two", {"eps": "8/255", "reach": "4/255"})
    assert (made.eps, made.reach) == (8 / 255, 4 / 255)
    with pytest.raises(SpecError, match=r"did you mean 4/255\?"):
        Two.build("two", {"reach": "4"})


def test_a_budget_needs_a_norm_that_is_not_none() -> None:
    """A class may declare the norm as optional; an object without one has no budget that could be checked."""

    class Optional(Attack):
        """An optional norm."""

        eps: float = 0.1
        norm: str | None = None

    assert Optional(norm="l2").threat() == ("l2", 0.1)
    with pytest.raises(PluginError, match=r"Optional has eps = 0\.1, but no norm that it is measured in"):
        Optional().threat()
