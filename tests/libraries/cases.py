"""One row a network: how it is built, who attacks it by hand, and what an audit has to name."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.libraries import art_defences, by_hand, others, quantised, spiking
from torch import nn

MASKED = frozenset({"shattered", "vanishing", "exploding"})


@dataclass(frozen=True)
class Case:
    """A network of digits written with a library.

    **Fields**
    - `library`: name on the package index; `imported`: the module that has to be there.
    - `build`: makes and trains it.
    - `ways`: of `by_hand`: from the network to what is differentiated in its place.
    - `mechanisms`: what may be named, first at a line of `build`'s file marked `# guilty`, and has to be where the
      exact gradient is left far behind; empty where nothing is masked.
    - `images`: fewer where NumPy or SciPy goes through an image pixel by pixel.
    """

    library: str
    imported: str
    build: Callable[[], Any]
    ways: Callable[[nn.Module], list[Callable]]
    mechanisms: frozenset[str] = frozenset()
    random: bool = False
    images: int = 50

    @property
    def name(self) -> str:
        return self.build.__name__

    @property
    def file(self) -> Path:
        return Path(self.build.__code__.co_filename)

    @property
    def target(self) -> str:
        """What to hand to the command line."""
        return f"{'art:' if self.imported == 'art' else ''}{self.file}:{self.name}"

    @property
    def guilty(self) -> set[int]:
        lines = self.file.read_text().splitlines()
        return {n for n, line in enumerate(lines, 1) if "# guilty" in line}


def cases() -> list[Case]:
    art = "adversarial-robustness-toolbox"
    return [
        Case("snntorch", "snntorch", spiking.snntorch_leaky, by_hand.snntorch, MASKED),
        Case("norse", "norse", spiking.norse_lif, by_hand.norse, MASKED),
        Case("sinabs", "sinabs", spiking.sinabs_reset, by_hand.sinabs, MASKED),
        Case("sinabs", "sinabs", spiking.sinabs_kept, by_hand.sinabs, MASKED | {"stochastic"}, random=True),
        Case("spikingjelly", "spikingjelly", spiking.spikingjelly_lif, by_hand.spikingjelly, MASKED),
        Case("brevitas", "brevitas", quantised.brevitas_3_bits, by_hand.brevitas, MASKED),
        Case("torchao", "torchao", quantised.torchao_weights, by_hand.float_copy),
        Case("torchao", "torchao", quantised.torchao_dynamic, by_hand.float_copy, MASKED),
        Case("torch", "torch", quantised.torch_dynamic, by_hand.float_copy, MASKED),
        Case("torch", "torch", quantised.torch_static, by_hand.float_copy, MASKED),
        Case("optimum-quanto", "optimum.quanto", quantised.quanto_int8, by_hand.float_copy, MASKED),
        Case("bitsandbytes", "bitsandbytes", quantised.bitsandbytes_int8, by_hand.float_copy, MASKED),
        Case("hummingbird-ml", "hummingbird", others.hummingbird_forest, by_hand.forest, MASKED),
        Case("kornia", "kornia", others.kornia_median, by_hand.filtered),
        Case("kornia", "kornia", others.kornia_posterise, by_hand.filtered, MASKED),
        Case("kornia", "kornia", others.kornia_equalise, by_hand.filtered),
        Case("torchdiffeq", "torchdiffeq", others.torchdiffeq_rk4, by_hand.own),
        Case("torchdiffeq", "torchdiffeq", others.torchdiffeq_dopri5, by_hand.own),
        Case("opacus", "opacus", others.opacus_private, by_hand.private, MASKED),
        Case("keras", "keras", others.keras_cnn, by_hand.own),
        Case("torch", "torch", others.exported, by_hand.eager),
        Case("torch", "torch", others.scripted, by_hand.eager),
        Case("torch", "torch", others.compiled, by_hand.eager),
        Case("transformers", "transformers", others.transformers_vit, by_hand.own),
        Case(art, "art", art_defences.squeezed, by_hand.art, MASKED),
        Case(art, "art", art_defences.smoothed, by_hand.art, MASKED),
        Case(art, "art", art_defences.smoothed_in_torch, by_hand.art),
        Case(art, "art", art_defences.compressed, by_hand.art, MASKED),
        Case(art, "art", art_defences.varied, by_hand.art, MASKED | {"stochastic"}, random=True, images=10),
        Case(art, "art", art_defences.noised, by_hand.art, MASKED | {"stochastic"}, random=True),
        Case(art, "art", art_defences.coded, by_hand.art_coded, MASKED, images=12),
    ]
