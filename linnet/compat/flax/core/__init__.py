"""What stands below Linen: frozen dicts, scopes and lifted transforms."""

from .frozen_dict import FrozenDict as FrozenDict
from .frozen_dict import copy as copy
from .frozen_dict import freeze as freeze
from .frozen_dict import pop as pop
from .frozen_dict import pretty_repr as pretty_repr
from .frozen_dict import unfreeze as unfreeze
