"""torchvision next to a torch that it was not compiled for.

The wheel of torchvision on PyPI is compiled for CUDA. Next to a torch for CPUs it can't register its compiled
operators, and `import torchvision` fails with "operator torchvision::nms does not exist": and with it timm, open_clip,
sentence_transformers, and the image classes of transformers. vecbeam uses its transforms alone, which are Python.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

from transforms.support.extras import is_installed

_LOCK = threading.Lock()
DECLARED: list[Any] = []
"""The library of operators, which are declared as long as it lives."""


def make_importable() -> None:
    """Makes torchvision importable, if it is installed: call it before an import of a library that imports it.

    Where a plain import works, nothing changes. Else it declares the operators that torchvision registers properties
    of, without an implementation.
    """
    if "torchvision" in sys.modules or DECLARED or not is_installed("torchvision"):
        return
    with _LOCK:
        if "torchvision" in sys.modules or DECLARED:
            return
        import torch

        try:
            import torchvision  # noqa: F401
        except RuntimeError as error:
            if "torchvision::nms" not in str(error):
                raise
        else:
            return
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        DECLARED.append(library)
