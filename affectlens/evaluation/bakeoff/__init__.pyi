from .bake_off import Generating as Generating
from .bake_off import Jury as Jury
from .bake_off import bake_off as bake_off
from .result import BakeOff as BakeOff
from .result import Entry as Entry
from .settings import BakeOffSettings as BakeOffSettings
