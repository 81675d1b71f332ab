"""``autokd init``: looks at data, checkpoints and cards, and writes a commented config file that works.

``look`` finds what is there, ``choices`` turns it into settings with a reason each, ``write`` writes the file.
"""

from autokd.starter.choices import Choices, choose, detector_section
from autokd.starter.look import Findings, look
from autokd.starter.write import config_text

__all__ = ["Choices", "Findings", "choose", "config_text", "detector_section", "look"]
