"""What vLLM compiled without steering, or for another pack, must not be used.

On GPUs vLLM stores compiled models and loads them without looking at the code again. Its CPU build
does not do that unless it is told to.
"""

from __future__ import annotations

from pathlib import Path

from tests_vllm.cases import FOLDER, Case
from tests_vllm.engines import SETTINGS, Run, elsewhere, of_case, require_steered
