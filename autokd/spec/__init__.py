"""One distiller as data: frozen, serializable, with a canonical form and a digest.

Each module imports only those before it: ``operator`` (a row of the vocabulary), ``signature`` (which operator may
follow which), ``registry`` and ``vocabulary`` (all rows), ``terms`` (the values of a term), ``needs`` (what a term
needs of data and batch), ``text`` (YAML and plain data), ``distiller_spec`` (a whole distiller), ``formula`` (a
distiller for readers).
"""

from autokd.spec.distiller_spec import DistillerSpec
from autokd.spec.formula import formula, formula_lines
from autokd.spec.needs import Counts, unmet_needs
from autokd.spec.operator import Operator, Parameter
from autokd.spec.signature import FlowState, flow
from autokd.spec.terms import Step, TermSpec, Weight, check_term
from autokd.spec.text import parse_step
from autokd.spec.vocabulary import DISTANCES, REGISTRY, SOURCES, TRANSFORMS, operator_of

__all__ = [
    "DISTANCES",
    "REGISTRY",
    "SOURCES",
    "TRANSFORMS",
    "Counts",
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
    "unmet_needs",
]
