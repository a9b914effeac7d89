"""Every way to an error that the tests know, by family."""

from errors.cases import call, init, module, role, shape, state, transform, tree, value

CASES = [
    case
    for family in (call, init, module, role, shape, state, transform, tree, value)
    for case in family.CASES
]
