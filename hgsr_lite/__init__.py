"""hgsr_lite: hierarchical group sparse regularization for convolutional networks.

The public names stand in `__init__.pyi`. Each is loaded when it is first used, so that importing is cheap.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
