"""Config of the loss that a segmenter is trained with.

Input: a run's YAML, as `SegmentConfig.loss`. Output: a checked frozen dataclass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

LossName = Literal["crossentropy", "focal", "dice", "lovasz"]

PIXEL_TERMS = ("crossentropy", "focal")
"""Terms that are sums over pixels; each pixel can have a weight."""

BALANCED = "balanced"


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """A sum of losses over the labelled pixels.

    Attributes:
        terms: loss -> its weight in the sum. "crossentropy"; "focal" (easy pixels count
            less); "dice" (overlap of each class in the global batch); "lovasz" (IoU of
            each class in each patch). Default: cross-entropy alone.
        focal_gamma: how much less easy pixels count; 0 = not less, which is
            cross-entropy. Default 2; origin: Lin et al. 2017, arXiv 1708.02002.
        class_weights: class name -> weight of its pixels under crossentropy and focal;
            a class that is not named has 1. Or "balanced": inverse to the number of
            pixels in the train split, against class imbalance. The other terms weigh
            all classes alike.
    """

    terms: dict[LossName, float] = field(default_factory=lambda: {"crossentropy": 1.0})
    focal_gamma: float = 2.0
    class_weights: dict[str, float] | str = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = get_args(LossName)
        if not self.terms:
            raise ValueError(f"terms must name at least one of {', '.join(known)}, got none")
        for name, weight in self.terms.items():
            if name not in known:
                raise ValueError(f"terms must be of {', '.join(known)}, got {name!r}")
            if not 0.0 < weight < math.inf:
                raise ValueError(f"terms.{name} must be above 0 and finite, got {weight}")
        if not 0.0 <= self.focal_gamma < math.inf:
            raise ValueError(f"focal_gamma must be at least 0 and finite, got {self.focal_gamma}")
        if isinstance(self.class_weights, str):
            if self.class_weights != BALANCED:
                raise ValueError(
                    f"class_weights must be {BALANCED!r} or weights by class name, "
                    f"got {self.class_weights!r}"
                )
        else:
            for class_name, weight in self.class_weights.items():
                if not 0.0 < weight < math.inf:
                    raise ValueError(
                        f"class_weights.{class_name} must be above 0 and finite, got {weight}"
                    )
        if self.class_weights and not set(self.terms) & set(PIXEL_TERMS):
            raise ValueError(
                f"class_weights needs one of the terms {', '.join(PIXEL_TERMS)}, "
                f"got {list(self.terms)}"
            )

    def check_classes(self, class_names: Sequence[str]) -> None:
        """Refuse weights of classes that the label schema does not have.

        Raises:
            ValueError: one line with the known classes.
        """
        for name in () if isinstance(self.class_weights, str) else self.class_weights:
            if name not in class_names:
                raise ValueError(
                    f"loss.class_weights must name classes of {', '.join(class_names)}, "
                    f"got {name!r}"
                )
