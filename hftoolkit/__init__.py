"""hftoolkit: the lineage of neural NLP, from byte-pair encoding to PPO, as Hugging Face-native models and recipes.

Importing it makes the architectures known to the Auto classes of transformers, without importing torch: they are
registered (by hftoolkit.models) when the Auto classes are first loaded, or at once when that has happened already.
"""

import importlib
import importlib.abc
import importlib.util
import sys

__version__ = "0.1.0"

AUTO_MODULES = ("transformers.models.auto.modeling_auto", "transformers.models.auto.tokenization_auto")


class _RegisterAfterImport(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Runs the registration right after the first of the Auto modules has been executed."""

    def find_spec(self, name, path=None, target=None):
        if name not in AUTO_MODULES:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        self.loader, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec):
        return self.loader.create_module(spec)

    def exec_module(self, module):
        module.__loader__ = module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        importlib.import_module("hftoolkit.models")


if any(name in sys.modules for name in AUTO_MODULES):
    importlib.import_module("hftoolkit.models")
else:
    sys.meta_path.insert(0, _RegisterAfterImport())
