"""One distiller as data: frozen, serialisable, with a canonical form and a digest.

``vocabulary`` holds the tables of operators and their signatures (torch-free); ``signature`` decides what may
follow what; ``model`` holds the values; ``text`` reads and writes YAML; ``formula`` prints for people.
"""

from autokd.spec.formula import formula, formula_lines
from autokd.spec.model import DistillerSpec, Step, TermSpec, Weight
from autokd.spec.operator import Operator, Parameter
from autokd.spec.signature import FlowState, check_term, flow
from autokd.spec.text import parse_step
from autokd.spec.vocabulary import DISTANCES, SOURCES, TRANSFORMS, operator_of

__all__ = [
    "DISTANCES",
    "SOURCES",
    "TRANSFORMS",
    "DistillerSpec",
    "FlowState",
    "Operator",
    "Parameter",
    "Step",
    "TermSpec",
    "Weight",
    "check_term",
    "flow",
    "formula",
    "formula_lines",
    "operator_of",
    "parse_step",
]
