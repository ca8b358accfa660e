"""The models that can be made: every module here has CASES, {name: Case} (case.py)."""
import importlib
import pkgutil


def read():
    """{name: Case} of all modules, in the order of their names. A name that is there twice is a mistake, so is no source."""
    found = {}
    for info in sorted(pkgutil.iter_modules(__path__), key=lambda info: info.name):
        module = importlib.import_module('%s.%s' % (__name__, info.name))
        for name, case in getattr(module, 'CASES', {}).items():
            if name in found or not case.source:
                raise ValueError('%s: case %s %s' % (info.name, name, 'is there twice' if name in found else 'cites no source'))
            found[name] = case
    return found
